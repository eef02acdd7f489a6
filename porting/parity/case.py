"""The result of a parity run: one case per batch, each with its taps."""

import dataclasses
from typing import Any, NamedTuple

from porting.parity.model_pair import ModelPair
from porting.parity.tap import VIEWS, Tap, View
from porting.parity.tolerances import Tolerance


@dataclasses.dataclass(frozen=True)
class Case:
    """The comparison on one batch.

    Attributes:
        name: name of the batch.
        checkpoint: provenance of the weights, as plain JSON.
        taps: comparisons in the model's order.
    """

    name: str
    checkpoint: dict[str, Any]
    taps: tuple[Tap, ...]

    @property
    def judged(self) -> list[Tap]:
        """The taps that the verdict depends on."""
        return [tap for tap in self.taps if tap.judged]

    @property
    def first_bad(self) -> Tap | None:
        """The first judged tap that is out of bounds, in the model's order."""
        return next((tap for tap in self.judged if not tap.good), None)

    def by_view(self) -> dict[View, list[Tap]]:
        """The taps of each view that has some."""
        taps: dict[View, list[Tap]] = {}
        for view in VIEWS:
            if in_view := [tap for tap in self.taps if tap.view == view]:
                taps[view] = in_view
        return taps


class ParityResult(NamedTuple):
    """A whole parity run.

    Attributes:
        pair: the models; with random weights, those of the last seed.
        cases: one per batch.
        tolerance: the bounds.
    """

    pair: ModelPair
    cases: list[Case]
    tolerance: Tolerance
