"""Where masks are compared: random points, most of them where the prediction is uncertain.

Every draw depends on one example's key and the number of the decoder output only, so results do
not depend on how a batch is spread over devices.
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
    """Points of one decoder output, (x, y) in [0, 1].

    Attributes:
        candidates: the uncertain points are chosen among these.
        random: used as they are.
    """

    candidates: Float[Array, "b m c 2"]
    random: Float[Array, "b m r 2"]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Points per mask: `uncertain` out of `candidates`, and `random` fresh ones.

    Source: detectron2 PointRend, get_uncertain_point_coords_with_randomness.
    """

    candidates: int
    uncertain: int
    random: int

    @classmethod
    def of(cls, num_points: int, *, oversample: float, importance: float) -> "Counts":
        """Counts for `num_points` in all, rounded as the original rounds them."""
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
    """Uniform points for the matching of one decoder output."""
    return jax.vmap(lambda key: _uniform(_key(key, output, 0), (count,)))(keys)


def draw(keys: Key[Array, " b"], output: Int[Array, ""] | int, masks: int, counts: Counts) -> Draw:
    """Uniform points for the mask losses of one decoder output, other ones for every mask."""

    def of(key):
        return Draw(
            _uniform(_key(key, output, 1), (masks, counts.candidates)),
            _uniform(_key(key, output, 2), (masks, counts.random)),
        )

    return jax.vmap(of)(keys)


def choose_uncertain(
    planes: Float[Array, "b m h w"], points: Draw, counts: Counts
) -> Float[Array, "b m p 2"]:
    """The candidates where the logit is nearest to zero, then the random points; no gradient.

    The chosen ones are copied together and sampled again for the loss. Masking the candidates
    instead would save that, but the gradient then scatters into the map from all of them: three
    times as many points, and 1.25 times the time of the mask losses on CPU.

    Args:
        planes: logits of each mask.
        points: as of `draw`.
        counts: how many candidates to choose.
    """
    doubt = jnp.abs(sampling.sample_planes(jax.lax.stop_gradient(planes), points.candidates))
    chosen = lowest_k.lowest_k_mask(doubt, counts.uncertain)
    b, m, c = chosen.shape

    # A threshold and a compaction: lax.top_k sorts, 3 times slower, and order does not matter.
    place = jax.vmap(lambda row: jnp.nonzero(row, size=counts.uncertain)[0])(chosen.reshape(-1, c))
    place = place + c * jnp.arange(b * m)[:, None]
    uncertain = points.candidates.reshape(-1, 2).at[place].get(mode="promise_in_bounds")
    return jnp.concatenate([uncertain.reshape(b, m, -1, 2), points.random], axis=2)


def _key(key: Key[Array, ""], output: Int[Array, ""] | int, use: int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.fold_in(key, output), use)


def _uniform(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*n 2"]:
    """Points on a grid of 65,536 by 65,536 cells: 32 random bits make one, half of the usual cost.

    A cell is 1/85 of a pixel of a label 768 wide.
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    x_and_y = jnp.stack([bits >> 16, bits & 0xFFFF], axis=-1)
    return (x_and_y.astype(jnp.float32) + 0.5) / 65_536
