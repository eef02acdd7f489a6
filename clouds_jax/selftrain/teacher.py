"""The teacher: a moving average of the head, in float32."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


@dataclasses.dataclass(frozen=True)
class Average:
    """How the teacher follows the student.

    Attributes:
        decay: weight of the old average at an update, 0..1.
        every: steps from one update to the next.
        warmup: start with the student itself and approach `decay` as 1 - 1 / (t + 1), where t
            counts the steps done.
    """

    decay: float = 0.999
    every: int = 100
    warmup: bool = False

    def __post_init__(self):
        if not 0 <= self.decay <= 1 or self.every < 1:
            raise ValueError(
                f"Average(decay={self.decay}, every={self.every}): decay lies in [0, 1], every is"
                " at least 1."
            )


def follow(teacher: Any, params: Any, step: Int[Array, ""], average: Average) -> Any:
    """The teacher of step `step`, from that of the step before and the student's weights.

    Source: CLOUDS (CVPR 2024), update of the EMA head at the beginning of a forward, every 100
        iterations; its warm-up is that of HRDA, which CLOUDS' code has switched off.
    """
    decay = jnp.float32(average.decay)
    if average.warmup:
        decay = jnp.minimum(1 - 1 / (step.astype(jnp.float32) + 1), decay)
    rate = jnp.where(step % average.every == 0, 1 - decay, 0.0)
    return jax.tree.map(
        lambda old, new: old + rate * (new.astype(jnp.float32) - old), teacher, params
    )
