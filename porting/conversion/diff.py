"""Compares two checkpoints of any kinds, tensor by tensor."""

import dataclasses
from pathlib import Path

import numpy as np

from porting.conversion.streaming import bits_equal
from porting.files.formats import release
from porting.files.open import PROVENANCE, open_checkpoint


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two tensors of one name and shape with other numbers.

    Attributes:
        name: of both.
        dtypes: of A and B.
        max_error: largest absolute difference; NaN where one has NaN and the other not.
        relative: the same over A's largest absolute number.
        count: how many numbers differ.
        size: of how many.
    """

    name: str
    dtypes: tuple[str, str]
    max_error: float
    relative: float
    count: int
    size: int


@dataclasses.dataclass(frozen=True)
class Diff:
    """Where two checkpoints differ.

    Attributes:
        only_a, only_b: names that the other lacks, with shapes.
        shapes: name -> both shapes, where they differ.
        numbers: other numbers, or the same ones as another type.
        equal: how many tensors are equal.
    """

    only_a: dict[str, tuple[int, ...]]
    only_b: dict[str, tuple[int, ...]]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    numbers: list[Difference]
    equal: int

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_a or self.only_b or self.shapes or self.numbers)

    def sections(self) -> dict[str, list[str]]:
        """Title -> lines, for people."""
        return {
            "only in A": [f"{name} {shape}" for name, shape in self.only_a.items()],
            "only in B": [f"{name} {shape}" for name, shape in self.only_b.items()],
            "other shapes": [f"{name}: {a} in A, {b} in B" for name, (a, b) in self.shapes.items()],
            "other numbers or types": [
                f"{one.name}: max error {one.max_error:.3g}, relative {one.relative:.3g},"
                f" {one.count:,} of {one.size:,} differ"
                + (f"; {one.dtypes[0]} in A, {one.dtypes[1]} in B" * (len(set(one.dtypes)) > 1))
                for one in self.numbers
            ],
        }


def diff(a: str, b: str, *, atol: float = 0.0) -> Diff:
    """Compares two checkpoints; errors up to `atol` count as equal."""
    ours = [(Path(file) / PROVENANCE).exists() for file in (a, b)]
    left, right = (
        _open(file, own and not all(ours)) for file, own in zip((a, b), ours, strict=True)
    )
    both = [name for name in left if name in right]
    shapes, numbers, equal = {}, [], 0
    for name in both:
        x, y = left[name], right[name]
        if x.shape != y.shape:
            shapes[name] = (x.shape, y.shape)
        elif bits_equal(x, y) or (x.dtype == y.dtype and np.array_equal(x, y)):
            equal += 1
        else:
            one = _difference(name, x, y)
            if one.dtypes[0] == one.dtypes[1] and one.max_error <= atol:
                equal += 1
            else:
                numbers.append(one)
        release(x)
        release(y)
    return Diff(
        only_a={name: left[name].shape for name in left if name not in right},
        only_b={name: right[name].shape for name in right if name not in left},
        shapes=shapes,
        numbers=numbers,
        equal=equal,
    )


def _open(file: str, as_original: bool) -> dict[str, np.ndarray]:
    """The tensors; those of our weights under our names or the original's."""
    if as_original:
        from porting.conversion.invert import invert

        return invert(Path(file)).state
    return open_checkpoint(file)[0]


def _difference(name: str, x: np.ndarray, y: np.ndarray) -> Difference:
    wide_x, wide_y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    error = np.where(wide_x == wide_y, 0.0, np.abs(wide_x - wide_y))  # inf - inf is no number
    error = np.where(np.isnan(wide_x) & np.isnan(wide_y), 0.0, error)
    largest, scale = float(error.max()), float(np.abs(wide_x).max())
    return Difference(
        name=name,
        dtypes=(str(x.dtype), str(y.dtype)),
        max_error=largest,
        relative=largest / scale if scale else float("inf" if largest else 0.0),
        count=int(np.count_nonzero(error)),
        size=x.size,
    )
