"""The ways to gather and scatter in deformable attention, one per platform.

"rows": one row gather per level, point and corner, summed as it goes: the least memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from clouds_jax.ops.sampling import corners_of


class Form(NamedTuple):
    """forward(sizes, values, points, weights) -> out;
    backward(sizes, values, points, weights, cotangent) -> gradients of the three."""

    forward: Callable
    backward: Callable


def _rows_forward(sizes, values, points, weights):
    b, s, n, e = values.shape
    table = values.reshape(b * s * n, e)
    base = jnp.arange(b)[:, None, None] * (s * n) + jnp.arange(n)[None, None, :]
    out = 0.0
    start = 0
    for level, (h, w) in enumerate(sizes):
        for point in range(points.shape[4]):
            weight = weights[:, :, :, level, point].astype(jnp.float32)
            for index, part in corners_of(points[:, :, :, level, point], h, w):
                row = base + (start + index) * n
                value = table.at[row].get(mode="promise_in_bounds").astype(jnp.float32)
                out = out + value * (part * weight)[..., None]
        start += h * w
    return out


def _rows_backward(sizes, values, points, weights, cotangent):
    def forward(values, points, weights):
        return _rows_forward(sizes, values, points, weights)

    _, vjp = jax.vjp(forward, values, points, weights)
    return vjp(cotangent.astype(jnp.float32))


_ROWS = Form(_rows_forward, _rows_backward)
FORMS = {"planar": _ROWS, "rows": _ROWS, "packed": _ROWS}
