"""Finds the family of a checkpoint from its names and shapes."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from porting.conversion.conversion import Conversion, match
from porting.conversion.targets import Target
from porting.files.open import Provenance, without_prefix
from porting.files.trees import Tree, nest
from porting.tables import OURS, TABLES, Table, get_table
from porting.tables.apply import WIDENED, ConversionError, plan
from porting.tables.rules import match_counts

AUTO = "auto"
# Prefixes that training programs put before every name; cut off where more names then match.
_PREFIXES = ("", "model.", "model.module.")
_TRIED = 4  # families with the best names that are also matched by shape
_SHOWN = 6  # misfits shown for a wrong family


class WrongFamilyError(ConversionError):
    """The checkpoint is of another family than the one that was named."""

    def __init__(self, misfits: Sequence[str], family: str, better: Conversion):
        super().__init__(misfits)
        shown = [f"  {text}" for text in misfits[:_SHOWN]]
        if len(misfits) > _SHOWN:
            shown.append(f"  and {len(misfits) - _SHOWN} more")
        last = f"family {better.table.name} fits better: {len(better.plan.misfits)} misfits."
        head = f"the file is not of family {family}, {len(misfits)} misfits:"
        self.args = ("\n".join([head, *shown, last]),)


def fit_family(
    family: str | None,
    state: dict[str, np.ndarray],
    provenance: Provenance,
    *,
    encoder: str | None = None,
    heads: int = 8,
) -> Conversion:
    """Matches a checkpoint against a family, or against the one that fits best.

    Args:
        family: name in `TABLES`; None or "auto" takes the one with the fewest misfits.
        state: source tensors by name.
        provenance: origin of the tensors.
        encoder: name in `ENCODERS` or `SAMS`; None infers it from the shapes.
        heads: attention heads of a Mask2Former head.

    Returns:
        The conversion; its plan lists the misfits.

    Raises:
        WrongFamilyError: another family than the named one fits better.
        ConversionError: no tensor is of the family, or of any.
        ValueError: several families fit equally well.
    """
    is_ours = provenance.format.startswith(OURS.name)
    if is_ours and family in (None, AUTO, OURS.name):
        target = Target(_own_shapes(state))
        return Conversion(state, provenance, OURS, target, plan(state, OURS.rules, target.shapes))
    if family == OURS.name:
        raise ConversionError([f"{provenance.file} is no folder of our weights"])
    if family in (None, AUTO):
        return _only_best(state, provenance, encoder, heads)
    table = get_table(str(family))
    named = _match_table(table, state, provenance, encoder, heads)
    if named and not named.plan.misfits:
        return named
    better = next(iter(best_families(state, provenance, encoder=encoder, heads=heads)), None)
    misfits = named.plan.misfits if named else (f"no tensor of the file is of family {family}",)
    if better and better.table is not table and len(better.plan.misfits) < len(misfits):
        raise WrongFamilyError(misfits, table.name, better)
    if named is None:
        raise ConversionError(misfits)
    return named


def _only_best(
    state: dict[str, np.ndarray], provenance: Provenance, encoder: str | None, heads: int
) -> Conversion:
    """The conversion by the one family that fits best."""
    fits = best_families(state, provenance, encoder=encoder, heads=heads)
    if not fits:
        raise ConversionError(
            [f"{name} {tensor.shape}: no family knows it" for name, tensor in state.items()]
        )
    if len(fits) > 1:
        names = ", ".join(fit.table.name for fit in fits)
        raise ValueError(f"{provenance.file} fits several families equally: {names}; name one.")
    return fits[0]


def _own_shapes(state: Mapping[str, np.ndarray]) -> Tree:
    """Shapes and dtypes of weights of our own; half precision may be widened."""
    return nest(
        {
            tuple(name.split(".")): jax.ShapeDtypeStruct(
                tensor.shape, np.float32 if tensor.dtype in WIDENED else tensor.dtype
            )
            for name, tensor in state.items()
        }
    )


def best_families(
    state: dict[str, np.ndarray],
    provenance: Provenance,
    *,
    encoder: str | None = None,
    heads: int = 8,
) -> list[Conversion]:
    """Conversions by the family with the fewest misfits; among equals, by the most tensors used.

    Several where names and shapes cannot decide: the text heads of FC-CLIP and of CLOUDS have the
    same names. Arguments as in `fit_family`.
    """

    def count_names(table: Table) -> tuple[int, int]:
        prefix = _prefix_for(table, state)
        used, unmatched = match_counts([name.removeprefix(prefix) for name in state], table.rules)
        return unmatched, -used

    counts = {name: count_names(table) for name, table in TABLES.items()}
    candidates = sorted((name for name in counts if counts[name][1]), key=lambda n: counts[n])
    fits = [
        fit
        for name in candidates[:_TRIED]
        if (fit := _match_table(TABLES[name], state, provenance, encoder, heads))
    ]

    def rank(fit: Conversion) -> tuple[int, int, int]:
        # Last the number of rules: a table of whole files also matches parts, but has more rules.
        return len(fit.plan.misfits), counts[fit.table.name][1], len(fit.table.rules)

    return [fit for fit in fits if rank(fit) == min(map(rank, fits))]


def _match_table(
    table: Table,
    state: dict[str, np.ndarray],
    provenance: Provenance,
    encoder: str | None,
    heads: int,
) -> Conversion | None:
    """The conversion by one table, without a prefix of the names; None if no tensor matches."""
    prefix = _prefix_for(table, state)
    if prefix:
        state, provenance = without_prefix(state, provenance, prefix)
    try:
        return match(state, provenance, table, encoder=encoder, heads=heads)
    except ConversionError:
        return None


def _prefix_for(table: Table, state: Mapping[str, np.ndarray]) -> str:
    """The prefix whose removal lets most names match a rule."""
    counts = {
        prefix: match_counts([name.removeprefix(prefix) for name in state], table.rules)
        for prefix in _PREFIXES
        if all(name.startswith(prefix) for name in state)
    }
    return min(counts, key=lambda prefix: (counts[prefix][1], -counts[prefix][0]))
