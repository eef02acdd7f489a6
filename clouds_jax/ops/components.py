"""Connected components of label maps on the device: labels, areas, random points inside.

Everything has static shapes and converges on any map. One map at a time; `jax.vmap` serves a batch.
"""

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt8, UInt32

IGNORE = 255


@typing.no_type_check  # JAX also fills a pytree with shapes and shardings
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Components:
    """The large components of a label map, by ascending class, then in raster order.

    Slots are filled from the front; the others have `valid` False, area 0 and class 255.

    Attributes:
        slot: of the component that a pixel belongs to; `n` where it belongs to none.
        label: class of each component.
        area: in pixels.
        valid: which slots hold a component.
    """

    slot: Int[Array, "h w"]
    label: UInt8[Array, " n"]
    area: Int[Array, " n"]
    valid: Bool[Array, " n"]


def most_components(size: tuple[int, int], min_area: int) -> int:
    """How many disjoint components of more than `min_area` pixels a map of `size` can hold."""
    return size[0] * size[1] // (min_area + 1)


def connected_components(label: UInt8[Array, "h w"]) -> Int[Array, "h w"]:
    """Labels regions of equal class with 4-connectivity.

    Returns:
        For each pixel the flat index of its component's first pixel in raster order; pixels
        labelled 255 count as a class like any other.

    Source: FastSV (Zhang, Azad, Hu 2020): hooking on the smallest grandparent in the
        neighbourhood and pointer jumping, until nothing changes; exact for any shape, in about ten
        rounds on street maps.
    """
    h, w = label.shape
    own = jnp.arange(h * w, dtype=jnp.int32)
    down = label[1:] == label[:-1]
    right = label[:, 1:] == label[:, :-1]

    def smallest_around(x):
        """Minimum over a pixel and its neighbours of the same class."""
        x = x.reshape(h, w)
        y = x.at[1:].min(jnp.where(down, x[:-1], x[1:]))
        y = y.at[:-1].min(jnp.where(down, x[1:], x[:-1]))
        y = y.at[:, 1:].min(jnp.where(right, x[:, :-1], x[:, 1:]))
        y = y.at[:, :-1].min(jnp.where(right, x[:, 1:], x[:, :-1]))
        return y.reshape(-1)

    def unfinished(carry):
        return carry[2]

    def hook(carry):
        parent, grandparent, _ = carry
        smallest = smallest_around(grandparent)
        parent = jnp.minimum(parent.at[parent].min(smallest), smallest)
        new = parent[parent]
        return parent, new, jnp.any(new != grandparent)

    # the first round of the general step does nothing but this
    start = smallest_around(own)
    parent, _, _ = jax.lax.while_loop(unfinished, hook, (start, start[start], jnp.array(True)))
    return parent.reshape(h, w)


def large_components(
    label: UInt8[Array, "h w"], *, min_area: int, limit: int | None = None
) -> Components:
    """Components of more than `min_area` pixels.

    Args:
        label: train ids; 255 belongs to no component.
        min_area: a component of exactly so many pixels is left out.
        limit: number of slots; None is the most there can be. With fewer, the components first in
            raster order are kept.

    Source: steps 1 and 2 of CLOUDS' refinement, which labels each class's mask with
        scipy.ndimage.label; one pass over the whole map finds the same components.
    """
    h, w = label.shape
    most = most_components((h, w), min_area)
    n = max(1, most if limit is None else min(limit, most))
    root = connected_components(label).reshape(-1)
    flat = label.reshape(-1)
    area = jnp.zeros(h * w, jnp.int32).at[root].add(1)
    large = (area > min_area) & (flat != IGNORE)
    (first,) = jnp.nonzero(large, size=n, fill_value=h * w)
    classes = jnp.where(first < h * w, flat[jnp.minimum(first, h * w - 1)], IGNORE)
    order = jnp.argsort(classes, stable=True)
    first, classes = first[order], classes[order].astype(jnp.uint8)
    slot_of_root = jnp.full(h * w, n, jnp.int32)
    slot_of_root = slot_of_root.at[first].set(jnp.arange(n, dtype=jnp.int32), mode="drop")
    valid = first < h * w
    return Components(
        slot=slot_of_root[root].reshape(h, w),
        label=classes,
        area=jnp.where(valid, area[jnp.minimum(first, h * w - 1)], 0),
        valid=valid,
    )


def distinct_ranks(area: Any, bits: Any, xp: Any) -> Any:
    """Which pixels of each component are taken, as ranks among its pixels in raster order.

    The i-th number, modulo the pixels not yet taken, is a rank among those; the bias of the modulo
    is below 2e-4 for maps of up to 768x768.

    Args:
        area: int32 (n,), of the components.
        bits: uint32 (n, p), random.
        xp: numpy or jax.numpy.

    Returns:
        int32 (n, p), distinct along p where the area allows it.
    """
    taken: list[Any] = []
    for i in range(bits.shape[1]):
        left = xp.maximum(area - i, 1).astype(xp.uint32)
        rank = (bits[:, i] % left).astype(xp.int32)
        for earlier in xp.sort(xp.stack(taken), 0) if taken else ():
            rank = rank + (rank >= earlier)
        taken.append(rank)
    return xp.stack(taken, 1)


def random_points(components: Components, bits: UInt32[Array, "n p"]) -> Int[Array, "n p 2"]:
    """Distinct pixels of each component, uniformly at random.

    Args:
        components: of one map.
        bits: random numbers over the whole range of uint32, one row per slot.

    Returns:
        (x, y) of pixels; (0, 0) in slots without a component. A component of fewer than `p`
        pixels would repeat its last ones.
    """
    n = bits.shape[0]
    h, w = components.slot.shape
    ranks = distinct_ranks(components.area, bits, jnp)
    rows = jnp.arange(h, dtype=jnp.int32)[:, None]
    per_row = jnp.zeros((n + 1, h), jnp.int32).at[components.slot, rows].add(1)[:n]
    until = jnp.cumsum(per_row, axis=1)  # pixels of the component up to and with each row
    y = jnp.sum(until[:, None, :] <= ranks[:, :, None], axis=-1)
    y = jnp.minimum(y, h - 1)
    before = jnp.take_along_axis(until - per_row, y, axis=1)
    mine = components.slot[y] == jnp.arange(n, dtype=jnp.int32)[:, None, None]  # n p w
    along = jnp.cumsum(mine, axis=-1)
    x = jnp.sum(along <= (ranks - before)[..., None], axis=-1)
    x = jnp.minimum(x, w - 1)
    return jnp.where(components.valid[:, None, None], jnp.stack([x, y], -1), 0)
