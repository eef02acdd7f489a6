"""The acceptance table: every family and encoder, there and back, with proof.

One row is: random weights in the real PyTorch class -> a file -> the family told by itself ->
`convert` -> parity of the folder on disk, tap by tap -> `invert` -> `load_state_dict(strict=True)`
-> `roundtrip` bit-equal.
"""

import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from porting.conversion import convert, invert
from porting.conversion import family as guess
from porting.files import write
from porting.files.open import open_checkpoint
from porting.parity import report, sam, torch_models
from porting.parity import run as parity
from porting.parity.tap import ROUNDINGS
from porting.parity.tolerances import get_tolerance
from porting.reference.families import FAMILIES
from porting.tables import TABLES, get_table

_BOUNDS = get_tolerance("float32", "cpu")
ROOT = Path(__file__).parents[2]
# Families without a row, and why.
_WITHOUT = {"open_clip_text": "the text tower has tests of its own against open_clip"}
_ROOMS = ("porting", "clouds_jax")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        family: of the rule table.
        encoder: our name, or "" for heads alone.
        size: "tiny" or "full".
        seed: of weights and images.
    """

    family: str
    encoder: str
    size: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Of the row's file."""
        return "-".join(filter(None, (self.family, self.encoder, self.size, str(self.seed))))


def rows(families: Sequence[str], size: str, encoders: Sequence[str] = ()) -> list[Row]:
    """All rows of these families, or of all; tiny models have one row per family."""
    found = []
    for name in families or [name for name in TABLES if name not in _WITHOUT]:
        table = get_table(name)
        if name in _WITHOUT:
            raise ValueError(f"family {name} has no row: {_WITHOUT[name]}.")
        if name in FAMILIES:
            family = FAMILIES[name]
            names = (family.tiny,) if size == "tiny" else family.full
            names = names if family.encoder else ("",)
        else:  # of SAM
            names = table.encoders or ("",)
            if size == "tiny" and table.encoders:
                names = (sam.DEBUG[name],)
        found += [Row(name, one, size) for one in names if not encoders or one in encoders]
    return found


def run(row: Row, folder: Path) -> dict[str, Any]:
    """Verifies one row; what goes wrong is part of the answer.

    Args:
        row: of the table.
        folder: for temporary files.
    """
    began = time.perf_counter()
    found: dict[str, Any] = dataclasses.asdict(row) | {"verdict": "failed", "error": ""}
    try:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            found |= _verify(row, Path(temporary))
    except (ValueError, RuntimeError, OSError, KeyError, TypeError, AssertionError) as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found["seconds"] = time.perf_counter() - began
    found["versions"] = report.versions()
    found["code"] = _code()
    return found


def _verify(row: Row, folder: Path) -> dict[str, Any]:
    table, encoder = get_table(row.family), row.encoder or None
    state, *_ = torch_models.random_state(table, row.size, row.seed, encoder)
    file, weights, back = folder / "file.pth", folder / "weights", folder / "back.safetensors"
    write.write(file, state, {}, plain=True)
    numbers = sum(tensor.size for tensor in state.values())
    expected = list(state)
    del state
    heads = torch_models.heads(row.size)
    read, provenance = open_checkpoint(file)
    told = [one.table.name for one in guess.best(read, provenance, heads=heads)]
    made = convert.prepare(row.family, str(file), encoder=encoder, heads=heads)
    parts = convert.save(made, weights)

    _, cases, tolerance = parity.run(
        row.family,
        weights=str(file),
        encoder=encoder,
        size=row.size,
        seeds=1,
        heads=heads,
        converted=None if sam.of_sam(table) else weights,
    )
    taps = [tap for case in cases for tap in case.taps]
    judged = [tap for tap in taps if tap.judged]
    worst = {
        view: max((tap.ratio for tap in judged if tap.view == view), default=None)
        for view in ("block", "chain", "given masks")
    }

    inverted = invert.invert(weights, original=str(file))
    write.write(back, inverted.state, inverted.source, plain=False)
    again, _ = open_checkpoint(back)
    name = (
        torch_models.encoder_name(table, row.size, encoder) if row.family in FAMILIES else encoder
    )
    loaded = torch_models.load_strictly(table, again, row.size, name)
    counts = invert.roundtrip(made, weights)
    same = sum(name in again and np.array_equal(again[name], made.state[name]) for name in expected)
    good = {
        "family": row.family in told,
        "parity": report.good(cases),
        "inverted": same == len(expected),
        "bits": counts.same == len(made.plan.used) + _remade(made) and parts.narrowed == 0,
    }
    return {
        "file_bytes": file.stat().st_size,
        "tensors": len(expected),
        "numbers": numbers,
        "used": len(made.plan.used),
        "dropped": len(made.plan.dropped),
        "told": told,
        "taps": len(taps),
        "judged": len(judged),
        "worst": worst,
        # good only because the reference's own rounding is of that size (`compare.ROUNDINGS`)
        "by_rounding": [
            {"name": tap.name, "view": tap.view, "ratio": tap.ratio, "bound": tap.bound}
            for tap in judged
            if tap.good
            and tap.ratio > (tolerance.block if tap.view == "block" else tolerance.model)
        ],
        "first_out_of_bounds": [getattr(report.first_bad(case), "name", None) for case in cases],
        "tolerance": dataclasses.asdict(tolerance),
        "loaded": loaded,
        "bit_equal": counts.same,
        "good": good,
        "verdict": "ok" if all(good.values()) else "failed",
    }


def _remade(made: convert.Conversion) -> int:
    """Tensors that are left out and made anew from the one value they have."""
    return sum(rule.value is not None for rule in made.plan.dropped.values())


def failed(row: Row, error: str) -> dict[str, Any]:
    """What is said of a row that did not come to an end."""
    return dataclasses.asdict(row) | {
        "verdict": "failed",
        "error": error,
        "seconds": 0.0,
        "versions": report.versions(),
        "code": {},
    }


def read(folder: Path, row: Row) -> dict[str, Any] | None:
    """A good row that was made before by this code, or None."""
    found = any_row(folder, row)
    current = found["versions"] == report.versions() and all(
        _hash(ROOT / name) == digest for name, digest in found["code"].items()
    )
    return found if current and found["verdict"] == "ok" else None


def any_row(folder: Path, row: Row) -> dict[str, Any]:
    """What stands in the folder of a row."""
    path = folder / "rows" / f"{row.name}.json"
    return json.loads(path.read_text()) if path.exists() else failed(row, "not run")


def write_row(folder: Path, found: dict[str, Any]) -> None:
    """Writes one row."""
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    row = Row(found["family"], found["encoder"], found["size"], found["seed"])
    _replace(folder / "rows" / f"{row.name}.json", json.dumps(found, indent=1) + "\n")


def write_table(folder: Path) -> None:
    """Writes table.json and table.md of all rows that are in the folder."""
    order = {name: i for i, name in enumerate(FAMILIES)}
    found = [json.loads(path.read_text()) for path in sorted((folder / "rows").glob("*.json"))]
    found.sort(key=lambda one: (one["size"], order.get(one["family"], len(order)), one["encoder"]))
    _replace(folder / "table.json", json.dumps(found, indent=1) + "\n")
    _replace(folder / "table.md", to_markdown(found))


def to_markdown(found: Sequence[dict[str, Any]]) -> str:
    """The table for people."""
    good = sum(one["verdict"] == "ok" for one in found)
    lines = [
        f"# {good} of {len(found)} rows verified",
        "",
        "Random weights in the PyTorch class, written to a file, converted, compared, inverted and"
        " loaded with `strict=True`. Errors are the largest of any judged tap over the standard"
        f" deviation of the reference's; bounds are {_BOUNDS.block:g} for a block and"
        f" {_BOUNDS.model:g} after a chain. Taps above them that are within {ROUNDINGS} times the"
        " reference's own rounding (float32 against float64) are counted in the last column.",
        "",
        "| family | encoder | size | tensors | numbers | taps | block | chain | given masks"
        " | strict load | bit-equal | seconds | |",
        "| --- | --- | --- " + "| ---: " * 9 + "| --- |",
    ]
    for one in found:
        cells = [f"`{one['family']}`", f"`{one['encoder']}`" if one["encoder"] else "head alone"]
        cells.append(one["size"])
        if "worst" in one:
            worst = one["worst"]
            errors = [
                "" if worst[view] is None else f"{worst[view]:.1e}"
                for view in ("block", "chain", "given masks")
            ]
            cells += [f"{one['tensors']:,}", f"{one['numbers']:,}", str(one["judged"]), *errors]
            cells += [str(one["loaded"]), f"{one['bit_equal']} of {one['tensors']}"]
        else:
            cells += [""] * 8
        cells += [f"{one['seconds']:.0f}", _verdict(one)]
        lines.append("| " + " | ".join(cells) + " |")
    left = "Tensors that are not bit-equal are those the table leaves out; they are taken from the"
    return "\n".join([*lines, "", f"{left} original."]) + "\n"


def _verdict(one: dict[str, Any]) -> str:
    if one["verdict"] == "ok":
        count = len(one["by_rounding"])
        return f"ok, {count} taps by the reference's own rounding" if count else "ok"
    if one["error"]:
        return f"**{one['error'].splitlines()[0]}**"
    return "**" + ", ".join(name for name, good in one["good"].items() if not good) + "**"


def _code() -> dict[str, str]:
    """Path -> hash of every module of ours that took part."""
    files = {
        Path(file).relative_to(ROOT).as_posix()
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in _ROOMS and (file := getattr(module, "__file__", None))
    }
    return {name: _hash(ROOT / name) for name in sorted(files)}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
