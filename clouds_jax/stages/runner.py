"""Runs a stage: in this process, in one process per GPU, or on Ray."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tqdm

from clouds_jax.data.part import WHOLE, Part
from clouds_jax.stages.shard_set import Stage, StageError, fill, parse_part

_PATIENCE = 3.0  # seconds in which a process ends by itself


def add_running(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose which shards are made, and in which processes."""
    group = parser.add_argument_group("running")
    group.add_argument("--shard", default="", metavar="I/N", help="make the I-th of N parts only")
    group.add_argument(
        "--processes",
        type=int,
        default=0,
        help="number of processes (default: one per GPU of this machine, else one)",
    )
    group.add_argument(
        "--ray", action="store_true",
        help="run on Ray Data, --processes workers; all machines must see the folders",
    )  # fmt: skip


def without_running(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments without the flags of `add_running`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_running(parser)
    return parser.parse_known_args(list(arguments))[1]


def gpus() -> list[str]:
    """The GPUs that a child process may use, by their names for CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    matches = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in matches if match), key=int)


def run(
    stage: Stage,
    command: Sequence[str],
    *,
    shard: str = "",
    host: Part = WHOLE,
    processes: int = 0,
    ray: bool = False,
    progress: bool = True,
) -> int:
    """Makes the missing shards of a part of a stage; returns the number of new records.

    Args:
        stage: stage to run.
        command: module and arguments that run the same stage in a child process, without the flags
            of `add_running`.
        shard: part of the shards, "i/n"; "" for all.
        host: what this host makes of that part.
        processes: number of processes on this host; 0: one per GPU.
        ray: run on Ray instead of on this machine.
        progress: draw a progress bar.

    Raises:
        ValueError: `shard` or `processes` make no sense, or Ray is not installed.
        StageError: a child process failed; the message ends with its output.
    """
    part = parse_part(shard).split(host.index, host.count)
    if processes < 0:
        raise ValueError(f"--processes is {processes}; it must be at least 1.")
    count = processes or max(1, len(gpus()))
    missing = stage.folder.missing(part)
    count = min(count, len(missing))
    if ray and missing:
        return _on_ray(stage, missing, count)
    if count > 1:
        return _in_processes(stage, command, part, missing, count, progress)
    return fill(stage, part, progress=progress)


def _in_processes(
    stage: Stage, command: Sequence[str], part: Part, missing: list[int], count: int, progress: bool
) -> int:
    """Splits the part among processes, each with a GPU of its own where there are some."""
    from clouds_jax import hosts  # here, since the stages of PyTorch need no JAX to start

    folder, cards = stage.folder, gpus()
    children = []
    total = sum(len(folder.indices(shard)) for shard in part.of(folder.shards))
    new = sum(len(folder.indices(shard)) for shard in missing)
    title = f"{folder.stage} {folder.ref} x{count}"
    bar = tqdm.tqdm(
        total=total, initial=total - new, desc=title, unit="img", disable=None if progress else True
    )
    try:
        for i in range(count):
            own = part.split(i, count)
            environment = hosts.without(os.environ)
            if cards:
                environment["CUDA_VISIBLE_DEVICES"] = cards[i % len(cards)]
            flags = ["--shard", f"{own.index + 1}/{own.count}", "--processes", "1"]
            output = tempfile.TemporaryFile(mode="w+")
            child = subprocess.Popen(
                [sys.executable, "-m", *command, *flags], env=environment, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            children.append((child, output))
        while any(child.poll() is None for child, _ in children):
            time.sleep(0.3)
            left = sum(len(folder.indices(shard)) for shard in folder.missing(part))
            bar.update(total - left - bar.n)
    except BaseException:
        _end([child for child, _ in children])
        raise
    finally:
        bar.close()
    for child, output in children:
        output.seek(0)
        text = output.read()
        output.close()
        if child.returncode:
            folder.release()
            raise StageError(
                f"a process of {folder.stage} ended with status {child.returncode}; its finished"
                f" shards are kept. Its output:\n{text[-4_000:]}"
            )
    folder.finish()
    return new


def _end(children: Sequence[subprocess.Popen]) -> None:
    """Ends processes; none is left that would go on writing."""
    for child in children:
        child.terminate()
    until = time.monotonic() + _PATIENCE
    for child in children:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class _Worker:
    """Makes shards in a Ray worker; the model is loaded once."""

    def __init__(self, stage: Stage):
        self._stage, self._make = stage, stage.load()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard, folder = int(row["shard"]), self._stage.folder
        start = time.perf_counter()
        report = folder.write(shard, self._make(shard))
        folder.log(shard, time.perf_counter() - start, self._stage.memory())
        return {"shard": shard, "examples": report["examples"]}


def _on_ray(stage: Stage, missing: list[int], count: int) -> int:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("--ray needs Ray: pip install -e '.[ray]'.") from error
    worker: Any = _Worker  # Ray takes a class with __call__, but does not declare so
    rows = ray.data.from_items([{"shard": shard} for shard in missing])
    results = rows.repartition(len(missing)).map(
        worker, fn_constructor_args=(stage,), compute=ray.data.ActorPoolStrategy(size=count),
        num_gpus=1 if gpus() else 0,
    )  # fmt: skip
    examples = sum(row["examples"] for row in results.take_all())
    stage.folder.finish()
    return examples
