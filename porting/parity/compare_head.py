"""The Mask2Former head of ours against Hugging Face's, in three views.

Masked attention is a threshold: a mask bit that flips at 0.5, because two float32 sums were made
in another order, changes what follows by more than rounding does. So the transformer decoder is
run by itself (`chain`, flips counted), with the reference's masks (`given masks`), and layer by
layer on the reference's own inputs (`block`). The reference also runs in float64, with the same
masks, which tells how much of a difference is rounding (`porting.parity.tap`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clouds_jax.nn.layers import Linear
from clouds_jax.nn.mask2former import class_heads
from clouds_jax.nn.mask2former.head import Mask2FormerHead, class_scores
from clouds_jax.nn.mask2former.transformer_decoder import TransformerDecoder
from clouds_jax.typing import Prediction
from porting.parity.jax_steps import member, pure
from porting.parity.recordings import HeadRecord
from porting.parity.tap import Tap, View, compare
from porting.parity.tolerances import Tolerance

_LEVELS = 3
_PIXEL_OUTPUTS = (
    *(f"pixel_decoder.stride{stride}" for stride in (32, 16, 8)),
    "pixel_decoder.mask_features",
)


def compare_head(
    kept: HeadRecord, head: Mask2FormerHead, size: tuple[int, int], tolerance: Tolerance
) -> list[Tap]:
    """Runs ours on what the reference was given.

    Args:
        kept: of the reference, with the weights that `head` was converted from.
        head: ours.
        size: (h, w) of the images, for the map of classes.
        tolerance: bounds.

    Returns:
        The taps in the model's order.
    """
    return [
        *_pixel_decoder(head, kept, tolerance),
        *_transformer_decoder(head, kept, size, tolerance),
    ]


def _pixel_decoder(head: Mask2FormerHead, kept: HeadRecord, tolerance: Tolerance) -> list[Tap]:
    decoder, theirs = head.pixel_decoder, kept.float32
    sizes = tuple(level.shape[1:3] for level in theirs.levels)
    layer = pure(
        decoder.layers,
        lambda m, i, x, positions: member(m, i)(x, positions, sizes),
    )
    taps = []
    names = [name for name in kept.inputs if name.startswith("pixel_decoder.")]
    for i, name in enumerate(names):
        tokens = kept.inputs[name]
        out = layer(i, tokens, np.broadcast_to(kept.positions, tokens.shape))
        taps.append(compare(name, "block", out, kept.outputs[name], tolerance))
    fused = pure(decoder, lambda m, *args: m.fuse(*args))(theirs.levels[-1], kept.features["res2"])
    taps.append(compare("pixel_decoder.fuse", "block", fused, theirs.mask_features, tolerance))
    mask_features, levels = pure(decoder, lambda m, f: m(f))(kept.features)
    outputs = (
        (*levels, mask_features),
        *((*side.levels, side.mask_features) for side in (theirs, kept.float64)),
    )
    for name, ours, reference, exact in zip(_PIXEL_OUTPUTS, *outputs, strict=True):
        taps.append(compare(name, "chain", ours, reference, tolerance, exact=exact))
    return taps


def _transformer_decoder(
    head: Mask2FormerHead, kept: HeadRecord, size: tuple[int, int], tolerance: Tolerance
) -> list[Tap]:
    decoder, reference = _Decoder(head.transformer_decoder), kept.float32
    taps = []

    # layer by layer, each on what the reference's layer was given
    for i, mask in enumerate(kept.masks):
        name = f"transformer_decoder.layers.{i}"
        queries, level = kept.inputs[name], reference.levels[i % _LEVELS]
        out = decoder.layer(i, queries, level, mask)
        own = decoder.mask(queries, reference.mask_features, level)
        flipped = int((own != mask).sum())
        theirs = kept.outputs[name]
        taps.append(compare(name, "block", out, theirs, tolerance, flips=flipped, bits=mask.size))

    logits = Prediction(jnp.asarray(reference.class_logits), jnp.asarray(reference.mask_logits))
    scores = jax.jit(class_scores, static_argnums=1)(logits, size)
    taps.append(compare("class_scores", "block", scores, reference.class_scores, tolerance))

    # by itself: from the features, with its own and with the reference's masks
    mask_features, levels = pure(head.pixel_decoder, lambda m, f: m(f))(kept.features)
    prediction = pure(head, lambda m, f: m(f, all_outputs=True))(kept.features)
    flips = [0]
    queries = own_queries = decoder.first(mask_features.shape[0])
    given = [queries]
    for i, theirs in enumerate(kept.masks):
        level = levels[i % _LEVELS]
        mask = decoder.mask(own_queries, mask_features, level)
        flips.append(flips[-1] + int((mask != theirs).sum()))
        own_queries = decoder.layer(i, own_queries, level, mask)
        given.append(decoder.layer(i, given[-1], level, theirs))
    pools = not isinstance(head.transformer_decoder.class_embed, Linear)
    taps += _outputs(prediction, kept, size, "chain", tolerance, flips, pools=pools)
    prediction = decoder.predict(jnp.stack(given), mask_features)
    classes = decoder.classify(jnp.stack(given), mask_features, kept.float32.mask_logits)
    prediction = dataclasses.replace(prediction, class_logits=classes)
    return taps + _outputs(prediction, kept, size, "given masks", tolerance, None, pools=pools)


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
        self.classify = pure(
            decoder,
            lambda m, queries, features, masks: class_heads.classify(
                m.class_embed, m.norm(queries), features, masks
            ),
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
    kept: HeadRecord,
    size: tuple[int, int],
    view: View,
    tolerance: Tolerance,
    flips: list[int] | None,
    *,
    pools: bool,
) -> list[Tap]:
    """Class and mask logits of every output, and the scores of the last one.

    A class head that pools features under the masks has a threshold of its own: where `pools`, a
    mask pixel on the other side of 0 counts as a flip for the class logits.
    """
    bits = np.cumsum([0, *(mask.size for mask in kept.masks)])
    reference, exact = kept.float32, kept.float64

    def pixels(o: int, side: Any) -> int:
        return int(((side.mask_logits[o] > 0) != (reference.mask_logits[o] > 0)).sum())

    def counts(o: int, *, classes: bool) -> dict[str, Any]:
        if flips is None:
            return {}
        # after a flip the two sides compute different things: `given masks` judges what follows
        found, of = flips[o], int(bits[o])
        if pools and classes:
            found, of = found + pixels(o, prediction), of + reference.mask_logits[o].size
        return dict(flips=found, bits=of, judged=found == 0)

    def truth_of(name: str, o: int) -> Any:
        """The float64 run, unless it pooled under other masks than the float32 run."""
        other = pools and name != "mask_logits" and pixels(o, exact) > 0
        return None if other else getattr(exact, name)

    taps = []
    last = reference.class_logits.shape[0] - 1
    for o in range(last + 1):
        for name in ("class_logits", "mask_logits"):
            ours, theirs = (getattr(x, name)[o] for x in (prediction, reference))
            truth = truth_of(name, o)
            more = counts(o, classes=name == "class_logits")
            exact_o = None if truth is None else truth[o]
            tap = compare(f"{name}.{o}", view, ours, theirs, tolerance, exact=exact_o, **more)
            taps.append(tap)
    ours = jax.jit(class_scores, static_argnums=1)(prediction, size)
    theirs, truth = reference.class_scores, truth_of("class_scores", last)
    more = counts(last, classes=True)
    return [*taps, compare("class_scores", view, ours, theirs, tolerance, exact=truth, **more)]
