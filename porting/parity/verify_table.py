"""The files of `verify`: one JSON file per row, table.json and table.md of all rows."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clouds_jax.files import write_json, write_text
from porting.parity import report
from porting.parity.tap import ROUNDINGS, VIEWS
from porting.parity.tolerances import MATMUL_PRECISION, get_tolerance
from porting.reference.families import FAMILIES

ROOT = Path(__file__).parents[2]  # of the repository; code is named by its path below it
_BOUNDS = get_tolerance("float32", "cpu")
_PACKAGES = ("porting", "clouds_jax")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        family: name of the rule table.
        encoder: name in `ENCODERS` or `SAMS`; "" for heads alone.
        size: "tiny" or "full".
        seed: seed of weights and images.
    """

    family: str
    encoder: str
    size: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the row's file."""
        return "-".join(filter(None, (self.family, self.encoder, self.size, str(self.seed))))


def failed(row: Row, error: str) -> dict[str, Any]:
    """A row that was not completed."""
    return dataclasses.asdict(row) | {
        "verdict": "failed",
        "error": error,
        "seconds": 0.0,
        "versions": report.versions(),
        "code": {},
    }


def read_row(folder: Path, row: Row) -> dict[str, Any]:
    """The stored row, whatever code wrote it; a failed one where there is none."""
    path = folder / "rows" / f"{row.name}.json"
    return json.loads(path.read_text()) if path.exists() else failed(row, "not run")


def is_current(folder: Path, row: Row) -> bool:
    """Whether the stored row is good and was made by this code with these package versions."""
    stored = read_row(folder, row)
    same_code = all(_hash(ROOT / name) == digest for name, digest in stored["code"].items())
    return same_code and stored["versions"] == report.versions() and stored["verdict"] == "ok"


def write_row(folder: Path, facts: dict[str, Any]) -> None:
    """Writes one row."""
    row = Row(facts["family"], facts["encoder"], facts["size"], facts["seed"])
    write_json(folder / "rows" / f"{row.name}.json", facts)


def write_table(folder: Path) -> None:
    """Writes table.json and table.md of all rows in the folder."""
    order = {name: i for i, name in enumerate(FAMILIES)}
    stored = [json.loads(path.read_text()) for path in sorted((folder / "rows").glob("*.json"))]
    stored.sort(key=lambda r: (r["size"], order.get(r["family"], len(order)), r["encoder"]))
    write_json(folder / "table.json", stored)
    write_text(folder / "table.md", to_markdown(stored))


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a human-readable table."""
    good = sum(row["verdict"] == "ok" for row in rows)
    lines = [
        f"# {good} of {len(rows)} rows verified",
        "",
        "Random weights in the PyTorch class, written to a file, converted, compared, inverted and"
        " loaded with `strict=True`. Errors are the largest of any judged tap over the standard"
        f" deviation of the reference's; bounds are {_BOUNDS.block:g} for a block and"
        f" {_BOUNDS.model:g} after a chain. Taps above them that are within {ROUNDINGS} times the"
        " reference's own rounding (float32 against float64) are counted in the last column."
        f" JAX multiplied in {MATMUL_PRECISION}; the JSON names each row's platform.",
        "",
        "| family | encoder | size | tensors | numbers | taps | block | chain | given masks"
        " | strict load | bit-equal | seconds | |",
        "| --- | --- | --- " + "| ---: " * 9 + "| --- |",
        *map(_line, rows),
        "",
        "Tensors that are not bit-equal are those the table leaves out; they are taken from the"
        " original.",
    ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    encoder = f"`{row['encoder']}`" if row["encoder"] else "head alone"
    cells = [f"`{row['family']}`", encoder, row["size"]]
    if "worst" in row:
        worst = [row["worst"][view] for view in VIEWS]
        errors = ["" if error is None else f"{error:.1e}" for error in worst]
        cells += [f"{row['tensors']:,}", f"{row['numbers']:,}", str(row["judged"]), *errors]
        cells += [str(row["loaded"]), f"{row['bit_equal']} of {row['tensors']}"]
    else:
        cells += [""] * 8
    return "| " + " | ".join([*cells, f"{row['seconds']:.0f}", _verdict(row)]) + " |"


def _verdict(row: dict[str, Any]) -> str:
    if row["verdict"] == "ok":
        count = len(row["by_rounding"])
        return f"ok, {count} taps by the reference's own rounding" if count else "ok"
    if row["error"]:
        return f"**{row['error'].splitlines()[0]}**"
    return "**" + ", ".join(name for name, good in row["good"].items() if not good) + "**"


def code_hashes() -> dict[str, str]:
    """Path below `ROOT` -> SHA-256 of every module of ours that is loaded."""
    names = {
        Path(file).relative_to(ROOT).as_posix()
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in _PACKAGES and (file := getattr(module, "__file__", None))
    }
    return {name: _hash(ROOT / name) for name in sorted(names)}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
