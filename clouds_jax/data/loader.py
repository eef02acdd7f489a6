r"""Shards to batches: what training eats, and a program that shows it.

    python -m clouds_jax.data.loader --config configs/warmup_camvid.py --output panel.png
    python -m clouds_jax.data.loader --shards shards --ref camvid/train --crop 352 480

The pipeline is a function of (seed, position): the same call yields the same batches, on one
process or many, and an iterator restored by Grain's `get_state` and `set_state` (or by Orbax)
continues with the very next batch.
"""

import argparse
import dataclasses
import functools
import runpy
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import grain
import numpy as np

from clouds_jax.data import show
from clouds_jax.data.augment import Augmentation, augment
from clouds_jax.data.classes import get_space, reduction
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.records import Example, open_ref, parse_ref, read_summary

Arrays = dict[str, np.ndarray]  # image: UInt8["b h w 3"], label: UInt8["b h w"]


def train_batches(
    refs: Mapping[str, int],
    *,
    shards_root: Path,
    crop: tuple[int, int],
    scale: tuple[float, float] = (0.5, 2.0),
    flip: float = 0.5,
    colour: bool = True,
    crop_offsets: str = "diagonal",
    jitter_size: tuple[int, int] | None = None,
    label_space: str = "cityscapes19",
    split: str = "train",
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 8,
    prefetch: int = 4,
) -> grain.IterDataset[Arrays]:
    """Endless augmented batches of fixed composition.

    Args:
        refs: dataset, or dataset/split -> images per batch over all processes; rows come in this
            order.
        shards_root: folder that the build wrote to.
        crop: (h, w) of the images.
        scale: (lo, hi) of the random factor on the jitter size.
        flip: probability of mirroring.
        colour: whether to jitter colours.
        crop_offsets: "diagonal" or "independent", see `Augmentation`.
        jitter_size: (h, w) that factor 1 stands for; None: that of each dataset's spec.
        label_space: of the labels; a dataset's own labels are reduced to it.
        split: of refs that name none.
        seed: of shuffling and augmentation.
        process_index: of this process.
        process_count: each process yields its share of every batch.
        threads: that read, decode and augment; 0: in the caller's.
        prefetch: batches made ahead.

    Returns:
        Batches {"image": uint8 [b h w 3], "label": uint8 [b h w]}.

    Raises:
        ValueError: the counts do not fit the processes or the data, a dataset has no labels.
    """
    if not refs:
        raise ValueError("no dataset to train on: refs is empty; give at least {name: count}.")
    settings = Augmentation(crop, scale, jitter_size, flip, colour, crop_offsets)
    streams = {
        ref: (_examples(ref, count, shards_root, settings, label_space, split, seed), count)
        for ref, count in refs.items()
    }
    return mixed(
        streams, process_index=process_index, process_count=process_count, threads=threads,
        prefetch=prefetch,
    )  # fmt: skip


def mixed(
    streams: Mapping[str, tuple[grain.MapDataset[Arrays], int]],
    *,
    process_index: int,
    process_count: int,
    threads: int,
    prefetch: int,
) -> grain.IterDataset[Arrays]:
    """Batches of a fixed number of examples of each stream; rows come in the order of the streams.

    Args:
        streams: name -> endless examples by index, and how many of them a batch takes over all
            processes.
        process_index, process_count, threads, prefetch: see `train_batches`.
    """
    cv2.setNumThreads(1)  # the loader's own threads are the parallelism
    parts = []
    for name, (stream, count) in streams.items():
        if count < 1 or count % process_count:
            raise ValueError(
                f"a batch takes {count} images of {name}; it must be a positive multiple of the "
                f"{process_count} processes."
            )
        # Sliced behind the augmentation: example i of the stream is the same on 1 process and 8.
        stream = stream[process_index::process_count]
        own = count // process_count
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch * own)
        parts.append(stream.to_iter_dataset(options).batch(own, drop_remainder=True))
    return parts[0] if len(parts) == 1 else grain.experimental.ZipIterDataset(parts).map(_join)


def endless(source: Any, ref: str, seed: int) -> grain.MapDataset:
    """The examples of a source over and over, shuffled anew each time; depends on ref and seed."""
    own_seed = np.random.SeedSequence((seed, zlib.crc32(ref.encode()))).generate_state(1)[0]
    return grain.MapDataset.source(source).seed(int(own_seed)).shuffle().repeat()


def _examples(
    ref: str,
    count: int,
    shards_root: Path,
    settings: Augmentation,
    label_space: str,
    split: str,
    seed: int,
) -> grain.MapDataset[Arrays]:
    """The endless stream of augmented examples of one dataset, by index."""
    name, split = parse_ref(ref, split)
    ref = f"{name}/{split}"
    summary = read_summary(ref, shards_root)
    if summary["label_space"] is None:
        raise ValueError(f"{ref} has no labels; it cannot be trained on, only predicted.")
    shards = open_ref(ref, shards_root)
    if len(shards) < count:
        raise ValueError(
            f"{ref} has {len(shards)} examples, a batch takes {count}; take fewer, or build more."
        )
    if settings.jitter_size is None and summary["jitter_size"]:
        settings = dataclasses.replace(settings, jitter_size=tuple(summary["jitter_size"]))
    table = reduction(summary["label_space"], label_space)
    augmented = functools.partial(_augment, settings=settings, table=table)
    return endless(shards, ref, seed).random_map(augmented)


def _augment(
    example: Example, rng: np.random.Generator, *, settings: Augmentation, table: np.ndarray
) -> Arrays:
    image, label = example.image, example.label
    if image is None or label is None:
        raise ValueError(f"{example.key}: training needs an image and a label.")
    image, label = augment(image, label, rng, settings)
    return {"image": image, "label": table[label]}


def _join(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _config_options(flag: str) -> dict[str, Any]:
    """The arguments of `train_batches` that a config file (`path` or `path:mode`) stands for."""
    path, _, mode = flag.partition(":")
    config = runpy.run_path(path)["get_config"](mode)
    data = config.data
    return dict(
        refs=data.batch.to_dict(),
        shards_root=Path(data.shards),
        crop=tuple(data.crop),
        scale=tuple(data.scale),
        flip=data.flip,
        colour=data.colour,
        crop_offsets=data.crop_offsets,
        jitter_size=data.initial_size and tuple(data.initial_size),
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
    try:
        options: dict[str, Any]
        if args.config:
            options = _config_options(args.config)
            if args.shards:
                options["shards_root"] = args.shards
        else:
            options = dict(
                refs={args.ref: args.batch},
                shards_root=args.shards,
                crop=tuple(args.crop),
                label_space=get_dataset(parse_ref(args.ref)[0]).label_space,
                seed=args.seed,
            )
        iterator = iter(train_batches(**options))
        batches = [next(iterator) for _ in range(args.batches)]
    except (ValueError, KeyError, OSError) as error:
        # A KeyError prints itself in quotes.
        parser.exit(1, f"error: {error.args[0] if isinstance(error, KeyError) else error}\n")
    space = get_space(options["label_space"])
    print(show.describe(batches, space))
    show.save_panel(args.output, batches[0]["image"], batches[0]["label"], space)
    print(f"panel: {args.output}")


if __name__ == "__main__":
    main()
