"""The Mask2Former head of ours against Hugging Face's, in three views.

Masked attention is a threshold: a mask bit that flips at 0.5, because two float32 sums were made
in another order, changes what follows by more than rounding does. So the transformer decoder is
run by itself (`chain`, flips counted), with the reference's masks (`given masks`), and layer by
layer on the reference's own inputs (`block`). The reference also runs in float64, with the same
masks, which tells how much of a difference is rounding (`porting.compare`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clouds_jax.nn.mask2former import Mask2FormerHead, class_scores
from clouds_jax.nn.transformer_decoder import TransformerDecoder
from clouds_jax.typing import Prediction
from porting.compare import Tap, View, compare
from porting.recording import Recording, record, record_float64, reference_scores
from porting.reference.mask2former import Head
from porting.steps import member, pure
from porting.tolerances import Tolerance

_LEVELS = 3
_PIXEL_OUTPUTS = (
    *(f"pixel_decoder.stride{stride}" for stride in (32, 16, 8)),
    "pixel_decoder.mask_features",
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
    exact = record_float64(reference, features, kept.masks)
    taps = _pixel_decoder(head, features, kept, exact, tolerance)
    taps += _transformer_decoder(head, features, kept, exact, size, tolerance)
    return taps


def _pixel_decoder(
    head: Mask2FormerHead,
    features: dict[str, np.ndarray],
    kept: Recording,
    exact: Recording,
    tolerance: Tolerance,
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
    ours = (*levels, mask_features)
    theirs = (*kept.levels, kept.mask_features)
    truth = (*exact.levels, exact.mask_features)
    for name, mine, reference, right in zip(_PIXEL_OUTPUTS, ours, theirs, truth, strict=True):
        taps.append(compare(name, "chain", mine, reference, tolerance, exact=right))
    return taps


def _transformer_decoder(
    head: Mask2FormerHead,
    features: dict[str, np.ndarray],
    kept: Recording,
    exact: Recording,
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
    taps += _outputs(prediction, kept, exact, size, "chain", tolerance, flips)
    prediction = decoder.predict(jnp.stack(given), mask_features)
    return taps + _outputs(prediction, kept, exact, size, "given masks", tolerance, None)


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
    exact: Recording,
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
        return dict(flips=flips[o], bits=int(bits[o]), judged=flips[o] == 0)

    taps = []
    last = kept.class_logits.shape[0] - 1
    for o in range(last + 1):
        for name in ("class_logits", "mask_logits"):
            ours, theirs, truth = (getattr(x, name)[o] for x in (prediction, kept, exact))
            name = f"{name}.{o}"
            taps.append(compare(name, view, ours, theirs, tolerance, exact=truth, **counts(o)))
    ours = jax.jit(class_scores, static_argnums=1)(prediction, size)
    theirs, truth = (
        reference_scores(x.class_logits[-1], x.mask_logits[-1], size) for x in (kept, exact)
    )
    more = counts(last)
    return [*taps, compare("class_scores", view, ours, theirs, tolerance, exact=truth, **more)]
