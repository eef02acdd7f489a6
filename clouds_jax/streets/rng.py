"""Random numbers that are the same on every machine and under every version of NumPy.

They are made here from raw 64-bit draws of PCG64: NumPy keeps the raw stream of a bit generator
stable, but not the methods of `Generator`.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from clouds_jax.streets.types import Number

Item = TypeVar("Item")
_BLOCK = 256


class Rng:
    """A random number generator whose draws depend on its key alone."""

    def __init__(self, *key: int | str):
        """Starts the stream of `key`: non-negative integers and names."""
        words = [zlib.crc32(k.encode()) if isinstance(k, str) else int(k) for k in key]
        self._bits = np.random.PCG64(np.random.SeedSequence(words))
        self._next: list[float] = []

    def unit(self) -> float:
        """Returns a number in [0, 1)."""
        if not self._next:
            self._next = self.units(_BLOCK).tolist()
        return self._next.pop()

    def units(self, count: int) -> np.ndarray:
        """Returns `count` float64 numbers in [0, 1)."""
        return (self._bits.random_raw(count) >> np.uint64(11)) * 2.0**-53

    def bytes(self, *shape: int) -> np.ndarray:
        """Returns uniform uint8 noise of `shape`."""
        count = int(np.prod(shape))
        words = self._bits.random_raw(-(-count // 8)).astype("<u8")
        return words.view(np.uint8)[:count].reshape(shape)

    def between(self, low: Number, high: Number) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * self.unit()

    def integer(self, low: int, high: int) -> int:
        """Returns an integer in low..high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: Number) -> bool:
        """Returns True with `probability`."""
        return self.unit() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """Returns one of `items`."""
        return items[int(self.unit() * len(items))]

    def weighted(self, weights: Mapping[str, Number]) -> str:
        """Returns a key of `weights`, drawn in proportion to its value."""
        rest = self.unit() * sum(weights.values())
        for name, weight in weights.items():
            rest -= weight
            if rest < 0:
                return name
        return name

    def seed(self) -> int:
        """Returns a seed for the generator of something that is drawn later."""
        return int(self.unit() * 2**31)
