"""Standardisation over the last axis, the core of LayerNorm."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from clouds_jax.ops import dispatch


def standardise(x: Float[Array, "*n c"], *, eps: float) -> Float[Array, "*n c"]:
    """Subtracts the mean over the last axis and divides by sqrt(variance + `eps`).

    The variance is that of the population. On CPU the gradient is written out, in a fifth of the
    time of the derived one, and only reverse-mode differentiation works.

    Args:
        x: float32, for the statistics.
        eps: added to the variance.
    """
    return dispatch.by_platform(cpu=_with_written_gradient, default=_standardise)(eps, x)


def _standardise(eps: float, x: Array) -> Array:
    return _forward(eps, x)[0]


_with_written_gradient = jax.custom_vjp(_standardise, nondiff_argnums=(0,))


def _forward(eps: float, x: Array) -> tuple[Array, tuple[Array, Array]]:
    centred = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    y = centred * scale
    return y, (y, scale)


def _backward(eps: float, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array]:
    del eps
    y, scale = residuals
    # A dot product, since XLA's sum of products over the last axis is 15 times slower on CPU.
    share = jnp.einsum("...c,...c->...", cotangent, y, precision=jax.lax.Precision.HIGHEST)
    share = share[..., None] / y.shape[-1]
    return ((cotangent - cotangent.mean(-1, keepdims=True) - y * share) * scale,)


_with_written_gradient.defvjp(_forward, _backward)
