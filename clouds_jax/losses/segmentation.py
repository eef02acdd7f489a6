"""The losses of a segmentation head: the set loss of Mask2Former, and cross-entropy per pixel.

Both return this device's part of the sum, divided by normalisers of the whole batch: adding the
parts of all devices gives the loss, whatever their number. `reduce` adds the normalisers.

Terms of the set loss are named as in the original: `loss_ce`, `loss_mask`, `loss_dice` belong to
the last decoder output, a suffix `_0` ... to the earlier ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from clouds_jax.losses import points as losses_points
from clouds_jax.losses.matching import LossWeights, counted_points, match, softplus
from clouds_jax.ops import resize, sampling
from clouds_jax.typing import Metrics, Prediction, Targets

Reduce = Callable[[Array], Array]
WEIGHTS = LossWeights()


def _local(x: Array) -> Array:
    return x


def set_loss(
    prediction: Prediction,
    targets: Targets,
    keys: Key[Array, " b"],
    *,
    weights: LossWeights = WEIGHTS,
    num_points: int = 12_544,
    oversample: float = 3.0,
    importance: float = 0.75,
    reduce: Reduce = _local,
) -> tuple[Float[Array, ""], Metrics]:
    """Matches queries to target masks and adds class, mask and dice loss of all decoder outputs.

    Args:
        prediction: of the head, all outputs.
        targets: masks, by class. Pixels outside a target mask are negatives for it, ignored ones
            too: the original has no ignore region. `Targets.ignore` says otherwise.
        keys: one per example.
        weights: of the terms.
        num_points: per mask, for the matching and for the losses.
        oversample: candidates per point of the losses.
        importance: share of the points taken where the mask is most uncertain.
        reduce: adds a scalar over all devices.

    Returns:
        The total, and its weighted terms by name; parts of this device (see the module).

    Source: CLOUDS `criterion.py` (Mask2Former), SetCriterion.
    """
    query = match(prediction, targets, keys, weights=weights, num_points=num_points)
    count = targets.present.sum().astype(jnp.float32)
    masks = jnp.maximum(reduce(count), 1.0)

    cls = class_loss(prediction.class_logits, query, no_object=weights.no_object, reduce=reduce)
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
    return sum(term.sum() for term in terms.values()), metrics


def class_loss(
    class_logits: Float[Array, "o b q k1"],
    query: Int[Array, "o b k"],
    *,
    no_object: float,
    reduce: Reduce = _local,
) -> Float[Array, " o"]:
    """Cross-entropy of all queries, unmatched ones belonging to no-object.

    Args:
        class_logits: the last class is no-object.
        query: of each class, -1 where absent.
        no_object: weight of an unmatched query, others have 1.
        reduce: adds over all devices.

    Returns:
        Per decoder output the mean weighted by the class weights of the targets, as
        torch.nn.functional.cross_entropy(weight=...) defines it.
    """
    *_, queries, width = class_logits.shape
    matched = query[..., None] == jnp.arange(queries)[None, None, None]  # o b k q
    target = jnp.where(matched.any(axis=2), matched.argmax(axis=2), width - 1)
    weight = jnp.where(target == width - 1, no_object, 1.0)
    log_chance = jax.nn.log_softmax(class_logits.astype(jnp.float32), axis=-1)
    wrong = -jnp.take_along_axis(log_chance, target[..., None], axis=-1)[..., 0]
    return (weight * wrong).sum(axis=(1, 2)) / reduce(weight.sum(axis=(1, 2)))


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
        targets: masks, by class.
        query: of each class, -1 where absent; absent classes add nothing.
        points: candidates and random points of every class.
        counts: how many candidates to choose.
    """
    planes = sampling.select_channels(maps, query)
    where = losses_points.choose_uncertain(planes, points, counts)
    classes = jnp.arange(targets.present.shape[1])
    target = sampling.sample_targets(targets.label, where, classes).astype(jnp.float32)
    counted = None if targets.ignore is None else counted_points(targets, where)
    mask, dice = _compare(sampling.sample_planes(planes, where), target, counted)
    present = targets.present
    return jnp.where(present, mask, 0).sum(), jnp.where(present, dice, 0).sum()


@jax.checkpoint  # what lies between is as large as the logits, and made in no time
def _compare(
    logits: Float[Array, "b m p"],
    target: Float[Array, "b m p"],
    counted: Float[Array, "b m p"] | None,
) -> tuple[Float[Array, "b m"], Float[Array, "b m"]]:
    """Binary cross-entropy and dice loss of each mask from its points.

    Near ignored pixels a point counts for less. The target needs no factor: what it says there is
    of the pixels that count.
    """
    positive, share = softplus(logits), jax.nn.sigmoid(logits)
    count = logits.shape[-1]
    if counted is not None:
        positive, share = positive * counted, share * counted
        count = jnp.maximum(counted.sum(-1), 1)
    mask = (positive - logits * target).sum(axis=-1) / count
    overlap = (share * target).sum(axis=-1)
    dice = 1 - (2 * overlap + 1) / (share.sum(axis=-1) + target.sum(axis=-1) + 1)
    return mask, dice


def pixel_loss(
    logits: Float[Array, "b h4 w4 k"],
    targets: Targets,
    keys: Key[Array, " b"],
    *,
    reduce: Reduce = _local,
) -> tuple[Float[Array, ""], Metrics]:
    """Cross-entropy of every labelled pixel, for heads that score classes per pixel.

    Args:
        logits: class scores, brought to the size of the label bilinearly.
        targets: only the label is read; values beyond the classes are ignored.
        keys: not needed; every loss is called alike.
        reduce: adds a scalar over all devices.

    Returns:
        This device's sum over the number of labelled pixels of the whole batch, and it by name.
    """
    del keys
    height, width = targets.label.shape[1:]
    logits = resize.resize_bilinear(logits.astype(jnp.float32), (height, width))
    label = targets.label.astype(jnp.int32)
    known = label < logits.shape[-1]
    log_chance = jax.nn.log_softmax(logits, axis=-1)
    right = jnp.take_along_axis(log_chance, jnp.where(known, label, 0)[..., None], axis=-1)[..., 0]
    pixels = jnp.maximum(reduce(known.sum().astype(jnp.float32)), 1.0)
    loss = -jnp.where(known, right, 0).sum() / pixels
    return loss, {"loss_ce": loss}
