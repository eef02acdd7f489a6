"""The prompts stage: a language model writes prompts for a text-to-image model.

    WORKDIR/prompts/manifest.json    parameters, model and code, written before the first text
    WORKDIR/prompts/raw/00003.json   a chunk of sampled texts, which depends on (seed, 3) alone
    WORKDIR/prompts/log.jsonl        time, speed and memory of each chunk
    WORKDIR/prompts/prompts.jsonl    the prompts and the origin of each
    WORKDIR/prompts/report.json      written last: numbers of rejected lines with reasons

The prompts are selected from the chunks in order, up to the first chunk where they suffice. A
killed run continues at the first missing chunk and ends with the same bytes.
"""

import json
import math
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tqdm

from clouds_jax import provenance
from clouds_jax.data.part import WHOLE, Part
from clouds_jax.differences import differences
from clouds_jax.files import write_json, write_text
from clouds_jax.stages.memory import host_memory
from clouds_jax.stages.shard_set import StageError
from porting.stages.prompts import instructions
from porting.stages.prompts.instructions import Model
from porting.stages.prompts.sampled import SampledPrompts
from porting.stages.prompts.selection import Selection
from porting.stages.prompts.settings import Settings


class PromptsStage:
    """The stage.

    Args:
        settings: settings of the run.
        folder: WORKDIR/prompts.
        identity: identity of the model, from `language_model.identify`.
        load: loads the model, which is slow; called when the first text is needed.

    Raises:
        StageError: the folder holds texts of other parameters or another model.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        identity: Mapping[str, Any],
        load: Callable[[], Model],
    ):
        self._settings, self.folder, self._load = settings, folder, load
        self._model: Model | None = None
        self._chunks = math.ceil(settings.max_texts / settings.batch)
        parameters = {**settings.parameters(), "wording": instructions.wording()}
        plan = {"stage": "prompts", "parameters": parameters, "model": identity}
        self._plan = json.loads(json.dumps(plan))
        self._manifest, self._raw = folder / "manifest.json", folder / "raw"
        self._raw.mkdir(parents=True, exist_ok=True)
        if not any(self._raw.glob("*.json")):  # a manifest without texts may be replaced
            code = {
                "commit": provenance.commit(),
                **provenance.versions(["clouds-jax", "torch", "transformers"]),
            }
            write_json(self._manifest, {**self._plan, "code": code})
        self._check_manifest()

    def _check_manifest(self) -> None:
        if not self._manifest.is_file():
            raise StageError(f"{self._raw} holds texts without a manifest; remove {self.folder}.")
        stored = json.loads(self._manifest.read_text())
        stored.pop("code")
        if changed := differences(stored, self._plan):
            raise StageError(
                f"{self._manifest} is of another run ({'; '.join(changed.values())}); texts of two"
                " sets of parameters do not mix. Restore them, choose another --workdir, or remove"
                f" {self.folder}."
            )

    def run(self, part: Part = WHOLE, *, progress: bool = True) -> SampledPrompts:
        """Samples missing texts; once there are enough prompts, writes them.

        One of several parts samples every n-th chunk, until its chunks alone hold its share of the
        prompts; a run of the whole then fills the gaps and selects.

        Args:
            part: the part of the chunks to sample.
            progress: show a progress bar.

        Raises:
            StageError: `max_texts` are not enough.
        """
        chunks = range(self._chunks)
        if part.count == 1:
            result = self._gather(chunks, _selection(self._settings), progress=progress)
            if not result.complete:
                raise StageError(self._shortfall(result))
            self._write(result)
            return result
        result = self._gather(chunks, _selection(self._settings), sample=False)
        if not result.complete:
            share = _selection(self._settings, part)
            own = self._gather(part.of(self._chunks), share, progress=progress)
            result = self._gather(chunks, _selection(self._settings), sample=False)
            result.sampled, result.seconds = own.sampled, own.seconds
        if result.complete:
            self._write(result)
        return result

    def memory(self) -> dict[str, float]:
        """Peak memory so far in GiB, by device."""
        return {"host": host_memory(), **(self._model.memory() if self._model else {})}

    def _gather(
        self,
        chunks: Iterable[int],
        selection: Selection,
        *,
        sample: bool = True,
        progress: bool = False,
    ) -> SampledPrompts:
        """Reads or samples chunks until there are enough prompts; without `sample`, until one is
        missing."""
        result = SampledPrompts(selection)
        with tqdm.tqdm(
            total=selection.count, desc="prompts", unit="prompt", disable=None if progress else True
        ) as bar:
            for chunk in chunks:
                texts = self._read(chunk)
                if texts is None and not sample:
                    break
                if texts is None:
                    began = time.perf_counter()
                    texts = self._sample(chunk)
                    result.sampled += len(texts)
                    result.seconds += time.perf_counter() - began
                before = len(result.prompts)
                result.add(chunk, texts)
                bar.set_postfix(texts=result.texts, refresh=False)
                bar.update(len(result.prompts) - before)
                if result.complete:
                    break
        return result

    def _path(self, chunk: int) -> Path:
        return self._raw / f"{chunk:05d}.json"

    def _read(self, chunk: int) -> list[str] | None:
        """The stored texts of a chunk, or None."""
        path = self._path(chunk)
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text())["texts"]
        except (ValueError, TypeError, KeyError) as error:
            raise StageError(
                f"{path} is damaged ({error!r}); remove it, then run again: it is made anew."
            ) from error

    def _sample(self, chunk: int) -> list[str]:
        """Samples and stores the texts of a chunk."""
        if self._model is None:
            self._model = self._load()
        began = time.perf_counter()
        texts = instructions.sample(self._settings, self._model, chunk)
        self._check_manifest()  # another process may have claimed the folder meanwhile
        write_json(self._path(chunk), {"chunk": chunk, "texts": texts})
        self._log(chunk, len(texts), time.perf_counter() - began)
        return texts

    def _log(self, chunk: int, texts: int, seconds: float) -> None:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "host": socket.gethostname(),
            "chunk": chunk,
            "texts": texts,
            "seconds": round(seconds, 2),
            "per_second": round(texts / seconds, 3),
            **{f"peak_{name}_gib": round(value, 2) for name, value in self.memory().items()},
        }
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _write(self, result: SampledPrompts) -> None:
        common = {
            "seed": self._settings.seed,
            "model": self._plan["model"]["model"],
            "revision": self._plan["model"]["revision"],
            "parameters": self._plan["parameters"],
        }
        rows = [
            {
                "prompt": prompt.sentence.text,
                "classes": prompt.sentence.classes,
                "raw": prompt.line,
                "chunk": prompt.chunk,
                "index": prompt.index,
                **common,
            }
            for prompt in result.prompts
        ]
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        write_text(self.folder / "prompts.jsonl", lines)
        write_json(self.folder / "report.json", self.report(result))

    def report(self, result: SampledPrompts) -> dict[str, Any]:
        """Parameters and counts as plain JSON; without times, so that it is reproducible."""
        return {**self._plan, "texts": result.texts, **result.selection.report()}

    def _shortfall(self, result: SampledPrompts) -> str:
        report = result.selection.report()
        refused = "".join(
            f"\n  {reason} {entry['count']} ({entry['meaning']}), such as {entry['example'][:80]!r}"
            for reason, entry in report["rejects"].items()
        )
        missing = ", ".join(f"{name} {number}" for name, number in report["missing"].items())
        return (
            f"{result.texts:,} texts were sampled (config.prompts.max_texts), {report['accepted']}"
            f" of {self._settings.count} prompts pass.\nrefused lines:{refused or ' none'}\n"
            f"classes still missing: {missing or 'none'}\nRaise config.prompts.max_texts to go on"
            " from here. Or, in another --workdir, use a larger model, the mode 'few_shot', a lower"
            " temperature where lines have a wrong form or a higher one where they are duplicates."
        )


def _selection(settings: Settings, part: Part = WHOLE) -> Selection:
    """An empty selection; that of a part needs its share, and leaves the classes to the whole."""
    return Selection(
        math.ceil(settings.count / part.count),
        settings.min_per_class if part.count == 1 else 0,
        loose=settings.form == "loose",
        known=instructions.EXAMPLES if settings.mode == "few_shot" else (),
    )
