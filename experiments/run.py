"""Runs the rows of a table: what is missing is run, what stopped is resumed, what is done is shown.

    python -m experiments.run table_camvid
    python -m experiments.run table_camvid --row "FPN head" --shards shards
    python -m experiments.run table_streets --seed 0      # one of a row's seeds
    python -m experiments.run table_camvid --debug        # every row in seconds, on fake data
    python -m experiments.run table_gta --show            # the table as it stands

A row is trained with `python -m clouds_jax.train` and scored with `python -m
clouds_jax.evaluate`, each as a program of its own, so a row can be stopped at any moment and
taken up again. A row that starts from another one's weights runs that one first. A finished run is
one JSON file in the results folder; the table is made from those files alone and says "not run"
for the others. `figure_*` are tables too, which also draw a picture.
"""

import argparse
import importlib
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Mapping
from typing import Any

from clouds_jax.command_line import STOPPED, one_line_errors
from clouds_jax.files import write_bytes, write_json, write_text
from experiments.supervise import supervise
from experiments.tables import Row, Table, render, result_path

ROOT = pathlib.Path(__file__).parent.parent
_LEFT_OUT = ("confusion", "images", "panels")  # of an evaluation's JSON: large, and in the run


def program(module: str, *arguments: str) -> None:
    """Runs `python -m module`; its output goes to the terminal.

    SIGTERM and Ctrl-C are passed on, and the program may take its time to end: a training saves
    its step.

    Raises:
        SystemExit: the program did not do all; its own message stands above, its status is ours.
    """
    command = [sys.executable, "-m", module, *arguments]
    print("$", " ".join(command[1:]), flush=True)
    code = supervise(command, cwd=ROOT)
    if code:
        kind = "was stopped" if code == STOPPED else f"ended with status {code}"
        print(f"{module} {kind}; run the same command to resume.", file=sys.stderr, flush=True)
        raise SystemExit(code)


def finished(folder: pathlib.Path) -> bool:
    """Whether a run's training reached its last step."""
    config = folder / "config.json"
    if not config.exists():
        return False
    steps = [int(p.name) for p in (folder / "checkpoints").glob("*") if p.name.isdigit()]
    return max(steps, default=-1) >= json.loads(config.read_text())["steps"]


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


def workdir(row: Row, seed: int, arguments: argparse.Namespace) -> pathlib.Path:
    """The folder of a run."""
    return arguments.workdir / "rows" / row.name / f"seed{seed}"


def train(row: Row, seed: int, arguments: argparse.Namespace) -> tuple[pathlib.Path, float]:
    """Trains a row, after the one that it starts from, and returns its folder and its minutes."""
    folder = workdir(row, seed, arguments)
    flags = [f"--config={_config(row, arguments)}", f"--workdir={folder}"]
    sets = _settings(row, arguments) | {"seed": seed}
    if row.start:
        sets["init_from"] = str(train(row.start, seed, arguments)[0])
    flags += [f"--config.{key}={value}" for key, value in sets.items()]
    clock = folder / "wall_seconds"  # over all calls, since a run may be stopped and resumed
    done = folder / "trained"
    wall = float(clock.read_text()) if clock.exists() else 0.0
    if done.exists() and finished(folder):
        return folder, wall / 60
    began = time.time()
    try:
        program("clouds_jax.train", *flags)
        if not finished(folder):
            raise SystemExit(f"{folder}: the training ended before its last step.")
        done.touch()
    finally:
        wall += time.time() - began
        folder.mkdir(parents=True, exist_ok=True)
        clock.write_text(f"{wall:.1f}\n")
    return folder, wall / 60


def _config(row: Row, arguments: argparse.Namespace) -> str:
    return row.config.partition(":")[0] + ":debug" if arguments.debug else row.config


def _settings(row: Row, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.debug:
        return {}
    shards = {"data.shards": os.path.abspath(arguments.shards)} if arguments.shards else {}
    return {**row.set, **shards}


def run_row(table: str, title: str, row: Row, seed: int, arguments: argparse.Namespace) -> None:
    """Trains and scores one run of a row, and writes its JSON."""
    folder, minutes = train(row, seed, arguments)
    output = folder / "evaluation"
    datasets = ("fake/train",) if arguments.debug else row.datasets
    scored = _scored(output)
    if not set(datasets) <= scored.keys():
        program(
            "clouds_jax.evaluate",
            f"--workdir={folder}",
            f"--datasets={','.join(datasets)}",
            f"--protocol={row.protocol}",
            f"--output={output}",
        )
        scored = _scored(output)
    record = {
        "row": title,
        "seed": seed,
        "config": _config(row, arguments),
        "set": {} if arguments.debug else dict(row.set),
        "start": row.start.name if row.start else "",
        "protocol": row.protocol,
        "results": {
            ref: {key: value for key, value in scored[ref].items() if key not in _LEFT_OUT}
            for ref in datasets
        },
        "minutes": round(minutes, 1),
        "hardware": hardware(),
    }
    path = result_path(arguments.results, table, title, seed)
    panels = output / f"{datasets[0].replace('/', '_')}_panels.png"
    if seed == row.seeds[0] and panels.exists():  # of one seed and dataset; the run has the others
        write_bytes(path.with_name(f"{path.stem}_{panels.name}"), panels.read_bytes())
    write_json(path, record)


def _scored(output: pathlib.Path) -> Mapping[str, Any]:
    path = output / "results.json"
    return json.loads(path.read_text())["datasets"] if path.exists() else {}


def main(argv: list[str] | None = None) -> None:
    """The program; see `--help`."""
    names = sorted(
        p.stem for kind in ("table", "figure") for p in (ROOT / "experiments").glob(f"{kind}_*.py")
    )
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="TABLE", help=f"one of: {', '.join(names)}")
    parser.add_argument("--row", action="append", help="only this row (may be repeated)")
    parser.add_argument("--seed", action="append", type=int, help="only this seed of each row")
    parser.add_argument("--debug", action="store_true", help="every row in seconds, on fake data")
    parser.add_argument("--show", action="store_true", help="print the table, run nothing")
    parser.add_argument("--shards", default="", help="folder of shards (default: the config's)")
    parser.add_argument(
        "--workdir", type=pathlib.Path, default=pathlib.Path("runs"),
        help="runs go to WORKDIR/rows/NAME/SEED (default runs)",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=pathlib.Path, help="folder of results (default experiments/results)"
    )
    arguments = parser.parse_args(argv)
    if arguments.table not in names:
        parser.error(f"there is no table {arguments.table!r}; there are: {', '.join(names)}")
    name = arguments.table
    module = importlib.import_module(f"experiments.{name}")
    table: Table = module.TABLE
    ours = {title: row for title, row in table.rows.items() if isinstance(row, Row)}
    wrong = [title for title in arguments.row or () if title not in ours]
    if wrong:
        parser.error(f"{arguments.table} has no row {wrong}; it has: {', '.join(ours)}")
    arguments.workdir = arguments.workdir.absolute()
    if arguments.debug:  # which proves the wiring and must not look like a result, nor like a run
        arguments.workdir /= "debug"
    if not arguments.results:
        base = arguments.workdir if arguments.debug else ROOT / "experiments"
        arguments.results = base / "results"
    # a figure may show the rows of a table, and has their results then
    arguments.table = getattr(module, "RESULTS", name)
    if not arguments.show:
        _run(arguments, table, ours)
    folder = arguments.results / name
    text = render(arguments.table, table, arguments.results)
    if not arguments.show:
        write_text(folder / "table.md", text + "\n")
    if hasattr(module, "draw"):
        module.draw(arguments.results, folder / "figure.png")
    print(text)


def _run(arguments: argparse.Namespace, table: Table, rows: Mapping[str, Row]) -> None:
    """Runs what is missing, and draws the curves of what was run here."""
    left = [
        (title, rows[title], seed)
        for title in arguments.row or rows
        for seed in rows[title].seeds
        if (not arguments.seed or seed in arguments.seed)
        and not result_path(arguments.results, arguments.table, title, seed).exists()
    ]
    if left and table.prepare and not arguments.debug:
        shards = pathlib.Path(arguments.shards or "shards").absolute()
        for module, *rest in table.prepare(shards, arguments.workdir):
            program(module, *rest)
    # seed by seed, so that all rows can be compared early
    for title, row, seed in sorted(left, key=lambda one: one[2]):
        run_row(arguments.table, title, row, seed, arguments)
    runs = [workdir(row, row.seeds[0], arguments) for row in rows.values()]
    runs = [str(run) for run in runs if run.is_dir()]
    if runs:
        picture = arguments.results / arguments.table / "curves.png"
        program("clouds_jax.visualise", "curves", *runs, f"--output={picture}")


if __name__ == "__main__":
    with one_line_errors("run"):
        main()
