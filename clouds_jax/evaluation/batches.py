"""From examples to batches of equal shape on the devices, and how fast they go."""

import collections
import dataclasses
import time
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, UInt8

from clouds_jax import sharding
from clouds_jax.constants import IGNORE
from clouds_jax.data.records import Example
from clouds_jax.evaluation import protocols
from clouds_jax.evaluation.protocols import Protocol, Size


@typing.runtime_checkable
class Examples(typing.Protocol):
    """Examples by index: a list, or the shards of a dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclasses.dataclass(frozen=True)
class Item:
    """One example, prepared by a protocol.

    Attributes:
        key: name of the image.
        image: RGB, 0..255, at the model's input size.
        label: class ids, at the size where predictions are scored.
        shown: whether the example is kept for panels.
        padded: whether image and label are padded to buckets, see `protocols.bucket`.
    """

    key: str
    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h2 w2"]
    shown: bool
    padded: bool

    @property
    def shapes(self) -> tuple[Size, Size, bool]:
        """What must agree within a batch: the sizes of image and label there, and whether the
        scores are resized from the one to the other."""
        h, w, _ = self.image.shape
        image, label = (h, w), self.label.shape
        if self.padded:
            return protocols.bucket(image), protocols.bucket(label), image != label
        return image, label, image != label


def make_item(
    example: Example, protocol: Protocol, classes: int, *, shown: bool, padded: bool
) -> Item:
    """Prepares an example.

    Args:
        example: image and label.
        protocol: evaluation protocol.
        classes: number of classes; ids of the label are below it, or 255.
        shown: keep the example for panels.
        padded: pad image and label to buckets.

    Raises:
        ValueError: the image or the label is missing, or the label has other ids.
    """
    key, image, label = example.key, example.image, example.label
    if image is None or label is None:
        raise ValueError(
            f"{key} has no {'image' if image is None else 'label'}; only images with labels can "
            "be scored."
        )
    wrong = (label >= classes) & (label != IGNORE)
    if wrong.any():
        raise ValueError(
            f"{key}: label has class id {label[wrong].max()}, outside 0..{classes - 1} and "
            f"{IGNORE}; was it written with label ids instead of train ids?"
        )
    return Item(
        key,
        protocols.prepare_image(image, protocol),
        protocols.prepare_label(label, protocol),
        shown,
        padded,
    )


def same_shape(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Batches of `size` items of equal shapes; at the end what is left of each shape."""
    waiting: dict[Any, list[Item]] = collections.defaultdict(list)
    for item in items:
        batch = waiting[item.shapes]
        batch.append(item)
        if len(batch) == size:
            yield waiting.pop(item.shapes)
    yield from waiting.values()


def stack(batch: Sequence[Item], size: int, mesh: Mesh) -> tuple[Array, Array, Array]:
    """Images, labels, and the (h, w) of image and label of each item, on the devices.

    Padding is labelled as ignored, and a short batch is filled up with ignored images.
    """
    filled = [*batch] + [batch[0]] * (size - len(batch))
    image_size, label_size, _ = batch[0].shapes
    images = np.stack([_padded(item.image, image_size, 0) for item in filled])
    labels = np.stack([_padded(item.label, label_size, IGNORE) for item in filled])
    labels[len(batch) :] = IGNORE
    sizes = np.asarray([(item.image.shape[:2], item.label.shape) for item in filled], np.int32)
    return jax.device_put((images, labels, sizes), sharding.over_batch(mesh))


def _padded(array: np.ndarray, size: Size, value: int) -> np.ndarray:
    h, w = array.shape[:2]
    border = ((0, size[0] - h), (0, size[1] - w), (0, 0))
    return np.pad(array, border[: array.ndim], constant_values=value)


class Pace:
    """Images per second, leaving out compilations.

    Left out are the batches that waited for a compilation, and the batch after each of them, which
    was computed during that wait. Where nothing is left, all batches are counted.
    """

    def __init__(self):
        self._since = time.perf_counter()
        self._steady_before = False
        self._all = self._steady = (0, 0.0)  # images, seconds

    def lap(self, images: int, *, steady: bool) -> None:
        """Ends a batch of `images`; `steady`: nothing was compiled meanwhile."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        self._all = self._all[0] + images, self._all[1] + seconds
        if steady and self._steady_before:
            self._steady = self._steady[0] + images, self._steady[1] + seconds
        self._steady_before = steady

    def rate(self) -> float:
        """Images per second."""
        images, seconds = self._steady if self._steady[0] else self._all
        return images / max(seconds, 1e-9)
