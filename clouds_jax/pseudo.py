r"""Labels the images of some shards with a trained model: the program.

    python -m clouds_jax.pseudo --workdir runs/warmup_gta --shards shards --ref generated/train

Writes `generated.pseudo/train` beside `generated/train`: shards with the keys and the pseudo-labels
of the images, in their order and at their own size, every pixel with a class. A shard that is
already there is not made again; an interrupted program goes on at the first missing one, with the
same bytes.
"""

import argparse
import dataclasses
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from clouds_jax import checkpoint, protocols, restore
from clouds_jax.data import records, spread, stage
from clouds_jax.data.classes import get_space
from clouds_jax.embed import device_memory
from clouds_jax.predict import make_predict


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """The stage.

    Attributes:
        workdir: the run whose model labels.
        shards: root of all shards.
        ref: "name/split" of the images.
        name: of the new set of shards, whose split is that of `ref`; "": `name.pseudo`.
        step: checkpoint of the run; None: the newest.
        teacher: take the teacher of a joint run instead of the student.
        protocol: how images are prepared.
    """

    workdir: str
    shards: Path
    ref: str
    name: str = ""
    step: int | None = None
    teacher: bool = False
    protocol: str = "native"

    @functools.cached_property
    def folder(self) -> stage.Folder:
        """Where the shards go."""
        step, config, digest = checkpoint.identify_run(self.workdir, self.step)
        protocols.get_protocol(self.protocol)
        summary = records.read_summary(self.ref, self.shards)
        name, split = records.parse_ref(self.ref)
        return stage.Folder(
            self.shards,
            f"{self.name or records.map_name(name, 'pseudo')}/{split}",
            stage="pseudo",
            parameters={
                "step": step, "teacher": self.teacher, "protocol": self.protocol,
                "label_space": config["label_space"],
            },
            inputs={self.ref: stage.digest(self.ref, self.shards), "run": digest},
            examples=summary["examples"],
            shards=len(summary["shards"]),
        )  # fmt: skip

    def load(self) -> Callable[[int], Iterator[stage.Record]]:
        """Loads the model."""
        (graphdef, state), config, about = restore.restore(
            None, workdir=self.workdir, step=self.step, teacher=self.teacher
        )
        predict = make_predict(graphdef, state, protocols.get_protocol(self.protocol))
        examples = records.open_ref(self.ref, self.shards)
        names = get_space(config.label_space).names
        origin = {
            "stage": "pseudo", "run": Path(self.workdir).name, "step": about["step"],
            "teacher": self.teacher, "protocol": self.protocol, "space": config.label_space,
        }  # fmt: skip

        def make(shard: int) -> Iterator[stage.Record]:
            for index in self.folder.indices(shard):
                example = examples[index]
                if example.image is None:
                    raise ValueError(f"{self.ref}: {example.key} has no image to label.")
                label, _ = predict(example.image)
                made = records.Example(example.key, pseudo=label, origin=origin)
                counts = np.bincount(label.reshape(-1), minlength=len(names))
                yield records.encode(made), {c: int(n) for c, n in zip(names, counts, strict=True)}

        return make

    def memory(self) -> Mapping[str, float]:
        """Peak memory in GiB."""
        return device_memory()


def describe(summary: Mapping[str, dict[str, int]]) -> str:
    """Share of the pixels of each class, largest first."""
    counts = summary["stats"]
    total = sum(counts.values())
    shares = sorted(((n / total, name) for name, n in counts.items()), reverse=True)
    return "\n".join(f"{name:<16}{100 * share:>7.2f} %" for share, name in shares)


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.pseudo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, help="run that was trained")
    parser.add_argument("--shards", type=Path, required=True, help="root of all shards")
    parser.add_argument("--ref", required=True, help="name/split of the images")
    parser.add_argument("--name", default="", help="of the new shards (default: NAME.pseudo)")
    parser.add_argument("--step", type=int, help="checkpoint of the run (default: the newest)")
    parser.add_argument("--teacher", action="store_true", help="the teacher of a joint run")
    parser.add_argument(
        "--protocol", default="native", choices=list(protocols.PROTOCOLS), help="default: native"
    )
    spread.add_running(parser)
    args = parser.parse_args(argv)
    logging.disable(logging.INFO)  # Orbax tells much of reading a checkpoint
    command = ["clouds_jax.pseudo", *spread.without_running(argv or sys.argv[1:])]
    names = [field.name for field in dataclasses.fields(PseudoLabels)]
    try:
        made = PseudoLabels(**{name: getattr(args, name) for name in names})
        done = spread.run(made, command, shard=args.shard, processes=args.processes, ray=args.ray)
        summary = made.folder.finish()
    except (ValueError, KeyError, OSError) as error:
        parser.exit(1, f"error: {error.args[0] if isinstance(error, KeyError) else error}\n")
    print(f"{done} images labelled; {made.folder.state()}")
    if summary:
        print(describe(summary))


if __name__ == "__main__":
    main()
