"""Shows what a loader yields: keys, shapes, class shares, a panel of pictures."""

import argparse
import contextlib
import runpy
from collections.abc import Sequence
from pathlib import Path

import grain

from clouds_jax import command_line
from clouds_jax.config.experiment import read_experiment
from clouds_jax.data.augment import Augmentation
from clouds_jax.data.classes import LabelSpace, get_space
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.loader import train_batches
from clouds_jax.data.records import parse_ref
from clouds_jax.visual.batches import describe, save_panel


def _batches(args: argparse.Namespace) -> tuple[grain.IterDataset, LabelSpace]:
    """The batches that the arguments select: of a training, or of one dataset."""
    if args.config:
        path, _, mode = args.config.partition(":")
        experiment = read_experiment(runpy.run_path(path)["get_config"](mode))
        shards = args.shards or Path(experiment.data.shards)
        return experiment.data.labelled_batches(shards), experiment.model.space
    space = get_dataset(parse_ref(args.ref)[0]).label_space
    if space is None:
        raise ValueError(f"{args.ref} has no labels; look at its images instead.")
    batches = train_batches(
        {args.ref: args.batch}, Augmentation(tuple(args.crop)), shards_root=args.shards,
        label_space=space, seed=args.seed,
    )  # fmt: skip
    return batches, get_space(space)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.data.loader",
        description="Shows what a loader yields: keys, shapes, class shares, a panel of pictures.",
    )
    parser.add_argument("--config", help="config file, with :debug or without")
    parser.add_argument("--shards", type=Path, help="root of all shards (default: the config's)")
    parser.add_argument("--ref", help="dataset/split to show instead of the data of a config")
    parser.add_argument(
        "--crop",
        type=command_line.at_least_one,
        nargs=2,
        metavar=("H", "W"),
        default=(512, 512),
        help="crop of --ref",
    )
    parser.add_argument(
        "--batch", type=command_line.at_least_one, default=4, help="images per batch of --ref"
    )
    parser.add_argument(
        "--batches",
        type=command_line.at_least_one,
        default=2,
        help="number of batches whose classes are counted",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the batches of --ref")
    parser.add_argument("--output", type=Path, default=Path("panel.png"), help="PNG to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = _parser()
    args = parser.parse_args(argv)
    if bool(args.config) == bool(args.ref):
        parser.error("give either --config, or --shards and --ref.")
    if args.ref and not args.shards:
        parser.error("--ref needs --shards, the folder that the build wrote to.")
    with command_line.one_line_errors("loader"):
        dataset, space = _batches(args)
        # closed, since its threads have to end before the interpreter does
        with contextlib.closing(iter(dataset)) as iterator:
            batches = [next(iterator) for _ in range(args.batches)]
        print(describe(batches, space))
        save_panel(args.output, batches[0]["image"], batches[0]["label"], space)
        print(f"panel: {args.output}")


if __name__ == "__main__":
    main()
