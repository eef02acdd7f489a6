"""Matches one checkpoint against families under every prefix that its names may have."""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from porting.conversion.conversion import Conversion, match
from porting.conversion.prefixes import Candidate, Names, apart, rank
from porting.files.open import Provenance, below_prefix
from porting.tables import Table
from porting.tables.apply import ConversionError

_TRIED = 4  # candidates with the best names that are also matched by shape


@dataclasses.dataclass(frozen=True)
class Fitting:
    """A checkpoint whose family and prefix are to be found.

    Attributes:
        state: source tensors by name.
        provenance: origin of the tensors.
        encoder: name in `ENCODERS` or `SAMS`; None infers it from the shapes.
        heads: attention heads of a Mask2Former head.
    """

    state: dict[str, np.ndarray]
    provenance: Provenance
    encoder: str | None
    heads: int

    def candidates(self, tables: Iterable[Table]) -> list[Candidate]:
        """Families with prefixes that some names fit, the best first."""
        return sorted((c for table in tables for c in self._names.candidates(table)), key=rank)

    def best(self, candidates: Sequence[Candidate]) -> list[Conversion]:
        """The conversions that leave the fewest tensors and targets out; several if all is equal.

        Args:
            candidates: the best first; only the first few are matched by shape.
        """
        fits: list[Conversion] = []
        for candidate in candidates[:_TRIED]:
            # every unknown name is a misfit or beside the prefix: such a candidate is no better
            if all(candidate.unknown <= self.cost(fit) for fit in fits) and (
                fit := self._match(candidate)
            ):
                fits.append(fit)

        def order(fit: Conversion) -> tuple[int, int, int, int]:
            # Last the number of rules: a table of whole files also matches parts, but has more.
            used, prefix = len(fit.plan.used), len(fit.provenance.prefix)
            return self.cost(fit), -used, prefix, len(fit.table.rules)

        return [fit for fit in fits if order(fit) == min(map(order, fits))]

    def cost(self, fit: Conversion) -> int:
        """Number of misfits, and of tensors beside the prefix."""
        return len(fit.plan.misfits) + len(self.beside(fit))

    def beside(self, fit: Conversion) -> list[str]:
        """Names of the tensors beside the prefix."""
        prefix = self.prefix(fit)
        return [name for name in self.state if not name.startswith(prefix)]

    def prefix(self, fit: Conversion) -> str:
        """The prefix that was found, after the one that the file was opened without."""
        return fit.provenance.prefix.removeprefix(self.provenance.prefix)

    def other_models(self, fit: Conversion, candidates: Sequence[Candidate]) -> list[Conversion]:
        """Whole models among the tensors beside the prefix, such as the teacher of a student."""
        if not self.beside(fit):
            return []
        prefixes: list[str] = []
        for candidate in candidates:
            if all(apart(candidate.prefix, prefix) for prefix in (self.prefix(fit), *prefixes)):
                prefixes.append(candidate.prefix)
        found = []
        for prefix in prefixes[:_TRIED]:
            fits = self.best([c for c in candidates if c.prefix == prefix])
            found += [other for other in fits[:1] if not other.plan.misfits]
        return found

    @cached_property
    def _names(self) -> Names:
        return Names(self.state)

    def _match(self, candidate: Candidate) -> Conversion | None:
        """The conversion of the tensors below a prefix by one table; None if none fits."""
        state, provenance = self.state, self.provenance
        if candidate.prefix:
            state, provenance = below_prefix(state, provenance, candidate.prefix)
        try:
            return match(state, provenance, candidate.table, encoder=self.encoder, heads=self.heads)
        except ConversionError:
            return None
