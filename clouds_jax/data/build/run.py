"""Builds the shards of one split of a dataset, in one process or several."""

import concurrent.futures
import math
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tqdm

from clouds_jax.data.build import workspace
from clouds_jax.data.build.shards import ShardJob, write_shard
from clouds_jax.data.build.summary import summarise
from clouds_jax.data.build.workspace import BuildError
from clouds_jax.data.codecs import get_codec
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.datasets.spec import DatasetSpec, Source
from clouds_jax.data.records import SCHEMA_VERSION, shard_name
from clouds_jax.files import write_json

# Small enough that many workers share the work, few enough that a folder can be listed.
_EXAMPLES_PER_SHARD = 64
_MOST_SHARDS = 128


def build(
    dataset: str,
    *,
    raw: Path | None,
    output: Path,
    split: str,
    shards: int | None = None,
    workers: int = 1,
    codec: str = "zstd",
    skip_bad: bool = False,
    limit: int | None = None,
    drawing: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds one split of a dataset.

    The files depend on the raw data and on `shards`, `codec`, `limit` and `drawing`, not on
    `workers` or on interruptions.

    Args:
        dataset: name in `DATASETS`.
        raw: folder of the download; None for generated datasets.
        output: root of all shards; files go to `output/dataset`.
        split: name of the split.
        shards: number of files; None: one per 64 examples, 128 at most.
        workers: number of processes.
        codec: codec of the images, see `CODECS`.
        skip_bad: leave out bad examples instead of failing.
        limit: number of examples, the first ones; None: all.
        drawing: seed and count of generated datasets.

    Returns:
        The summary, as written to `SPLIT.summary.json`.

    Raises:
        BuildError: some examples are bad (all are listed), or the folder holds other shards.
        FileNotFoundError: the raw folder does not hold the dataset.
        OSError: the disk is full, or similar.
    """
    spec = get_dataset(dataset)
    get_codec(codec)
    sources, problems = _list_sources(spec, raw, split, limit, drawing or {})
    if problems and not skip_bad:
        _fail(problems, "")
    count = shards or min(_MOST_SHARDS, math.ceil(len(sources) / _EXAMPLES_PER_SHARD))
    count = max(1, min(count, len(sources)))
    parameters = {
        "version": SCHEMA_VERSION,
        "codec": codec,
        "shards": count,
        "limit": limit,
        **(drawing or {}),
    }
    folder = output / dataset
    digest = workspace.digest(sources)
    if summary := workspace.finished(folder, split, parameters, digest):
        return summary

    staging = workspace.staging_folder(folder, split)
    workspace.claim(staging, parameters)
    origin = {"dataset": dataset, "split": split, **(drawing or {})}
    jobs = [
        ShardJob(
            staging / shard_name(split, index, count),
            dataset,
            sources[index::count],  # dealt out in turn, the order in which Shards reads
            codec,
            skip_bad,
            origin,
        )
        for index in range(count)
    ]
    reports = _run(jobs, workers, f"{dataset}/{split}")
    bad = [problem for report in reports for problem in report["problems"]]
    if bad and not skip_bad:
        kept = sum(report["examples"] > 0 for report in reports)
        if not kept:
            shutil.rmtree(staging)
        _fail(bad, f"{kept} finished shards wait in {staging}. " if kept else "")
    if not any(report["examples"] for report in reports):
        shutil.rmtree(staging)
        _fail([*problems, *bad], "No example is left. ")
    summary = summarise(spec, split, parameters, digest, reports, problems)
    workspace.publish(folder, split, summary)
    return summary


def _list_sources(
    spec: DatasetSpec, raw: Path | None, split: str, limit: int | None, drawing: dict[str, Any]
) -> tuple[list[Source], list[str]]:
    """The sources in order of their keys, and problems that show before any file is opened."""
    if spec.splits and split not in spec.splits:
        raise KeyError(f"{spec.name} has no split {split!r}; it has: {', '.join(spec.splits)}.")
    if spec.generated:
        listed = spec.examples(None, split, **drawing)
    elif raw is None:
        raise BuildError(f"{spec.name} is read from files: say where they are with --raw.")
    else:
        listed = spec.examples(raw, split)
    sources, problems, keys = [], [], set()
    for source in sorted(listed, key=lambda source: source.key):
        if source.render is None and source.image is None:
            problems.append(f"{source.key}: {source.label} has no image.")
        elif source.render is None and source.label is None and spec.label_space:
            problems.append(f"{source.key}: {source.image} has no label.")
        elif source.key in keys:
            problems.append(f"{source.key}: occurs twice; again as {source.image}, {source.label}.")
        else:
            keys.add(source.key)
            sources.append(source)
    if not sources and not problems:
        raise BuildError(f"{spec.name}/{split}: the split is empty.")
    return sources[:limit], problems


def _fail(problems: Sequence[str], kept: str) -> None:
    raise BuildError(
        f"{len(problems)} bad examples:\n  "
        + "\n  ".join(problems)
        + f"\nNo shard was written. {kept}Repair the files, or leave them out with --skip-bad."
    )


_progress: Any = None  # in a worker process: the shared counter of finished examples


def _start_worker(progress: Any) -> None:
    global _progress
    _progress = progress
    # A pool's workers outlive a parent that was killed, and would write beside its successor.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_in_worker(job: ShardJob) -> dict[str, Any]:
    def advance() -> None:
        with _progress.get_lock():
            _progress.value += 1

    return _write_with_report(job, advance)


def _write_with_report(job: ShardJob, advance: Callable[[], object]) -> dict[str, Any]:
    # Before the files are read: one that changes meanwhile is read again by the next build.
    fingerprint = workspace.digest(job.sources, times=True)
    report = {**write_shard(job, advance), "fingerprint": fingerprint}
    if report["examples"]:
        write_json(workspace.report_path(job.path), report)
    return report


def _run(jobs: Sequence[ShardJob], workers: int, title: str) -> list[dict[str, Any]]:
    """Writes the shards that an interrupted build did not finish; returns all reports, in order."""
    reports = {}
    for job in jobs:
        fingerprint = workspace.digest(job.sources, times=True)
        if report := workspace.earlier_report(job.path, fingerprint, job.skip_bad):
            reports[job.path] = report
    total = sum(len(job.sources) for job in jobs)
    done = sum(len(job.sources) for job in jobs if job.path in reports)
    waiting = [job for job in jobs if job.path not in reports]
    with tqdm.tqdm(total=total, initial=done, desc=title, unit="img", disable=None) as bar:
        if workers == 1 or len(waiting) < 2:
            for job in waiting:
                reports[job.path] = _write_with_report(job, bar.update)
        else:
            reports.update(_run_in_processes(waiting, workers, bar))
    return [reports[job.path] for job in jobs]


def _run_in_processes(
    jobs: Sequence[ShardJob], workers: int, bar: tqdm.tqdm
) -> dict[Path, dict[str, Any]]:
    # Spawned, as a fork would copy the locks of whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    start = bar.n
    progress = context.Value("q", 0)
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), context, _start_worker, (progress,)
    ) as pool:
        futures = {pool.submit(_write_in_worker, job): job.path for job in jobs}
        waiting = set(futures)
        try:
            while waiting:
                finished, waiting = concurrent.futures.wait(waiting, timeout=0.3)
                bar.update(start + progress.value - bar.n)
                for future in finished:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return {path: future.result() for future, path in futures.items()}
