"""Connected components of label maps on the device: labels, areas, random points inside.

Everything has static shapes and converges on any map. One map at a time; `jax.vmap` serves a batch.
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt8, UInt32

from clouds_jax.constants import IGNORE
from clouds_jax.ops.lowest_k import running_sum


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


@dataclasses.dataclass(frozen=True)
class _Runs:
    """Runs of equal class within a row, in raster order, as nodes of a graph.

    Attributes:
        of_pixel: the run of each pixel.
        first: flat index of each run's first pixel; the number of pixels where there is no run.
        length: in pixels.
        root: the first run of the component that a run belongs to.
    """

    of_pixel: Int[Array, "h w"]
    first: Int[Array, " r"]
    length: Int[Array, " r"]
    root: Int[Array, " r"]


def _run_of_pixel(label: UInt8[Array, "h w"]) -> tuple[Bool[Array, "h w"], Int[Array, "h w"]]:
    """Where runs start, and which run each pixel belongs to."""
    start = jnp.ones(label.shape, bool).at[:, 1:].set(label[:, 1:] != label[:, :-1])
    within = running_sum(start.astype(jnp.int32))
    per_row = within[:, -1]
    return start, within + (jnp.cumsum(per_row) - per_row)[:, None] - 1


def _connected_runs(
    label: UInt8[Array, "h w"], start: Bool[Array, "h w"], run: Int[Array, "h w"], capacity: int
) -> _Runs:  # fmt: skip
    """Finds the components of at most `capacity` runs.

    Source: FastSV (Zhang, Azad, Hu 2020): hooking on the smallest grandparent in the
        neighbourhood and pointer jumping, until nothing changes; exact for any shape, in about ten
        rounds on street maps.
    """
    h, w = label.shape
    pixels, own = h * w, jnp.arange(capacity, dtype=jnp.int32)
    index = jnp.arange(pixels, dtype=jnp.int32).reshape(h, w)
    first = jnp.full(capacity, pixels, jnp.int32)
    first = first.at[jnp.where(start, run, capacity)].set(index, mode="drop")
    length = jnp.append(first[1:], pixels) - first

    # Where two runs of a class touch across rows, one of them starts: it knows the other as the run
    # above or below its first pixel.
    flat_label, flat_run = label.reshape(-1), run.reshape(-1)

    def neighbour(step: int) -> Int[Array, " r"]:
        at = first + step
        inside = (first < pixels) & (at >= 0) & (at < pixels)
        at, here = jnp.where(inside, at, 0), jnp.where(inside, first, 0)
        return jnp.where(inside & (flat_label[at] == flat_label[here]), flat_run[at], own)

    above, below = neighbour(-w), neighbour(w)

    def smallest_around(x):
        y = jnp.minimum(jnp.minimum(x, x[above]), x[below])
        return y.at[above].min(x).at[below].min(x)

    def unfinished(carry):
        return carry[2]

    def hook(carry):
        parent, grandparent, _ = carry
        smallest = smallest_around(grandparent)
        parent = jnp.minimum(parent.at[parent].min(smallest), smallest)
        new = parent[parent]
        return parent, new, jnp.any(new != grandparent)

    # the first round of the general step does nothing but this
    begun = smallest_around(own)
    parent, _, _ = jax.lax.while_loop(unfinished, hook, (begun, begun[begun], jnp.array(True)))
    return _Runs(run, first, length, parent)


def _with_runs(label: UInt8[Array, "h w"], use: Callable[[_Runs], Any]) -> Any:
    """`use` of the connected runs, in a graph of a sixteenth of the pixels if it holds them.

    Street maps have runs of fifty pixels. A map of more runs is found as exactly, and slower; under
    `jax.vmap` every map is.
    """
    start, run = _run_of_pixel(label)
    capacity = max(1, label.size // 16)

    def within(capacity: int) -> Callable[[], Any]:
        return lambda: use(_connected_runs(label, start, run, capacity))

    return jax.lax.cond(run[-1, -1] < capacity, within(capacity), within(label.size))


def connected_components(label: UInt8[Array, "h w"]) -> Int[Array, "h w"]:
    """Labels regions of equal class with 4-connectivity.

    Returns:
        For each pixel the flat index of its component's first pixel in raster order; pixels
        labelled 255 count as a class like any other.
    """
    return _with_runs(label, lambda runs: runs.first[runs.root][runs.of_pixel])


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
    return _with_runs(label, lambda runs: _large(label, runs, min_area, n))


def _large(label: UInt8[Array, "h w"], runs: _Runs, min_area: int, n: int) -> Components:
    count = len(runs.first)
    classes = label.reshape(-1).at[runs.first].get(mode="fill", fill_value=IGNORE)
    area = jnp.zeros(count, jnp.int32).at[runs.root].add(runs.length)
    (root,) = jnp.nonzero((area > min_area) & (classes != IGNORE), size=n, fill_value=count)
    classes = classes.at[root].get(mode="fill", fill_value=IGNORE)
    order = jnp.argsort(classes, stable=True)
    root, classes = root[order], classes[order]
    slot = jnp.full(count, n, jnp.int32)
    slot = slot.at[root].set(jnp.arange(n, dtype=jnp.int32), mode="drop")
    return Components(
        slot=slot[runs.root][runs.of_pixel],
        label=classes,
        area=area.at[root].get(mode="fill", fill_value=0),
        valid=root < count,
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
    until = running_sum(per_row)  # pixels of the component up to and with each row
    y = jnp.sum(until[:, None, :] <= ranks[:, :, None], axis=-1)
    y = jnp.minimum(y, h - 1)
    before = jnp.take_along_axis(until - per_row, y, axis=1)
    mine = components.slot[y] == jnp.arange(n, dtype=jnp.int32)[:, None, None]  # n p w
    along = running_sum(mine.astype(jnp.int32))
    x = jnp.sum(along <= (ranks - before)[..., None], axis=-1)
    x = jnp.minimum(x, w - 1)
    return jnp.where(components.valid[:, None, None], jnp.stack([x, y], -1), 0)
