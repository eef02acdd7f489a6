"""Finds the family of a checkpoint, and the prefix of its names, from names and shapes."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from porting.conversion.conversion import Conversion
from porting.conversion.fitting import Fitting
from porting.conversion.prefixes import Candidate, apart
from porting.conversion.targets import Target
from porting.files.open import Provenance
from porting.files.trees import Tree, nest
from porting.tables import OURS, TABLES, Table, get_table
from porting.tables.apply import WIDENED, ConversionError, plan

AUTO = "auto"
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
    fitting = Fitting(state, provenance, encoder, heads)
    if family in (None, AUTO):
        candidates = fitting.candidates(TABLES.values())
        fit = _only_best(fitting, candidates)
    else:
        table = get_table(str(family))
        candidates = fitting.candidates([table])
        fit = _named(fitting, table, candidates)
    others = [] if fit.plan.misfits else fitting.other_models(fit, candidates)
    if others:
        listed = ", ".join(
            f"{f.provenance.prefix} ({f.table.name}, {len(f.state)} tensors)"
            for f in (fit, *others)
        )
        raise ValueError(
            f"{provenance.file} holds several models: {listed}; choose one with --prefix PREFIX."
        )
    return fit


def _only_best(fitting: Fitting, candidates: Sequence[Candidate]) -> Conversion:
    """The conversion by the one family that fits best."""
    fits = fitting.best(candidates)
    if not fits:
        raise ConversionError(
            [f"{name} {tensor.shape}: no family knows it" for name, tensor in fitting.state.items()]
        )
    if len(fits) > 1:
        names = ", ".join(fit.table.name for fit in fits)
        raise ValueError(
            f"{fitting.provenance.file} fits several families equally: {names}; name one."
        )
    return fits[0]


def _named(fitting: Fitting, table: Table, candidates: Sequence[Candidate]) -> Conversion:
    """The conversion by a named family, unless another one fits these tensors better."""
    named = next(iter(fitting.best(candidates)), None)
    if named and not fitting.cost(named):
        return named
    if named:
        prefix = fitting.prefix(named)
        misfits = [
            *named.plan.misfits,
            *(
                f"{name} {fitting.state[name].shape}: not below the prefix {prefix}"
                for name in fitting.beside(named)
            ),
        ]
    else:
        misfits = [f"no tensor of the file is of family {table.name}"]
    better = next(iter(fitting.best(fitting.candidates(TABLES.values()))), None)
    # apart from the named one it is another model, such as the teacher of a student
    if (
        better
        and fitting.cost(better) < len(misfits)
        and not (named and apart(fitting.prefix(better), fitting.prefix(named)))
    ):
        raise WrongFamilyError(misfits, table.name, better)
    if named is None:
        raise ConversionError(misfits)
    return named


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

    fitting = Fitting(state, provenance, encoder, heads)
    return fitting.best(fitting.candidates(TABLES.values()))
