"""Points at which masks are compared: random ones, most of them where the mask is uncertain.

Every draw depends only on an example's key and the number of the decoder output, so results do not
depend on how a batch is distributed over devices.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from clouds_jax.ops import lowest_k, sampling


@typing.no_type_check  # JAX also fills a pytree with shardings and shape structs
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draw:
    """Random points of one decoder output, (x, y) in [0, 1] of the map.

    Attributes:
        candidates: c points per mask, among which the uncertain ones are chosen.
        random: r points per mask, used as they are.
    """

    candidates: Float[Array, "b m c 2"]
    random: Float[Array, "b m r 2"]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Points per mask.

    Attributes:
        candidates: points among which the uncertain ones are chosen.
        uncertain: points chosen.
        random: further points, used as they are.

    Source: detectron2 PointRend, get_uncertain_point_coords_with_randomness.
    """

    candidates: int
    uncertain: int
    random: int

    @classmethod
    def of(cls, num_points: int, *, oversample: float, importance: float) -> "Counts":
        """Counts for `num_points` points per mask, rounded as in the original.

        Args:
            num_points: uncertain and random points together.
            oversample: candidates per point.
            importance: share of the points that are uncertain ones.

        Raises:
            ValueError: there would be more uncertain points than candidates or points.
        """
        candidates, uncertain = int(num_points * oversample), int(importance * num_points)
        if not 0 <= uncertain <= min(candidates, num_points):
            raise ValueError(
                f"oversample={oversample} gives {candidates} candidates for {num_points} points, "
                f"of which importance={importance} makes {uncertain} uncertain ones; importance "
                "must lie in 0..1 and not exceed oversample."
            )
        return cls(candidates, uncertain, num_points - uncertain)


def match_points(
    keys: Key[Array, " b"], output: Int[Array, ""] | int, count: int
) -> Float[Array, "b p 2"]:
    """Draws `count` uniform points per example, for the matching of one decoder output."""
    return jax.vmap(lambda key: _uniform(_key(key, output, 0), (count,)))(keys)


def draw(keys: Key[Array, " b"], output: Int[Array, ""] | int, masks: int, counts: Counts) -> Draw:
    """Draws uniform points for the mask losses of one decoder output, separately for every mask."""

    def draw_one(key):
        return Draw(
            _uniform(_key(key, output, 1), (masks, counts.candidates)),
            _uniform(_key(key, output, 2), (masks, counts.random)),
        )

    return jax.vmap(draw_one)(keys)


def choose_uncertain(
    planes: Float[Array, "b m h w"], points: Draw, counts: Counts
) -> Float[Array, "b m p 2"]:
    """The candidates whose logits are nearest to zero, then the random points; no gradient.

    The chosen points are gathered here and sampled again for the loss. Masking the candidates would
    save the second sampling, but the gradient would scatter into the map from three times as many
    points, for 1.25 times the time of the mask losses on CPU.

    Args:
        planes: logits of each mask.
        points: those of `draw`.
        counts: number of candidates to choose.

    Returns:
        (x, y) in [0, 1] of the map, p = counts.uncertain + counts.random.
    """
    certainty = jnp.abs(sampling.sample_planes(jax.lax.stop_gradient(planes), points.candidates))
    chosen = lowest_k.lowest_k_mask(certainty, counts.uncertain)
    b, m, c = chosen.shape

    # A threshold and a compaction; order is irrelevant, and lax.top_k, which sorts, 3 times slower.
    index = jax.vmap(lambda row: jnp.nonzero(row, size=counts.uncertain)[0])(chosen.reshape(-1, c))
    index = index + c * jnp.arange(b * m)[:, None]
    uncertain = points.candidates.reshape(-1, 2).at[index].get(mode="promise_in_bounds")
    return jnp.concatenate([uncertain.reshape(b, m, -1, 2), points.random], axis=2)


def _key(key: Key[Array, ""], output: Int[Array, ""] | int, use: int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.fold_in(key, output), use)


def _uniform(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*n 2"]:
    """Uniform points on a grid of 65,536 by 65,536 cells.

    A point takes 32 random bits, half as many as two floats. A cell is 1/85 of a pixel of a label
    768 wide.
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    x_and_y = jnp.stack([bits >> 16, bits & 0xFFFF], axis=-1)
    return (x_and_y.astype(jnp.float32) + 0.5) / 65_536
