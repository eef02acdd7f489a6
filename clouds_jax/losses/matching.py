"""Bipartite matching of queries to target masks: costs at random points, optimal assignment.

No gradient flows through the matching. The problems of all decoder outputs and examples are solved
by one batched call, whose loop is as long as that of the longest problem.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from clouds_jax.constants import IGNORE
from clouds_jax.losses import points as losses_points
from clouds_jax.ops import assignment, sampling
from clouds_jax.typing import Prediction, Targets


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; the first three also weigh the matching costs.

    Attributes:
        cls: weight of the classification loss.
        mask: weight of the mask's binary cross-entropy.
        dice: weight of the mask's dice loss.
        no_object: class weight of no-object inside the classification loss; the others have 1.

    Source: Mask2Former and CLOUDS, CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT, NO_OBJECT_WEIGHT.
    """

    cls: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    no_object: float = 0.1


def match_costs(
    class_logits: Float[Array, "b q k1"],
    mask_logits: Float[Array, "b h4 w4 q"],
    targets: Targets,
    points: Float[Array, "b p 2"],
    *,
    weights: LossWeights,
) -> Float[Array, "b q k"]:
    """Costs of matching each query to each class's mask; all pairs share the points.

    Args:
        class_logits: of one decoder output; the last class is no-object.
        mask_logits: of the same output.
        targets: target masks; column m of the result is the mask `label == m`, present or not.
        points: (x, y) in [0, 1] of the map.
        weights: of the costs.

    Source: CLOUDS `matcher.py` (Mask2Former), memory_efficient_forward.
    """
    classes = targets.present.shape[1]
    logits = sampling.grid_sample(mask_logits, points).astype(jnp.float32)
    target = sampling.sample_classes(targets.label, points, classes).astype(jnp.float32)
    as_negative, probability = softplus(logits), jax.nn.sigmoid(logits)
    count = points.shape[1]
    if targets.ignore is not None:  # the target is 0 at pixels of no class
        counted = counted_points(targets, points[:, None])[:, 0]
        as_negative = as_negative * counted[..., None]
        probability = probability * counted[..., None]
        count = jnp.maximum(counted.sum(1), 1)[:, None, None]

    # Cross-entropy softplus(x) - x t is linear in the target: one product serves all pairs.
    cross = jnp.einsum("bpq,bpk->bqk", logits, target)
    mask = (as_negative.sum(1)[:, :, None] - cross) / count

    overlap = jnp.einsum("bpq,bpk->bqk", probability, target)
    area = probability.sum(1)[:, :, None] + target.sum(1)[:, None, :]
    dice = 1 - (2 * overlap + 1) / (area + 1)

    classified = jax.nn.softmax(class_logits.astype(jnp.float32), axis=-1)[..., :classes]
    return weights.mask * mask + weights.dice * dice - weights.cls * classified


def softplus(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """log(1 + exp(x)), the cross-entropy of a logit with target 0.

    In half the time of jax.nn.softplus, which also handles infinities.
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def counted_points(targets: Targets, points: Float[Array, "b m p 2"]) -> Float[Array, "b m p"]:
    """Weight of each point in the mask losses: 1, or less near ignored pixels.

    Args:
        targets: with `ignore`.
        points: (x, y) in [0, 1] of the map.
    """
    assert targets.ignore is not None
    unlabelled = jnp.full(points.shape[1], IGNORE)
    ignored = sampling.sample_targets(targets.label, points, unlabelled)
    return jnp.where(targets.ignore[:, None, None], 1 - ignored, 1.0)


def match(
    prediction: Prediction,
    targets: Targets,
    keys: Key[Array, " b"],
    *,
    weights: LossWeights,
    num_points: int,
) -> Int[Array, "o b k"]:
    """The query of each class's mask, for every decoder output; -1 where the class is absent.

    Args:
        prediction: the head's, of all outputs.
        targets: target masks, by class.
        keys: one per example; the number of the output is folded in, so every output of every
            example has its own points (`points.match_points`).
        weights: of the costs.
        num_points: points per output and example.
    """

    def costs(xs):
        output, class_logits, mask_logits = xs
        points = losses_points.match_points(keys, output, num_points)
        return match_costs(class_logits, mask_logits, targets, points, weights=weights)

    prediction = jax.lax.stop_gradient(prediction)
    outputs, batch, queries, _ = prediction.class_logits.shape
    cost = jax.lax.map(
        costs, (jnp.arange(outputs), prediction.class_logits, prediction.mask_logits)
    )
    present = jnp.broadcast_to(targets.present[None], (outputs, *targets.present.shape))
    query = assignment.assign(
        cost.reshape(outputs * batch, queries, -1), present.reshape(outputs * batch, -1)
    )
    return query.reshape(present.shape)
