"""Compares one JAX array with its PyTorch reference.

Two float32 programs that sum in a different order differ by rounding. How much of a difference is
rounding is measured, not guessed: where the reference also ran in float64, its own float32 run is
compared with that, and both errors are reported.
"""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np

from porting.parity.tolerances import Tolerance

# Bound in units of the reference's own rounding. Two float32 programs differ by the rounding of
# both, and the largest of millions of errors varies: taps of the full-size head differ by 1.5 to
# 2.5 times that rounding.
ROUNDINGS = 4

View = Literal["block", "chain", "given masks"]
VIEWS: tuple[View, ...] = get_args(View)


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
        name: place in the model.
        view: input of the JAX side. `block`: the reference's input of that block. `chain`: images
            or features, all blocks before on its own. `given masks`: as `chain`, but with the
            attention masks of the reference.
        shape: shape of both arrays.
        max_error, mean_error: absolute errors.
        std: standard deviation of the reference.
        ratio: max_error over std.
        positions: number of positions, over all axes but the last.
        agreement: share of positions with the same argmax over the last axis.
        undecided: number of positions whose two largest values are, in float64, closer than twice
            the largest rounding error of the reference, so that its own argmax is chance. None
            where the reference did not run in float64.
        decided_agreement: `agreement` over the other positions, or over all.
        reference: the reference's own rounding, where it ran in float64.
        flips: number of attention-mask bits before this tap that differ.
        bits: number of attention-mask bits before this tap.
        judged: whether the verdict depends on this tap.
        bound: bound on `ratio`: that of the tolerance, or `ROUNDINGS` times the reference's own
            rounding where that is more.
        good: whether the error and, for outputs of the model, `decided_agreement` are within their
            bounds. In a single block the argmax over the channels is only reported: it decides
            nothing, and one tie among a few thousand positions exceeds the bound.
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
    actual: Any,
    expected: Any,
    tolerance: Tolerance,
    *,
    exact: Any = None,
    flips: int | None = None,
    bits: int | None = None,
    judged: bool = True,
) -> Tap:
    """Compares two arrays of one shape.

    Args:
        name: place in the model.
        view: see `Tap`.
        actual: output of clouds_jax.
        expected: output of PyTorch, in the same layout.
        tolerance: `block` bounds blocks, `model` everything else.
        exact: output of PyTorch in float64 with the same weights, inputs and attention masks.
        flips: number of attention-mask bits before this tap that differ.
        bits: number of attention-mask bits before this tap.
        judged: False for a tap that is only reported.

    Raises:
        ValueError: the shapes differ.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        raise ValueError(f"{name}: ours is {actual.shape}, the reference {expected.shape}")
    error = np.abs(actual - expected)
    std = float(expected.std())
    ratio = _ratio(error.max(), std)
    same = actual.argmax(-1) == expected.argmax(-1)
    decided, rounding = np.ones_like(same), None
    if exact is not None:
        own_error = np.abs(expected - exact).max()
        second, first = np.moveaxis(np.partition(exact, -2, axis=-1)[..., -2:], -1, 0)
        decided = first - second > 2 * own_error
        own_same = expected.argmax(-1) == np.asarray(exact).argmax(-1)
        rounding = Rounding(_ratio(own_error, std), float(own_same.mean()))
    decided_agreement = float(same[decided].mean()) if decided.any() else 1.0
    bound = tolerance.block if view == "block" else tolerance.model
    if rounding:
        bound = max(bound, ROUNDINGS * rounding.ratio)
    return Tap(
        name=name,
        view=view,
        shape=actual.shape,
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
