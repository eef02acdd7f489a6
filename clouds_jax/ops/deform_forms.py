"""The two layouts in which deformable attention gathers values and scatters gradients.

"rows": the table is the values themselves, one row of e channels per position and head. Four
    gathers per level and point, fused into one sum. No temporaries; best on CPU, first choice on
    GPU.
"packed": every row holds the 2x2 neighbourhood of a pixel, 4 * e channels (128 for e = 32: one
    vector row of a TPU). One gather per level and point, for four times the memory.

Both are a `table` of rows and, per sample, `slots` that say which row counts with which
coefficients, so one forward and one backward serve them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from clouds_jax.ops.sampling import corners_of

Sizes = tuple[tuple[int, int], ...]
Slot = tuple[Int[Array, "b q n"], tuple[Float[Array, "b q n"], ...]]


class Form(NamedTuple):
    """A layout.

    Attributes:
        table: (sizes, values) -> rows of `width` vectors of e channels; linear in the values.
        slots: (sizes, points, weights) -> for every sample the row of each (b, q, n) and the
            coefficients of the row's vectors.
    """

    table: Callable[[Sizes, Array], Array]
    slots: Callable[[Sizes, Array, Array], list[Slot]]


def _plain_table(sizes: Sizes, values: Float[Array, "b s n e"]) -> Float[Array, "rows e"]:
    del sizes
    return values.reshape(-1, values.shape[-1])


def _plain_slots(sizes: Sizes, points: Array, weights: Array) -> list[Slot]:
    b, _, n, _, count, _ = points.shape
    total = sum(h * w for h, w in sizes)
    slots = []
    start = 0
    for level, (h, w) in enumerate(sizes):
        for i in range(count):
            weight = weights[:, :, :, level, i].astype(jnp.float32)
            for pixel, part in corners_of(points[:, :, :, level, i], h, w):
                slots.append((_row(b, n, total, start + pixel), (part * weight,)))
        start += h * w
    return slots


def _packed_table(sizes: Sizes, values: Float[Array, "b s n e"]) -> Float[Array, "rows 4*e"]:
    b, _, n, e = values.shape
    levels = []
    start = 0
    for h, w in sizes:
        level = values[:, start : start + h * w].reshape(b, h, w, n, e)
        level = jnp.pad(level, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))
        # Row (y, x) holds the pixels (y - 1, x - 1), (y - 1, x), (y, x - 1), (y, x).
        around = [level[:, :-1, :-1], level[:, :-1, 1:], level[:, 1:, :-1], level[:, 1:, 1:]]
        levels.append(jnp.concatenate(around, axis=-1).reshape(b, (h + 1) * (w + 1), n, 4 * e))
        start += h * w
    return jnp.concatenate(levels, axis=1).reshape(-1, 4 * e)


def _packed_slots(sizes: Sizes, points: Array, weights: Array) -> list[Slot]:
    b, _, n, _, count, _ = points.shape
    total = sum((h + 1) * (w + 1) for h, w in sizes)
    slots = []
    start = 0
    for level, (h, w) in enumerate(sizes):
        for i in range(count):
            weight = weights[:, :, :, level, i].astype(jnp.float32)
            point = points[:, :, :, level, i].astype(jnp.float32)
            x, y = point[..., 0] * w - 0.5, point[..., 1] * h - 0.5
            x0, y0 = jnp.floor(x), jnp.floor(y)
            right, down = x - x0, y - y0
            inside = (x0 >= -1) & (x0 < w) & (y0 >= -1) & (y0 < h)
            ix = jnp.clip(x0 + 1, 0, w).astype(jnp.int32)
            iy = jnp.clip(y0 + 1, 0, h).astype(jnp.int32)
            up, left = 1 - down, 1 - right
            parts = (up * left, up * right, down * left, down * right)
            row = _row(b, n, total, start + iy * (w + 1) + ix)
            slots.append((row, tuple(jnp.where(inside, part * weight, 0) for part in parts)))
        start += (h + 1) * (w + 1)
    return slots


def _row(b: int, n: int, total: int, position: Int[Array, "b q n"]) -> Int[Array, "b q n"]:
    """Table row of a position of every image and head."""
    image = jnp.arange(b, dtype=jnp.int32)[:, None, None]
    head = jnp.arange(n, dtype=jnp.int32)[None, None, :]
    return (image * total + position) * n + head


FORMS = {
    "rows": Form(_plain_table, _plain_slots),
    "packed": Form(_packed_table, _packed_slots),
}


def forward(
    form: Form,
    sizes: Sizes,
    values: Float[Array, "b s n e"],
    points: Float[Array, "b q n l p 2"],
    weights: Float[Array, "b q n l p"],
) -> Float[Array, "b q n e"]:
    """The attention, in float32."""
    e = values.shape[-1]
    table = form.table(sizes, values)
    out = jnp.zeros(())
    for row, parts in form.slots(sizes, points, weights):
        vectors = table.at[row].get(mode="promise_in_bounds").astype(jnp.float32)
        for i, part in enumerate(parts):
            out = out + vectors[..., i * e : (i + 1) * e] * part[..., None]
    return out


def backward(
    form: Form,
    sizes: Sizes,
    values: Float[Array, "b s n e"],
    points: Float[Array, "b q n l p 2"],
    weights: Float[Array, "b q n l p"],
    cotangent: Float[Array, "b q n e"],
) -> tuple[Array, Array, Array]:
    """The gradients of values, points and weights, sums in float32.

    One sample after the other, so that no more than one gather is ever held in memory.
    """
    e = values.shape[-1]
    table, unpack = jax.vjp(lambda v: form.table(sizes, v), values.astype(jnp.float32))
    cotangent = cotangent.astype(jnp.float32)

    def coefficients(points, weights):
        slots = form.slots(sizes, points, weights)
        parts = jnp.stack([jnp.stack(parts) for _, parts in slots])
        return parts, jnp.stack([row for row, _ in slots])

    parts, pull, rows = jax.vjp(coefficients, points, weights, has_aux=True)

    def dots(row):
        vectors = table.at[row].get(mode="promise_in_bounds")
        return jnp.stack(
            [
                jnp.einsum("bqne,bqne->bqn", vectors[..., i * e : (i + 1) * e], cotangent)
                for i in range(parts.shape[1])
            ]
        )

    def scatter(total, slot):
        row, parts = slot
        shares = jnp.concatenate([cotangent * part[..., None] for part in parts], axis=-1)
        return total.at[row].add(shares, mode="promise_in_bounds"), None

    # Two loops: one that gathers and scatters in the same turn takes 1.4 times as long on CPU.
    to_parts = lax.map(dots, rows)
    total, _ = lax.scan(scatter, jnp.zeros_like(table), (rows, parts))
    (to_values,) = unpack(total)
    return to_values, *pull(to_parts)
