"""The losses of a segmentation head: the set loss of Mask2Former, and cross-entropy per pixel.

Each returns the given examples' part of the sum, divided by the totals of the whole batch, so the
parts of all devices and of all portions of an accumulated batch add up to the loss.

Terms of the set loss are named as in the original: `loss_ce`, `loss_mask` and `loss_dice` belong to
the last decoder output, those with a suffix `_0`, `_1`, ... to the earlier ones.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from clouds_jax.losses import points as losses_points
from clouds_jax.losses.matching import LossWeights, counted_points, match, softplus
from clouds_jax.ops import resize, sampling
from clouds_jax.typing import Metrics, Prediction, Targets

WEIGHTS = LossWeights()


@typing.no_type_check  # JAX also fills a pytree with shardings and shape structs
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Totals:
    """What losses are divided by, counted over a batch; known before any prediction.

    Attributes:
        images: examples that are no padding.
        masks: target masks.
        pixels: labelled pixels.
    """

    images: Float[Array, ""]
    masks: Float[Array, ""]
    pixels: Float[Array, ""]

    @classmethod
    def of(cls, targets: Targets) -> "Totals":
        """The totals of some examples; those of portions of a batch add up."""
        b, classes = targets.present.shape
        images = jnp.float32(b) if targets.counted is None else _count(targets.counted)
        return cls(images, _count(targets.present), _count(targets.label < classes))

    def class_weights(self, queries: int, no_object: float) -> Float[Array, ""]:
        """Sum of the weights of all queries in the class loss: each mask has a query of its own."""
        return self.images * (queries * no_object) + self.masks * (1 - no_object)


def _count(of: Bool[Array, "..."]) -> Float[Array, ""]:
    return of.sum().astype(jnp.float32)


def set_loss(
    prediction: Prediction,
    targets: Targets,
    keys: Key[Array, " b"],
    *,
    weights: LossWeights = WEIGHTS,
    num_points: int = 12_544,
    oversample: float = 3.0,
    importance: float = 0.75,
    totals: Totals | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Matches queries to target masks and sums class, mask and dice losses of all decoder outputs.

    Args:
        prediction: the head's, of all outputs.
        targets: target masks, by class. Pixels outside a mask are negatives for it, also those
            labelled 255, as in the original; `Targets.ignore` excludes the latter.
        keys: one per example, for the points.
        weights: of the terms.
        num_points: points per mask, for the matching and for the losses.
        oversample: candidates per point of the losses.
        importance: share of the points that lie where the mask is most uncertain.
        totals: of the batch that the examples are a part of; None: they are all of it.

    Returns:
        The total and its weighted terms by name; these examples' parts, see the module.

    Source: CLOUDS `criterion.py` (Mask2Former), SetCriterion.
    """
    query = match(prediction, targets, keys, weights=weights, num_points=num_points)
    totals = totals or Totals.of(targets)
    masks = jnp.maximum(totals.masks, 1.0)
    queries = prediction.class_logits.shape[2]

    cls = class_loss(
        prediction.class_logits, query, no_object=weights.no_object, counted=targets.counted,
        total=totals.class_weights(queries, weights.no_object),
    )  # fmt: skip
    counts = losses_points.Counts.of(num_points, oversample=oversample, importance=importance)

    def mask_losses(xs):
        output, maps, query = xs
        points = losses_points.draw(keys, output, targets.present.shape[1], counts)
        return mask_loss(maps, targets, query, points, counts)

    outputs = query.shape[0]
    mask, dice = jax.lax.map(mask_losses, (jnp.arange(outputs), prediction.mask_logits, query))
    terms = {
        "loss_ce": weights.cls * cls,
        "loss_mask": weights.mask * mask / masks,
        "loss_dice": weights.dice * dice / masks,
    }
    metrics = {}
    for output in range(outputs):
        suffix = "" if output == outputs - 1 else f"_{output}"
        metrics.update({name + suffix: term[output] for name, term in terms.items()})
    ce, mask, dice = (term.sum() for term in terms.values())
    return ce + mask + dice, metrics


def class_loss(
    class_logits: Float[Array, "o b q k1"],
    query: Int[Array, "o b k"],
    *,
    no_object: float,
    counted: Bool[Array, " b"] | None = None,
    total: Float[Array, ""] | None = None,
) -> Float[Array, " o"]:
    """Cross-entropy of all queries; the target of unmatched ones is no-object.

    Args:
        class_logits: the last class is no-object.
        query: matched query of each class, -1 where the class is absent.
        no_object: weight of an unmatched query; the others have 1.
        counted: examples that are no padding; None: all.
        total: sum of the weights over the whole batch; None: over these examples.

    Returns:
        The mean of each decoder output, weighted by the class weights of the targets, as
        torch.nn.functional.cross_entropy(weight=...) defines it.
    """
    *_, queries, width = class_logits.shape
    matched = query[..., None] == jnp.arange(queries)[None, None, None]  # o b k q
    target = jnp.where(matched.any(axis=2), matched.argmax(axis=2), width - 1)
    weight = jnp.where(target == width - 1, no_object, 1.0)
    if counted is not None:
        weight = weight * counted[None, :, None]
    log_probability = jax.nn.log_softmax(class_logits.astype(jnp.float32), axis=-1)
    entropy = -jnp.take_along_axis(log_probability, target[..., None], axis=-1)[..., 0]
    if total is None:
        total = weight.sum(axis=(1, 2))
    return (weight * entropy).sum(axis=(1, 2)) / total


def mask_loss(
    maps: Float[Array, "b h4 w4 q"],
    targets: Targets,
    query: Int[Array, "b k"],
    points: losses_points.Draw,
    counts: losses_points.Counts,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Binary cross-entropy and dice loss of the matched masks at the points, summed over masks.

    Args:
        maps: mask logits of one decoder output.
        targets: target masks, by class.
        query: matched query of each class, -1 where the class is absent; absent classes add 0.
        points: candidates and random points of every class.
        counts: number of candidates to choose.
    """
    planes = sampling.select_channels(maps, query)
    chosen = losses_points.choose_uncertain(planes, points, counts)
    classes = jnp.arange(targets.present.shape[1])
    target = sampling.sample_targets(targets.label, chosen, classes).astype(jnp.float32)
    counted = None if targets.ignore is None else counted_points(targets, chosen)
    mask, dice = _compare(sampling.sample_planes(planes, chosen), target, counted)
    present = targets.present
    return jnp.where(present, mask, 0).sum(), jnp.where(present, dice, 0).sum()


@jax.checkpoint  # intermediates are as large as the logits, and cheap to recompute
def _compare(
    logits: Float[Array, "b m p"],
    target: Float[Array, "b m p"],
    counted: Float[Array, "b m p"] | None,
) -> tuple[Float[Array, "b m"], Float[Array, "b m"]]:
    """Binary cross-entropy and dice loss of each mask.

    Args:
        logits: of the matched query at the points.
        target: value of the target mask at the points, 0..1.
        counted: weight of each point, below 1 near ignored pixels; None: 1. The target needs no
            such factor, since ignored pixels add 0 to it.
    """
    as_negative, probability = softplus(logits), jax.nn.sigmoid(logits)
    count = logits.shape[-1]
    if counted is not None:
        as_negative, probability = as_negative * counted, probability * counted
        count = jnp.maximum(counted.sum(-1), 1)
    mask = (as_negative - logits * target).sum(axis=-1) / count
    overlap = (probability * target).sum(axis=-1)
    dice = 1 - (2 * overlap + 1) / (probability.sum(axis=-1) + target.sum(axis=-1) + 1)
    return mask, dice


def pixel_loss(
    logits: Float[Array, "b h4 w4 k"],
    targets: Targets,
    keys: Key[Array, " b"],
    *,
    totals: Totals | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Mean cross-entropy over labelled pixels, for heads that classify every pixel.

    Args:
        logits: class logits, resized bilinearly to the label.
        targets: only the label is read; ids outside the classes are ignored.
        keys: unused; all losses share a signature.
        totals: of the batch that the examples are a part of; None: they are all of it.

    Returns:
        The loss, and the same by name; these examples' part, see the module.
    """
    del keys
    height, width = targets.label.shape[1:]
    logits = resize.resize_bilinear(logits.astype(jnp.float32), (height, width))
    label = targets.label.astype(jnp.int32)
    labelled = label < logits.shape[-1]
    log_probability = jax.nn.log_softmax(logits, axis=-1)
    index = jnp.where(labelled, label, 0)[..., None]
    of_label = jnp.take_along_axis(log_probability, index, axis=-1)[..., 0]
    pixels = jnp.maximum(_count(labelled) if totals is None else totals.pixels, 1.0)
    loss = -jnp.where(labelled, of_label, 0).sum() / pixels
    return loss, {"loss_ce": loss}
