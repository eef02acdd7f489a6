"""Scoring a model on labelled examples.

Examples are predicted in batches of equal shape, counted on the device and summed on the host,
so a dataset may be of any length and mix any image sizes. Every shape has a program of its own;
images are padded to few shapes where the model can leave the padding out. With several devices each
takes a share of the batch; with several hosts each takes every n-th image, and what they counted is
put together at the end.
"""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int, UInt8
from tqdm import tqdm

from clouds_jax import hosts, sharding
from clouds_jax.data import records
from clouds_jax.data.classes import LabelSpace, get_space, reduction
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.records import Example
from clouds_jax.evaluation import batches, metrics, protocols
from clouds_jax.evaluation.batches import Examples, Item
from clouds_jax.evaluation.metrics import Score
from clouds_jax.evaluation.protocols import Protocol

PANELS = 6

Step = Callable[..., tuple[UInt8[Array, "b h w"], Int[Array, "b k j"]]]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One example to draw.

    Attributes:
        key: name of the image.
        image: RGB, 0..255.
        label: class ids in the result's label space.
        predicted: predicted class ids in the same space.
        miou: mIoU of this image over its own classes, 0..1.
    """

    key: str
    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h2 w2"]
    predicted: UInt8[np.ndarray, "h2 w2"]
    miou: float


@dataclasses.dataclass(frozen=True)
class Result:
    """One model on one dataset.

    Attributes:
        dataset: "name/split".
        protocol: evaluation protocol.
        absent: treatment of classes that no label shows.
        space: the finest label space that both the labels and the model's classes reduce to.
        scores: scores by set of classes, the finest first.
        confusion: labels by predictions, in `space`; see `metrics.reduced`.
        images: mIoU of each image over its own classes, by key.
        panels: evenly spaced examples.
        seconds: wall time, with compilation.
        images_per_second: speed, without compilation.
        programs: shapes of batches on this host, each of which has a program of its own.
    """

    dataset: str
    protocol: Protocol
    absent: metrics.Absent
    space: LabelSpace
    scores: tuple[Score, ...]
    confusion: Int[np.ndarray, "k j"]
    images: dict[str, float]
    panels: tuple[Panel, ...]
    seconds: float
    images_per_second: float
    programs: int

    @property
    def miou(self) -> float:
        """Mean IoU over the finest classes, 0..1."""
        return self.scores[0].miou

    def numbers(self) -> dict[str, float]:
        """What a training log keeps: `miou`, the coarser means and the IoU of each class."""
        finest, *coarser = self.scores
        out = {"miou": finest.miou, "accuracy": finest.accuracy}
        out |= {f"miou_{score.name}": score.miou for score in coarser}
        pairs = zip(finest.classes, finest.iou, strict=True)
        return out | {f"iou/{name}": value for name, value in pairs if not np.isnan(value)}


def evaluate(
    graphdef: nnx.GraphDef,
    states: Sequence[Any],
    examples: Examples,
    *,
    dataset: str,
    label_space: str,
    model_space: str,
    protocol: Protocol,
    batch_per_device: int = 1,
    panels: int = PANELS,
    progress: bool = False,
    devices: Sequence[Any] | None = None,
) -> Result:
    """Scores a model on labelled examples, each read once.

    Args:
        graphdef: structure of the model.
        states: the model's variables, as `nnx.split` returned them, on any devices.
        examples: examples with images and labels.
        dataset: "name/split" for reports; decides how absent classes count.
        label_space: label space of the examples.
        model_space: label space of the model.
        protocol: evaluation protocol, see `clouds_jax.evaluation.protocols`.
        batch_per_device: images that a device predicts at once.
        panels: number of evenly spaced examples to keep for panels.
        progress: show a progress bar with the remaining time.
        devices: `jax.Device`s of this host; None: all.

    Raises:
        ValueError: there are no examples, one without a label, or labels of other classes.
    """
    if not len(examples):
        raise ValueError(f"{dataset} has no examples to score.")
    mesh = sharding.make_mesh(devices or jax.local_devices())
    mine = range(hosts.index(), len(examples), hosts.count())
    shown = {mine[i] for i in evenly_spaced(len(mine), panels)}
    sums = Accumulator(label_space, model_space)
    began = time.perf_counter()
    states = _whole(states)  # by the mesh of all hosts, not by the one set below
    model = nnx.merge(graphdef, *states)
    padded = protocol.window is None and isinstance(model, protocols.PaddedSegmenter)

    def items() -> Iterator[Item]:
        classes = len(get_space(label_space))
        for index in mine:
            yield batches.make_item(
                examples[index], protocol, classes, shown=index in shown, padded=padded
            )

    pace, shapes = batches.Pace(), set()
    with jax.set_mesh(mesh):
        states = jax.device_put(states, sharding.replicated(mesh))
        rows, columns = sums.total.shape
        step = make_step(graphdef, protocol, mesh=mesh, rows=rows, columns=columns, padded=padded)
        size = batch_per_device * mesh.size
        same = batches.same_shape(items(), size)
        with tqdm(total=len(mine), desc=dataset, unit="image", disable=not progress) as bar:
            for batch, predicted, counts, steady in _run(step, states, same, size, mesh):
                shapes.add(batch[0].shapes)
                for i, item in enumerate(batch):
                    sums.add(item, predicted[i], counts[i])
                bar.update(len(batch))
                pace.lap(len(batch), steady=steady)

    absent = metrics.absent_of(dataset)
    total, images = sums.over_hosts()
    return Result(
        dataset=dataset,
        protocol=protocol,
        absent=absent,
        space=get_space(sums.finest),
        scores=metrics.score(total, label_space, model_space, absent),
        confusion=metrics.reduced(total, label_space, model_space, sums.finest),
        images=images,
        panels=tuple(sums.panels.values()),
        seconds=time.perf_counter() - began,
        images_per_second=pace.rate() * hosts.count(),
        programs=len(shapes),
    )


class Accumulator:
    """Sums over the images of this host, in exact integers.

    Args:
        label_space: label space of the labels.
        model_space: label space of the predictions.

    Attributes:
        finest: the finest space that both reduce to.
        total: labels by predictions, int64.
        images: mIoU of each image over its own classes, by key.
        panels: examples to draw, by key.
    """

    def __init__(self, label_space: str, model_space: str):
        self._spaces = label_space, model_space
        self.finest = metrics.common_spaces(label_space, model_space)[0]
        self.total = np.zeros((len(get_space(label_space)), len(get_space(model_space))), np.int64)
        self.images: dict[str, float] = {}
        self.panels: dict[str, Panel] = {}

    def add(
        self, item: Item, predicted: UInt8[Array, "h w"], counts: Int[np.ndarray, "k j"]
    ) -> None:
        """Adds one image; its prediction stays on the device unless it is shown."""
        labels, model = self._spaces
        self.total += counts
        miou = metrics.score(counts, labels, model)[0].miou
        self.images[item.key] = miou
        if item.shown:
            label = reduction(labels, self.finest)[item.label]
            h, w = item.label.shape
            shown = reduction(model, self.finest)[jax.device_get(predicted)[:h, :w]]
            self.panels[item.key] = Panel(item.key, item.image, label, shown, miou)

    def over_hosts(self) -> tuple[Int[np.ndarray, "k j"], dict[str, float]]:
        """The confusion matrix of all hosts, and the mIoU of all their images."""
        parts = hosts.gather([self.total.tolist(), self.images])
        images = {key: miou for _, each in parts for key, miou in each.items()}
        return np.asarray([total for total, _ in parts], np.int64).sum(0), images


def evaluate_dataset(
    graphdef: nnx.GraphDef,
    states: Sequence[Any],
    ref: str,
    *,
    shards: str | os.PathLike,
    model_space: str,
    protocol: Protocol,
    limit: int = 0,
    **options: Any,
) -> Result:
    """Scores a model on the shards of a dataset.

    Args:
        graphdef: structure of the model.
        states: the model's variables, as `nnx.split` returned them, on any devices.
        ref: dataset as "name/split".
        shards: root of all shards.
        model_space: label space of the model.
        protocol: evaluation protocol, see `clouds_jax.evaluation.protocols`.
        limit: number of examples to score, from the first; 0: all.
        options: further arguments of `evaluate`.

    Raises:
        FileNotFoundError, ValueError, KeyError: see `open_labelled`.
    """
    examples, space = open_labelled(ref, shards, model_space)
    return evaluate(
        graphdef,
        states,
        First(examples, limit) if limit else examples,
        dataset="/".join(records.parse_ref(ref)),
        label_space=space,
        model_space=model_space,
        protocol=protocol,
        **options,
    )


def open_labelled(
    ref: str, shards: str | os.PathLike, model_space: str
) -> tuple[records.Shards, str]:
    """The examples of a dataset that a model can be scored on, and the space of their labels.

    Args:
        ref: dataset as "name/split".
        shards: root of all shards.
        model_space: label space of the model.

    Raises:
        FileNotFoundError: there are no such shards.
        ValueError: the dataset has no labels, or its shards are damaged.
        KeyError: the dataset is unknown, or its classes have none in common with the model's.
    """
    name, _ = records.parse_ref(ref)
    space = get_dataset(name).label_space
    if space is None:
        raise ValueError(f"{name} has no labels, so nothing can be scored on it; predict instead.")
    metrics.common_spaces(space, model_space)
    return records.open_ref(ref, pathlib.Path(shards)), space


class First:
    """The first `count` of some examples."""

    def __init__(self, examples: Examples, count: int):
        self._examples, self._count = examples, min(count, len(examples))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        return self._examples[range(self._count)[index]]


@functools.lru_cache(maxsize=4)  # a training run scores again and again, with the same programs
def make_step(
    graphdef: nnx.GraphDef,
    protocol: Protocol,
    *,
    mesh: Mesh,
    rows: int,
    columns: int,
    padded: bool,
) -> Step:
    """Returns `step(states, images, labels, sizes, resized=)`, which predicts and counts a batch.

    Every device does its own images; nothing in it communicates.

    Args:
        graphdef: structure of the model.
        protocol: evaluation protocol.
        mesh: the devices.
        rows: number of labelled classes.
        columns: number of predicted classes.
        padded: the batches are padded, so that the sizes of image and label of each item count;
            `resized` then says whether they differ.
    """
    split, whole = sharding.over_batch(mesh).spec, sharding.replicated(mesh).spec

    def count(resized, states, images, labels, sizes):
        model, size = nnx.merge(graphdef, *states), labels.shape[1:3]
        if padded:
            scored = sizes[:, 1] if resized else None
            values = protocols.padded_class_scores(model, images, sizes[:, 0], scored, size)
        else:
            values = protocols.class_scores(model, images, protocol, size)
        predicted = jnp.argmax(values, axis=-1).astype(jnp.uint8)
        return predicted, metrics.confusion(predicted, labels, classes=rows, columns=columns)

    def step(states, images, labels, sizes, *, resized):
        shared = jax.shard_map(
            functools.partial(count, resized),
            mesh=mesh,
            in_specs=(whole, split, split, split),
            out_specs=(split, split),
            check_vma=False,
        )
        return shared(states, images, labels, sizes)

    return protocols.compiled_per_shape(step)


def evenly_spaced(count: int, n: int) -> list[int]:
    """At most `n` of `count` indices, evenly spaced, the same every time."""
    return sorted({round((i + 0.5) * count / n - 0.5) for i in range(n)}) if count else []


def _run(step: Step, states: Any, grouped: Iterable[list[Item]], size: int, mesh: Mesh):
    """Yields (batch, predicted on the device, counts, whether nothing was compiled meanwhile).

    The next batch is read while the devices work on the last one.
    """
    running, seen, compiled = None, set(), False
    for batch in grouped:
        compiled |= batch[0].shapes not in seen
        seen.add(batch[0].shapes)
        *_, resized = batch[0].shapes
        out = step(states, *batches.stack(batch, size, mesh), resized=resized)
        if running is not None:
            batch_before, (predicted, counts) = running
            yield batch_before, predicted, jax.device_get(counts), not compiled
            compiled = False
        running = batch, out
    if running is not None:
        batch, (predicted, counts) = running
        yield batch, predicted, jax.device_get(counts), not compiled


def _whole(states: Any) -> Any:
    """The variables as arrays of this host, also where they are spread over several hosts."""

    def whole(x):
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return x
        if not x.is_fully_replicated:
            assert isinstance(x.sharding, NamedSharding), "a training state is sharded by name"
            mesh = x.sharding.mesh
            assert isinstance(mesh, Mesh), "arrays lie on the devices of a mesh"
            x = jax.jit(lambda v: v, out_shardings=sharding.replicated(mesh))(x)
        return x.addressable_data(0)

    return jax.tree.map(whole, states)
