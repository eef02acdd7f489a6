"""Exact selection of the k smallest values without sorting, and a fast running sum."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from clouds_jax.ops import dispatch

_SIGN = np.uint32(0x8000_0000)
_INFINITY = np.uint32(0x7F80_0000)


def lowest_k_mask(values: Float[Array, "*b n"], k: int) -> Bool[Array, "*b n"]:
    """Marks the k smallest values of every row; of equal values, the first.

    The k-th smallest value is built bit by bit from the top: 32 counts instead of a sort (0.3 of
    the time of lax.top_k on CPU at n = 37,632, k = 9,408).

    Args:
        values: at most 32 bits wide; NaN counts as larger than infinity, -0.0 as equal to 0.0.
        k: number of values to mark, 0..n.

    Raises:
        ValueError: k lies outside 0..n.

    Source: replaces torch.topk in the point sampling of PointRend, where order does not matter.
    """
    n = values.shape[-1]
    if not 0 <= k <= n:
        raise ValueError(f"lowest_k_mask: k is {k}; rows of {n} values allow 0..{n}.")
    keys = _ordered_bits(values)

    def count(test):
        return jnp.sum(test, axis=-1, keepdims=True, dtype=jnp.int32)

    def set_bit(i, threshold):
        candidate = threshold | (_SIGN >> i.astype(jnp.uint32))
        return jnp.where(count(keys < candidate) < k, candidate, threshold)

    # The largest number with fewer than k keys below it: the k-th smallest key.
    start = jnp.zeros_like(keys[..., :1])
    threshold = lax.fori_loop(0, 32, set_bit, start)
    below = keys < threshold
    equal = keys == threshold
    room = k - count(below)
    first = running_sum(equal.astype(jnp.int32)) <= room
    return below | (equal & first)


def running_sum(x: Int[Array, "*b n"]) -> Int[Array, "*b n"]:
    """jnp.cumsum along the last axis, two to four times as fast on a CPU."""
    scan = functools.partial(lax.associative_scan, jnp.add)
    return dispatch.by_platform(cpu=scan, default=jnp.cumsum)(x, axis=-1)


def _ordered_bits(values: Float[Array, "*b n"]) -> UInt32[Array, "*b n"]:
    """Unsigned integers in the order of the floats."""
    bits = lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    # By bits: on some platforms comparisons of floats take subnormal numbers for 0.
    bits = jnp.where(bits == _SIGN, 0, bits)  # -0.0
    bits = jnp.where((bits & ~_SIGN) > _INFINITY, ~_SIGN, bits)  # any NaN
    return jnp.where(bits >= _SIGN, ~bits, bits | _SIGN)
