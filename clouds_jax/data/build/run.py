"""Builds the shards of one split of a dataset, in one process or several."""

import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clouds_jax import folder_lock, images
from clouds_jax.data.build import workspace
from clouds_jax.data.build.jobs import run_jobs
from clouds_jax.data.build.shards import ShardJob
from clouds_jax.data.build.summary import summarise, warnings
from clouds_jax.data.build.workspace import BuildError
from clouds_jax.data.codecs import get_codec
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.datasets.spec import DatasetSpec, Source, Sources
from clouds_jax.data.records import SCHEMA_VERSION, shard_name

# Small enough that many workers share the work, few enough that a folder can be listed.
_EXAMPLES_PER_SHARD = 64
_MOST_SHARDS = 128

_REMEDY = "Repair the files, or leave them out with --skip-bad."
_FOREIGN = (
    "Labels of another kind speak against the whole set: those of them that show only ids which "
    "both kinds have would be read with the wrong classes. Hence --skip-bad does not leave them "
    "out. Give the set labels of one kind, or remove the files that are named."
)

_LOG = logging.getLogger(__name__)


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
        BuildError: some examples are bad (all are listed), labels are of another kind than the
            dataset's, every pixel is ignored, or the folder holds other shards.
        ValueError: another process builds this split.
        FileNotFoundError: the raw folder does not hold the dataset.
        OSError: the disk is full, or similar.
    """
    spec = get_dataset(dataset)
    get_codec(codec)
    if output.exists() and not output.is_dir():
        raise BuildError(f"{output} is a file; --output names the folder of all shards.")
    sources, problems, notes = _list_sources(spec, raw, split, limit, drawing or {})
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
    with folder_lock.locked(staging, "data.build"):
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
        reports = run_jobs(jobs, workers, f"{dataset}/{split}")
        bad = [problem for report in reports for problem in report["problems"]]
        foreign = [problem for report in reports for problem in report["foreign"]]
        if foreign or (bad and not skip_bad):
            kept = sum(report["examples"] > 0 for report in reports)
            if not kept:
                shutil.rmtree(staging)
            _fail(
                foreign if skip_bad else bad,
                f"{kept} finished shards wait in {staging}. " if kept else "",
                _FOREIGN if foreign else _REMEDY,
            )
        if not any(report["examples"] for report in reports):
            shutil.rmtree(staging)
            _fail([*problems, *bad], "No example is left. ")
        summary = summarise(spec, split, parameters, digest, reports, problems, notes)
        if summary["ignored"] == 1.0:
            shutil.rmtree(staging)
            raise BuildError(
                f"{dataset}/{split}: every pixel of all {summary['examples']:,} labels is ignored, "
                f"so nothing could be learned from them. {dataset} reads labels that end in "
                f"{', '.join(spec.kinds)}; look at {sources[0].label}."
            )
        workspace.publish(folder, split, summary)
        for text in warnings(summary):
            _LOG.warning("%s/%s: %s", dataset, split, text)
        return summary


def _list_sources(
    spec: DatasetSpec, raw: Path | None, split: str, limit: int | None, drawing: dict[str, Any]
) -> tuple[list[Source], list[str], Sequence[str]]:
    """The sources in order of their keys, problems that show before any file is opened, notes."""
    if spec.splits and split not in spec.splits:
        raise KeyError(f"{spec.name} has no split {split!r}; it has: {', '.join(spec.splits)}.")
    if spec.generated:
        listed = spec.examples(None, split, **drawing)
    elif raw is None:
        raise BuildError(f"{spec.name} is read from files: say where they are with --raw.")
    else:
        listed = spec.examples(raw, split)
    sources: dict[str, Source] = {}
    problems = []
    for source in sorted(listed, key=lambda source: source.key):
        if fault := _fault(source, spec):
            problems.append(f"{source.key}: {fault}.")
        elif source.key in sources:
            first, again = _two_files(sources[source.key], source)
            problems.append(f"{source.key}: occurs twice, as {first} and as {again}.")
        else:
            sources[source.key] = source
    if not sources and not problems:
        raise BuildError(f"{spec.name}/{split}: the split is empty.")
    notes = listed.notes if isinstance(listed, Sources) else ()
    return list(sources.values())[:limit], problems, notes


def _fault(source: Source, spec: DatasetSpec) -> str:
    """What is wrong with the files of a source before they are opened; empty if nothing is."""
    if source.render is not None:
        return ""
    for path in filter(None, (source.image, source.label)):
        if not path.is_file():
            if images.is_dangling(path):
                return f"{path} is a link to {os.readlink(path)}, which does not exist"
            return f"{path} is {'a folder' if path.is_dir() else 'no file'}; a file is expected"
    if source.image is None:
        return f"{source.label} has no image"
    if source.label is None and spec.label_space:
        return f"{source.image} has no label"
    return ""


def _two_files(first: Source, again: Source) -> tuple[Path | None, Path | None]:
    """The files in which two sources of one key differ."""
    if first.image != again.image:
        return first.image, again.image
    return first.label, again.label


def _fail(problems: Sequence[str], kept: str, remedy: str = _REMEDY) -> None:
    # The remedy comes first: of long lists a program shows the beginning.
    raise BuildError(
        f"{len(problems)} bad examples, no shard was written. {kept}{remedy}\n  "
        + "\n  ".join(problems)
    )
