"""Softmax attention that recomputes its weights in the backward pass.

Source: the plain einsum with heads as a middle axis, 1.2 to 2.6 times faster on CPU than
    jax.nn.dot_product_attention. The written-out gradient is that of FlashAttention (Dao et al.
    2022), in one tile.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from clouds_jax.ops import dispatch

_BLOCKED = -1e30  # score of a key that a query may not attend to; finite, so no row becomes NaN


def attend(
    query: Float[Array, "b q n e"],
    key: Float[Array, "b s n e"],
    value: Float[Array, "b s n e"],
    mask: Bool[Array, "#b #q s"] | None = None,
) -> Float[Array, "b q n e"]:
    """Attention of every query over all keys, scaled by 1 / sqrt(e).

    The backward pass recomputes the attention weights, so memory grows with q + s and not with
    their product. On CPU that gradient is written out, in 0.6 of the time of the derived one, and
    only reverse-mode differentiation works.

    Args:
        query: n heads of width e.
        key: n heads of width e.
        value: n heads of width e.
        mask: True where a query may attend, the same for all heads. A row without any True attends
            everywhere. None: no mask.

    Returns:
        Weighted means of the values, in their dtype; scores and softmax are float32.
    """
    if mask is not None:
        mask = mask | ~mask.any(-1, keepdims=True)
    implementation = dispatch.by_platform(cpu=_with_written_gradient, default=_rematerialised)
    return implementation(query * query.shape[-1] ** -0.5, key, value, mask)


def _scores(query: Array, key: Array, mask: Array | None) -> Float[Array, "b n q s"]:
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32)
    return scores if mask is None else jnp.where(mask[:, None], scores, _BLOCKED)


def _softmax_attention(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
    return _forward(query, key, value, mask)[0]


_rematerialised = jax.checkpoint(_softmax_attention)
_with_written_gradient = jax.custom_vjp(_softmax_attention)


def _forward(query: Array, key: Array, value: Array, mask: Array | None) -> tuple[Array, Any]:
    scores = _scores(query, key, mask)
    # The result does not depend on what is subtracted, hence no gradient through it.
    highest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    total = weights.sum(-1, keepdims=True)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
    out = (out / total.transpose(0, 2, 1, 3)).astype(value.dtype)
    return out, (query, key, value, mask, out, highest + jnp.log(total))


def _backward(residuals: Any, cotangent: Array) -> tuple[Array, Array, Array, None]:
    query, key, value, mask, out, log_total = residuals
    weights = jnp.exp(_scores(query, key, mask) - log_total)
    to_value = jnp.einsum("bhqk,bqhd->bkhd", weights.astype(value.dtype), cotangent)
    to_weights = jnp.einsum("bqhd,bkhd->bhqk", cotangent, value).astype(jnp.float32)
    mean = (cotangent.astype(jnp.float32) * out).sum(-1, keepdims=True).transpose(0, 2, 1, 3)
    to_scores = (weights * (to_weights - mean)).astype(query.dtype)
    to_query = jnp.einsum("bhqk,bkhd->bqhd", to_scores, key)
    to_key = jnp.einsum("bhqk,bqhd->bkhd", to_scores, query)
    return to_query, to_key, to_value, None


_with_written_gradient.defvjp(_forward, _backward)
