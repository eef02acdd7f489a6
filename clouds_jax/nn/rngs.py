"""Sources of parameters: JAX keys inside a traced function, or NumPy on the host."""

import concurrent.futures
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Key


class _Cell:
    """Stands in for an NNX variable: its value is read and set by indexing."""

    def __init__(self, value: Any):
        self.value = value

    def __getitem__(self, index: Any) -> Any:
        return self.value

    def __setitem__(self, index: Any, value: Any) -> None:
        self.value = value


class _Stream:
    """The keys of an `nnx.RngStream`, without its variables."""

    def __init__(self, key: Key[Array, ""]):
        self.key = _Cell(key)
        self.count = _Cell(np.uint32(0))

    def __call__(self) -> Key[Array, ""]:
        key = jax.random.fold_in(self.key[...], self.count[...])
        self.count[...] = self.count[...] + np.uint32(1)
        return key


class Keys(nnx.Rngs):
    """The parameter keys of `nnx.Rngs(key)`, for models built inside a traced function.

    Setting an NNX variable inside a trace makes Flax query the sharding of a tracer. JAX raises,
    and searches the whole trace for the wording of the error: seconds for a large model.
    """

    def __init__(self, key: Key[Array, ""]):
        object.__setattr__(self, "params", _Stream(key))


@dataclasses.dataclass(frozen=True)
class Draw:
    """How NumPy fills an array.

    Attributes:
        fill: (generator, flat array) -> None, in place.
        splits: whether parts of the array may be filled independently of each other.
    """

    fill: Callable[[Any, np.ndarray], None]
    splits: bool = True


@dataclasses.dataclass(frozen=True)
class HostKey:
    """What takes the place of a JAX key where parameters are drawn on the host."""

    keys: "HostKeys"

    def draw(self, shape: tuple[int, ...], draw: Draw) -> ArrayLike:
        """See `HostKeys.draw`."""
        return self.keys.draw(shape, draw)


class HostKeys(nnx.Rngs):
    """Draws parameters with NumPy instead of JAX: nothing is traced or compiled.

    Args:
        seed: of the weights, which do not depend on the number of cores; None: all parameters are
            zeros that take no memory, for models whose weights come from elsewhere.
        stacked: leading axes of every parameter, see `nn.layers.stack_blocks`.
    """

    _seed: int | None
    _stacked: tuple[int, ...]
    _count: Iterator[int]

    def __init__(self, seed: int | None, *, stacked: tuple[int, ...] = ()):
        object.__setattr__(self, "_seed", seed)
        object.__setattr__(self, "_stacked", stacked)
        object.__setattr__(self, "_count", itertools.count())

    def params(self) -> HostKey:
        """The key of the next parameter."""
        return HostKey(self)

    def stack(self, n: int) -> "HostKeys":
        """A source that draws the parameters of `n` blocks at once; the two count together."""
        other = HostKeys(self._seed, stacked=(*self._stacked, n))
        object.__setattr__(other, "_count", self._count)
        return other

    def draw(self, shape: tuple[int, ...], draw: Draw) -> ArrayLike:
        """A float32 array [*stacked, *shape], filled by `draw` on all cores."""
        whole = (*self._stacked, *shape)
        seed = self._seed
        if seed is None:
            return np.broadcast_to(np.float32(0), whole)
        number = next(self._count)
        out = _aligned(math.prod(whole))
        step = _CHUNK if draw.splits else max(1, out.size)
        parts = [out[start : start + step] for start in range(0, out.size, step)]

        def fill(i: int) -> None:
            sequence = np.random.SeedSequence((seed, number, i))
            draw.fill(np.random.Generator(np.random.SFC64(sequence)), parts[i])

        if len(parts) > 1:
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(fill, range(len(parts))))
        elif parts:
            fill(0)
        return jnp.asarray(out.reshape(whole))


_CHUNK = 1 << 20  # numbers of one generator
_ALIGNMENT = 64  # bytes; JAX takes such an array on a CPU without a copy


def _aligned(size: int) -> np.ndarray:
    raw = np.empty(size * 4 + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size * 4].view(np.float32)
