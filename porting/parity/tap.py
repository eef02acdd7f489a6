"""Compares one array of ours with one of PyTorch, and names what is out of bounds.

Two float32 programs that make their sums in another order differ by rounding. How much of a
difference rounding explains is measured, not guessed: where the reference also ran in float64, its
own float32 run is compared with that, and both distances stand side by side.
"""

import dataclasses
from typing import Any, Literal

import numpy as np

from porting.parity.tolerances import Tolerance

# Two float32 programs differ by the rounding of both, and the largest of millions of errors varies:
# taps of the full-size head differ by 1.5 to 2.5 times the reference's own rounding.
ROUNDINGS = 4

View = Literal["chain", "block", "given masks"]


@dataclasses.dataclass(frozen=True)
class Rounding:
    """The reference's own float32 run against its float64 run.

    Attributes:
        ratio: largest error over the standard deviation of the reference.
        agreement: share of positions with the same argmax over the last axis.
    """

    ratio: float
    agreement: float


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
        undecided: positions whose two largest values are, in float64, closer than twice the
            largest rounding error of the reference: there its own argmax is chance. None where the
            reference did not run in float64.
        decided_agreement: `agreement` over the other positions, or over all.
        reference: the reference's own rounding, where it ran in float64.
        flips: attention-mask bits that differ, on the way to this tap.
        bits: how many there are.
        judged: whether the verdict depends on this tap.
        bound: on `ratio`: that of the tolerance, or `ROUNDINGS` times the reference's own rounding
            where that is more.
        good: error and, of what the model puts out, `decided_agreement` within their bounds. Of a
            single block the argmax over the channels is told and not judged: it decides nothing,
            and one tie among a few thousand positions is more than the bound.
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
    undecided: int | None
    decided_agreement: float
    reference: Rounding | None
    flips: int | None
    bits: int | None
    judged: bool
    bound: float
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
    exact: Any = None,
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
        exact: what PyTorch makes in float64 with the same weights, inputs and attention masks.
        flips: attention-mask bits that differ before this tap.
        bits: of how many.
        judged: False for what is only reported.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(f"{name}: ours is {ours.shape}, the reference {theirs.shape}")
    error = np.abs(ours - theirs)
    std = float(theirs.std())
    ratio = _ratio(error.max(), std)
    same = ours.argmax(-1) == theirs.argmax(-1)
    decided, rounding = np.ones_like(same), None
    if exact is not None:
        own = np.abs(theirs - exact).max()
        second, first = np.moveaxis(np.partition(exact, -2, axis=-1)[..., -2:], -1, 0)
        decided = first - second > 2 * own
        own_same = theirs.argmax(-1) == np.asarray(exact).argmax(-1)
        rounding = Rounding(_ratio(own, std), float(own_same.mean()))
    decided_agreement = float(same[decided].mean()) if decided.any() else 1.0
    bound = tolerance.block if view == "block" else tolerance.model
    if rounding:
        bound = max(bound, ROUNDINGS * rounding.ratio)
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
        undecided=None if exact is None else int((~decided).sum()),
        decided_agreement=decided_agreement,
        reference=rounding,
        flips=flips,
        bits=bits,
        judged=judged,
        bound=bound,
        # written so that NaN is never good
        good=bool(ratio <= bound and (view == "block" or decided_agreement >= tolerance.agreement)),
    )


def _ratio(error: float, std: float) -> float:
    return float(error) / std if std else float("inf" if error else 0.0)
