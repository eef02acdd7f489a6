"""Multi-scale deformable attention: a weighted sum of values sampled at given points.

The gradient is written out on every platform: its residuals are the inputs alone, and pixel
indices and bilinear weights are recomputed in the backward pass. There are two implementations,
of which each platform uses the faster one:

"rows": the table is the values themselves, one row of e channels per position and head. Four
    gathers per level and point, fused into one sum, without temporaries. For CPU, and for the
    forward pass on GPU.
"packed": every row holds the 2x2 neighbourhood of a pixel, 4 * e channels (128 for e = 32: one
    vector row of a TPU). One gather per level and point, for four times the memory. For TPU, and
    for the backward pass on GPU.

Each is a `table` of rows and, per sample, `slots`: the row to read and the coefficients of its
vectors. One forward and one backward serve both.

Source: MSDeformAttn (Deformable DETR), as used by Mask2Former's pixel decoder.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from clouds_jax.ops import dispatch
from clouds_jax.ops.sampling import corners_at

Sizes = tuple[tuple[int, int], ...]
# rows of the table, and the coefficients of each vector of a row
Slots = tuple[Int[Array, "k b q n"], tuple[Float[Array, "k b q n"], ...]]


def deform_attn(
    values: Float[Array, "b s n e"],
    sizes: Sizes,
    points: Float[Array, "l p 2 b q n"],
    weights: Float[Array, "l p b q n"],
    *,
    implementation: str | None = None,
) -> Float[Array, "b q n e"]:
    """The sum, over levels and points, of `weights` times values sampled bilinearly at `points`.

    The axes of levels and points come first, unlike in the original: pixels and coefficients of all
    queries are then contiguous, so a CPU computes them with vector instructions. Reverse-mode
    differentiation only.

    Args:
        values: maps of all levels, flattened row by row and concatenated; float32 or bfloat16.
        sizes: (h, w) of each level; their areas sum to s.
        points: (x, y) in [0, 1] of the level's map, as in `sampling.grid_sample`; values outside
            are 0. Best kept in float32: bfloat16 cannot tell apart neighbouring pixels of a large
            map.
        weights: attention weights, usually a softmax over (level, point).
        implementation: "rows" or "packed", see the module; None: the one for the platform.

    Returns:
        One vector per query and head in the dtype of `values`; sums are float32.

    Raises:
        ValueError: the sizes fit neither values nor points, or the implementation is unknown.
    """
    area = sum(h * w for h, w in sizes)
    if area != values.shape[1] or len(sizes) != points.shape[0]:
        raise ValueError(
            f"deform_attn: sizes {sizes} are {len(sizes)} levels of {area} positions in all; "
            f"points have {points.shape[0]} levels and values {values.shape[1]} positions."
        )
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"deform_attn has no implementation '{implementation}'; it has:"
            f" {', '.join(IMPLEMENTATIONS)}."
        )
    return _attend(tuple(sizes), implementation, values, points, weights)


class Implementation(NamedTuple):
    """A layout of the table.

    Attributes:
        table: (sizes, values) -> rows of one or several vectors of e channels, linear in the
            values.
        slots: (sizes, points, weights) -> slots of k samples at a time.
    """

    table: Callable[[Sizes, Array], Array]
    slots: Callable[[Sizes, Array, Array], list[Slots]]


def _plain_table(sizes: Sizes, values: Float[Array, "b s n e"]) -> Float[Array, "rows e"]:
    del sizes
    return values.reshape(-1, values.shape[-1])


def _plain_slots(sizes: Sizes, points: Array, weights: Array) -> list[Slots]:
    total = sum(h * w for h, w in sizes)
    slots = []
    start = 0
    for (h, w), x, y, weight in _by_level(sizes, points, weights):
        for pixel, part in corners_at(x, y, h, w):
            slots.append((_row(total, start + pixel), (part * weight,)))
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


def _packed_slots(sizes: Sizes, points: Array, weights: Array) -> list[Slots]:
    total = sum((h + 1) * (w + 1) for h, w in sizes)
    slots = []
    start = 0
    for (h, w), x, y, weight in _by_level(sizes, points, weights):
        x, y = x * w - 0.5, y * h - 0.5
        x0, y0 = jnp.floor(x), jnp.floor(y)
        right, down = x - x0, y - y0
        inside = (x0 >= -1) & (x0 < w) & (y0 >= -1) & (y0 < h)
        ix = jnp.clip(x0 + 1, 0, w).astype(jnp.int32)
        iy = jnp.clip(y0 + 1, 0, h).astype(jnp.int32)
        up, left = 1 - down, 1 - right
        parts = (up * left, up * right, down * left, down * right)
        row = _row(total, start + iy * (w + 1) + ix)
        slots.append((row, tuple(jnp.where(inside, part * weight, 0) for part in parts)))
        start += (h + 1) * (w + 1)
    return slots


def _by_level(
    sizes: Sizes, points: Array, weights: Array
) -> Iterator[tuple[tuple[int, int], Array, Array, Array]]:
    """Yields (h, w), x, y and weights of each level; the arrays are float32 (p, b, q, n)."""
    points, weights = points.astype(jnp.float32), weights.astype(jnp.float32)
    for size, at, weight in zip(sizes, _unstack(points, 0), _unstack(weights, 0), strict=True):
        x, y = _unstack(at, 1)
        yield size, x, y, weight


def _unstack(x: Array, axis: int) -> list[Array]:
    """jnp.unstack, whose gradient is a concatenation instead of a sum of padded arrays."""
    return [part.squeeze(axis) for part in jnp.split(x, x.shape[axis], axis)]


def _row(total: int, position: Int[Array, "k b q n"]) -> Int[Array, "k b q n"]:
    """Row of the table for a position of every image and head; an image has `total` positions."""
    _, b, _, n = position.shape
    image = jnp.arange(b, dtype=jnp.int32)[None, :, None, None]
    head = jnp.arange(n, dtype=jnp.int32)[None, None, None, :]
    return (image * total + position) * n + head


IMPLEMENTATIONS = {
    "rows": Implementation(_plain_table, _plain_slots),
    "packed": Implementation(_packed_table, _packed_slots),
}


def forward(
    implementation: Implementation,
    sizes: Sizes,
    values: Float[Array, "b s n e"],
    points: Float[Array, "l p 2 b q n"],
    weights: Float[Array, "l p b q n"],
) -> Float[Array, "b q n e"]:
    """The attention in float32, one level at a time."""
    b, q, n = points.shape[3:]
    e = values.shape[-1]
    table = implementation.table(sizes, values)
    rows, parts = coefficients(implementation, sizes, points, weights)
    level = (len(sizes), rows.shape[0] // len(sizes))

    def add_level(out, slots):
        rows, parts = slots
        for k in range(level[1]):
            vectors = (
                table.at[rows[k]]
                .get(mode="promise_in_bounds", wrap_negative_indices=False)
                .astype(jnp.float32)
            )
            for i in range(parts.shape[1]):
                out = out + vectors[..., i * e : (i + 1) * e] * parts[k, i, ..., None]
        return out, None

    slots = [x.reshape(*level, *x.shape[1:]) for x in (rows, parts)]
    return lax.scan(add_level, jnp.zeros((b, q, n, e)), slots)[0]


def coefficients(
    implementation: Implementation, sizes: Sizes, points: Array, weights: Array
) -> tuple[Array, Array]:
    """The slots of all levels, concatenated: rows (k, b, q, n), coefficients (k, v, b, q, n)."""
    rows, parts = zip(*implementation.slots(sizes, points, weights), strict=True)
    parts = [jnp.concatenate(vectors) for vectors in zip(*parts, strict=True)]
    return jnp.concatenate(rows), jnp.stack(parts, axis=1)


def backward(
    implementation: Implementation,
    sizes: Sizes,
    values: Float[Array, "b s n e"],
    points: Float[Array, "l p 2 b q n"],
    weights: Float[Array, "l p b q n"],
    cotangent: Float[Array, "b q n e"],
) -> tuple[Array, Array, Array]:
    """The gradients of values, points and weights, in float32.

    Samples are processed one after the other, so that memory holds one gather at a time.
    """
    e = values.shape[-1]
    table, unpack = jax.vjp(lambda v: implementation.table(sizes, v), values.astype(jnp.float32))
    cotangent = cotangent.astype(jnp.float32)

    def parts_and_rows(points, weights):
        rows, parts = coefficients(implementation, sizes, points, weights)
        return parts, rows

    parts, pull, rows = jax.vjp(parts_and_rows, points, weights, has_aux=True)

    def dots(row):
        vectors = table.at[row].get(mode="promise_in_bounds", wrap_negative_indices=False)
        vectors = vectors.reshape(*cotangent.shape[:-1], -1, e)
        return jnp.einsum("bqnve,bqne->vbqn", vectors, cotangent, precision=lax.Precision.HIGHEST)

    def scatter(total, slot):
        row, parts = slot
        shares = jnp.concatenate([cotangent * part[..., None] for part in parts], axis=-1)
        return total.at[row].add(
            shares, mode="promise_in_bounds", wrap_negative_indices=False
        ), None

    # Two loops: one that gathers and scatters in the same step takes 1.4 times as long on CPU.
    to_parts = lax.map(dots, rows)
    total, _ = lax.scan(scatter, jnp.zeros_like(table), (rows, parts))
    (to_values,) = unpack(total)
    return to_values, *pull(to_parts)


# On an H100, at 768x768, both are equally fast forward; forward and backward, "packed" takes 0.75
# of the time of "rows" (experiments/results/benchmark).
_GPU = {forward: "rows", backward: "packed"}


def _dispatch(implementation: str | None, direction: Callable, sizes: Sizes, *args):
    """`forward` or `backward` with the implementation of this name; None: the platform's."""

    def using(name: str) -> Callable:
        return functools.partial(direction, IMPLEMENTATIONS[name], sizes)

    if implementation is not None:
        return using(implementation)(*args)
    gpu = using(_GPU[direction])
    return dispatch.by_platform(default=using("rows"), tpu=using("packed"), gpu=gpu)(*args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(sizes, implementation, values, points, weights):
    return _dispatch(implementation, forward, sizes, values, points, weights).astype(values.dtype)


def _attend_forward(sizes, implementation, values, points, weights):
    return _attend(sizes, implementation, values, points, weights), (values, points, weights)


def _attend_backward(sizes, implementation, residuals, cotangent):
    grads = _dispatch(implementation, backward, sizes, *residuals, cotangent)
    return tuple(g.astype(x.dtype) for g, x in zip(grads, residuals, strict=True))


_attend.defvjp(_attend_forward, _attend_backward)
