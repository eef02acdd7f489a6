"""Endless streams of examples, and batches that mix several of them."""

import sys
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
    rows: int,
    start: int,
    threads: int,
    prefetch: int,
) -> grain.IterDataset[Arrays]:
    """Batches with a fixed number of examples of each stream, in the order of the streams.

    Args:
        streams: name -> endless examples by index, and how many of them a batch takes over all
            processes.
        part: this process's part of every batch: its rows in order, so that those of all processes
            behind each other are the batch of one process alone.
        rows: rows of a batch; those behind the examples repeat the last one. 0: no more than the
            examples.
        start: number of the first batch.
        threads: threads that read, decode and augment; 0: the caller's own.
        prefetch: batches made ahead.
    """
    cv2.setNumThreads(1)  # the loader's own threads are the parallelism
    total = sum(count for _, count in streams.values())
    rows = rows or total
    if rows % part.count or rows < total or min(count for _, count in streams.values()) < 1:
        counts = ", ".join(f"{name}: {count}" for name, (_, count) in streams.items())
        raise ValueError(
            f"a batch takes {total} images ({counts}) in {rows} rows; it must take at least one of"
            f" each, and the rows be a multiple of the {part.count} processes."
        )
    # (stream, row of the stream), of every row of the batch
    plan = [(name, row) for name, (_, count) in streams.items() for row in range(count)]
    plan += [plan[-1]] * (rows - total)
    mine = plan[part.index * rows // part.count : (part.index + 1) * rows // part.count]
    batches = []
    for name, (stream, count) in streams.items():
        taken = [row for source, row in mine if source == name]
        if not taken:
            continue
        # Chosen after the augmentation: example i of the stream is the same on 1 process and 8.
        own = _Rows(stream, count, taken, start)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch * len(taken))
        batches.append(own.to_iter_dataset(options).batch(len(taken), drop_remainder=True))
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


class _Rows(grain.MapDataset[Arrays]):
    """The same rows of every batch of a stream.

    Args:
        stream: endless examples by index.
        count: examples of the stream in a batch.
        rows: numbers of the rows, each below `count`.
        start: number of the first batch.
    """

    def __init__(
        self, stream: grain.MapDataset[Arrays], count: int, rows: Sequence[int], start: int
    ):
        super().__init__(stream)
        self._stream, self._count, self._rows, self._start = stream, count, rows, start

    def __len__(self) -> int:
        batches = len(self._stream) // self._count - self._start
        return min(batches * len(self._rows), sys.maxsize)  # padding may make more of it

    def __getitem__(self, index: int) -> Arrays:
        batch, row = divmod(index, len(self._rows))
        example = self._stream[(self._start + batch) * self._count + self._rows[row]]
        assert example is not None, "nothing is filtered out of an endless stream"
        return example


def _join(batches: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
