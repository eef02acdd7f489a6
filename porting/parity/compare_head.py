"""Compares the JAX Mask2Former head with Hugging Face's, in three views.

Masked attention is a threshold: a mask bit that flips at 0.5, because two float32 sums were taken
in a different order, changes all that follows by more than rounding. So the transformer decoder
runs on its own (`chain`, with flips counted), with the reference's masks (`given masks`), and layer
by layer on the reference's inputs (`block`). The reference also runs in float64, with the same
masks, which shows how much of a difference is rounding (`porting.parity.tap`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clouds_jax.nn.mask2former.class_heads import LinearHead
from clouds_jax.nn.mask2former.head import Mask2FormerHead, class_scores
from clouds_jax.nn.mask2former.transformer_decoder import TransformerDecoder
from clouds_jax.typing import Prediction
from porting.parity.jax_steps import jitted, unstack
from porting.parity.recordings import HeadRecord
from porting.parity.tap import Tap, View, compare
from porting.parity.tolerances import Tolerance

_LEVELS = 3
_PIXEL_OUTPUTS = (
    *(f"pixel_decoder.stride{stride}" for stride in (32, 16, 8)),
    "pixel_decoder.mask_features",
)


def compare_head(
    record: HeadRecord, head: Mask2FormerHead, size: tuple[int, int], tolerance: Tolerance
) -> list[Tap]:
    """Runs the JAX head on the inputs of the recorded run.

    Args:
        record: of the reference with the same weights.
        head: the JAX head.
        size: (h, w) of the images before padding, for the class scores.
        tolerance: bounds.

    Returns:
        The taps in the model's order.
    """
    return [
        *_pixel_decoder(head, record, tolerance),
        *_transformer_decoder(head, record, size, tolerance),
    ]


def _pixel_decoder(head: Mask2FormerHead, record: HeadRecord, tolerance: Tolerance) -> list[Tap]:
    decoder, expected = head.pixel_decoder, record.float32
    sizes = tuple(level.shape[1:3] for level in expected.levels)
    layer = jitted(
        decoder.layers,
        lambda m, i, x, positions: unstack(m, i)(x, positions, sizes),
    )
    taps = []
    names = [name for name in record.inputs if name.startswith("pixel_decoder.")]
    for i, name in enumerate(names):
        tokens = record.inputs[name]
        out = layer(i, tokens, np.broadcast_to(record.positions, tokens.shape))
        taps.append(compare(name, "block", out, record.outputs[name], tolerance))
    fused = jitted(decoder, lambda m, *args: m.fuse(*args))(
        expected.levels[-1], record.features["res2"]
    )
    taps.append(compare("pixel_decoder.fuse", "block", fused, expected.mask_features, tolerance))
    mask_features, levels = jitted(decoder, lambda m, f: m(f))(record.features)
    outputs = (
        (*levels, mask_features),
        *((*side.levels, side.mask_features) for side in (expected, record.float64)),
    )
    for name, actual, reference, exact in zip(_PIXEL_OUTPUTS, *outputs, strict=True):
        taps.append(compare(name, "chain", actual, reference, tolerance, exact=exact))
    return taps


def _transformer_decoder(
    head: Mask2FormerHead, record: HeadRecord, size: tuple[int, int], tolerance: Tolerance
) -> list[Tap]:
    decoder, reference = _Decoder(head.transformer_decoder), record.float32
    taps = []

    # layer by layer, each on the input of the reference's layer
    for i, mask in enumerate(record.masks):
        name = f"transformer_decoder.layers.{i}"
        queries, level = record.inputs[name], reference.levels[i % _LEVELS]
        out = decoder.layer(i, queries, level, mask)
        own_mask = decoder.mask(queries, reference.mask_features, level)
        flips = int((own_mask != mask).sum())
        expected = record.outputs[name]
        taps.append(compare(name, "block", out, expected, tolerance, flips=flips, bits=mask.size))

    logits = Prediction(jnp.asarray(reference.class_logits), jnp.asarray(reference.mask_logits))
    scores = jax.jit(class_scores, static_argnums=1)(logits, size)
    taps.append(compare("class_scores", "block", scores, reference.class_scores, tolerance))

    # from the features on, with its own masks and with those of the reference
    mask_features, levels = jitted(head.pixel_decoder, lambda m, f: m(f))(record.features)
    prediction = jitted(head, lambda m, f: m(f, all_outputs=True))(record.features)
    total_flips = [0]
    own_queries = decoder.first(mask_features.shape[0])
    queries_given = [own_queries]
    for i, given in enumerate(record.masks):
        level = levels[i % _LEVELS]
        mask = decoder.mask(own_queries, mask_features, level)
        total_flips.append(total_flips[-1] + int((mask != given).sum()))
        own_queries = decoder.layer(i, own_queries, level, mask)
        queries_given.append(decoder.layer(i, queries_given[-1], level, given))
    pools = not isinstance(head.transformer_decoder.class_embed, LinearHead)
    taps += _outputs(prediction, record, size, "chain", tolerance, total_flips, pools=pools)
    prediction = decoder.predict(jnp.stack(queries_given), mask_features)
    classes = decoder.classify(jnp.stack(queries_given), mask_features, reference.mask_logits)
    prediction = dataclasses.replace(prediction, class_logits=classes)
    return taps + _outputs(prediction, record, size, "given masks", tolerance, None, pools=pools)


class _Decoder:
    """Parts of the transformer decoder, compiled; layers by their number in the original."""

    def __init__(self, decoder: TransformerDecoder):
        # one compilation per level: the place in its stack is an argument
        self.layer_of = [
            jitted(
                decoder,
                lambda m, group, queries, level, mask, j=j: unstack(m.layers[j], group)(
                    queries, m.query_embed[...], *m.memory(j, level), mask
                ),
            )
            for j in range(_LEVELS)
        ]
        self.mask_of = jitted(
            decoder,
            lambda m, queries, features, level: m.attention_mask(
                queries, m.shrink(features, level.shape[1:3])
            ),
        )
        self.predict = jitted(decoder, lambda m, queries, features: m.predict(queries, features))
        self.classify = jitted(
            decoder,
            lambda m, queries, features, masks: m.class_embed(m.norm(queries), features, masks),
        )
        self.query_feat = np.asarray(decoder.query_feat[...])

    def first(self, batch: int) -> np.ndarray:
        return np.broadcast_to(self.query_feat[None], (batch, *self.query_feat.shape))

    def layer(self, i: int, queries: Any, level: Any, mask: np.ndarray) -> np.ndarray:
        return np.asarray(self.layer_of[i % _LEVELS](i // _LEVELS, queries, level, mask))

    def mask(self, queries: Any, mask_features: Any, level: Any) -> np.ndarray:
        return np.asarray(self.mask_of(queries, mask_features, level))


def _outputs(
    prediction: Prediction,
    record: HeadRecord,
    size: tuple[int, int],
    view: View,
    tolerance: Tolerance,
    flips: list[int] | None,
    *,
    pools: bool,
) -> list[Tap]:
    """Compares class and mask logits of every output, and the class scores of the last one.

    A class head that pools features under the masks has a threshold of its own: where `pools`, a
    mask pixel on the other side of 0 counts as a flip for the class logits.
    """
    bits = np.cumsum([0, *(mask.size for mask in record.masks)])
    reference, exact = record.float32, record.float64

    def pooling_flips(o: int, outputs: Any) -> int:
        return int(((outputs.mask_logits[o] > 0) != (reference.mask_logits[o] > 0)).sum())

    def flip_counts(o: int, *, classes: bool) -> dict[str, Any]:
        if flips is None:
            return {}
        # after a flip the two sides compute different things: `given masks` judges what follows
        flipped, total = flips[o], int(bits[o])
        if pools and classes:
            flipped += pooling_flips(o, prediction)
            total += reference.mask_logits[o].size
        return dict(flips=flipped, bits=total, judged=flipped == 0)

    def exact_of(name: str, o: int) -> Any:
        """The float64 run, unless it pooled under other masks than the float32 run."""
        other_masks = pools and name != "mask_logits" and pooling_flips(o, exact) > 0
        return None if other_masks else getattr(exact, name)

    taps = []
    last = reference.class_logits.shape[0] - 1
    for o in range(last + 1):
        for name in ("class_logits", "mask_logits"):
            actual, expected = (getattr(x, name)[o] for x in (prediction, reference))
            exact_all = exact_of(name, o)
            exact_o = None if exact_all is None else exact_all[o]
            counts = flip_counts(o, classes=name == "class_logits")
            taps.append(
                compare(f"{name}.{o}", view, actual, expected, tolerance, exact=exact_o, **counts)
            )
    scores = jax.jit(class_scores, static_argnums=1)(prediction, size)
    expected, exact_scores = reference.class_scores, exact_of("class_scores", last)
    counts = flip_counts(last, classes=True)
    return [
        *taps,
        compare("class_scores", view, scores, expected, tolerance, exact=exact_scores, **counts),
    ]
