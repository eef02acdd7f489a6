"""Which family a checkpoint is of, told from its names and shapes."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from porting.conversion.targets import Target, choose
from porting.files.open import Provenance, without_prefix
from porting.files.trees import Tree, nest
from porting.tables import OURS, TABLES, Table, get_table
from porting.tables.rules import WIDENED, ConversionError, Plan, match_counts, plan

AUTO = "auto"
# What programs put before every name; taken off where the names then fit better.
_PREFIXES = ("", "model.", "model.module.")
_TRIED = 4  # families, of those whose names fit best, that are tried with their shapes
_SHOWN = 6  # misfits of a family that is the wrong one


class WrongFamilyError(ConversionError):
    """The checkpoint is of another family than the one that was named."""

    def __init__(self, misfits: Sequence[str], family: str, better: "Fit"):
        super().__init__(misfits)
        shown = [f"  {text}" for text in misfits[:_SHOWN]]
        if len(misfits) > _SHOWN:
            shown.append(f"  and {len(misfits) - _SHOWN} more")
        last = f"family {better.table.name} fits better: {len(better.plan.misfits)} misfits."
        head = f"the file is not of family {family}, {len(misfits)} misfits:"
        self.args = ("\n".join([head, *shown, last]),)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A family and what it makes of a checkpoint.

    Attributes:
        table: of the family.
        state: the tensors, under the family's names.
        provenance: of the file.
        target: the model.
        plan: which tensor goes where, and the misfits.
    """

    table: Table
    state: dict[str, np.ndarray]
    provenance: Provenance
    target: Target
    plan: Plan


def fit(
    family: str | None,
    state: dict[str, np.ndarray],
    provenance: Provenance,
    *,
    encoder: str | None = None,
    heads: int = 8,
) -> Fit:
    """Fits a checkpoint to a family; the misfits stand in the plan.

    Args:
        family: name in `TABLES`; None or "auto" takes the one with the fewest misfits.
        state: the tensors.
        provenance: of the file.
        encoder: our name; None takes the one that fits.
        heads: attention heads of a Mask2Former head.

    Raises:
        WrongFamilyError: another family than the named one fits better.
        ConversionError: no tensor is of the family, or of any.
    """
    if provenance.format.startswith(OURS.name) and family in (None, AUTO, OURS.name):
        target = Target(_as_they_are(state))
        planned = plan(state, OURS.rules, target.want)
        return Fit(OURS, state, provenance, target, planned)
    if family == OURS.name:
        raise ConversionError([f"{provenance.file} is no folder of our weights"])
    if family in (None, AUTO):
        found = best(state, provenance, encoder=encoder, heads=heads)
        if not found:
            raise ConversionError(
                [f"{name} {tensor.shape}: no family knows it" for name, tensor in state.items()]
            )
        if len(found) > 1:
            names = ", ".join(one.table.name for one in found)
            raise ValueError(f"{provenance.file} fits several families equally: {names}; name one.")
        return found[0]
    table = get_table(str(family))
    named = _of_table(table, state, provenance, encoder, heads)
    if named and not named.plan.misfits:
        return named
    better = next(iter(best(state, provenance, encoder=encoder, heads=heads)), None)
    misfits = named.plan.misfits if named else (f"no tensor of the file is of family {family}",)
    if better and better.table is not table and len(better.plan.misfits) < len(misfits):
        raise WrongFamilyError(misfits, table.name, better)
    if named is None:
        raise ConversionError(misfits)
    return named


def _as_they_are(state: Mapping[str, np.ndarray]) -> Tree:
    """The leaves of our weights: half precision may be widened, all else stays."""
    return nest(
        {
            tuple(name.split(".")): jax.ShapeDtypeStruct(
                tensor.shape, np.float32 if tensor.dtype in WIDENED else tensor.dtype
            )
            for name, tensor in state.items()
        }
    )


def best(
    state: dict[str, np.ndarray],
    provenance: Provenance,
    *,
    encoder: str | None = None,
    heads: int = 8,
) -> list[Fit]:
    """The family with the fewest misfits, and of several the one that uses most tensors.

    More than one where the tensors cannot tell: files of FC-CLIP and of CLOUDS with the text
    classifier have the same names.
    """

    def by_names(table: Table) -> tuple[int, int]:
        prefix = _prefix_for(table, state)
        used, unmatched = match_counts([name.removeprefix(prefix) for name in state], table.rules)
        return unmatched, -used

    counts = {name: by_names(table) for name, table in TABLES.items()}
    candidates = sorted((name for name in counts if counts[name][1]), key=lambda n: counts[n])
    fits = [
        found
        for name in candidates[:_TRIED]
        if (found := _of_table(TABLES[name], state, provenance, encoder, heads))
    ]

    def rank(one: Fit) -> tuple[int, int, int]:
        # the last: a table of whole files takes parts of them too, but has more rules
        return len(one.plan.misfits), counts[one.table.name][1], len(one.table.rules)

    return [one for one in fits if rank(one) == min(map(rank, fits))]


def _of_table(
    table: Table,
    state: dict[str, np.ndarray],
    provenance: Provenance,
    encoder: str | None,
    heads: int,
) -> Fit | None:
    """What a family makes of a checkpoint, or None where no tensor is of it."""
    prefix = _prefix_for(table, state)
    if prefix:
        state, provenance = without_prefix(state, provenance, prefix)
    try:
        target = choose(state, table, encoder=encoder, heads=heads)
    except ConversionError:
        return None
    return Fit(table, state, provenance, target, plan(state, table.rules, target.want))


def _prefix_for(table: Table, state: Mapping[str, np.ndarray]) -> str:
    """The prefix without which most names have a rule."""
    found = {
        prefix: match_counts([name.removeprefix(prefix) for name in state], table.rules)
        for prefix in _PREFIXES
        if all(name.startswith(prefix) for name in state)
    }
    return min(found, key=lambda prefix: (found[prefix][1], -found[prefix][0]))
