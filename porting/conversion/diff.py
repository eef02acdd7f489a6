"""Compares two checkpoints of any formats, tensor by tensor."""

import dataclasses
from pathlib import Path

import numpy as np

from porting.conversion.invert import invert
from porting.conversion.streaming import bits_equal
from porting.files.formats import release
from porting.files.open import PROVENANCE, open_checkpoint


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two tensors of the same name and shape that differ in values or dtype.

    Attributes:
        name: name of both tensors.
        dtypes: dtypes in A and in B.
        max_error: largest absolute difference; NaN where only one of them is NaN.
        relative: max_error over the largest absolute value in A.
        count: number of elements that differ.
        size: number of elements.
    """

    name: str
    dtypes: tuple[str, str]
    max_error: float
    relative: float
    count: int
    size: int


@dataclasses.dataclass(frozen=True)
class Diff:
    """The differences between checkpoints A and B.

    Attributes:
        only_a, only_b: name -> shape of the tensors that the other lacks.
        shapes: name -> both shapes, where they differ.
        values: tensors that differ in values or dtype.
        equal: number of equal tensors.
    """

    only_a: dict[str, tuple[int, ...]]
    only_b: dict[str, tuple[int, ...]]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    values: list[Difference]
    equal: int

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_a or self.only_b or self.shapes or self.values)

    def sections(self) -> dict[str, list[str]]:
        """Title -> human-readable lines."""
        return {
            "only in A": [f"{name} {shape}" for name, shape in self.only_a.items()],
            "only in B": [f"{name} {shape}" for name, shape in self.only_b.items()],
            "other shapes": [f"{name}: {a} in A, {b} in B" for name, (a, b) in self.shapes.items()],
            "other numbers or types": [
                f"{d.name}: max error {d.max_error:.3g}, relative {d.relative:.3g},"
                f" {d.count:,} of {d.size:,} differ"
                + (f"; {d.dtypes[0]} in A, {d.dtypes[1]} in B" if len(set(d.dtypes)) > 1 else "")
                for d in self.values
            ],
        }


def diff(a: str, b: str, *, atol: float = 0.0) -> Diff:
    """Compares two checkpoints; absolute errors up to `atol` count as equal.

    A weights folder beside a file is compared under the names of the file it was converted from.
    """
    converted = [(Path(file) / PROVENANCE).exists() for file in (a, b)]
    left, right = (
        _open(file, restore=own and not all(converted))
        for file, own in zip((a, b), converted, strict=True)
    )
    shapes, values, equal = {}, [], 0
    for name, x in left.items():
        if name not in right:
            continue
        y = right[name]
        if x.shape != y.shape:
            shapes[name] = (x.shape, y.shape)
        elif bits_equal(x, y) or (x.dtype == y.dtype and np.array_equal(x, y)):
            equal += 1
        else:
            difference = _difference(name, x, y)
            if x.dtype == y.dtype and difference.max_error <= atol:
                equal += 1
            else:
                values.append(difference)
        release(x)
        release(y)
    return Diff(
        only_a={name: left[name].shape for name in left if name not in right},
        only_b={name: right[name].shape for name in right if name not in left},
        shapes=shapes,
        values=values,
        equal=equal,
    )


def _open(file: str, *, restore: bool) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint; `restore` restores those of the original from our weights."""
    return invert(Path(file)).state if restore else open_checkpoint(file)[0]


def _difference(name: str, x: np.ndarray, y: np.ndarray) -> Difference:
    wide_x, wide_y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    error = np.where(wide_x == wide_y, 0.0, np.abs(wide_x - wide_y))  # inf - inf is NaN
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
