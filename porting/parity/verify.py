"""Verification of every family and encoder, there and back.

One row is: random weights in the real PyTorch class -> a file -> the family recognised -> `convert`
-> parity of the weights folder, tap by tap -> `invert` -> `load_state_dict(strict=True)` ->
`roundtrip`, bit for bit.
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clouds_jax.command_line import message
from porting.conversion import convert, invert
from porting.conversion.conversion import Conversion
from porting.conversion.family import best_families
from porting.files import write
from porting.files.open import open_checkpoint
from porting.parity import report, sam, torch_models
from porting.parity import run as parity
from porting.parity.case import Case
from porting.parity.tap import VIEWS, Tap
from porting.parity.tolerances import MATMUL_PRECISION, Tolerance
from porting.parity.verify_table import Row, code_hashes
from porting.reference.families import FAMILIES
from porting.tables import TABLES, Table, get_table

# Families without a row, and why.
_WITHOUT = {"open_clip_text": "the text tower has tests of its own against open_clip"}

Facts = dict[str, Any]  # part of a row's JSON


def rows(families: Sequence[str], size: str, encoders: Sequence[str] = ()) -> list[Row]:
    """The rows of these families, or of all.

    Args:
        families: names of rule tables; none for all.
        size: "tiny" gives one row per family, "full" one per encoder.
        encoders: names of encoders that the rows are restricted to; none for all.

    Raises:
        KeyError: an unknown family.
        ValueError: a family that has no row.
    """
    chosen = []
    for name in families or [name for name in TABLES if name not in _WITHOUT]:
        table = get_table(name)
        if name in _WITHOUT:
            raise ValueError(f"family {name} has no row: {_WITHOUT[name]}.")
        names = _encoders_of(table, size)
        chosen += [Row(name, own, size) for own in names if not encoders or own in encoders]
    return chosen


def _encoders_of(table: Table, size: str) -> Sequence[str]:
    """Names of the encoders with a row; "" for heads alone."""
    if table.name in FAMILIES:
        family = FAMILIES[table.name]
        if not family.encoder:
            return ("",)
        return (family.tiny,) if size == "tiny" else family.full
    if size == "tiny" and table.encoders:
        return (sam.DEBUG[table.name],)
    return table.encoders or ("",)


def run(row: Row, folder: Path) -> Facts:
    """Verifies one row; an error becomes part of the row instead of being raised.

    Args:
        row: family, encoder, size and seed.
        folder: place for temporary files.
    """
    began = time.perf_counter()
    facts: Facts = dataclasses.asdict(row) | {"verdict": "failed", "error": ""}
    try:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            facts |= _verify(row, Path(temporary))
    except (ValueError, RuntimeError, OSError, KeyError, TypeError, AssertionError) as error:
        facts["error"] = f"{type(error).__name__}: {message(error)}"
    facts["seconds"] = time.perf_counter() - began
    facts["platform"] = jax.default_backend()
    facts["matmul_precision"] = MATMUL_PRECISION
    facts["versions"] = report.versions()
    facts["code"] = code_hashes()
    return facts


@dataclasses.dataclass(frozen=True)
class _Subject:
    """The random checkpoint of a row.

    Attributes:
        row: family, encoder, size and seed.
        table: rules of the family.
        file: the checkpoint.
        weights: folder for the converted weights.
        names: names of its tensors.
        numbers: number of elements over all tensors.
    """

    row: Row
    table: Table
    file: Path
    weights: Path
    names: list[str]
    numbers: int

    @property
    def encoder(self) -> str | None:
        return self.row.encoder or None

    @property
    def heads(self) -> int:
        return torch_models.head_count(self.row.size)


def _verify(row: Row, folder: Path) -> Facts:
    """All proofs of a row; each says whether it holds, and what was measured."""
    subject = _write_random(row, folder)
    recognised = _recognise(subject)
    conversion = convert.prepare(
        row.family, str(subject.file), encoder=subject.encoder, heads=subject.heads
    )
    stream = convert.save(conversion, subject.weights)
    equal, parity_facts = _compare_outputs(subject)
    inverted, loaded = _invert_and_load(subject, conversion)
    bit_equal = invert.roundtrip(conversion, subject.weights).same
    plan = conversion.plan
    restored = sum(rule.value is not None for rule in plan.dropped.values())
    good = {
        "family": row.family in recognised,
        "parity": equal,
        "inverted": inverted,
        "bits": bit_equal == len(plan.used) + restored and stream.narrowed == 0,
    }
    return {
        "file_bytes": subject.file.stat().st_size,
        "tensors": len(subject.names),
        "numbers": subject.numbers,
        "used": len(plan.used),
        "dropped": len(plan.dropped),
        "told": recognised,
        **parity_facts,
        "loaded": loaded,
        "bit_equal": bit_equal,
        "good": good,
        "verdict": "ok" if all(good.values()) else "failed",
    }


def _write_random(row: Row, folder: Path) -> _Subject:
    """Writes the state dict of the real PyTorch classes with random weights."""
    table = get_table(row.family)
    state = torch_models.random_models(table, row.size, row.seed, row.encoder or None).state
    file = folder / "file.pth"
    write.write(file, state, {}, plain=True)
    numbers = sum(tensor.size for tensor in state.values())
    return _Subject(row, table, file, folder / "weights", list(state), numbers)


def _recognise(subject: _Subject) -> list[str]:
    """Names of the families that fit the file best, without naming one."""
    state, provenance = open_checkpoint(subject.file)
    return [fit.table.name for fit in best_families(state, provenance, heads=subject.heads)]


def _compare_outputs(subject: _Subject) -> tuple[bool, Facts]:
    """Parity of the weights folder with the file; whether all is within bounds."""
    _, cases, tolerance = parity.run(
        subject.row.family,
        weights=str(subject.file),
        encoder=subject.encoder,
        size=subject.row.size,
        seeds=1,
        heads=subject.heads,
        converted=None if sam.is_sam(subject.table) else subject.weights,
    )
    return report.good(cases), _parity_facts(cases, tolerance)


def _parity_facts(cases: Sequence[Case], tolerance: Tolerance) -> Facts:
    judged = [tap for case in cases for tap in case.judged]

    def above_tolerance(tap: Tap) -> bool:
        return tap.ratio > (tolerance.block if tap.view == "block" else tolerance.model)

    return {
        "taps": sum(len(case.taps) for case in cases),
        "judged": len(judged),
        "worst": {
            view: max((tap.ratio for tap in judged if tap.view == view), default=None)
            for view in VIEWS
        },
        # good only because the reference's own rounding is of that size (`tap.ROUNDINGS`)
        "by_rounding": [
            {"name": tap.name, "view": tap.view, "ratio": tap.ratio, "bound": tap.bound}
            for tap in judged
            if tap.good and above_tolerance(tap)
        ],
        "first_out_of_bounds": [getattr(case.first_bad, "name", None) for case in cases],
        "tolerance": dataclasses.asdict(tolerance),
    }


def _invert_and_load(subject: _Subject, conversion: Conversion) -> tuple[bool, int]:
    """Restores the file from the weights and loads it into new PyTorch models with strict=True.

    Returns:
        Whether all tensors are equal, and the number of tensors that were loaded.
    """
    inverted = invert.invert(subject.weights, original=str(subject.file))
    file = subject.file.with_name("back.safetensors")
    write.write(file, inverted.state, inverted.source, plain=False)
    restored, _ = open_checkpoint(file)
    row = subject.row
    loaded = torch_models.load_strictly(subject.table, restored, row.size, subject.encoder)
    equal = all(
        name in restored and np.array_equal(restored[name], conversion.state[name])
        for name in subject.names
    )
    return equal, loaded
