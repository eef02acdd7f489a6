r"""From nothing to refined pseudo-labels: all offline stages, one after another.

    python -m experiments.pipeline --config configs/stages/paper.py --workdir runs/stages
    python -m experiments.pipeline --config configs/stages/laptop.py --workdir runs/stages_laptop

    prompts   a language model writes what to draw          WORKDIR/prompts/prompts.jsonl
    generate  images are drawn of it                        WORKDIR/shards/generated/train
    embed     SAM's embeddings of the images are stored     WORKDIR/shards/generated/train.SAM.HxW
    warmup    a teacher is trained, unless one is named     WORKDIR/warmup
    pseudo    it labels the images                          WORKDIR/shards/generated.pseudo/train
    refine    SAM refines the labels                        WORKDIR/shards/generated.refined/train

Each stage is a program of its own and can be run alone (`--only`); the same command goes on where
it was stopped, and refuses other parameters in the same folder. At the end it tells what each
stage made, how fast and with how much memory, as the stages' logs have it.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clouds_jax.command_line import one_line_errors
from clouds_jax.files import write_text
from experiments.run import finished, hardware, program
from porting.stages import config as stage_config

TRAINED = "trained"  # file in a run's folder: its training has ended
STEPS = ("prompts", "generate", "embed", "warmup", "pseudo", "refine")


@dataclasses.dataclass(frozen=True)
class Step:
    """A stage of the chain.

    Attributes:
        name: of the stage.
        uses: what it reads, in words.
        makes: the file or folder that is there when it has ended.
        commands: modules with their arguments, in order.
        log: where the stage writes how fast it was; None: it does not.
    """

    name: str
    uses: str
    makes: Path
    commands: tuple[tuple[str, ...], ...]
    log: Path | None = None


def steps(config: Any, arguments: argparse.Namespace, overrides: Sequence[str]) -> Iterator[Step]:
    """The stages that a config asks for."""
    workdir = arguments.workdir
    shards = stage_config.shards_root(config, workdir)
    name, refine, generate = config.generate.name, config.refine, config.generate
    own = (f"--config={arguments.config}", f"--workdir={workdir}", *overrides)
    ref, h, w = f"{name}/train", *generate.size
    folder = shards / name
    prompts = config.prompts
    if prompts.count:
        yield Step(
            "prompts", f"{prompts.gguf or prompts.model}, mode {prompts.mode}",
            workdir / "prompts/prompts.jsonl", (("porting", "prompts", *own),),
            workdir / "prompts/log.jsonl",
        )  # fmt: skip
    photos = f"photos of {generate.folder.path}"
    uses = generate.diffusers.model if generate.provider == "diffusers" else photos
    yield Step(
        "generate", uses, folder / "train.summary.json", (("porting", "generate", *own),),
        folder / "train.log.jsonl",
    )  # fmt: skip
    if refine.embeddings:
        weights = Path(config.embed.weights or workdir / "weights" / refine.sam)
        convert = ("porting", "convert", refine.weights, f"--output={weights}")
        embed = (
            "clouds_jax.embed", f"--shards={shards}", f"--ref={ref}", "--size", str(h), str(w),
            f"--sam={refine.sam}", f"--weights={weights}",
        )  # fmt: skip
        stem = f"train.{refine.sam}.{h}x{w}"
        yield Step(
            "embed", f"{refine.sam}, {refine.weights}", folder / f"{stem}.summary.json",
            (embed,) if weights.is_dir() else (convert, embed), folder / f"{stem}.log.jsonl",
        )  # fmt: skip
    run = Path(config.warmup.run or workdir / "warmup")
    if not config.warmup.run:
        yield Step(
            "warmup", config.warmup.config, run / TRAINED,
            tuple(_warmup(config, workdir, shards, run)),
        )  # fmt: skip
    yield Step(
        "pseudo", f"the last checkpoint of {run}", shards / f"{name}.pseudo/train.summary.json",
        (("clouds_jax.pseudo", f"--workdir={run}", f"--shards={shards}", f"--ref={ref}",
          f"--protocol={config.predict.protocol}"),),
        shards / f"{name}.pseudo/train.log.jsonl",
    )  # fmt: skip
    yield Step(
        "refine", f"{refine.sam or refine.weights} by {refine.backend}, preset {refine.preset}",
        shards / f"{name}.refined/train.summary.json", (("porting", "refine", *own),),
        shards / f"{name}.refined/train.log.jsonl",
    )  # fmt: skip


def _warmup(config: Any, workdir: Path, shards: Path, run: Path) -> Iterator[tuple[str, ...]]:
    """The commands that train the teacher, with what it needs first."""
    warmup = config.warmup
    flags = {"data.shards": str(shards.absolute()), **warmup.flags.to_dict()}
    if warmup.encoder:
        weights = workdir / "weights/encoder"
        flags["encoder.weights"] = str(weights.absolute())
        if not weights.is_dir():
            yield "porting", "convert", warmup.encoder, f"--output={weights}"
    for ref, count in warmup.data.items():
        dataset, _, split = ref.partition("/")
        yield (
            "clouds_jax.data.build", dataset, f"--split={split}", f"--count={count}",
            f"--output={shards}",
        )  # fmt: skip
    if warmup.config.endswith(":debug"):  # which makes its own images
        del flags["data.shards"]
    yield (
        "clouds_jax.train", f"--config={warmup.config}", f"--workdir={run}",
        *(f"--config.{key}={value}" for key, value in flags.items()),
    )  # fmt: skip


def measured(log: Path | None) -> dict[str, float]:
    """What the log of a stage tells: images (or texts), seconds, rate, peak memory in GiB."""
    if log is None or not log.is_file():
        return {}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    made = sum(line.get("examples", line.get("texts", 0)) for line in lines)
    seconds = max(sum(line["seconds"] for line in lines), 0.01)  # logs have hundredths
    peaks = {key for line in lines for key in line if key.startswith("peak_")}
    return {
        "made": made,
        "seconds": seconds,
        "per_second": made / seconds,
        **{key: max(line.get(key, 0) for line in lines) for key in sorted(peaks)},
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """Markdown: a row per stage, over all its processes."""
    head = "| stage | made | s | per s | peak memory, GiB | wall clock of this call, s |"
    rows = [head, "| --- | ---: | ---: | ---: | --- | ---: |"]
    for name, one in found.items():
        peaks = ", ".join(
            f"{key.removeprefix('peak_').removesuffix('_gib')} {value:.2f}"
            for key, value in one.items()
            if key.startswith("peak_")
        )
        cells = [f"{one[key]:,.{digits}f}" if key in one else "-"
                 for key, digits in (("made", 0), ("seconds", 1), ("per_second", 2))]  # fmt: skip
        rows.append(f"| {name} | {' | '.join(cells)} | {peaks or '-'} | {one['wall']:.1f} |")
    return "\n".join([*rows, "", f"{hardware()}. Seconds of a stage are those of its shards."])


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stage_config.add_config(parser)
    parser.add_argument(
        "--only", action="append", choices=STEPS, help="run this stage only (may be repeated)"
    )
    arguments, overrides = parser.parse_known_args(argv)
    try:
        config = stage_config.read(arguments.config, overrides)
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    chosen = [
        step
        for step in steps(config, arguments, overrides)
        if not arguments.only or step.name in arguments.only
    ]
    run(chosen, arguments.workdir / "pipeline.md")


def run(chain: Sequence[Step], told: Path) -> None:
    """Runs steps one after another, and writes to `told` what each cost.

    Raises:
        SystemExit: a program failed; its own message stands above.
    """
    found: dict[str, dict[str, float]] = {}
    for step in chain:
        print(f"\n== {step.name}: uses {step.uses}", flush=True)
        began = time.perf_counter()
        try:
            for module, *rest in step.commands:
                program(module, *rest)
        except SystemExit:
            print(f"{step.name}: not finished", file=sys.stderr, flush=True)
            raise
        if step.makes.name == TRAINED:
            if not finished(step.makes.parent):
                sys.exit(f"{step.name}: the training ended before its last step.")
            step.makes.touch()
        wall = time.perf_counter() - began
        print(f"-- {step.name}: made {step.makes} ({wall:.1f} s)", flush=True)
        found[step.name] = {**measured(step.log), "wall": wall}
    text = table(found)
    write_text(told, text + "\n")
    print(f"\n{text}\n\nwritten to {told}")


if __name__ == "__main__":
    with one_line_errors("pipeline"):
        main()
