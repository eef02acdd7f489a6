"""Generated images for the joint phase: as the student sees them and as the teacher does."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import cv2
import grain
import numpy as np
from jaxtyping import Bool, UInt8

from clouds_jax.data import records
from clouds_jax.data.augment import jitter_colour
from clouds_jax.data.embeddings import Embedding, Embeddings, image_hash
from clouds_jax.data.part import WHOLE, Part
from clouds_jax.data.records import Example
from clouds_jax.data.streams import Arrays, endless, mixed


@dataclasses.dataclass(frozen=True)
class View:
    """How generated images are read and transformed.

    Attributes:
        size: (h, w) of the result.
        flip: probability of mirroring, the same for student and teacher.
        colour: whether the student's view is colour-jittered.
        label: labels to read: "pseudo" or "refined", from the shards "name.pseudo/split" of images
            "name/split"; "refined-2", from "name.refined-2/split"; "": none.
        classes: number of classes k of these labels.
        sam: name of the SAM whose embeddings to read; "": none.
        limit: number of images per dataset, the first ones; 0: all.
    """

    size: tuple[int, int]
    flip: float = 0.5
    colour: bool = True
    label: str = ""
    classes: int = 0
    sam: str = ""
    limit: int = 0

    def __post_init__(self):
        if self.limit < 0:
            raise ValueError(f"View.limit is {self.limit}; it must be 0, for all, or more.")
        if self.label and (self.map not in ("pseudo", "refined") or self.classes < 1):
            raise ValueError(
                f"the labels of generated images are {self.label!r} of {self.classes} classes;"
                " allowed are 'pseudo' and 'refined', also with a hyphen and a name behind, of at"
                " least one class."
            )

    @property
    def map(self) -> str:
        """Map of the records that holds the labels, see `records.MAPS`."""
        return self.label.partition("-")[0]


def fit(image: UInt8[np.ndarray, "h w *c"], size: tuple[int, int]) -> UInt8[np.ndarray, "_ _ *c"]:
    """Scales an image or a label map to cover `size` = (h, w) and crops its middle.

    An image of that size, as the diffusion model makes them, is returned unchanged. Images are
    averaged when they shrink and bilinear when they grow; label maps are nearest.
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


@dataclasses.dataclass(frozen=True)
class _Source:
    """One image as read, with its embedding and its labels."""

    example: Example
    embedding: Embedding | None
    labelled: Example | None


class _Sources:
    """Images with their embeddings and labels, by index; a source for Grain."""

    def __init__(self, ref: str, root: Path, view: View):
        self._examples = records.open_ref(ref, root)
        self._embeddings = Embeddings(root, ref, view.sam, view.size) if view.sam else None
        self._labels = None
        if view.label:
            name, split = records.parse_ref(ref)
            self._labels = records.open_ref(f"{records.map_name(name, view.label)}/{split}", root)
        for kind, source, program in (
            (f"embeddings of {view.sam}", self._embeddings, "clouds_jax.embed"),
            (f"{view.label} labels", self._labels, "clouds_jax.pseudo or porting refine"),
        ):
            if source is not None and len(source) != len(self._examples):
                raise ValueError(
                    f"{ref} has {len(self._examples)} images and {len(source)} {kind}; remove those"
                    f" and make them again: python -m {program}."
                )
        if view.limit > len(self._examples):
            raise ValueError(
                f"{ref} has {len(self._examples):,} images, fewer than the {view.limit:,} that"
                " config.data.generated.limit asks for."
            )
        self._count = view.limit or len(self._examples)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> _Source:
        embedding = None if self._embeddings is None else self._embeddings[index]
        labelled = None if self._labels is None else self._labels[index]
        return _Source(self._examples[index], embedding, labelled)


def generated_batches(
    refs: Mapping[str, int],
    view: View,
    *,
    shards_root: Path,
    seed: int = 0,
    part: Part = WHOLE,
    rows: int = 0,
    start: int = 0,
    threads: int = 8,
    prefetch: int = 4,
) -> grain.IterDataset[Arrays]:
    """Endless batches of generated images.

    Args:
        refs: dataset/split -> images per batch over all processes.
        view: what is read of an image and done to it.
        shards_root, seed, part, rows, start, threads, prefetch: as in
            `clouds_jax.data.loader.train_batches`.

    Returns:
        Batches with those fields of `clouds_jax.typing.Generated` that `view` reads.
    """
    streams = {}
    for ref, count in refs.items():
        stream = endless(_Sources(ref, shards_root, view), ref, seed)
        streams[ref] = stream.random_map(functools.partial(_transform, view=view)), count
    return mixed(streams, part=part, rows=rows, start=start, threads=threads, prefetch=prefetch)


def _transform(source: _Source, rng: np.random.Generator, *, view: View) -> Arrays:
    example, embedding = source.example, source.embedding
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
    if source.labelled is not None:
        label = fit(_label(example, source.labelled, view), view.size)
        arrays["present"] = _present(label, source.labelled, view)
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


def _label(example: Example, labelled: Example, view: View) -> records.Map:
    label = getattr(labelled, view.map)
    if label is None or labelled.key != example.key or labelled.size != example.size:
        state = f"of {labelled.key} {labelled.size}" if label is not None else "none"
        raise ValueError(
            f"{example.key} {example.size}: its {view.label} label is {state}; make the labels"
            " again: python -m clouds_jax.pseudo, then python -m porting refine."
        )
    return label


def _present(label: records.Map, labelled: Example, view: View) -> Bool[np.ndarray, " k"]:
    """Which classes are targets: those that the record lists, else those that the label shows."""
    targets = labelled.targets if view.map == "refined" else None
    present = np.unique(label) if targets is None else np.array(targets, np.uint8)
    return np.isin(np.arange(view.classes), present)
