r"""Self-training in rounds: the teacher labels, SAM refines, the student learns, again and again.

    python -m experiments.rounds --config configs/stages/paper.py --workdir runs/gta --rounds 3
    python -m experiments.rounds --config configs/stages/laptop.py --workdir runs/laptop --rounds 2

The offline twin of the labels that a joint step makes itself (`config.selftrain.labels=online`). It
runs what is missing of `experiments.pipeline`, whose labels are those of the warm-up, and then

    pseudo-R   the teacher of round R-1 labels the images   SHARDS/generated.pseudo-R/train
    refine-R   SAM refines its labels                       SHARDS/generated.refined-R/train
    train-R    goes on from round R-1 with these labels     WORKDIR/rounds/R

Round 1 learns the pipeline's labels. `config.rounds` names the config of the training. The same
command goes on where it was stopped; other parameters in the same folder are refused, but for more
rounds.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clouds_jax.command_line import one_line_errors
from clouds_jax.differences import differences
from clouds_jax.files import write_json
from experiments import pipeline
from experiments.pipeline import Step
from porting.stages import config as stage_config

_RECORD = "rounds.json"
# keys that say how the machine is used and change no result
_FREE = (
    "generate.diffusers.batch", "generate.diffusers.offload",
    "generate.diffusers.attention_slicing", "refine.chunk",
)  # fmt: skip


def steps(
    config: Any, arguments: argparse.Namespace, overrides: Sequence[str], rounds: int
) -> Iterator[Step]:
    """What the rounds need and the pipeline has not made."""
    workdir, name = arguments.workdir, config.generate.name
    shards = stage_config.shards_root(config, workdir).absolute()
    ref = f"{name}/train"
    run = Path(config.warmup.run or workdir / "warmup")
    for number in range(1, rounds + 1):
        if number > 1:
            made = shards / f"{name}.pseudo-{number}"
            yield Step(
                f"pseudo-{number}", f"the teacher of {run}", made / "train.summary.json",
                (("clouds_jax.pseudo", f"--workdir={run}", f"--shards={shards}", f"--ref={ref}",
                  f"--name={made.name}", f"--protocol={config.predict.protocol}", "--teacher"),),
                made / "train.log.jsonl",
            )  # fmt: skip
            refined = shards / f"{name}.refined-{number}"
            yield Step(
                f"refine-{number}", f"{config.refine.sam or config.refine.weights}",
                refined / "train.summary.json",
                (("porting", "refine", f"--config={arguments.config}", f"--workdir={workdir}",
                  f"--labels={made.name}/train", f"--name={refined.name}", *overrides),),
                refined / "train.log.jsonl",
            )  # fmt: skip
        previous, run = run, workdir / "rounds" / str(number)
        yield Step(
            f"train-{number}", f"{config.rounds.config} from {previous}", run / pipeline.TRAINED,
            (("clouds_jax.train", f"--config={config.rounds.config}", f"--workdir={run}",
              *_training(config, number, previous, shards, workdir)),),
        )  # fmt: skip


def _training(
    config: Any, number: int, previous: Path, shards: Path, workdir: Path
) -> Iterator[str]:
    """What a round's training is told besides its config."""
    flags = {
        "selftrain.labels": "stored",
        "selftrain.map": "refined" if number == 1 else f"refined-{number}",
        "data.shards": str(shards),
        "init_from": str(previous.absolute()),
        **({"encoder.weights": str((workdir / "weights/encoder").absolute())}
           if config.warmup.encoder else {}),
        **config.rounds.flags.to_dict(),
    }  # fmt: skip
    return (f"--config.{key}={value}" for key, value in flags.items())


def check(config: Any, workdir: Path) -> None:
    """Writes down the parameters, or compares them with those of the rounds that are there.

    Raises:
        ValueError: they differ; names every one that does.
    """
    flags = [f"--config.{key}={value}" for key, value in config.rounds.flags.items()]
    training = stage_config.read(config.rounds.config, flags)
    now = json.loads(json.dumps({"stages": config.to_dict(), "training": training.to_dict()}))
    path = workdir / _RECORD
    if not path.exists():
        write_json(path, now)
        return
    before = json.loads(path.read_text())
    for free in _FREE:
        for one in (before, now):
            _drop(one["stages"], free)
    differs = [
        *differences(before["stages"], now["stages"]).values(),
        *differences({"training": before["training"]}, {"training": now["training"]}).values(),
    ]
    if differs:
        raise ValueError(
            f"{workdir} holds rounds of other parameters:\n  " + "\n  ".join(differs)
            + "\nTake these back, or another --workdir."
        )  # fmt: skip


def _drop(tree: dict[str, Any], key: str) -> None:
    """Takes a key with dots out of nested dicts."""
    *above, last = key.split(".")
    for name in above:
        tree = tree[name]
    tree.pop(last, None)


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.rounds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stage_config.add_config(parser)
    parser.add_argument("--rounds", type=int, required=True, help="how many, at least 1")
    arguments, overrides = parser.parse_known_args(argv)
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; it must be at least 1")
    try:
        config = stage_config.read(arguments.config, overrides)
        check(config, arguments.workdir)
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    chain = [
        *pipeline.steps(config, arguments, overrides),
        *steps(config, arguments, overrides, arguments.rounds),
    ]
    if all(step.makes.exists() for step in chain):
        print(f"nothing to do: {arguments.rounds} rounds are there, the last in {chain[-1].makes}")
        return
    pipeline.run(chain, arguments.workdir / "rounds.md")


if __name__ == "__main__":
    with one_line_errors("rounds"):
        main()
