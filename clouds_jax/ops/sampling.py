"""Bilinear sampling of feature maps, label maps and mask logits at continuous points.

Points are (x, y) in [0, 1] of the map: (0, 0) is the outer corner of the top-left pixel, (1, 1)
that of the bottom-right one. Outside the map every value is 0.

Source: torch.nn.functional.grid_sample(align_corners=False, padding_mode="zeros"), whose points
    are 2 * points - 1; CLOUDS uses it through detectron2's point_sample.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8


def corners_of(
    points: Float[Array, "*n 2"], h: int, w: int
) -> list[tuple[Int[Array, "*n"], Float[Array, "*n"]]]:
    """The four pixels around each point and their bilinear weights.

    Args:
        points: (x, y) in [0, 1] of the map; other values are allowed.
        h: rows of the map.
        w: columns of the map.

    Returns:
        Four pairs (flat pixel index y * w + x, float32 weight). A pixel outside the map has weight
        0 and the index of some pixel inside.
    """
    return corners_at(points[..., 0], points[..., 1], h, w)


def corners_at(
    x: Float[Array, "*n"], y: Float[Array, "*n"], h: int, w: int
) -> list[tuple[Int[Array, "*n"], Float[Array, "*n"]]]:
    """`corners_of` for coordinates in separate arrays."""
    x = x.astype(jnp.float32) * w - 0.5
    y = y.astype(jnp.float32) * h - 0.5
    x0, y0 = jnp.floor(x), jnp.floor(y)
    # Weights from the fraction, not from distances: at a pixel's centre, where untrained models
    # sample, the derivative is then that of the cell to the right and below, as in torch.
    part_x, part_y = x - x0, y - y0
    corners = []
    for dy, weight_y in ((0, 1 - part_y), (1, part_y)):
        for dx, weight_x in ((0, 1 - part_x), (1, part_x)):
            cx, cy = x0 + dx, y0 + dy
            inside = (cx >= 0) & (cx < w) & (cy >= 0) & (cy < h)
            # Clipped as floats: a far or infinite coordinate does not fit an integer.
            ix = jnp.clip(cx, 0, w - 1).astype(jnp.int32)
            iy = jnp.clip(cy, 0, h - 1).astype(jnp.int32)
            corners.append((iy * w + ix, jnp.where(inside, weight_x * weight_y, 0)))
    return corners


@jax.vmap
def _take(rows: Array, index: Array) -> Array:
    return rows.at[index].get(mode="promise_in_bounds")


def grid_sample(
    features: Float[Array, "b h w c"], points: Float[Array, "b p 2"]
) -> Float[Array, "b p c"]:
    """Samples feature maps bilinearly, each at its own points.

    Args:
        features: maps in NHWC.
        points: (x, y) in [0, 1] of the map, per image.

    Returns:
        Features at the points, in the dtype of `features`; sums are float32.
    """
    b, h, w, c = features.shape
    rows = features.reshape(b, h * w, c)
    out = jnp.zeros(())
    for index, weight in corners_of(points, h, w):
        value = _take(rows, index)
        out = out + value.astype(jnp.float32) * weight[..., None]
    return out.astype(features.dtype)


def sample_classes(
    label: UInt8[Array, "b h w"], points: Float[Array, "b p 2"], classes: int
) -> Float[Array, "b p k"]:
    """Bilinear value of every class mask `label == id` at shared points.

    Four gathers of the label map serve all classes, and no mask is built.

    Args:
        label: train ids; an id outside 0..classes - 1 (255: ignore) belongs to no mask.
        points: (x, y) in [0, 1] of the map, shared by the classes of an image.
        classes: number of classes, k.
    """
    ids = jnp.arange(classes, dtype=label.dtype)[None, None, :]
    b, h, w = label.shape
    flat = label.reshape(b, h * w)
    out = jnp.zeros(())
    for index, weight in corners_of(points, h, w):
        value = _take(flat, index)
        out = out + jnp.where(value[..., None] == ids, weight[..., None], 0)
    return out


def sample_targets(
    label: UInt8[Array, "b h w"], points: Float[Array, "b m p 2"], ids: Int[Array, " m"]
) -> Float[Array, "b m p"]:
    """Bilinear value of the masks `label == ids[m]`, each at its own points.

    Args:
        label: train ids.
        points: (x, y) in [0, 1] of the map, per mask.
        ids: train id of each mask.
    """
    b, h, w = label.shape
    flat = label.reshape(b, h * w)
    ids = ids[None, :, None]
    out = jnp.zeros(())
    for index, weight in corners_of(points, h, w):
        value = _take(flat, index)
        out = out + jnp.where(value.astype(ids.dtype) == ids, weight, 0)
    return out


def select_channels(
    maps: Float[Array, "b h w q"], channel: Int[Array, "b m"]
) -> Float[Array, "b m h w"]:
    """Copies channel `channel[m]` of the maps to plane m, in float32.

    A product with one-hot vectors, so the gradient is a product too.

    Args:
        maps: mask logits, queries last.
        channel: query of each plane; a plane with -1 is 0 and sends no gradient.
    """
    b, h, w, q = maps.shape
    selector = jax.nn.one_hot(channel, q, axis=1, dtype=maps.dtype)
    planes = jnp.einsum(
        "bsq,bqm->bms",
        maps.reshape(b, h * w, q),
        selector,
        precision=lax.Precision.HIGHEST,  # a copy: no rounding to TF32 or bfloat16
        preferred_element_type=jnp.float32,
    )
    return planes.reshape(b, -1, h, w)


def sample_planes(
    planes: Float[Array, "b m h w"], points: Float[Array, "b m p 2"]
) -> Float[Array, "b m p"]:
    """Samples each plane bilinearly at its own points; the points get no gradient.

    Args:
        planes: single-channel maps, float32.
        points: (x, y) in [0, 1] of the map, per plane.
    """
    return _sample_planes(planes.shape, planes, points)


# The gradient is written out: its residuals are the points alone, not the four corners of each and
# their weights, and it scatters into all planes as one flat array, because XLA's scatter takes
# twice as long on CPU with batch dimensions.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sample_planes(shape: tuple[int, ...], planes: Array, points: Array) -> Array:
    flat = planes.reshape(-1)
    out = jnp.zeros(())
    for index, weight in _flat_corners(shape, points):
        out = out + flat.at[index].get(mode="promise_in_bounds") * weight
    return out


def _flat_corners(shape: tuple[int, ...], points: Array) -> list[tuple[Array, Array]]:
    b, m, h, w = shape
    plane = jnp.arange(b * m, dtype=jnp.int32).reshape(b, m, 1) * (h * w)
    return [(plane + index, weight) for index, weight in corners_of(points, h, w)]


def _sample_planes_forward(shape, planes, points):
    return _sample_planes(shape, planes, points), points


def _sample_planes_backward(shape, points, cotangent):
    total = jnp.zeros(math.prod(shape), jnp.float32)
    for index, weight in _flat_corners(shape, points):
        total = total.at[index].add(cotangent * weight, mode="promise_in_bounds")
    return total.reshape(shape), None


_sample_planes.defvjp(_sample_planes_forward, _sample_planes_backward)
