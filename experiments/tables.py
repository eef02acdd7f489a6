"""What a table is: rows that are trained and scored here, rows that others published, Markdown."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table, trained and scored here.

    Attributes:
        name: of the runs' folders. Two tables that show the same run give it the same name.
        config: the experiment config, from the repository root, with `:mode` where it has one.
        datasets: what to score, as `name/split`.
        protocol: how to score it (`clouds_jax.evaluation.protocols`).
        set: config keys that differ from the config file, by dotted name.
        seeds: the row is trained once with each.
        start: the row from whose weights, of the same seed, this one's training starts.
        space: number of classes of the label space that is scored; "": the model's own.
        published: mIoU in percent, by column of the table.
        source: where the published figures come from.
    """

    name: str
    config: str
    datasets: tuple[str, ...]
    protocol: str
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    start: "Row | None" = None
    space: str = ""
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Quoted:
    """One line with figures of another work, which nothing here computes.

    Attributes:
        published: mIoU in percent, by column of the table.
        source: where the figures come from.
        year: in which the method appeared, as a decimal number; for the figure over time.
    """

    published: Mapping[str, float]
    source: str
    year: float = 0.0


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper, or one of ours.

    Attributes:
        title: what it shows.
        columns: heading -> the datasets whose mean mIoU it shows.
        rows: by title.
        note: what a reader must know, below the table.
        prepare: (folder of shards, working folder) -> commands that make what the rows read, each
            a module with its arguments; they do nothing where it is made.
    """

    title: str
    columns: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, Row | Quoted]
    note: str = ""
    prepare: Callable[[Path, Path], Iterator[tuple[str, ...]]] | None = None


def slug(name: str) -> str:
    """A row's title as a file name."""
    return "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")


def result_path(results: Path, table: str, title: str, seed: int = 0) -> Path:
    """Where the figures of a finished run of a row lie."""
    return results / table / (slug(title) + (f"_seed{seed}" if seed else "") + ".json")


def records(results: Path, table: str, title: str, row: Row) -> list[dict[str, Any]]:
    """The finished runs of a row."""
    paths = [result_path(results, table, title, seed) for seed in row.seeds]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def miou(record: Mapping[str, Any], datasets: Sequence[str], space: str = "") -> float | None:
    """Mean mIoU in percent over the datasets, or None where one of them was not scored."""
    found = []
    for ref in datasets:
        result = record["results"].get(ref)
        if result is None:
            return None
        found.append(100 * (result["scores"][space]["miou"] if space else result["miou"]))
    return statistics.mean(found)


def render(name: str, table: Table, results: Path) -> str:
    """The table as Markdown: our figures, the published ones beside them, time and hardware."""
    columns = list(table.columns)
    beside = any(row.published for row in table.rows.values())
    head = ["row", *columns, *(["published"] if beside else []), "training", "hardware"]
    lines = [f"{table.title} mIoU in percent.", "", "| " + " | ".join(head) + " |"]
    lines.append("|" + " --- |" * len(head))
    for title, row in table.rows.items():
        cells = [title, *_cells(name, title, row, table, results)]
        if beside:
            cells[-2:-2] = [_published(row, columns)]
        lines.append("| " + " | ".join(cells) + " |")
    sources = sorted({row.source for row in table.rows.values() if row.source})
    lines += ["", table.note] if table.note else []
    if beside:
        lines += ["", f"Published: {' / '.join(columns)}.", *(f"- {s}" for s in sources)]
    return "\n".join(lines)


def _cells(name: str, title: str, row: Row | Quoted, table: Table, results: Path) -> list[str]:
    """Our figures, the time of training and the hardware, or why there are none."""
    if isinstance(row, Quoted):
        return ["quoted"] * len(table.columns) + ["-", "-"]
    found = records(results, name, title, row)
    if not found:
        return ["not run"] * (len(table.columns) + 2)
    cells = []
    for datasets in table.columns.values():
        values = [miou(record, datasets, row.space) for record in found]
        cells.append(spread([value for value in values if value is not None]))
    minutes = statistics.mean(record["minutes"] for record in found)
    runs = f"{minutes:.1f} min" + (
        f", {len(found)} of {len(row.seeds)} seeds" if row.seeds[1:] else ""
    )
    return [*cells, runs, ", ".join(sorted({record["hardware"] for record in found}))]


def spread(values: Sequence[float]) -> str:
    """Mean and, of several values, their standard deviation (n - 1)."""
    if not values:
        return "not run"
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _published(row: Row | Quoted, columns: Sequence[str]) -> str:
    return " / ".join(f"{row.published[c]:.1f}" if c in row.published else "-" for c in columns)
