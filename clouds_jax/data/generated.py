"""Generated images for the joint phase: as the student sees them and as the teacher does."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import cv2
import grain
import numpy as np
from jaxtyping import UInt8

from clouds_jax.data import records
from clouds_jax.data.augment import jitter_colour
from clouds_jax.data.embeddings import Embedding, Embeddings, image_hash
from clouds_jax.data.loader import Arrays, endless, mixed
from clouds_jax.data.records import Example


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
    """Endless batches of generated images.

    Args:
        refs: dataset/split -> images per batch over all processes.
        view: see there.
        shards_root, seed, process_index, process_count, threads, prefetch: as of
            `clouds_jax.data.loader.train_batches`.

    Returns:
        Batches with the fields of `clouds_jax.typing.Generated` that there are.
    """
    streams = {}
    for ref, count in refs.items():
        examples = records.open_ref(ref, shards_root)
        embeddings = Embeddings(shards_root, ref, view.sam, view.size) if view.sam else None
        if embeddings is not None and len(embeddings) != len(examples):
            raise ValueError(
                f"{ref} has {len(examples)} images and {len(embeddings)} embeddings of {view.sam};"
                " remove those and make them again: python -m clouds_jax.embed."
            )
        stream = endless(_Pairs(examples, embeddings), ref, seed)
        streams[ref] = stream.random_map(functools.partial(_see, view=view)), count
    return mixed(
        streams, process_index=process_index, process_count=process_count, threads=threads,
        prefetch=prefetch,
    )  # fmt: skip


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
