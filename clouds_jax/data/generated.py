"""Generated images for the joint phase: as the student sees them and as the teacher does."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import grain
import numpy as np
from jaxtyping import UInt8

from clouds_jax.data import records
from clouds_jax.data.augment import jitter_colour
from clouds_jax.data.embeddings import Embedding, Embeddings, image_hash
from clouds_jax.data.records import Example

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class View:
    """What is read of a generated image and done to it.

    Attributes:
        size: (h, w) of the result.
        flip: probability of mirroring, the same for student and teacher.
        colour: whether the student's view is colour-jittered.
        label: "pseudo" or "refined" to read that map of the record; "": none.
        sam: whose embeddings to read; "": none.
    """

    size: tuple[int, int]
    flip: float = 0.5
    colour: bool = True
    label: str = ""
    sam: str = ""


def fit(image: UInt8[np.ndarray, "h w *c"], size: tuple[int, int]) -> UInt8[np.ndarray, "_ _ *c"]:
    """Scales an image or a label map to cover (h, w) and cuts out the middle.

    An image of that size, as the diffusion model makes them, stays as it is.
    """
    h, w = image.shape[:2]
    factor = max(size[0] / h, size[1] / w)
    scaled = max(round(h * factor), size[0]), max(round(w * factor), size[1])
    if scaled != (h, w):
        smooth = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        how = cv2.INTER_NEAREST if image.ndim == 2 else smooth
        image = cv2.resize(image, scaled[::-1], interpolation=how)
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])


class _Pairs:
    """Examples with their embeddings; a source for Grain."""

    def __init__(self, examples: records.Shards, embeddings: Embeddings | None):
        self._examples, self._embeddings = examples, embeddings

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Example, Embedding | None]:
        found = self._embeddings
        return self._examples[index], None if found is None else found[index]


def generated_batches(
    refs: Mapping[str, int],
    *,
    shards_root: Path,
    view: View,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 8,
    prefetch: int = 4,
) -> grain.IterDataset[Arrays]:
    """Endless batches of generated images; see `clouds_jax.data.loader.train_batches`.

    Args:
        refs: dataset/split -> images per batch over all processes.
        shards_root: folder of the shards.
        view: see there.
        seed: of shuffling and augmentation.
        process_index, process_count: each process yields its share of every batch.
        threads: that read, decode and augment; 0: in the caller's.
        prefetch: batches made ahead.

    Returns:
        Batches with the fields of `clouds_jax.typing.Generated` that there are.
    """
    cv2.setNumThreads(1)  # the loader's own threads are the parallelism
    streams = []
    for ref, count in refs.items():
        if count < 1 or count % process_count:
            raise ValueError(
                f"a batch takes {count} images of {ref}; it must be a positive multiple of the "
                f"{process_count} processes."
            )
        examples = records.open_ref(ref, shards_root)
        embeddings = Embeddings(shards_root, ref, view.sam, view.size) if view.sam else None
        if embeddings is not None and len(embeddings) != len(examples):
            raise ValueError(
                f"{ref} has {len(examples)} images and {len(embeddings)} embeddings of {view.sam};"
                " remove those and make them again: python -m clouds_jax.embed."
            )
        own_seed = np.random.SeedSequence((seed, zlib.crc32(ref.encode()))).generate_state(1)[0]
        stream = (
            grain.MapDataset.source(_Pairs(examples, embeddings))
            .seed(int(own_seed))
            .shuffle()
            .repeat()
            .random_map(functools.partial(_see, view=view))
        )[process_index::process_count]
        own = count // process_count
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch * own)
        streams.append(stream.to_iter_dataset(options).batch(own, drop_remainder=True))
    if len(streams) == 1:
        return streams[0]
    return grain.experimental.ZipIterDataset(streams).map(_join)


def _see(pair: tuple[Example, Embedding | None], rng: np.random.Generator, *, view: View) -> Arrays:
    example, embedding = pair
    if example.image is None:
        raise ValueError(f"{example.key}: a generated example needs an image; it has none.")
    clean = fit(example.image, view.size)
    arrays: Arrays = {}
    if embedding is not None and (
        embedding.key != example.key or embedding.image != image_hash(clean)
    ):
        raise ValueError(
            f"{example.key}: its embedding is of another image ({embedding.key}); remove the"
            " embeddings and make them again: python -m clouds_jax.embed."
        )
    label = None
    if view.label:
        label = getattr(example, view.label)
        if label is None:
            raise ValueError(
                f"{example.key} has no {view.label} labels; refine the predictions of a teacher"
                " first, or let the step label the images."
            )
        label = fit(label, view.size)
    mirrored = bool(rng.random() < view.flip)
    if mirrored:
        clean = np.ascontiguousarray(clean[:, ::-1])
    if embedding is not None:
        arrays["embedding"] = embedding.values[int(mirrored)]
    if label is not None:
        arrays["label"] = np.ascontiguousarray(label[:, ::-1] if mirrored else label)
    arrays["image"] = jitter_colour(clean, rng) if view.colour else clean
    if view.colour and not view.label:
        arrays["clean"] = clean
    return arrays


def _join(parts: Sequence[Arrays]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
