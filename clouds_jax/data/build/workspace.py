"""The folder of a build, in which shards appear under their names when all are complete.

They are written in `.SPLIT.building`, beside a plan (the parameters) and one report each, and then
move into place; the summary follows last.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clouds_jax.data.datasets.spec import Source
from clouds_jax.differences import differences
from clouds_jax.files import write_json

# Version of how raw files are read; shards that an interrupted build wrote by another are remade.
READER = 2


class BuildError(ValueError):
    """The raw data or the output folder forbids the build; the message lists all problems."""


def staging_folder(folder: Path, split: str) -> Path:
    """Hidden folder in which the shards of `folder/split-*` are written."""
    return folder / f".{split}.building"


def digest(sources: Sequence[Source], *, times: bool = False) -> str:
    """A hash of keys and file sizes, by which a build notices other raw data than last time.

    Args:
        sources: all examples, in order.
        times: include modification times: this notices more changes, but also a mere copy.
    """
    digest = hashlib.sha256()
    for source in sources:
        stats = [path.stat() for path in (source.image, source.label) if path]
        facts = [(stat.st_size, stat.st_mtime_ns if times else 0) for stat in stats]
        digest.update(f"{source.key} {facts}\n".encode())
    return digest.hexdigest()


def finished(
    folder: Path, split: str, parameters: dict[str, Any], digest: str
) -> dict[str, Any] | None:
    """The summary of a finished build of the same parameters and data; None if there is none.

    Raises:
        BuildError: the folder holds another build.
    """
    path = folder / f"{split}.summary.json"
    if not path.exists():
        if stray := sorted(folder.glob(f"{split}-*.array_record")):
            if not staging_folder(folder, split).exists():
                raise BuildError(
                    f"{folder} holds {len(stray)} shards of {split} without a summary, such as "
                    f"{stray[0].name}; remove them or choose another --output."
                )
        return None
    summary = json.loads(path.read_text())
    _compare(path, {**summary["parameters"], "sources": summary["sources"]}, parameters, digest)
    return summary


def _compare(path: Path, old: dict[str, Any], parameters: dict[str, Any], digest: str) -> None:
    if changes := differences(old, {**parameters, "sources": digest}):
        raise BuildError(
            f"{path} belongs to another build ({'; '.join(changes.values())}); two sets of "
            "parameters do not mix in one folder. Choose another --output, or remove that build."
        )


def claim(staging: Path, parameters: dict[str, Any]) -> None:
    """Creates the hidden folder of a build, or continues that of an interrupted one.

    Raises:
        BuildError: it belongs to a build of other parameters.
    """
    plan = staging / "plan.json"
    if plan.exists():
        _compare(plan, {**json.loads(plan.read_text()), "sources": ""}, parameters, "")
        return
    staging.mkdir(parents=True, exist_ok=True)
    write_json(plan, parameters)


def report_path(shard: Path) -> Path:
    """Path of the report of a shard in the hidden folder."""
    return shard.with_name(f"{shard.name}.json")


def earlier_report(shard: Path, fingerprint: str, skip_bad: bool) -> dict[str, Any] | None:
    """The report of a shard that an interrupted build finished, or None if it must be written.

    Args:
        shard: path of the shard in the hidden folder; the file may have moved into place already.
        fingerprint: `digest` of its sources, with times.
        skip_bad: accept a shard that leaves out bad examples.
    """
    if not report_path(shard).exists():
        return None
    report = json.loads(report_path(shard).read_text())
    if report["fingerprint"] != fingerprint or (report["problems"] and not skip_bad):
        return None
    if report.get("reader") != READER:
        return None
    if not shard.exists() and not (shard.parent.parent / shard.name).exists():
        return None
    return report


def progress(folder: Path, split: str) -> tuple[int, int] | None:
    """Finished and planned shards of an interrupted build; None where none was begun."""
    staging = staging_folder(folder, split)
    plan = staging / "plan.json"
    if not plan.exists():
        return None
    return len(list(staging.glob("*.array_record.json"))), json.loads(plan.read_text())["shards"]


def publish(folder: Path, split: str, summary: dict[str, Any]) -> None:
    """Moves all shards into place, writes the summary, removes the hidden folder."""
    staging = staging_folder(folder, split)
    for shard in summary["shards"]:
        # Absent where an interrupted call moved it.
        if (staging / shard["name"]).exists():
            os.replace(staging / shard["name"], folder / shard["name"])
    write_json(folder / f"{split}.summary.json", summary)
    shutil.rmtree(staging)
