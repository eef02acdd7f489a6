"""The Mask2Former head of ours against Hugging Face's, in three views.

Masked attention is a threshold: a mask bit that flips at 0.5, because two float32 sums were made
in another order, changes what follows by more than rounding does. So the transformer decoder is
run by itself (`chain`, flips counted), with the reference's masks (`given masks`), and layer by
layer on the reference's own inputs (`block`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from clouds_jax.nn.mask2former import Mask2FormerHead, class_scores
from clouds_jax.nn.transformer_decoder import TransformerDecoder
from clouds_jax.typing import Prediction
from porting.compare import Tap, View, compare
from porting.compare_encoder import member, pure, to_ours, to_torch
from porting.reference.mask2former import Head
from porting.tolerances import Tolerance

_LEVELS = 3
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
def record(reference: Head, features: dict[str, np.ndarray]) -> Recording:
    """Runs the reference and keeps what passes between its layers."""
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
        blocked = blocked.reshape(-1, reference.heads, *blocked.shape[1:])[:, 0]
        seen["masks"].append(~blocked.numpy())

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
        masks=seen["masks"][:-1],  # the last one is read by no layer
        levels=tuple(map(to_ours, seen["pixel"].multi_scale_features)),
        mask_features=to_ours(seen["pixel"].mask_features),
        class_logits=class_logits.numpy(),
        mask_logits=np.moveaxis(mask_logits.numpy(), 2, -1),
    )


def compare_head(
    reference: Head,
    head: Mask2FormerHead,
    features: dict[str, np.ndarray],
    size: tuple[int, int],
    tolerance: Tolerance,
) -> list[Tap]:
    """Runs both on the same features.

    Args:
        reference: in eval mode, with the weights that `head` was converted from.
        head: ours.
        features: res2 to res5, NHWC.
        size: (h, w) of the images, for the map of classes.
        tolerance: bounds.

    Returns:
        The taps in the model's order.
    """
    kept = record(reference, features)
    taps = _pixel_decoder(head, features, kept, tolerance)
    taps += _transformer_decoder(head, features, kept, size, tolerance)
    return taps


def _pixel_decoder(
    head: Mask2FormerHead, features: dict[str, np.ndarray], kept: Recording, tolerance: Tolerance
) -> list[Tap]:
    decoder = head.pixel_decoder
    sizes = tuple(level.shape[1:3] for level in kept.levels)
    layer = pure(
        decoder.layers,
        lambda m, i, x, positions: member(m, i)(x, positions, sizes),
    )
    taps = []
    names = [name for name in kept.inputs if name.startswith("pixel_decoder.")]
    for i, name in enumerate(names):
        out = layer(i, kept.inputs[name], kept.positions)
        taps.append(compare(name, "block", out, kept.outputs[name], tolerance))
    fused = pure(decoder, lambda m, *args: m.fuse(*args))(kept.levels[-1], features["res2"])
    taps.append(compare("pixel_decoder.fuse", "block", fused, kept.mask_features, tolerance))
    mask_features, levels = pure(decoder, lambda m, f: m(f))(features)
    for stride, ours, theirs in zip((32, 16, 8), levels, kept.levels, strict=True):
        taps.append(compare(f"pixel_decoder.stride{stride}", "chain", ours, theirs, tolerance))
    taps.append(
        compare(
            "pixel_decoder.mask_features", "chain", mask_features, kept.mask_features, tolerance
        )
    )
    return taps


def _transformer_decoder(
    head: Mask2FormerHead,
    features: dict[str, np.ndarray],
    kept: Recording,
    size: tuple[int, int],
    tolerance: Tolerance,
) -> list[Tap]:
    decoder = _Decoder(head.transformer_decoder)
    taps = []

    # layer by layer, each on what the reference's layer was given
    for i, mask in enumerate(kept.masks):
        name = f"transformer_decoder.layers.{i}"
        queries, level = kept.inputs[name], kept.levels[i % _LEVELS]
        out = decoder.layer(i, queries, level, mask)
        own = decoder.mask(queries, kept.mask_features, level)
        flipped = int((own != mask).sum())
        theirs = kept.outputs[name]
        taps.append(compare(name, "block", out, theirs, tolerance, flips=flipped, bits=mask.size))

    logits = Prediction(jnp.asarray(kept.class_logits), jnp.asarray(kept.mask_logits))
    scores = jax.jit(class_scores, static_argnums=1)(logits, size)
    theirs = reference_scores(kept.class_logits[-1], kept.mask_logits[-1], size)
    taps.append(compare("class_scores", "block", scores, theirs, tolerance))

    # by itself: from the features, with its own and with the reference's masks
    mask_features, levels = pure(head.pixel_decoder, lambda m, f: m(f))(features)
    prediction = pure(head, lambda m, f: m(f, all_outputs=True))(features)
    flips = [0]
    queries = own_queries = decoder.first(mask_features.shape[0])
    given = [queries]
    for i, theirs in enumerate(kept.masks):
        level = levels[i % _LEVELS]
        mask = decoder.mask(own_queries, mask_features, level)
        flips.append(flips[-1] + int((mask != theirs).sum()))
        own_queries = decoder.layer(i, own_queries, level, mask)
        given.append(decoder.layer(i, given[-1], level, theirs))
    taps += _outputs(prediction, kept, size, "chain", tolerance, flips)
    prediction = decoder.predict(jnp.stack(given), mask_features)
    return taps + _outputs(prediction, kept, size, "given masks", tolerance, None)


class _Decoder:
    """Parts of the transformer decoder as compiled functions; layers by their original number."""

    def __init__(self, decoder: TransformerDecoder):
        # one compilation per level: which member of its stack is an argument
        self.layer_of = [
            pure(
                decoder,
                lambda m, group, queries, level, mask, j=j: member(m.layers[j], group)(
                    queries, m.query_embed[...], *m.memory(j, level), mask
                ),
            )
            for j in range(_LEVELS)
        ]
        self.mask_of = pure(
            decoder,
            lambda m, queries, features, level: m.attention_mask(
                queries, m.shrink(features, level.shape[1:3])
            ),
        )
        self.predict = pure(decoder, lambda m, queries, features: m.predict(queries, features))
        self.query_feat = np.asarray(decoder.query_feat[...])

    def first(self, batch: int) -> np.ndarray:
        return np.broadcast_to(self.query_feat[None], (batch, *self.query_feat.shape))

    def layer(self, i: int, queries: Any, level: Any, mask: np.ndarray) -> np.ndarray:
        return np.asarray(self.layer_of[i % _LEVELS](i // _LEVELS, queries, level, mask))

    def mask(self, queries: Any, mask_features: Any, level: Any) -> np.ndarray:
        return np.asarray(self.mask_of(queries, mask_features, level))


def _outputs(
    prediction: Prediction,
    kept: Recording,
    size: tuple[int, int],
    view: View,
    tolerance: Tolerance,
    flips: list[int] | None,
) -> list[Tap]:
    """Class and mask logits of every output, and the scores of the last one."""
    bits = np.cumsum([0, *(mask.size for mask in kept.masks)])

    def counts(o: int) -> dict[str, Any]:
        if flips is None:
            return {}
        # after a flip the two sides compute different things: `given masks` judges what follows
        same = flips[o] == 0
        return dict(flips=flips[o], bits=int(bits[o]), judged=same, counted=same)

    taps = []
    last = kept.class_logits.shape[0] - 1
    for o in range(last + 1):
        for name in ("class_logits", "mask_logits"):
            ours, theirs = getattr(prediction, name)[o], getattr(kept, name)[o]
            taps.append(compare(f"{name}.{o}", view, ours, theirs, tolerance, **counts(o)))
    ours = jax.jit(class_scores, static_argnums=1)(prediction, size)
    theirs = reference_scores(kept.class_logits[-1], kept.mask_logits[-1], size)
    # Scores are sums over all queries: the errors of a hundred masks add, while with random weights
    # the sums hardly vary over an image. So here the map of classes is judged, and must hold in
    # spite of flips; the scores themselves are judged as a block.
    more = counts(last) | dict(judged=False, counted=True)
    taps.append(compare("class_scores", view, ours, theirs, tolerance, **more))
    return taps


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
