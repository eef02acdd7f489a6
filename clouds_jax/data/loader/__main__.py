"""Shows what a loader yields: keys, shapes, class shares, a panel of pictures."""

import argparse
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clouds_jax import command_line
from clouds_jax.data.augment import Augmentation
from clouds_jax.data.classes import get_space
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.loader import train_batches
from clouds_jax.data.records import parse_ref
from clouds_jax.visual import batches as show


def _config_options(flag: str) -> dict[str, Any]:
    """The arguments of `train_batches` that a config file (`path` or `path:mode`) stands for."""
    path, _, mode = flag.partition(":")
    config = runpy.run_path(path)["get_config"](mode)
    data = config.data
    return dict(
        refs=data.batch.to_dict(),
        shards_root=Path(data.shards),
        augmentation=Augmentation(
            crop=tuple(data.crop),
            scale=tuple(data.scale),
            flip=data.flip,
            colour=data.colour,
            crop_offsets=data.crop_offsets,
            jitter_size=data.initial_size and tuple(data.initial_size),
        ),
        label_space=config.label_space,
        split=data.split,
        seed=config.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.data.loader",
        description="Shows what a loader yields: keys, shapes, class shares, a panel of pictures.",
    )
    parser.add_argument("--config", help="config file, with :debug or without")
    parser.add_argument("--shards", type=Path, help="root of all shards (default: the config's)")
    parser.add_argument("--ref", help="dataset/split to show instead of a config's mix")
    parser.add_argument("--crop", type=int, nargs=2, metavar=("H", "W"), default=(512, 512))
    parser.add_argument("--batch", type=int, default=4, help="images per batch of --ref")
    parser.add_argument("--batches", type=int, default=2, help="batches to count")
    parser.add_argument("--seed", type=int, default=0, help="of --ref")
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
        options: dict[str, Any]
        if args.config:
            options = _config_options(args.config)
            if args.shards:
                options["shards_root"] = args.shards
        else:
            options = dict(
                refs={args.ref: args.batch},
                shards_root=args.shards,
                augmentation=Augmentation(tuple(args.crop)),
                label_space=get_dataset(parse_ref(args.ref)[0]).label_space,
                seed=args.seed,
            )
        iterator = iter(train_batches(**options))
        batches = [next(iterator) for _ in range(args.batches)]
    space = get_space(options["label_space"])
    print(show.describe(batches, space))
    show.save_panel(args.output, batches[0]["image"], batches[0]["label"], space)
    print(f"panel: {args.output}")


if __name__ == "__main__":
    main()
