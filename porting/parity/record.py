"""Runs PyTorch encoders and heads and records what passes between their layers."""

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

_FEATURES = ("res2", "res3", "res4", "res5")


@torch.no_grad()
def record_encoder(reference: Reference, images: np.ndarray) -> EncoderRecord:
    """Runs an encoder step by step.

    Args:
        reference: in eval mode.
        images: normalised images, (b, h, w, 3).
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
        size: (h, w) of the images before padding, for the class scores.
    """
    hooks = _Hooks()
    float32 = _run(reference, features, size, hooks)
    double = copy.deepcopy(reference).double()
    wide = {name: x.astype(np.float64) for name, x in features.items()}
    masks = hooks.masks[:-1]  # no layer reads the last one
    float64 = _run(double, wide, size, _Hooks(), masks)
    return HeadRecord(
        features, hooks.inputs, hooks.outputs, hooks.positions, masks, float32, float64
    )


def run_head(
    reference: Head, features: dict[str, np.ndarray], size: tuple[int, int]
) -> HeadOutputs:
    """Runs a head in float32 and keeps the outputs alone; arguments as in `record_head`."""
    return _run(reference, features, size, _Hooks())


class _Hooks:
    """What the forward hooks of one run have recorded."""

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
    recorded: _Hooks,
    masks: Sequence[np.ndarray] | None = None,
) -> HeadOutputs:
    """Runs a head once, with the attention masks `masks` instead of its own where given."""

    def on_layer(name: str, queries_first: bool):
        def hook(_module, args, kwargs, output):
            layer_input = args[0] if args else kwargs["hidden_states"]
            if not queries_first:
                recorded.positions = kwargs["position_embeddings"][0].numpy()
            axes = (1, 0, 2) if queries_first else (0, 1, 2)
            recorded.inputs[name] = layer_input.permute(axes).numpy()
            recorded.outputs[name] = output[0].permute(axes).numpy()

        return hook

    def on_mask_predictor(_module, _args, output):
        blocked = output[1]  # (b * heads, q, s), the same for all heads
        layer = len(recorded.masks)
        recorded.masks.append(~blocked.unflatten(0, (-1, reference.heads))[:, 0].numpy())
        if masks is None or layer == len(masks):
            return None
        replaced = torch.from_numpy(~masks[layer])
        return output[0], replaced.repeat_interleave(reference.heads, dim=0)

    def on_pixel_decoder(_module, _args, output):
        recorded.pixel = output

    pixel_layers = reference.pixel_decoder.encoder.layers
    decoder = reference.transformer.decoder
    handles = [
        *(
            layer.register_forward_hook(
                on_layer(f"pixel_decoder.layers.{i}", False), with_kwargs=True
            )
            for i, layer in enumerate(pixel_layers)
        ),
        *(
            layer.register_forward_hook(
                on_layer(f"transformer_decoder.layers.{i}", True), with_kwargs=True
            )
            for i, layer in enumerate(decoder.layers)
        ),
        decoder.mask_predictor.register_forward_hook(on_mask_predictor),
        reference.pixel_decoder.register_forward_hook(on_pixel_decoder),
    ]
    try:
        class_logits, mask_logits = reference([to_torch(features[name]) for name in _FEATURES])
    finally:
        for handle in handles:
            handle.remove()
    masks_last = np.moveaxis(mask_logits.numpy(), 2, -1)
    return HeadOutputs(
        levels=tuple(map(to_numpy, recorded.pixel.multi_scale_features)),
        mask_features=to_numpy(recorded.pixel.mask_features),
        class_logits=class_logits.numpy(),
        mask_logits=masks_last,
        class_scores=class_scores(class_logits.numpy()[-1], masks_last[-1], size),
    )


def class_scores(
    class_logits: np.ndarray, mask_logits: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Class scores (b, h, w, k) in PyTorch.

    Args:
        class_logits: (b, q, k+1).
        mask_logits: (b, h4, w4, q).
        size: (h, w) of the images before padding.

    Source: semantic inference of Mask2Former, spec 6.2: upsample to the padded image, sigmoid, sum
        over queries weighted by class probability, crop the padding.
    """
    masks = to_torch(mask_logits)
    padded = (4 * masks.shape[2], 4 * masks.shape[3])
    masks = F.interpolate(masks, padded, mode="bilinear", align_corners=False).sigmoid()
    votes = torch.from_numpy(class_logits).softmax(-1)[..., :-1]
    scores = torch.einsum("bqk,bqhw->bhwk", votes, masks[:, :, : size[0], : size[1]])
    return scores.numpy()
