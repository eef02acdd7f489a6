r"""From shards to training batches, and a program that shows them.

    python -m clouds_jax.data.loader --config configs/warmup_camvid.py --output panel.png
    python -m clouds_jax.data.loader --shards shards --ref camvid/train --crop 352 480

The pipeline is a function of (seed, number of the batch): the same call yields the same batches, on
one process or many, and `start` goes on from any of them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import grain
import numpy as np

from clouds_jax.data.augment import Augmentation, augment
from clouds_jax.data.classes import reduction
from clouds_jax.data.part import WHOLE, Part
from clouds_jax.data.records import Example, open_ref, parse_ref, read_summary
from clouds_jax.data.streams import Arrays, endless, mixed


def train_batches(
    refs: Mapping[str, int],
    augmentation: Augmentation,
    *,
    shards_root: Path,
    label_space: str = "cityscapes19",
    split: str = "train",
    seed: int = 0,
    part: Part = WHOLE,
    rows: int = 0,
    start: int = 0,
    threads: int = 8,
    prefetch: int = 4,
) -> grain.IterDataset[Arrays]:
    """Endless augmented batches of fixed composition.

    Args:
        refs: dataset, or dataset/split -> images per batch over all processes; rows come in this
            order.
        augmentation: crop, scale, colour and flip. Without a jitter size, each dataset takes that
            of its spec.
        shards_root: folder that the build wrote to.
        label_space: name of the space of the batches' labels, to which those of the datasets are
            reduced.
        split: split of refs that name none.
        seed: seed of shuffling and augmentation.
        part: this process's part of every batch.
        rows: rows of a batch; those behind the examples repeat the last one. 0: no more than those.
        start: number of the first batch, such as the steps that a run has done.
        threads: threads that read, decode and augment; 0: the caller's own.
        prefetch: batches made ahead.

    Returns:
        Batches {"image": uint8 [b h w 3], "label": uint8 [b h w]}.

    Raises:
        ValueError: the counts do not fit the processes or the data, or a dataset has no labels.
        KeyError: the labels of a dataset do not reduce to `label_space`.
        FileNotFoundError: a dataset was not built.
    """
    if not refs:
        raise ValueError("no dataset to train on: refs is empty; give at least {name: count}.")
    streams = {}
    for ref, count in refs.items():
        name = "/".join(parse_ref(ref, split))
        stream = _examples(name, count, augmentation, shards_root, label_space, seed)
        streams[ref] = stream, count
    return mixed(streams, part=part, rows=rows, start=start, threads=threads, prefetch=prefetch)


def _examples(
    ref: str, count: int, augmentation: Augmentation, root: Path, label_space: str, seed: int
) -> grain.MapDataset[Arrays]:
    """The endless stream of augmented examples of "name/split", by index."""
    summary = read_summary(ref, root)
    if summary["label_space"] is None:
        raise ValueError(f"{ref} has no labels; it cannot be trained on, only predicted.")
    shards = open_ref(ref, root)
    if len(shards) < count:
        raise ValueError(
            f"{ref} has {len(shards)} examples, a batch takes {count}; take fewer, or build more."
        )
    if augmentation.jitter_size is None and summary["jitter_size"]:
        size = tuple(summary["jitter_size"])
        augmentation = dataclasses.replace(augmentation, jitter_size=size)
    table = reduction(summary["label_space"], label_space)
    augmented = functools.partial(_augment, settings=augmentation, table=table)
    return endless(shards, ref, seed).random_map(augmented)


def _augment(
    example: Example, rng: np.random.Generator, *, settings: Augmentation, table: np.ndarray
) -> Arrays:
    image, label = example.image, example.label
    if image is None or label is None:
        raise ValueError(f"{example.key}: training needs an image and a label.")
    image, label = augment(image, label, rng, settings)
    return {"image": image, "label": table[label]}
