"""Where masks are compared: random points, most of them where the prediction is uncertain.

Every draw depends on one example's key and the number of the decoder output only, so results do
not depend on how a batch is spread over devices.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from clouds_jax.ops import sampling, select


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
    return jax.vmap(lambda key: jax.random.uniform(_key(key, output, 0), (count, 2)))(keys)


def draw(keys: Key[Array, " b"], output: Int[Array, ""] | int, masks: int, counts: Counts) -> Draw:
    """Uniform points for the mask losses of one decoder output, other ones for every mask."""

    def of(key):
        return Draw(
            jax.random.uniform(_key(key, output, 1), (masks, counts.candidates, 2)),
            jax.random.uniform(_key(key, output, 2), (masks, counts.random, 2)),
        )

    return jax.vmap(of)(keys)


def sample_uncertain(
    maps: Float[Array, "b h w q"],
    query: Int[Array, "b m"],
    points: Draw,
    counts: Counts,
) -> tuple[Float[Array, "b m p"], Float[Array, "b m p 2"], Bool[Array, "b m p"]]:
    """Logits at all points, the points, and which of them count.

    The candidates that count are the `counts.uncertain` with the smallest |logit|. The others stay
    in the arrays and are masked: a mean over points needs no compaction, and the logits sampled
    for the choice serve the loss as well.
    """
    everywhere = jnp.concatenate([points.candidates, points.random], axis=2)
    logits = sampling.sample_channels(maps, query, everywhere).astype(jnp.float32)
    doubt = jnp.abs(jax.lax.stop_gradient(logits[..., : counts.candidates]))
    chosen = select.lowest_k_mask(doubt, counts.uncertain)
    used = jnp.concatenate([chosen, jnp.ones(points.random.shape[:-1], bool)], axis=2)
    return logits, everywhere, used


def _key(key: Key[Array, ""], output: Int[Array, ""] | int, use: int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.fold_in(key, output), use)
