"""Compares one array of ours with one of PyTorch, and names what is out of bounds."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from porting.tolerances import Tolerance

View = Literal["chain", "block", "given masks"]


@dataclasses.dataclass(frozen=True)
class Tap:
    """One comparison.

    Attributes:
        name: where in the model.
        view: how ours got there. `chain`: from the images or features on, by itself. `block`:
            from the reference's input of that block alone. `given masks`: by itself, but with the
            attention masks of the reference.
        shape: of the compared arrays.
        max_error, mean_error: absolute.
        std: of the reference.
        ratio: max_error over std.
        positions: number of positions, all axes but the last.
        agreement: share of positions with the same argmax over the last axis.
        flips: attention-mask bits that differ, on the way to this tap.
        bits: how many there are.
        judged: whether the verdict depends on the errors.
        counted: whether the verdict depends on the agreement, which is pooled over the taps of a
            view: of a hundred queries two may be equal within rounding at a position.
        good: errors within their bound.
    """

    name: str
    view: View
    shape: tuple[int, ...]
    max_error: float
    mean_error: float
    std: float
    ratio: float
    positions: int
    agreement: float
    flips: int | None
    bits: int | None
    judged: bool
    counted: bool
    good: bool

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)


def compare(
    name: str,
    view: View,
    ours: Any,
    theirs: Any,
    tolerance: Tolerance,
    *,
    flips: int | None = None,
    bits: int | None = None,
    judged: bool = True,
    counted: bool = True,
) -> Tap:
    """Compares two arrays of one shape.

    Args:
        name: where in the model.
        view: see `Tap`.
        ours: what clouds_jax makes.
        theirs: what PyTorch makes, in our layout.
        tolerance: `block` bounds blocks, `model` everything else.
        flips: attention-mask bits that differ before this tap.
        bits: of how many.
        judged, counted: False for what is only reported; see `Tap`.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(f"{name}: ours is {ours.shape}, the reference {theirs.shape}")
    error = np.abs(ours - theirs)
    std = float(theirs.std())
    ratio = float(error.max()) / std if std else float("inf" if error.max() else 0.0)
    same = ours.argmax(-1) == theirs.argmax(-1)
    bound = tolerance.block if view == "block" else tolerance.model
    return Tap(
        name=name,
        view=view,
        shape=ours.shape,
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        std=std,
        ratio=ratio,
        positions=same.size,
        agreement=float(same.mean()),
        flips=flips,
        bits=bits,
        judged=judged,
        counted=counted,
        # written so that NaN is never good
        good=bool(ratio <= bound),
    )


def pooled_agreement(taps: Iterable[Tap]) -> float:
    """Share of positions with the same argmax, over all counted taps."""
    counted = [tap for tap in taps if tap.counted]
    positions = sum(tap.positions for tap in counted)
    return sum(tap.agreement * tap.positions for tap in counted) / positions if positions else 1.0
