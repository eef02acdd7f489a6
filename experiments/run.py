"""Runs the rows of a table: what is missing is run, what stopped is resumed, what is done is shown.

    python -m experiments.run table_camvid
    python -m experiments.run table_camvid --row "FPN head" --shards shards
    python -m experiments.run table_camvid --debug        # every row in seconds, on fake data

A row is trained with `python -m clouds_jax.train` and scored with `python -m
clouds_jax.evaluate`, each as a program of its own, so a row can be stopped at any moment and
taken up again. A finished row is one JSON file in the results folder; the table is made from those
files alone and says "not run" for the others.
"""

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        config: the experiment config, from the repository root.
        datasets: what to score, as `name/split`.
        protocol: how to score it (`clouds_jax.protocols`).
        set: config keys that differ from the config file, by dotted name.
        published: figures to print beside ours, `name/split` -> mIoU in percent.
        source: where the published figures come from.
    """

    config: str
    datasets: tuple[str, ...]
    protocol: str
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    source: str = ""


def slug(name: str) -> str:
    """A row's name as a file name."""
    return "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")


def program(module: str, *arguments: str) -> None:
    """Runs `python -m module`; its output goes to the terminal.

    Raises:
        SystemExit: the program failed; its own message stands above.
    """
    command = [sys.executable, "-m", module, *arguments]
    print("$", " ".join(command[1:]), flush=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        raise SystemExit(f"{module} ended with status {code}; run the same command to resume.")


def hardware() -> str:
    """The processor this runs on, in words."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return f"{os.cpu_count()} cores of {line.split(':', 1)[1].strip()}"
    return f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}"


def _lines(path: str) -> list[str]:
    try:
        return pathlib.Path(path).read_text().splitlines()
    except OSError:
        return []


def run_row(table: str, name: str, row: Row, arguments: argparse.Namespace) -> None:
    """Trains and scores one row, and writes its JSON."""
    workdir = pathlib.Path(arguments.workdir) / table / slug(name)
    config = row.config + (":debug" if arguments.debug else "")
    flags = [f"--config={config}", f"--workdir={workdir}"]
    sets = {} if arguments.debug else dict(row.set)
    if arguments.shards:
        sets["data.shards"] = os.path.abspath(arguments.shards)
    flags += [f"--config.{key}={value}" for key, value in sets.items()]
    clock = workdir / "wall_seconds"  # over all calls, since a row may be stopped and resumed
    wall = float(clock.read_text()) if clock.exists() else 0.0
    began = time.time()
    try:
        program("clouds_jax.train", *flags)
    finally:
        wall += time.time() - began
        workdir.mkdir(parents=True, exist_ok=True)
        clock.write_text(f"{wall:.1f}\n")
    output = workdir / "evaluation"
    datasets = ("fake",) if arguments.debug else row.datasets
    program(
        "clouds_jax.evaluate",
        f"--workdir={workdir}",
        f"--datasets={','.join(datasets)}",
        f"--protocol={row.protocol}",
        f"--output={output}",
    )
    results = json.loads((output / "results.json").read_text())
    record = {
        "row": name,
        "config": config,
        "set": sets,
        "protocol": row.protocol,
        "results": results["datasets"],
        "training": f"{wall / 60:.1f} min",
        "hardware": hardware(),
    }
    path = result_path(arguments.results, table, name)
    for panels in sorted(output.glob("*_panels.png")):
        keep(panels.read_bytes(), path.with_name(f"{slug(name)}_{panels.name}"))
    keep(json.dumps(record, indent=1).encode() + b"\n", path)


def keep(content: bytes, path: pathlib.Path) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def result_path(results: str, table: str, name: str) -> pathlib.Path:
    """Where a finished row's figures lie."""
    return pathlib.Path(results) / table / f"{slug(name)}.json"


def render(table: str, rows: Mapping[str, Row], results: str) -> str:
    """The table as Markdown: our figures, the published ones, time and hardware."""
    datasets = list(dict.fromkeys(d for row in rows.values() for d in row.datasets))
    head = ["row", *datasets, "published", "training", "hardware"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, row in rows.items():
        path = result_path(results, table, name)
        published = ", ".join(f"{v} ({d})" for d, v in row.published.items()) or "-"
        if not path.exists():
            cells = ["not run"] * len(datasets) + [published, "not run", "not run"]
        else:
            record = json.loads(path.read_text())
            miou = {ref: 100 * r["miou"] for ref, r in record["results"].items()}
            cells = [f"{miou[d]:.2f}" if d in miou else "not run" for d in datasets]
            cells += [published, record["training"], record["hardware"]]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    sources = sorted({row.source for row in rows.values() if row.source})
    return "\n".join([*lines, "", *(f"Published figures: {s}" for s in sources)])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run",
        description="Runs the missing rows of a table and prints it.",
    )
    parser.add_argument("table", help="a module of experiments, such as table_camvid")
    parser.add_argument("--row", action="append", help="only this row (may be repeated)")
    parser.add_argument("--debug", action="store_true", help="every row in seconds, on fake data")
    parser.add_argument("--show", action="store_true", help="print the table, run nothing")
    parser.add_argument("--shards", default="", help="folder of shards (default: the config's)")
    parser.add_argument("--workdir", default="runs", help="runs go to WORKDIR/TABLE/ROW")
    parser.add_argument(
        "--results", default="", help="folder of results (default experiments/results)"
    )
    arguments = parser.parse_args(argv)
    tables = sorted(p.stem for p in (ROOT / "experiments").glob("table_*.py"))
    if arguments.table not in tables:
        parser.error(f"there is no table {arguments.table!r}; there are: {', '.join(tables)}")
    rows = importlib.import_module(f"experiments.{arguments.table}").ROWS
    wrong = [name for name in arguments.row or () if name not in rows]
    if wrong:
        parser.error(f"{arguments.table} has no row {wrong}; it has: {', '.join(rows)}")
    if not arguments.results:
        # A debug run proves the wiring and must not look like a result.
        name = "results" if not arguments.debug else "results_debug"
        base = ROOT / "experiments" if not arguments.debug else pathlib.Path(arguments.workdir)
        arguments.results = str(base / name)
    if not arguments.show:
        for name in arguments.row or rows:
            if not result_path(arguments.results, arguments.table, name).exists():
                run_row(arguments.table, name, rows[name], arguments)
    text = render(arguments.table, rows, arguments.results)
    if not arguments.show:
        folder = pathlib.Path(arguments.results) / arguments.table
        keep(text.encode() + b"\n", folder / "table.md")
        runs = [pathlib.Path(arguments.workdir) / arguments.table / slug(name) for name in rows]
        runs = [str(run) for run in runs if run.is_dir()]
        if runs:
            program("clouds_jax.visualise", "curves", *runs, f"--output={folder / 'curves.png'}")
    print(text)


if __name__ == "__main__":
    main()
