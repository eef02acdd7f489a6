"""Endless streams of examples, and batches that mix several of them."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import grain
import numpy as np

from clouds_jax.data.part import Part

Arrays = dict[str, np.ndarray]  # image: UInt8["b h w 3"], label: UInt8["b h w"]


def mixed(
    streams: Mapping[str, tuple[grain.MapDataset[Arrays], int]],
    *,
    part: Part,
    threads: int,
    prefetch: int,
) -> grain.IterDataset[Arrays]:
    """Batches with a fixed number of examples of each stream, in the order of the streams.

    Args:
        streams: name -> endless examples by index, and how many of them a batch takes over all
            processes.
        part: this process's part of every batch.
        threads: threads that read, decode and augment; 0: the caller's own.
        prefetch: batches made ahead.
    """
    cv2.setNumThreads(1)  # the loader's own threads are the parallelism
    batches = []
    for name, (stream, count) in streams.items():
        if count < 1 or count % part.count:
            raise ValueError(
                f"a batch takes {count} images of {name}; it must be a positive multiple of the "
                f"{part.count} processes."
            )
        # Sliced after the augmentation: example i of the stream is the same on 1 process and 8.
        stream = stream[part.index :: part.count]
        own = count // part.count
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch * own)
        batches.append(stream.to_iter_dataset(options).batch(own, drop_remainder=True))
    if len(batches) == 1:
        return batches[0]
    return grain.experimental.ZipIterDataset(batches).map(_join)


def endless(source: Any, ref: str, seed: int) -> grain.MapDataset:
    """The examples of a source, repeated without end, each epoch in another random order.

    Args:
        source: random access: `len(source)` and `source[index]`.
        ref: "name/split"; datasets of one run are shuffled differently.
        seed: seed of the run.
    """
    ref_seed = np.random.SeedSequence((seed, zlib.crc32(ref.encode()))).generate_state(1)[0]
    return grain.MapDataset.source(source).seed(int(ref_seed)).shuffle().repeat()


def _join(batches: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
