"""Logits of text classifiers: cosines, maximum over synonyms, ensemble with zero-shot CLIP."""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_EPSILON = 1e-8  # added to probabilities before the last logarithm of the ensemble
_MAX_SCALE = 100.0  # CLIP's bound of exp(logit_scale)
_MIN_LENGTH = 1e-12  # shorter vectors are divided by this, as by torch.nn.functional.normalize


def unit(x: Float[Array, "*n v"]) -> Float[Array, "*n v"]:
    """Scales vectors to length 1; the zero vector stays, with a finite gradient."""
    length = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(length, _MIN_LENGTH**2))


def cosine_logits(
    x: Float[Array, "*n v"], rows: Float[Array, "r v"], logit_scale: Float[Array, ""]
) -> Float[Array, "*n r"]:
    """Cosine similarities with rows of unit length, times exp(`logit_scale`), at most times 100."""
    scale = jnp.minimum(jnp.exp(logit_scale), _MAX_SCALE)
    return scale * jnp.einsum("...v,rv->...r", unit(x), rows)


def max_over_names(
    logits: Float[Array, "*n r"], class_of_row: tuple[int, ...]
) -> Float[Array, "*n k"]:
    """The largest logit among the names of each class.

    Args:
        logits: one per row, a name of a class.
        class_of_row: class of each row, ascending.
    """
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
    """Logits whose softmax is the weighted geometric mean of a trained classifier and CLIP.

    The mean is taken among the classes; the probability of no-object is the trained classifier's
    alone. Computed in logarithms, so a class that one side excludes entirely gets a very negative
    logit, and never an infinite or undefined one.

    Args:
        trained: logits of the trained classifier; the last class is no-object.
        clip: logits of zero-shot CLIP for the classes.
        share: exponent of CLIP in the mean, 0..1.

    Source: FC-CLIP (Apache-2.0), whose out-of-vocabulary branch is here `clip`.
    """
    of_trained = jax.nn.log_softmax(trained[..., :-1])
    of_clip = jax.nn.log_softmax(clip)
    classes = jax.nn.softmax((1 - share) * of_trained + share * of_clip)
    no_object = jax.nn.softmax(trained)[..., -1:]
    return jnp.log(jnp.concatenate([classes * (1 - no_object), no_object], -1) + _EPSILON)
