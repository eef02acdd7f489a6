"""Which query answers for which target mask: costs at random points, then the optimal assignment.

Nothing here has a gradient. The costs of all decoder outputs and examples are solved by one
batched call: solvers loop, and a loop over 80 problems at once is no longer than the longest one.
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
        cls: classification.
        mask: binary cross-entropy of the mask.
        dice: overlap of the mask.
        no_object: weight of an unmatched query inside the classification loss.

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
    """Cost of letting each query answer for each class's mask; all pairs share the points.

    Args:
        class_logits: of one decoder output; the last class is no-object.
        mask_logits: of the same output.
        targets: slot m of the result is the mask `label == m`, present or not.
        points: (x, y) in [0, 1].

    Source: CLOUDS `matcher.py` (Mask2Former), memory_efficient_forward.
    """
    classes = targets.present.shape[1]
    logits = sampling.grid_sample(mask_logits, points).astype(jnp.float32)
    target = sampling.sample_classes(targets.label, points, classes).astype(jnp.float32)
    positive, share = softplus(logits), jax.nn.sigmoid(logits)
    count = points.shape[1]
    if targets.ignore is not None:  # the target is 0 at pixels of no class
        counted = counted_points(targets, points[:, None])[:, 0]
        positive, share = positive * counted[..., None], share * counted[..., None]
        count = jnp.maximum(counted.sum(1), 1)[:, None, None]

    # Cross-entropy softplus(x) - x t is linear in the target: one product serves all pairs.
    cross = jnp.einsum("bpq,bpk->bqk", logits, target)
    mask = (positive.sum(1)[:, :, None] - cross) / count

    overlap = jnp.einsum("bpq,bpk->bqk", share, target)
    area = share.sum(1)[:, :, None] + target.sum(1)[:, None, :]
    dice = 1 - (2 * overlap + 1) / (area + 1)

    chance = jax.nn.softmax(class_logits.astype(jnp.float32), axis=-1)[..., :classes]
    return weights.mask * mask + weights.dice * dice - weights.cls * chance


def softplus(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """log(1 + exp(x)), the cross-entropy of a logit with target 0.

    jax.nn.softplus also tells infinities of different signs apart; this takes half of its time.
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def counted_points(targets: Targets, points: Float[Array, "b m p 2"]) -> Float[Array, "b m p"]:
    """How far each point takes part in the mask losses: 1, or less near ignored pixels."""
    assert targets.ignore is not None
    unlabelled = jnp.full(points.shape[1], IGNORE)
    share = sampling.sample_targets(targets.label, points, unlabelled)
    return jnp.where(targets.ignore[:, None, None], 1 - share, 1.0)


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
        prediction: of the head.
        targets: masks, by class.
        keys: one per example; the number of the output is folded in, so every output of every
            example has its own points (`points.match_points`).
        weights: of the costs.
        num_points: per output and example.
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
