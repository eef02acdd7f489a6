"""Finds the family of a checkpoint, and the prefix of its names, from names and shapes."""

from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from porting.conversion.conversion import Conversion, match
from porting.conversion.prefixes import Candidate, Names, apart, rank
from porting.conversion.targets import Target
from porting.files.open import Provenance, below_prefix
from porting.files.trees import Tree, nest
from porting.tables import OURS, TABLES, Table, get_table
from porting.tables.apply import WIDENED, ConversionError, plan

AUTO = "auto"
_TRIED = 4  # families with the best names that are also matched by shape
_SHOWN = 6  # misfits shown for a wrong family


class WrongFamilyError(ConversionError):
    """The checkpoint is of another family than the one that was named."""

    def __init__(self, misfits: Sequence[str], family: str, better: Conversion):
        super().__init__(
            misfits,
            head=f"the file is not of family {family}, {len(misfits)} misfits:",
            tail=f"family {better.table.name} fits better: {len(better.plan.misfits)} misfits.",
            lines=_SHOWN,
        )


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
        ValueError: several families fit equally well, or several models under different prefixes.
    """
    is_ours = provenance.format.startswith(OURS.name)
    if is_ours and family in (None, AUTO, OURS.name):
        target = Target(_own_shapes(state))
        return Conversion(state, provenance, OURS, target, plan(state, OURS.rules, target.shapes))
    if family == OURS.name:
        raise ConversionError([f"{provenance.file} is no folder of our weights"])
    names = Names(state)
    if family in (None, AUTO):
        candidates = _candidates(names, TABLES.values())
        fit = _only_best(state, provenance, candidates, encoder, heads)
        if not fit.plan.misfits:
            _refuse_several_models(fit, state, provenance, candidates, encoder, heads)
        return fit
    table = get_table(str(family))
    candidates = _candidates(names, [table])
    named = next(iter(_best(state, provenance, candidates, encoder, heads)), None)
    if named and not _cost(named, state):
        return named
    better = next(iter(best_families(state, provenance, encoder=encoder, heads=heads)), None)
    misfits = _misfits(named, state, provenance, table)
    if better and _is_of_same_model(better, named) and _cost(better, state) < len(misfits):
        raise WrongFamilyError(misfits, table.name, better)
    if named is None:
        raise ConversionError(misfits)
    if not named.plan.misfits:
        _refuse_several_models(named, state, provenance, candidates, encoder, heads)
    return named


def _misfits(
    fit: Conversion | None, state: Mapping[str, np.ndarray], provenance: Provenance, table: Table
) -> tuple[str, ...]:
    """What keeps a file from being of a family, with the tensors beside the prefix."""
    if fit is None:
        return (f"no tensor of the file is of family {table.name}",)
    prefix = fit.provenance.prefix.removeprefix(provenance.prefix)
    beside = (
        f"{name} {tensor.shape}: not below the prefix {prefix}"
        for name, tensor in state.items()
        if not name.startswith(prefix)
    )
    return (*fit.plan.misfits, *beside)


def _is_of_same_model(better: Conversion, named: Conversion | None) -> bool:
    """Whether another family is another name of the named one's tensors, or of more of them."""
    if named is None:
        return True
    return better.table is not named.table and not apart(
        better.provenance.prefix, named.provenance.prefix
    )


def _only_best(
    state: dict[str, np.ndarray],
    provenance: Provenance,
    candidates: Sequence[Candidate],
    encoder: str | None,
    heads: int,
) -> Conversion:
    """The conversion by the one family that fits best."""
    fits = _best(state, provenance, candidates, encoder, heads)
    if not fits:
        raise ConversionError(
            [f"{name} {tensor.shape}: no family knows it" for name, tensor in state.items()]
        )
    if len(fits) > 1:
        names = ", ".join(fit.table.name for fit in fits)
        raise ValueError(f"{provenance.file} fits several families equally: {names}; name one.")
    return fits[0]


def _refuse_several_models(
    fit: Conversion,
    state: dict[str, np.ndarray],
    provenance: Provenance,
    candidates: Sequence[Candidate],
    encoder: str | None,
    heads: int,
) -> None:
    """Raises if the tensors beside the model's are another whole model, such as a teacher."""
    if len(fit.state) == len(state):
        return
    own = fit.provenance.prefix.removeprefix(provenance.prefix)
    prefixes: list[str] = []
    for candidate in candidates:
        if all(apart(candidate.prefix, prefix) for prefix in (own, *prefixes)):
            prefixes.append(candidate.prefix)
    fits = [fit]
    for prefix in prefixes[:_TRIED]:
        same = [candidate for candidate in candidates if candidate.prefix == prefix]
        fits += [
            other
            for other in _best(state, provenance, same, encoder, heads)[:1]
            if not other.plan.misfits
        ]
    if len(fits) > 1:
        listed = ", ".join(
            f"{f.provenance.prefix} ({f.table.name}, {len(f.state)} tensors)" for f in fits
        )
        raise ValueError(
            f"{provenance.file} holds several models: {listed}; choose one with --prefix PREFIX."
        )


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

    candidates = _candidates(Names(state), TABLES.values())
    return _best(state, provenance, candidates, encoder, heads)


def _candidates(names: Names, tables: Iterable[Table]) -> list[Candidate]:
    """Families with prefixes that some names fit, the best first."""
    return sorted((c for table in tables for c in names.candidates(table)), key=rank)


def _best(
    state: dict[str, np.ndarray],
    provenance: Provenance,
    candidates: Sequence[Candidate],
    encoder: str | None,
    heads: int,
) -> list[Conversion]:
    """The conversions that leave the fewest tensors and targets out; several if all is equal."""
    fits: list[Conversion] = []
    for candidate in candidates[:_TRIED]:
        # every unknown name is a misfit or beside the prefix, so such a candidate cannot be better
        if all(candidate.unknown <= _cost(fit, state) for fit in fits) and (
            fit := _match(candidate, state, provenance, encoder, heads)
        ):
            fits.append(fit)

    def order(fit: Conversion) -> tuple[int, int, int, int]:
        # Last the number of rules: a table of whole files also matches parts, but has more rules.
        used, prefix = len(fit.plan.used), len(fit.provenance.prefix)
        return _cost(fit, state), -used, prefix, len(fit.table.rules)

    return [fit for fit in fits if order(fit) == min(map(order, fits))]


def _cost(fit: Conversion, state: Mapping[str, np.ndarray]) -> int:
    """Number of misfits, and of tensors beside the prefix."""
    return len(fit.plan.misfits) + len(state) - len(fit.state)


def _match(
    candidate: Candidate,
    state: dict[str, np.ndarray],
    provenance: Provenance,
    encoder: str | None,
    heads: int,
) -> Conversion | None:
    """The conversion of the tensors below a prefix by one table; None if none is of the family."""
    if candidate.prefix:
        state, provenance = below_prefix(state, provenance, candidate.prefix)
    try:
        return match(state, provenance, candidate.table, encoder=encoder, heads=heads)
    except ConversionError:
        return None
