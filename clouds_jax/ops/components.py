"""Connected components of label maps on the device: classes, areas, random points inside.

Shapes are static, and the iteration converges on any map. Functions take one map; use `jax.vmap`
for a batch.
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8, UInt32

from clouds_jax.constants import IGNORE
from clouds_jax.ops.lowest_k import running_sum


@typing.no_type_check  # JAX also fills a pytree with shapes and shardings
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Components:
    """The large components of a label map, in n slots by ascending class, then in raster order.

    Slots are filled from the front; empty ones have `valid` False, area 0 and class 255. The arrays
    are NumPy's where the host computes the components.

    Attributes:
        slot: slot of each pixel's component; n where the pixel is in none.
        label: class of each component.
        area: pixels of each component.
        valid: which slots hold a component.
    """

    slot: Int[Array | np.ndarray, "h w"]
    label: UInt8[Array | np.ndarray, " n"]
    area: Int[Array | np.ndarray, " n"]
    valid: Bool[Array | np.ndarray, " n"]


def max_components(size: tuple[int, int], min_area: int) -> int:
    """The most components of more than `min_area` pixels that a map of `size` (h, w) can hold."""
    return size[0] * size[1] // (min_area + 1)


@dataclasses.dataclass(frozen=True)
class _Runs:
    """Horizontal runs of equal class, in raster order: the nodes of the graph to be connected.

    Attributes:
        of_pixel: run of each pixel.
        first: flat index of each run's first pixel; h * w in unused slots.
        length: pixels of each run.
        root: first run of the component that each run belongs to.
    """

    of_pixel: Int[Array, "h w"]
    first: Int[Array, " r"]
    length: Int[Array, " r"]
    root: Int[Array, " r"]


def _run_of_pixel(label: UInt8[Array, "h w"]) -> tuple[Bool[Array, "h w"], Int[Array, "h w"]]:
    """Whether a run starts at each pixel, and the number of the pixel's run."""
    start = jnp.ones(label.shape, bool).at[:, 1:].set(label[:, 1:] != label[:, :-1])
    within = running_sum(start.astype(jnp.int32))
    per_row = within[:, -1]
    return start, within + (jnp.cumsum(per_row) - per_row)[:, None] - 1


def _connected_runs(
    label: UInt8[Array, "h w"],
    start: Bool[Array, "h w"],
    run: Int[Array, "h w"],
    capacity: int,
) -> _Runs:
    """Connects the runs of a label map.

    Args:
        label: class of each pixel.
        start: whether a run starts at each pixel.
        run: number of each pixel's run.
        capacity: r, at least the number of runs.

    Source: FastSV (Zhang, Azad, Hu 2020): hooking onto the smallest grandparent in the
        neighbourhood and pointer jumping, until nothing changes; exact for any shape, in about ten
        rounds on street maps.
    """
    h, w = label.shape
    pixels, own = h * w, jnp.arange(capacity, dtype=jnp.int32)
    index = jnp.arange(pixels, dtype=jnp.int32).reshape(h, w)
    first = jnp.full(capacity, pixels, jnp.int32)
    first = first.at[jnp.where(start, run, capacity)].set(index, mode="drop")
    length = jnp.append(first[1:], pixels) - first

    # Where two runs of a class touch across rows, one of them starts there: the other is the run
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

    # From here the first round of the loop would do no more than this.
    parent = smallest_around(own)
    parent, _, _ = jax.lax.while_loop(unfinished, hook, (parent, parent[parent], jnp.array(True)))
    return _Runs(run, first, length, parent)


def _with_runs(label: UInt8[Array, "h w"], use: Callable[[_Runs], Any]) -> Any:
    """Returns `use(runs)` for the connected runs of a label map.

    The graph has h * w / 16 slots where those suffice: runs of street maps are fifty pixels long.
    Otherwise it has h * w, which is as exact and slower. Under `jax.vmap` both are computed.
    """
    start, run = _run_of_pixel(label)
    capacity = max(1, label.size // 16)

    def within(capacity: int) -> Callable[[], Any]:
        return lambda: use(_connected_runs(label, start, run, capacity))

    return jax.lax.cond(run[-1, -1] < capacity, within(capacity), within(label.size))


def connected_components(label: UInt8[Array, "h w"]) -> Int[Array, "h w"]:
    """Labels regions of equal class, with 4-connectivity; 255 is a class like any other.

    Returns:
        For each pixel the flat index of its component's first pixel in raster order.
    """
    return _with_runs(label, lambda runs: runs.first[runs.root][runs.of_pixel])


def large_components(
    label: UInt8[Array, "h w"], *, min_area: int, limit: int | None = None
) -> Components:
    """The components of more than `min_area` pixels.

    Args:
        label: train ids; 255 belongs to no component.
        min_area: largest area, in pixels, of the components that are left out.
        limit: number of slots; None: `max_components`. With fewer slots than components, the first
            in raster order are kept.

    Source: steps 1 and 2 of CLOUDS' refinement, which labels each class's mask with
        scipy.ndimage.label; one pass over the whole map finds the same components.
    """
    h, w = label.shape
    most = max_components((h, w), min_area)
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
    """Draws distinct pixels of each component, as ranks among its pixels in raster order.

    The i-th random number, modulo the count of pixels not yet drawn, is a rank among those. The
    bias of the modulo is below 2e-4 for maps of up to 768x768.

    Args:
        area: pixels of each component, int32 (n,).
        bits: random numbers over the whole range of uint32, (n, p).
        xp: numpy or jax.numpy.

    Returns:
        int32 (n, p), distinct along p where the area allows it.
    """
    drawn: list[Any] = []
    for i in range(bits.shape[1]):
        left = xp.maximum(area - i, 1).astype(xp.uint32)
        rank = (bits[:, i] % left).astype(xp.int32)
        for earlier in xp.sort(xp.stack(drawn), 0) if drawn else ():
            rank = rank + (rank >= earlier)
        drawn.append(rank)
    return xp.stack(drawn, 1)


def random_points(components: Components, bits: UInt32[Array, "n p"]) -> Int[Array, "n p 2"]:
    """Draws p distinct pixels of each component, uniformly.

    Args:
        components: of one map.
        bits: random numbers over the whole range of uint32, one row per slot.

    Returns:
        (x, y) in pixels; (0, 0) in slots without a component. A component of fewer than p pixels
        repeats its last ones.
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
    inside = components.slot[y] == jnp.arange(n, dtype=jnp.int32)[:, None, None]  # n p w
    along = running_sum(inside.astype(jnp.int32))
    x = jnp.sum(along <= (ranks - before)[..., None], axis=-1)
    x = jnp.minimum(x, w - 1)
    return jnp.where(components.valid[:, None, None], jnp.stack([x, y], -1), 0)
