"""The geometric ensemble of a trained classifier with CLIP's own opinion of a mask."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SMALLEST = 1e-8  # probability added before the last logarithm


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
