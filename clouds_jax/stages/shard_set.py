"""A set of shards that an offline stage fills one by one: what is done, by whom, with what.

For the ref "generated/train" below the root of all shards:

    generated/train.manifest.json   parameters, inputs and code, written before the first shard
    generated/train-00003-of-00050.array_record      each under its name when it is complete
    generated/.train.done/00003.json                 and then its report
    generated/train.log.jsonl       when each shard was made, how fast, with how much memory
    generated/train.summary.json    last of all; what `records.open_ref` asks for

A stage that was killed goes on at the first shard without a report. Everything but the log depends
on parameters and inputs alone, so it ends with the same bytes, in one process or many.
"""

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

Record = tuple[bytes, Mapping[str, float]]  # and numbers of it that the report adds up


class StageError(ValueError):
    """The folder belongs to another run of the stage, or what is in it is damaged."""


def parse_part(text: str) -> Part:
    """The part that "2/4" names, the second of four; "" is the whole."""
    index, slash, count = (text or "1/1").partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"--shard is {text!r}; it must be I/N with 1 <= I <= N, such as 2/4.")
    return Part(int(index) - 1, int(count))


class Folder:
    """The shards of one ref and what is known of them.

    Args:
        root: of all shards.
        ref: "name/split" of the shards.
        stage: its name.
        parameters: all that the records depend on besides `inputs`, as JSON.
        inputs: name -> digest of what is read, see `digest`.
        examples: number of records over all shards; shard i holds the records i, i + n, ...
        shards: number of shards, n.

    Raises:
        StageError: the folder holds shards of other parameters, inputs or numbers; all that differ
            are named.
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
        if not self._manifest.exists():
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

    def check(self) -> None:
        """Refuses a manifest that is not this run's; another process may have been first."""
        found = json.loads(self._manifest.read_text())
        found.pop("code")
        if told := differences(found, self._plan):
            raise StageError(
                f"{self._manifest} is of another {found['stage']} run"
                f" ({'; '.join(told.values())}); two sets of"
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
        """What is known of a finished shard; None if it must be made."""
        path = self._report_path(shard)
        if not path.exists():
            return None
        report = json.loads(path.read_text())
        file = self.path(shard)
        found = file.stat().st_size if file.exists() else None
        if found is not None and found != report["bytes"]:
            raise StageError(
                f"{file} has {found:,} bytes, its report says {report['bytes']:,}: it is damaged."
                " Remove it, then run again; it will be made anew."
            )
        return report if found is not None else None

    def missing(self, part: Part = WHOLE) -> list[int]:
        """The shards of a part that are not finished."""
        return [shard for shard in part.of(self.shards) if self.report(shard) is None]

    def write(self, shard: int, made: Iterable[Record]) -> dict[str, Any]:
        """Writes one shard and its report, which it returns."""
        path = self.path(shard)
        for leftover in self.folder.glob(f".{path.name}.*.tmp"):  # of a run that was killed
            leftover.unlink(missing_ok=True)
        stats: Counter[str] = Counter()
        written = 0
        with records.shard_writer(path) as writer:
            for record, numbers in made:
                writer.write(record)
                stats.update(numbers)
                written += 1
            if written != len(self.indices(shard)):
                raise StageError(
                    f"{path.name}: {written} records were made, {len(self.indices(shard))} asked."
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
        """Writes the summary if all shards are there, and returns it; None if some are missing."""
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
        """How far it is, for people."""
        left = len(self.missing())
        if left:
            return f"{self.ref}: {self.shards - left} of {self.shards} shards are there"
        return f"{self.ref} is complete: {self.examples:,} records, {self.shards} shards"

    def log(self, shard: int, seconds: float, memory: Mapping[str, float]) -> None:
        """Appends a line on how a shard was made."""
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
    """What `fill` runs."""

    @property
    def folder(self) -> Folder:
        """Where the shards go."""
        ...

    def load(self) -> Callable[[int], Iterator[Record]]:
        """Loads the model, which is slow, and returns `make(shard)`, its records in order."""
        ...

    def memory(self) -> Mapping[str, float]:
        """Peak memory so far in GiB, by where: "host", "gpu"."""
        ...


def fill(stage: Stage, part: Part = WHOLE, *, progress: bool = True) -> int:
    """Makes the missing shards of a part; returns how many records that were.

    A model is loaded only if something is missing. The last process to finish writes the summary.
    """
    folder = stage.folder
    missing = folder.missing(part)
    total = sum(len(folder.indices(shard)) for shard in part.of(folder.shards))
    new = sum(len(folder.indices(shard)) for shard in missing)
    title = f"{folder.stage} {folder.ref}"
    with tqdm.tqdm(
        total=total, initial=total - new, desc=title, unit="img", disable=None if progress else True
    ) as bar:
        make = stage.load() if missing else None
        for shard in missing:
            assert make is not None
            began = time.perf_counter()
            folder.write(shard, _counted(make(shard), bar))
            folder.log(shard, time.perf_counter() - began, stage.memory())
    folder.finish()
    return new


def _counted(made: Iterable[Record], bar: tqdm.tqdm) -> Iterator[Record]:
    for one in made:
        yield one
        bar.update()


def digest(ref: str, root: Path) -> str:
    """A hash of all records of "name/split": what a stage that reads them depends on."""
    summary = records.read_summary(ref, root)
    hashes = [shard["sha256"] for shard in summary["shards"]]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
