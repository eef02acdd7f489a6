"""The stage that has a language model write prompts for a text-to-image model.

    WORKDIR/prompts/manifest.json    parameters, model and code, written before the first text
    WORKDIR/prompts/raw/00003.json   a chunk of sampled texts, which depends on (seed, 3) alone
    WORKDIR/prompts/log.jsonl        when each chunk was made, how fast, with how much memory
    WORKDIR/prompts/prompts.jsonl    the prompts and where each comes from
    WORKDIR/prompts/report.json      last of all: how many were refused and why

The prompts are chosen from the chunks in order, up to the first one where they are enough. A run
that was killed goes on at the first missing chunk and ends with the same bytes.
"""

import dataclasses
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tqdm

from clouds_jax import provenance
from clouds_jax.data.part import WHOLE, Part
from clouds_jax.differences import differences
from clouds_jax.files import write_json
from clouds_jax.stages.memory import host_memory
from clouds_jax.stages.shard_set import StageError
from porting.stages.prompts import grammar, instructions
from porting.stages.prompts.grammar import Sentence
from porting.stages.prompts.instructions import Model
from porting.stages.prompts.selection import Selection
from porting.stages.prompts.settings import Settings


@dataclasses.dataclass
class Gathered:
    """Prompts chosen from chunks, and how much was read for them."""

    selection: Selection
    prompts: list[tuple[Sentence, str, int, int]]  # with raw line, chunk, text in the chunk
    texts: int = 0
    made: int = 0  # of the texts, by this process
    seconds: float = 0.0  # that it sampled

    @property
    def complete(self) -> bool:
        """Whether the prompts are enough."""
        return self.selection.complete


class Stage:
    """The folder of the prompts and what fills it.

    Args:
        settings: of the run.
        folder: WORKDIR/prompts.
        identity: what `llm.identify` says of the model.
        load: loads the model, which is slow; called when the first text is needed.

    Raises:
        StageError: the folder holds texts of other parameters or another model.
    """

    def __init__(
        self, settings: Settings, folder: Path, *, identity: Mapping[str, Any],
        load: Callable[[], Model],
    ):  # fmt: skip
        self._settings, self.folder, self._load = settings, folder, load
        self._model: Model | None = None
        self._chunks = math.ceil(settings.max_texts / settings.batch)
        parameters = {**settings.parameters(), "wording": instructions.wording()}
        plan = {"stage": "prompts", "parameters": parameters, "model": identity}
        self._plan = json.loads(json.dumps(plan))
        self._manifest, self._raw = folder / "manifest.json", folder / "raw"
        self._raw.mkdir(parents=True, exist_ok=True)
        if not any(self._raw.glob("*.json")):  # without a text a manifest binds nobody
            code = {
                "commit": provenance.commit(),
                **provenance.versions(["clouds-jax", "torch", "transformers"]),
            }
            write_json(self._manifest, {**self._plan, "code": code})
        self._check()

    def _check(self) -> None:
        if not self._manifest.is_file():
            raise StageError(f"{self._raw} holds texts without a manifest; remove {self.folder}.")
        found = json.loads(self._manifest.read_text())
        found.pop("code")
        if told := differences(found, self._plan):
            raise StageError(
                f"{self._manifest} is of another run ({'; '.join(told.values())}); texts of"
                " two sets of parameters do"
                " not mix. Restore them, choose another --workdir, or remove"
                f" {self.folder}."
            )

    def run(self, part: Part = WHOLE, *, progress: bool = True) -> Gathered:
        """Samples what is missing; once the prompts are enough it writes them.

        One of several parts makes every n-th chunk, until its chunks alone hold its share of the
        prompts; the whole run then fills the gaps and chooses.

        Raises:
            StageError: `max_texts` are not enough.
        """
        every = range(self._chunks)
        if part.count == 1:
            found = self._gather(every, _selection(self._settings), progress=progress)
            if not found.complete:
                raise StageError(self._shortfall(found))
            self._write(found)
            return found
        found = self._gather(every, _selection(self._settings), make=False)
        made = None
        if not found.complete:
            own = _selection(self._settings, part)
            made = self._gather(part.of(self._chunks), own, progress=progress)
            found = self._gather(every, _selection(self._settings), make=False)
            found.made, found.seconds = made.made, made.seconds
        if found.complete:
            self._write(found)
        return found

    def memory(self) -> dict[str, float]:
        """Peak memory so far in GiB, by where."""
        return {"host": host_memory(), **(self._model.memory() if self._model else {})}

    def _gather(
        self, chunks: Iterable[int], selection: Selection, *, make: bool = True,
        progress: bool = False,
    ) -> Gathered:  # fmt: skip
        """Reads or makes chunks until the selection is complete; or until one is missing."""
        found = Gathered(selection, [])
        with tqdm.tqdm(
            total=selection.count, desc="prompts", unit="prompt", disable=None if progress else True
        ) as bar:
            for chunk in chunks:
                texts = self._read(chunk)
                if texts is None and not make:
                    break
                if texts is None:
                    began = time.perf_counter()
                    texts = self._make(chunk)
                    found.made += len(texts)
                    found.seconds += time.perf_counter() - began
                found.texts += len(texts)
                before = len(selection.accepted)
                found.prompts += _choose(selection, chunk, texts, self._settings.mode)
                bar.set_postfix(texts=found.texts, refresh=False)
                bar.update(len(selection.accepted) - before)
                if selection.complete:
                    break
        return found

    def _path(self, chunk: int) -> Path:
        return self._raw / f"{chunk:05d}.json"

    def _read(self, chunk: int) -> list[str] | None:
        path = self._path(chunk)
        if not path.is_file():
            return None
        try:
            texts = json.loads(path.read_text())["texts"]
        except (ValueError, TypeError, KeyError) as error:
            raise StageError(
                f"{path} is damaged ({error!r}); remove it, then run again: it is made anew."
            ) from error
        return texts

    def _make(self, chunk: int) -> list[str]:
        """Samples the texts of a chunk, which depend on the seed and its number alone."""
        if self._model is None:
            self._model = self._load()
        began = time.perf_counter()
        texts = instructions.sample(self._settings, self._model, chunk)
        self._check()  # another process may have claimed the folder meanwhile
        write_json(self._path(chunk), {"chunk": chunk, "texts": texts})
        self._log(chunk, len(texts), time.perf_counter() - began)
        return texts

    def _log(self, chunk: int, texts: int, seconds: float) -> None:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": socket.gethostname(),
            "chunk": chunk, "texts": texts, "seconds": round(seconds, 2),
            "per_second": round(texts / seconds, 3),
            **{f"peak_{name}_gib": round(value, 2) for name, value in self.memory().items()},
        }  # fmt: skip
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _write(self, found: Gathered) -> None:
        common = {
            "seed": self._settings.seed,
            "model": self._plan["model"]["model"],
            "revision": self._plan["model"]["revision"],
            "parameters": self._plan["parameters"],
        }
        rows = [
            {"prompt": sentence.text, "classes": sentence.classes, "raw": raw, "chunk": chunk,
             "index": index, **common}
            for sentence, raw, chunk, index in found.prompts
        ]  # fmt: skip
        path = self.folder / "prompts.jsonl"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
        os.replace(temporary, path)
        write_json(self.folder / "report.json", self.report(found))

    def report(self, found: Gathered) -> dict[str, Any]:
        """What was chosen from how much, as JSON; no times, so that it is the same every time."""
        return {**self._plan, "texts": found.texts, **found.selection.report()}

    def _shortfall(self, found: Gathered) -> str:
        report = found.selection.report()
        refused = "".join(
            f"\n  {reason} {one['count']} ({one['meaning']}), such as {one['example'][:80]!r}"
            for reason, one in report["rejects"].items()
        )
        missing = ", ".join(f"{name} {number}" for name, number in report["missing"].items())
        return (
            f"{found.texts:,} texts were sampled (config.prompts.max_texts), {report['accepted']}"
            f" of {self._settings.count} prompts pass.\nrefused lines:{refused or ' none'}\n"
            f"classes still missing: {missing or 'none'}\nRaise config.prompts.max_texts to go on"
            " from here. Or, in another --workdir, use a larger model, the mode 'few_shot', a lower"
            " temperature where lines have a wrong form or a higher one where they are duplicates."
        )


def _selection(settings: Settings, part: Part = WHOLE) -> Selection:
    """An empty selection; one of several parts needs its share and leaves classes to all."""
    return Selection(
        math.ceil(settings.count / part.count),
        settings.min_per_class if part.count == 1 else 0,
        loose=settings.form == "loose",
        known=instructions.EXAMPLES if settings.mode == "few_shot" else (),
    )


def _choose(
    selection: Selection, chunk: int, texts: list[str], mode: str
) -> list[tuple[Sentence, str, int, int]]:
    chosen = []
    for index, text in enumerate(texts):
        for line in grammar.lines(text):
            if selection.complete:
                return chosen
            if sentence := selection.add(line):
                chosen.append((sentence, line, chunk, index))
    return chosen
