"""Bilinear resizing of maps.

Source: torch.nn.functional.interpolate(mode="bilinear", align_corners=False, antialias=False).
    jax.image.resize differs: it averages over all covered pixels when it shrinks.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int


def resize_bilinear(
    x: Float[Array, "b h w c"], size: tuple[int, int]
) -> Float[Array, "b {size[0]} {size[1]} c"]:
    """Resizes maps to `size` (h, w), up or down, in the dtype of `x`; sums are float32.

    Pixels are gathered and blended, first along h, then along w. The gradient, written out, does
    the same with the transposed weights: the scatter that JAX would derive is slow on CPU.
    """
    out: Array = x.astype(jnp.float32)
    for axis, new in ((1, size[0]), (2, size[1])):
        if out.shape[axis] != new:
            out = cast(Array, _resize_axis(axis, out.shape[axis], new, out))
    return out.astype(x.dtype)


def resize_parts(
    x: Float[Array, "b h w c"],
    old: Int[Array, "b 2"],
    new: Int[Array, "b 2"],
    size: tuple[int, int],
) -> Float[Array, "b {size[0]} {size[1]} c"]:
    """Resizes the top left part of each map, as `resize_bilinear` would that part alone.

    Args:
        x: maps.
        old: (h, w) of the part of each map.
        new: (h, w) to which it is resized.
        size: (h, w) of the result, which beyond `new` means nothing.
    """
    out: Array = x.astype(jnp.float32)
    for axis, length in ((1, size[0]), (2, size[1])):
        out = _resize_part(axis, old[:, axis - 1, None], new[:, axis - 1, None], length, out)
    return out.astype(x.dtype)


def _resize_part(
    axis: int, old: Int[Array, "b 1"], new: Int[Array, "b 1"], length: int, x: Array
) -> Array:
    # In integers: float32 misses the places of a long side by 1e-4 pixels.
    place = (2 * jnp.arange(length, dtype=old.dtype)[None] + 1) * old - new
    place = jnp.clip(place, 0, 2 * new * (old - 1))  # in units of 1 / (2 new) pixels
    low = place // (2 * new)
    share = (place - low * 2 * new).astype(jnp.float32) / (2 * new).astype(jnp.float32)
    over = [d for d in range(x.ndim) if d not in (0, axis)]

    def pixels(at: Array) -> Array:
        return jnp.take_along_axis(x, lax.expand_dims(at, over), axis, mode="clip")

    share = lax.expand_dims(share, over)
    return pixels(low) * (1 - share) + pixels(jnp.minimum(low + 1, old - 1)) * share


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _resize_axis(axis: int, old: int, new: int, x: Array) -> Array:
    return _blend(_weights(old, new), axis, x)


def _resize_axis_forward(axis, old, new, x):
    return _resize_axis(axis, old, new, x), None


def _resize_axis_backward(axis, old, new, _, cotangent):
    return (_blend(_weights(old, new).T, axis, cotangent),)


_resize_axis.defvjp(_resize_axis_forward, _resize_axis_backward)


@functools.lru_cache(maxsize=64)
def _weights(old: int, new: int) -> Float[np.ndarray, "{new} {old}"]:
    """The matrix of a resize along one axis; a new pixel is a mean of at most two old ones."""
    at = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    low = np.minimum(np.floor(at).astype(int), old - 1)
    high = np.minimum(low + 1, old - 1)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(new), high), at - low)
    return matrix


def _blend(matrix: np.ndarray, axis: int, x: Array) -> Array:
    """`matrix` @ x along `axis`, as a sum of gathers of the few pixels with a nonzero weight."""
    taps = np.argsort(matrix == 0, axis=1, kind="stable")  # nonzero weights first
    taps = taps[:, : np.count_nonzero(matrix, axis=1).max()]
    weights = np.take_along_axis(matrix, taps, axis=1).astype(np.float32)
    out = jnp.zeros(())
    for tap, weight in zip(taps.T, weights.T, strict=True):
        pixels = jnp.take(x, tap.astype(np.int32), axis, mode="clip")
        out = out + pixels * lax.expand_dims(weight, [d for d in range(x.ndim) if d != axis])
    return out
