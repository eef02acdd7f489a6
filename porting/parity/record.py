"""Runs the PyTorch references and keeps what passes between their layers."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from porting.parity.recordings import EncoderRecord, HeadOutputs, HeadRecord
from porting.reference.encoders import Reference
from porting.reference.mask2former import Head
from porting.reference.nchw import to_numpy, to_torch

_NAMES = ("res2", "res3", "res4", "res5")


@torch.no_grad()
def record_encoder(reference: Reference, images: np.ndarray) -> EncoderRecord:
    """Runs an encoder step by step.

    Args:
        reference: in eval mode.
        images: (b, h, w, 3), normalised.
    """
    feature_of = {step: name for name, step in reference.taps.items()}
    outputs: dict[str, np.ndarray] = {}
    features: dict[str, np.ndarray] = {}
    x = to_torch(images)
    for name, step in reference.steps:
        x = step(x)
        outputs[name] = to_numpy(x)
        if name in feature_of:
            norm = reference.norms.get(feature_of[name])
            features[feature_of[name]] = outputs[name] if norm is None else to_numpy(norm(x))
    embedding = None if reference.embed is None else reference.embed(to_torch(images)).numpy()
    return EncoderRecord(images, outputs, dict(reference.taps), features, embedding)


def record_head(
    reference: Head, features: dict[str, np.ndarray], size: tuple[int, int]
) -> HeadRecord:
    """Runs a head in float32, and in float64 with the attention masks of the first run.

    Args:
        reference: in eval mode.
        features: res2 to res5, NHWC.
        size: (h, w) of the images before padding, for the map of classes.
    """
    kept = _Kept()
    float32 = _run(reference, features, size, kept)
    exact = copy.deepcopy(reference).double()
    wide = {name: x.astype(np.float64) for name, x in features.items()}
    masks = kept.masks[:-1]  # the last one is read by no layer
    float64 = _run(exact, wide, size, _Kept(), masks)
    return HeadRecord(features, kept.inputs, kept.outputs, kept.positions, masks, float32, float64)


def run_head(
    reference: Head, features: dict[str, np.ndarray], size: tuple[int, int]
) -> HeadOutputs:
    """One run in float32, of which only the outputs are kept."""
    return _run(reference, features, size, _Kept())


class _Kept:
    """What the hooks of a run have seen."""

    def __init__(self):
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self.masks: list[np.ndarray] = []
        self.positions = np.zeros(0)
        self.pixel: Any = None


@torch.no_grad()
def _run(
    reference: Head,
    features: dict[str, np.ndarray],
    size: tuple[int, int],
    kept: _Kept,
    masks: Sequence[np.ndarray] | None = None,
) -> HeadOutputs:
    """One run; `masks` are attended with instead of the reference's own."""

    def watch(name: str, queries_first: bool):
        def hook(_module, args, kwargs, output):
            given = args[0] if args else kwargs["hidden_states"]
            if not queries_first:
                kept.positions = kwargs["position_embeddings"][0].numpy()
            axes = (1, 0, 2) if queries_first else (0, 1, 2)
            kept.inputs[name] = given.permute(axes).numpy()
            kept.outputs[name] = output[0].permute(axes).numpy()

        return hook

    def watch_masks(_module, _args, output):
        blocked = output[1]  # (b * heads, q, s), the same for all heads
        made = len(kept.masks)
        kept.masks.append(~blocked.unflatten(0, (-1, reference.heads))[:, 0].numpy())
        if masks is None or made == len(masks):
            return None
        given = torch.from_numpy(~masks[made])
        return output[0], given.repeat_interleave(reference.heads, dim=0)

    def watch_pixels(_module, _args, output):
        kept.pixel = output

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
    ours = np.moveaxis(mask_logits.numpy(), 2, -1)
    return HeadOutputs(
        levels=tuple(map(to_numpy, kept.pixel.multi_scale_features)),
        mask_features=to_numpy(kept.pixel.mask_features),
        class_logits=class_logits.numpy(),
        mask_logits=ours,
        class_scores=reference_scores(class_logits.numpy()[-1], ours[-1], size),
    )


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
