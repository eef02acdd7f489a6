"""Bilinear resizing of maps.

Source: torch.nn.functional.interpolate(mode="bilinear", align_corners=False, antialias=False).
    jax.image.resize differs: it averages over all covered pixels when it shrinks.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resize_bilinear(
    x: Float[Array, "b h w c"], size: tuple[int, int]
) -> Float[Array, "b {size[0]} {size[1]} c"]:
    """Resizes maps to `size` = (h, w), in the dtype of `x`."""
    out = x.astype(jnp.float32)
    for axis, n in ((1, size[0]), (2, size[1])):
        out = _resize_axis(out, axis, n)
    return out.astype(x.dtype)


def _resize_axis(x: Array, axis: int, n: int) -> Array:
    old = x.shape[axis]
    if old == n:
        return x
    at = np.clip((np.arange(n) + 0.5) * (old / n) - 0.5, 0, None)
    low = np.minimum(np.floor(at).astype(np.int32), old - 1)
    high = np.minimum(low + 1, old - 1)
    shape = [1] * x.ndim
    shape[axis] = n
    part = (at - low).astype(np.float32).reshape(shape)
    return jnp.take(x, low, axis) * (1 - part) + jnp.take(x, high, axis) * part
