"""Images of several sizes in one batch: which part of every map belongs to its image.

A batch is padded to one size at the right and below. A network that would see each image alone,
padded to a multiple of 32, computes the same inside that part if what lies beyond it is

    cleared       before every convolution that reads across the border,
    extended      before every bilinear resize up, which repeats the last row and column,
    left out      of means, of the keys of attention, and of position encodings.

A resize down by 2, 4 or 8 needs nothing: its pixels lie between two of their own side. Without an
extent, None, all of these do nothing.
"""

import dataclasses
import typing
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

# Of the coarsest map: an image ends at a multiple of it, so every map ends between cells.
STRIDE = 32


@typing.no_type_check  # JAX also fills a pytree with shardings and shape structs
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Extent:
    """The sizes of the images of a padded batch.

    Attributes:
        size: (h, w) of each image, in pixels.
        padded: (h, w) of the batch, in pixels; multiples of 32.
    """

    size: Int[Array, "b 2"]
    padded: tuple[int, int] = dataclasses.field(metadata=dict(static=True))


def size_on(extent: Extent, shape: tuple[int, int]) -> Int[Array, "b 2"]:
    """(h, w) of each image, rounded up to a multiple of 32 pixels, on a map of `shape`.

    Raises:
        ValueError: no stride of 1 to 32 makes `shape` of the padded size.
    """
    stride = max(extent.padded[0] // shape[0], 1)
    if (shape[0] * stride, shape[1] * stride) != extent.padded or STRIDE % stride:
        raise ValueError(f"a map of {shape} is no fraction of the padded size {extent.padded}.")
    return (extent.size + STRIDE - 1) // STRIDE * (STRIDE // stride)


def inside(extent: Extent, shape: tuple[int, int]) -> Bool[Array, "b h w"]:
    """Where a map of `shape` belongs to the image."""
    return _upto(size_on(extent, shape), shape)


def inside_tokens(
    extent: Extent | None, shapes: Sequence[tuple[int, int]]
) -> Bool[Array, "b s"] | None:
    """`inside` of maps of several shapes, flattened and concatenated; None without an extent."""
    if extent is None:
        return None
    maps = [inside(extent, shape) for shape in shapes]
    return jnp.concatenate([where.reshape(where.shape[0], -1) for where in maps], axis=1)


def clear(x: Shaped[Array, "b h w c"], extent: Extent | None) -> Shaped[Array, "b h w c"]:
    """`x` with zeros beyond the images."""
    if extent is None:
        return x
    return jnp.where(inside(extent, (x.shape[1], x.shape[2]))[..., None], x, jnp.zeros((), x.dtype))


def clear_pixels(
    images: Shaped[Array, "b h w c"], extent: Extent | None
) -> Shaped[Array, "b h w c"]:
    """Images with zeros beyond their own sizes, which need be no multiples of 32."""
    if extent is None:
        return images
    return jnp.where(_upto(extent.size, (images.shape[1], images.shape[2]))[..., None], images, 0)


def extend(x: Shaped[Array, "b h w c"], extent: Extent | None) -> Shaped[Array, "b h w c"]:
    """`x` with the last row and column of each image repeated beyond it."""
    if extent is None:
        return x
    h, w = x.shape[1:3]
    last = size_on(extent, (h, w)) - 1
    rows = jnp.minimum(jnp.arange(h, dtype=last.dtype)[None], last[:, :1])
    columns = jnp.minimum(jnp.arange(w, dtype=last.dtype)[None], last[:, 1:])
    x = jnp.take_along_axis(x, rows[:, :, None, None], axis=1, mode="promise_in_bounds")
    return jnp.take_along_axis(x, columns[:, None, :, None], axis=2, mode="promise_in_bounds")


def _upto(size: Int[Array, "b 2"], shape: tuple[int, int]) -> Bool[Array, "b h w"]:
    h, w = shape
    rows = jnp.arange(h, dtype=size.dtype)[None] < size[:, :1]
    columns = jnp.arange(w, dtype=size.dtype)[None] < size[:, 1:]
    return rows[:, :, None] & columns[:, None, :]
