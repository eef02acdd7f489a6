"""What the PyTorch head computes, layer by layer, in our layout."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from porting.compare_encoder import to_ours, to_torch
from porting.reference.mask2former import Head

_NAMES = ("res2", "res3", "res4", "res5")


@dataclasses.dataclass
class Recording:
    """What the reference computed, in our layout.

    Attributes:
        inputs: layer name -> its input, (b, s, d) or (b, q, d).
        outputs: layer name -> its output.
        positions: position codes of the pixel decoder's tokens, (s, d).
        masks: True where a query may attend, per decoder layer, (b, q, s); before the rule for
            rows without any True.
        levels: pixel decoder outputs at strides 32, 16, 8.
        mask_features: at stride 4.
        class_logits: (o, b, q, k+1).
        mask_logits: (o, b, h4, w4, q).
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    positions: np.ndarray
    masks: list[np.ndarray]
    levels: tuple[np.ndarray, ...]
    mask_features: np.ndarray
    class_logits: np.ndarray
    mask_logits: np.ndarray


@torch.no_grad()
def record(
    reference: Head,
    features: dict[str, np.ndarray],
    masks: Sequence[np.ndarray] | None = None,
) -> Recording:
    """Runs the reference and keeps what passes between its layers.

    Args:
        reference: in eval mode.
        features: res2 to res5, NHWC, of the dtype of its weights.
        masks: of a recording, to attend with instead of its own.
    """
    inputs: dict[str, np.ndarray] = {}
    outputs: dict[str, np.ndarray] = {}
    seen: dict[str, Any] = {"masks": []}

    def watch(name: str, queries_first: bool):
        def hook(_module, args, kwargs, output):
            given = args[0] if args else kwargs["hidden_states"]
            if not queries_first:
                seen["positions"] = kwargs["position_embeddings"][0].numpy()
            axes = (1, 0, 2) if queries_first else (0, 1, 2)
            inputs[name] = given.permute(axes).numpy()
            outputs[name] = output[0].permute(axes).numpy()

        return hook

    def watch_masks(_module, _args, output):
        blocked = output[1]  # (b * heads, q, s), the same for all heads
        made = len(seen["masks"])
        seen["masks"].append(~blocked.unflatten(0, (-1, reference.heads))[:, 0].numpy())
        if masks is None or made == len(masks):  # the last one is read by no layer
            return None
        given = torch.from_numpy(~masks[made])
        return output[0], given.repeat_interleave(reference.heads, dim=0)

    def watch_pixels(_module, _args, output):
        seen["pixel"] = output

    decoder = reference.transformer.decoder
    hooks = [
        *(
            layer.register_forward_hook(watch(f"pixel_decoder.layers.{i}", False), with_kwargs=True)
            for i, layer in enumerate(reference.pixel_decoder.encoder.layers)
        ),
        *(
            layer.register_forward_hook(
                watch(f"transformer_decoder.layers.{i}", True), with_kwargs=True
            )
            for i, layer in enumerate(decoder.layers)
        ),
        decoder.mask_predictor.register_forward_hook(watch_masks),
        reference.pixel_decoder.register_forward_hook(watch_pixels),
    ]
    try:
        class_logits, mask_logits = reference([to_torch(features[name]) for name in _NAMES])
    finally:
        for hook in hooks:
            hook.remove()
    return Recording(
        inputs=inputs,
        outputs=outputs,
        positions=seen["positions"],
        masks=seen["masks"][:-1],
        levels=tuple(map(to_ours, seen["pixel"].multi_scale_features)),
        mask_features=to_ours(seen["pixel"].mask_features),
        class_logits=class_logits.numpy(),
        mask_logits=np.moveaxis(mask_logits.numpy(), 2, -1),
    )


def record_float64(
    reference: Head, features: dict[str, np.ndarray], masks: Sequence[np.ndarray]
) -> Recording:
    """The same weights, features and attention masks in float64: what float32 rounds."""
    exact = copy.deepcopy(reference).double()
    return record(exact, {name: x.astype(np.float64) for name, x in features.items()}, masks)


def reference_scores(
    class_logits: np.ndarray, mask_logits: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Class scores (b, h, w, k) in PyTorch, from logits in our layout.

    Source: semantic inference of Mask2Former, spec 6.2: upsample to the padded image, sigmoid,
        sum over queries weighted by class probability, cut the padding off.
    """
    masks = to_torch(mask_logits)
    padded = (4 * masks.shape[2], 4 * masks.shape[3])
    masks = F.interpolate(masks, padded, mode="bilinear", align_corners=False).sigmoid()
    votes = torch.from_numpy(class_logits).softmax(-1)[..., :-1]
    scores = torch.einsum("bqk,bqhw->bhwk", votes, masks[:, :, : size[0], : size[1]])
    return scores.numpy()
