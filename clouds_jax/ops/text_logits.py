"""Logits of text classifiers: cosines, maximum over synonyms, ensemble with zero-shot CLIP."""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SMALLEST = 1e-8  # probability added before the last logarithm of the ensemble
_MAX_SCALE = 100.0  # CLIP's own bound of exp(logit_scale)
_SHORTEST = 1e-12  # length below which torch.nn.functional.normalize does not divide


def unit(x: Float[Array, "*n v"]) -> Float[Array, "*n v"]:
    """Vectors of length 1; the zero vector stays, with a finite gradient."""
    length = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(length, _SHORTEST**2))


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


def geometric_ensemble(
    trained: Float[Array, "b q k1"],
    clip: Float[Array, "b q k"],
    share: Float[Array, "b q k"],
) -> Float[Array, "b q k1"]:
    """Logits whose softmax is the weighted geometric mean of two classifiers.

    Each classifier votes among the classes alone; how likely a mask shows none of them is left to
    the trained one. In logarithms throughout, so that a class which one side excludes entirely
    has a very negative and never an infinite or undefined score.

    Args:
        trained: logits of the trained classifier; the last class is no-object.
        clip: logits of CLIP for the classes.
        share: of CLIP's vote, 0..1.

    Source: FC-CLIP (Apache-2.0), whose out-of-vocabulary branch is here `clip`.
    """
    inside = jax.nn.log_softmax(trained[..., :-1])
    outside = jax.nn.log_softmax(clip)
    votes = jax.nn.softmax((1 - share) * inside + share * outside)
    nothing = jax.nn.softmax(trained)[..., -1:]
    return jnp.log(jnp.concatenate([votes * (1 - nothing), nothing], -1) + _SMALLEST)
