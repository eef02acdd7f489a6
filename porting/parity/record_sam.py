"""Runs a PyTorch SAM and records what passes between its blocks."""

from typing import Any

import numpy as np
import torch

from porting.parity.recordings import SamRecord
from porting.reference.nchw import to_numpy, to_torch
from porting.reference.sam import encoder_steps


@torch.no_grad()
def record_sam(
    model: Any,
    points: np.ndarray,
    labels: np.ndarray,
    *,
    images: np.ndarray | None = None,
    embedding: np.ndarray | None = None,
) -> SamRecord:
    """Runs a SAM block by block on images or, a decoder alone, on an embedding.

    Args:
        model: a SAM of segment_anything, in eval mode.
        points: (n, p, 2), (x, y) in pixels of the encoder's input.
        labels: (n, p): 1 inside the object, 0 outside, -1 for no point.
        images: normalised and padded images, (1, s, s, 3).
        embedding: image embedding (1, g, g, d), in place of images.
    """
    outputs, exact = {}, {}
    if images is not None:
        x = to_torch(images)
        for name, module, step in encoder_steps(model.image_encoder):
            module.double()
            exact[name] = to_numpy(step(x.double()))
            module.float()  # restores the weights bit for bit
            x = step(x)
            outputs[name] = to_numpy(x)
    elif embedding is not None:
        x = to_torch(embedding)
    else:
        raise ValueError("record_sam: neither images nor an embedding are given.")

    def decode(masks: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        prompts = (torch.from_numpy(points), torch.from_numpy(labels))
        sparse, dense = model.prompt_encoder(points=prompts, boxes=None, masks=masks)
        return model.mask_decoder(
            image_embeddings=x,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )

    logits, iou = decode(None)
    again = decode(logits[:, :1])
    return SamRecord(
        images=images,
        outputs=outputs,
        exact=exact,
        embedding=to_numpy(x),
        points=points,
        labels=labels,
        logits=to_numpy(logits),
        iou=iou.numpy(),
        second_pass=(to_numpy(again[0]), again[1].numpy()),
    )
