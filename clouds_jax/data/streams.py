"""Endless streams of examples, and batches that mix several of them."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import grain
import numpy as np

Arrays = dict[str, np.ndarray]  # image: UInt8["b h w 3"], label: UInt8["b h w"]


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


def _join(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
