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

from clouds_jax.data.part import Part
from clouds_jax.stages.shard_set import Stage, StageError, fill, parse_part


def add_running(parser: argparse.ArgumentParser) -> None:
    """The flags that say which shards are made and where."""
    group = parser.add_argument_group("running")
    group.add_argument("--shard", default="", metavar="I/N", help="make the I-th of N parts only")
    group.add_argument(
        "--processes", type=int, default=0, help="(default: one per GPU of this machine, else one)"
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
    """The GPUs that a process started here may use, by the names CUDA_VISIBLE_DEVICES takes."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name and name != "-1"]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


def run(
    stage: Stage,
    command: Sequence[str],
    *,
    shard: str = "",
    processes: int = 0,
    ray: bool = False,
    progress: bool = True,
) -> int:
    """Makes what is missing of the stage's part; returns how many records that were.

    Args:
        stage: which.
        command: module and arguments of the same stage, without the flags of `add_running`.
        shard: "i/n", or "" for all.
        processes: 0: one per GPU.
        ray: on Ray instead of here.
        progress: draw a bar.
    """
    part = parse_part(shard)
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
    """One process per part of the part, each with a GPU of its own where there are some."""
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
            environment = dict(os.environ)
            if cards:
                environment["CUDA_VISIBLE_DEVICES"] = cards[i % len(cards)]
            flags = ["--shard", f"{own.index + 1}/{own.count}", "--processes", "1"]
            words = tempfile.TemporaryFile(mode="w+")
            child = subprocess.Popen(
                [sys.executable, "-m", *command, *flags], env=environment, stdout=words,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            children.append((child, words))
        while any(child.poll() is None for child, _ in children):
            time.sleep(0.3)
            left = sum(len(folder.indices(shard)) for shard in folder.missing(part))
            bar.update(total - left - bar.n)
    except BaseException:
        for child, _ in children:
            child.terminate()
        raise
    finally:
        bar.close()
    for child, words in children:
        words.seek(0)
        text = words.read()
        words.close()
        if child.returncode:
            raise StageError(
                f"a process of {folder.stage} ended with status {child.returncode}; what it made"
                f" is kept. It said:\n{text[-4_000:]}"
            )
    folder.finish()
    return new


class _Worker:
    """Makes shards in a process of Ray's; the model is loaded once."""

    def __init__(self, stage: Stage):
        self._stage, self._make = stage, stage.load()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard, folder = int(row["shard"]), self._stage.folder
        began = time.perf_counter()
        report = folder.write(shard, self._make(shard))
        folder.log(shard, time.perf_counter() - began, self._stage.memory())
        return {"shard": shard, "examples": report["examples"]}


def _on_ray(stage: Stage, missing: list[int], count: int) -> int:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("--ray needs Ray: pip install -e '.[ray]'.") from error
    worker: Any = _Worker  # a class with __call__ is what Ray asks for, but not what it declares
    rows = ray.data.from_items([{"shard": shard} for shard in missing])
    done = rows.repartition(len(missing)).map(
        worker, fn_constructor_args=(stage,), compute=ray.data.ActorPoolStrategy(size=count),
        num_gpus=1 if gpus() else 0,
    )  # fmt: skip
    made = sum(row["examples"] for row in done.take_all())
    stage.folder.finish()
    return made
