"""Compares one array of ours with one of PyTorch, and names what is out of bounds."""

import dataclasses
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
        agreement: share of positions with the same argmax over the last axis.
        flips: attention-mask bits that differ, on the way to this tap.
        bits: how many there are.
        judged: whether the verdict depends on it.
        good: within its bounds.
    """

    name: str
    view: View
    shape: tuple[int, ...]
    max_error: float
    mean_error: float
    std: float
    ratio: float
    agreement: float
    flips: int | None
    bits: int | None
    judged: bool
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
        judged: False for what is only reported.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(f"{name}: ours is {ours.shape}, the reference {theirs.shape}")
    error = np.abs(ours - theirs)
    std = float(theirs.std())
    ratio = float(error.max()) / std if std else float("inf" if error.max() else 0.0)
    agreement = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    bound = tolerance.block if view == "block" else tolerance.model
    return Tap(
        name=name,
        view=view,
        shape=ours.shape,
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        std=std,
        ratio=ratio,
        agreement=agreement,
        flips=flips,
        bits=bits,
        judged=judged,
        # written so that NaN is never good
        good=bool(ratio <= bound and agreement >= tolerance.agreement),
    )
