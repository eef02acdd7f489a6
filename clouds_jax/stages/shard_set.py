"""The output of an offline stage: a set of shards that is filled one by one and can be resumed.

For the ref "generated/train" below the root of all shards:

    generated/train.manifest.json   parameters, inputs and code, written before the first shard
    generated/train-00003-of-00050.array_record      each under its name when it is complete
    generated/.train.done/00003.json                 and then its report
    generated/train.log.jsonl       time, speed and peak memory of each shard
    generated/train.summary.json    last of all; `records.open_ref` reads it

A killed stage continues at the first shard without a report. Everything but the log depends on
parameters and inputs alone, so the bytes are the same in one process or many, interrupted or not.
"""

import contextlib
import hashlib
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import tqdm

from clouds_jax import provenance
from clouds_jax.data import records
from clouds_jax.data.part import WHOLE, Part
from clouds_jax.differences import differences
from clouds_jax.files import write_json

Record = tuple[bytes, Mapping[str, float]]  # encoded, with statistics that the report sums up


class StageError(ValueError):
    """The folder belongs to another run of the stage, or its files are damaged."""


def parse_part(text: str) -> Part:
    """The part that a flag names: "2/4" is the second of four, "" the whole.

    Raises:
        ValueError: the text names no part.
    """
    index, slash, count = (text or "1/1").partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"--shard is {text!r}; it must be I/N with 1 <= I <= N, such as 2/4.")
    return Part(int(index) - 1, int(count))


class Folder:
    """The shards of one ref, with their manifest, reports, log and summary.

    Args:
        root: root of all shards.
        ref: "name/split" of the shards.
        stage: name of the stage.
        parameters: JSON values that the records depend on, besides `inputs`.
        inputs: name -> digest of each input, see `digest`.
        examples: number of records over all shards; shard i holds the records i, i + n, ...
        shards: number of shards, n.

    Raises:
        StageError: the folder holds shards of other parameters, inputs or numbers; the message
            lists the differences.
    """

    def __init__(
        self,
        root: Path,
        ref: str,
        *,
        stage: str,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, str],
        examples: int,
        shards: int,
    ):
        if examples < 1:
            raise StageError(f"{stage}: there is nothing to make {ref} of; its input is empty.")
        self.name, self.split = records.parse_ref(ref)
        self.ref, self.stage = f"{self.name}/{self.split}", stage
        self.examples, self.shards = examples, max(1, min(shards, examples))
        self.folder = root / self.name
        self._plan = json.loads(
            json.dumps(
                {
                    "stage": stage, "parameters": parameters, "inputs": inputs,
                    "examples": examples, "shards": self.shards,
                }
            )
        )  # fmt: skip
        self._manifest = self.folder / f"{self.split}.manifest.json"
        self._done = self.folder / f".{self.split}.done"
        self._code = provenance.commit()
        self._claim()

    def _claim(self) -> None:
        self._new = not self._manifest.exists()
        if self._new:
            strays = sorted(self.folder.glob(f"{self.split}-*.array_record"))
            if strays:
                raise StageError(
                    f"{self.folder} holds {len(strays)} shards of {self.split} without a manifest,"
                    f" such as {strays[0].name}; remove them or choose another name."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            code = {"commit": self._code, **provenance.versions(["clouds-jax"])}
            write_json(self._manifest, {**self._plan, "code": code})
        self.check()

    def release(self) -> None:
        """Takes back the manifest that this process wrote, where no shard was made.

        Parameters that the stage refused when it began would bar the right ones.
        """
        if self._new and not any(self._done.glob("*.json")):
            self._manifest.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something else
                self.folder.rmdir()

    def check(self) -> None:
        """Refuses the manifest of another run, which may have claimed the folder meanwhile."""
        manifest = json.loads(self._manifest.read_text())
        manifest.pop("code")
        if changes := differences(manifest, self._plan):
            raise StageError(
                f"{self._manifest} is of another {manifest['stage']} run"
                f" ({'; '.join(changes.values())}); two sets of"
                " parameters do not mix in one folder. Restore them, choose another name or"
                f" --workdir, or remove {self.split}.* and {self.split}-* there."
            )

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / records.shard_name(self.split, shard, self.shards)

    def indices(self, shard: int) -> range:
        """The records of a shard, by their numbers in the whole set."""
        return range(shard, self.examples, self.shards)

    def _report_path(self, shard: int) -> Path:
        return self._done / f"{shard:05d}.json"

    def report(self, shard: int) -> dict[str, Any] | None:
        """The report of a finished shard; None if the shard is missing.

        Raises:
            StageError: the file does not have the size that its report says.
        """
        path = self._report_path(shard)
        if not path.exists():
            return None
        report = json.loads(path.read_text())
        file = self.path(shard)
        size = file.stat().st_size if file.exists() else None
        if size is not None and size != report["bytes"]:
            raise StageError(
                f"{file} has {size:,} bytes, its report says {report['bytes']:,}: it is damaged."
                " Remove it, then run again; it will be made anew."
            )
        return report if size is not None else None

    def missing(self, part: Part = WHOLE) -> list[int]:
        """The shards of a part that are not finished."""
        return [shard for shard in part.of(self.shards) if self.report(shard) is None]

    def write(self, shard: int, shard_records: Iterable[Record]) -> dict[str, Any]:
        """Writes one shard and its report; returns the report.

        Args:
            shard: number of the shard.
            shard_records: its records in order, as many as `indices` has.
        """
        path = self.path(shard)
        for leftover in self.folder.glob(f".{path.name}.*.tmp"):  # of a run that was killed
            leftover.unlink(missing_ok=True)
        stats: Counter[str] = Counter()
        written = 0
        with records.shard_writer(path) as writer:
            for record, statistics in shard_records:
                writer.write(record)
                stats.update(statistics)
                written += 1
            if written != len(self.indices(shard)):
                raise StageError(
                    f"{path.name}: {written} records, expected {len(self.indices(shard))}."
                )
            self.check()
        report = {
            "name": path.name,
            "examples": written,
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
            "stats": dict(sorted(stats.items())),
            "commit": self._code,
        }
        self._done.mkdir(exist_ok=True)
        write_json(self._report_path(shard), report)
        return report

    def finish(self) -> dict[str, Any] | None:
        """Writes and returns the summary if all shards are there; None if some are missing."""
        reports = []
        for shard in range(self.shards):
            if (report := self.report(shard)) is None:
                return None
            reports.append(report)
        stats: Counter[str] = Counter()
        for report in reports:
            stats.update(report["stats"])
        summary = {
            "dataset": self.name,
            "split": self.split,
            "version": records.SCHEMA_VERSION,
            "label_space": None,
            "jitter_size": None,
            **self._plan,
            "bytes": sum(report["bytes"] for report in reports),
            "shards": [{k: r[k] for k in ("name", "examples", "bytes", "sha256")} for r in reports],
            "stats": dict(sorted(stats.items())),
            "commits": sorted({report["commit"] for report in reports}),
        }
        write_json(self.folder / f"{self.split}.summary.json", summary)
        return summary

    def state(self) -> str:
        """Progress, human-readable."""
        left = len(self.missing())
        if left:
            return f"{self.ref}: {self.shards - left} of {self.shards} shards are there"
        return f"{self.ref} is complete: {self.examples:,} records, {self.shards} shards"

    def log(self, shard: int, seconds: float, memory: Mapping[str, float]) -> None:
        """Appends a line about a shard to the log.

        Args:
            shard: number of the shard.
            seconds: time that it took.
            memory: peak memory in GiB: "host", "gpu".
        """
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": socket.gethostname(),
            "shard": shard, "examples": len(self.indices(shard)), "seconds": round(seconds, 2),
            "per_second": round(len(self.indices(shard)) / seconds, 3),
            **{f"peak_{name}_gib": round(value, 2) for name, value in memory.items()},
        }  # fmt: skip
        with (self.folder / f"{self.split}.log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


@runtime_checkable
class Stage(Protocol):
    """An offline stage: what `fill` and `runner.run` run."""

    @property
    def folder(self) -> Folder:
        """The shards that the stage writes."""
        ...

    def load(self) -> Callable[[int], Iterator[Record]]:
        """Loads the model, which is slow; returns `make(shard)`, which yields records in order."""
        ...

    def memory(self) -> Mapping[str, float]:
        """Peak memory so far in GiB: "host", "gpu"."""
        ...


def fill(stage: Stage, part: Part = WHOLE, *, progress: bool = True) -> int:
    """Makes the missing shards of a part; returns the number of new records.

    The model is loaded only if a shard is missing. The last process to finish writes the summary.

    Args:
        stage: stage to run.
        part: this process's part of the shards.
        progress: draw a progress bar.
    """
    folder = stage.folder
    missing = folder.missing(part)
    total = sum(len(folder.indices(shard)) for shard in part.of(folder.shards))
    new = sum(len(folder.indices(shard)) for shard in missing)
    title = f"{folder.stage} {folder.ref}"
    with tqdm.tqdm(
        total=total, initial=total - new, desc=title, unit="img", disable=None if progress else True
    ) as bar:
        try:
            make = stage.load() if missing else None
        except BaseException:
            folder.release()
            raise
        for shard in missing:
            assert make is not None
            start = time.perf_counter()
            folder.write(shard, _counted(make(shard), bar))
            folder.log(shard, time.perf_counter() - start, stage.memory())
    folder.finish()
    return new


def _counted(shard_records: Iterable[Record], bar: tqdm.tqdm) -> Iterator[Record]:
    for record in shard_records:
        yield record
        bar.update()


def digest(ref: str, root: Path) -> str:
    """A hash of all records of "name/split", for the inputs of a stage that reads them."""
    summary = records.read_summary(ref, root)
    hashes = [shard["sha256"] for shard in summary["shards"]]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
