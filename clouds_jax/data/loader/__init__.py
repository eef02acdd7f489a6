r"""Shards to batches: what training eats, and a program that shows it.

    python -m clouds_jax.data.loader --config configs/warmup_camvid.py --output panel.png
    python -m clouds_jax.data.loader --shards shards --ref camvid/train --crop 352 480

The pipeline is a function of (seed, position): the same call yields the same batches, on one
process or many, and an iterator restored by Grain's `get_state` and `set_state` (or by Orbax)
continues with the very next batch.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import grain
import numpy as np

from clouds_jax.data.augment import Augmentation, augment
from clouds_jax.data.classes import reduction
from clouds_jax.data.records import Example, open_ref, parse_ref, read_summary
from clouds_jax.data.streams import Arrays, endless, mixed


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
