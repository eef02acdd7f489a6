"""Logits of a text classifier: scaled cosines, and the maximum over the names of a class."""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_MAX_SCALE = 100.0  # CLIP's own bound of exp(logit_scale)
_SMALLEST = 1e-12  # length below which torch.nn.functional.normalize does not divide


def unit(x: Float[Array, "*n v"]) -> Float[Array, "*n v"]:
    """Vectors of length 1; the zero vector stays, with a finite gradient."""
    length = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(length, _SMALLEST**2))


def cosine_logits(
    x: Float[Array, "*n v"], rows: Float[Array, "r v"], logit_scale: Float[Array, ""]
) -> Float[Array, "*n r"]:
    """Cosines with unit vectors, times exp(`logit_scale`) but at most 100."""
    scale = jnp.minimum(jnp.exp(logit_scale), _MAX_SCALE)
    return scale * jnp.einsum("...v,rv->...r", unit(x), rows)


def max_over_names(
    logits: Float[Array, "*n r"], class_of_row: tuple[int, ...]
) -> Float[Array, "*n k"]:
    """The largest logit among the rows of each class; rows of a class are neighbours."""
    best, first = [], 0
    for _, rows in itertools.groupby(class_of_row):
        count = len(list(rows))
        best.append(logits[..., first : first + count].max(-1))
        first += count
    return jnp.stack(best, -1)
