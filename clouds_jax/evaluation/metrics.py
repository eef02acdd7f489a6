"""Confusion matrices, and the scores computed from them.

Rows are labels, columns are predictions. A matrix may have more columns than rows: the extra
ones are predictions that match no row, so they lower the recall of the row they stand in and are
no class of their own.

Counting happens on the device, per image, in int32; sums over images and all ratios are numpy in
int64 and float64, so no data set is too large.
"""

import dataclasses
from collections.abc import Iterable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, UInt8

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import SPACES, SYNTHIA16, LabelSpace, get_space, reduction

# What happens to a class that no label shows:
#   "skipped": it is left out of the mean (CLOUDS on BDD100K, Mapillary, ACDC);
#   "zero": it counts as 0 if it was predicted anywhere (the official Cityscapes tool).
Absent = Literal["skipped", "zero"]


def confusion(
    predicted: Integer[Array, "b h w"],
    label: Integer[Array, "b h w"],
    *,
    classes: int,
    columns: int | None = None,
    ignore: int = IGNORE,
) -> Int[Array, "b k j"]:
    """Counts, per image, how often each label met each prediction.

    Args:
        predicted: class ids in 0..columns-1; others are not counted.
        label: class ids in 0..classes-1; `ignore`, and whatever else is out of range, is not
            counted.
        classes: number of labelled classes.
        columns: number of predicted classes; None: `classes`.
        ignore: id of unlabelled pixels.

    Returns:
        One matrix per image, int32: an image has fewer than 2^31 pixels.
    """
    columns = classes if columns is None else columns
    predicted, label = predicted.astype(jnp.int32), label.astype(jnp.int32)
    counted = (label != ignore) & (label >= 0) & (label < classes)
    counted &= (predicted >= 0) & (predicted < columns)
    # One id per pair of classes; the one past the end takes what is not counted.
    pair = jnp.where(counted, label * columns + predicted, classes * columns)

    def count(pair: Int[Array, "h w"]) -> Int[Array, " n"]:
        return jnp.bincount(pair.reshape(-1), length=classes * columns + 1)[:-1]

    return jax.vmap(count)(pair).astype(jnp.int32).reshape(-1, classes, columns)


def merge(
    matrix: Int[np.ndarray, "k j"],
    *,
    classes: int,
    rows: UInt8[np.ndarray, "256"],
    columns: UInt8[np.ndarray, "256"],
) -> Int[np.ndarray, "m m+1"]:
    """Sums rows and columns into coarser classes.

    Args:
        matrix: labels by predictions, each in its own label space.
        classes: number of the coarser classes.
        rows: coarser class of each label; 255 drops the row, as ignored labels.
        columns: coarser class of each prediction; 255 sends it to the last column, which matches
            no label.
    """
    merged = np.zeros((classes, classes + 1), np.int64)
    to = columns[: matrix.shape[1]].astype(np.int64)
    to[to == IGNORE] = classes
    for row, target in zip(matrix, rows[: len(matrix)], strict=True):
        if target != IGNORE:
            np.add.at(merged[target], to, row)
    return merged


def iou(matrix: Int[np.ndarray, "k j"]) -> Float[np.ndarray, " k"]:
    """Intersection over union of each class; nan where neither labelled nor predicted.

    Source: the official Cityscapes tool: ignored pixels are neither missed nor falsely found.
    """
    hit = np.diagonal(matrix).astype(np.float64)
    union = matrix.sum(1) + matrix.sum(0)[: len(matrix)] - hit
    return np.divide(hit, union, out=np.full(len(matrix), np.nan), where=union > 0)


def mean_iou(
    matrix: Int[np.ndarray, "k j"],
    *,
    absent: Absent = "skipped",
    over: tuple[int, ...] | None = None,
) -> float:
    """Mean of the classes' IoU; nan if there is no class to average.

    Args:
        matrix: labels by predictions.
        absent: treatment of classes that no label shows.
        over: classes to average; None: all. The 16 classes of SYNTHIA are averaged so, over a
            matrix of 19, without taking the argmax over the 16 anew.
    """
    values = iou(matrix)
    counts = ~np.isnan(values) if absent == "zero" else matrix.sum(1) > 0
    if over is not None:
        counts &= np.isin(np.arange(len(counts)), over)
    return float(values[counts].mean()) if counts.any() else float("nan")


def accuracy(matrix: Int[np.ndarray, "k j"]) -> float:
    """Share of the labelled pixels that are right; nan if there are none."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else float("nan")


def class_accuracy(matrix: Int[np.ndarray, "k j"]) -> Float[np.ndarray, " k"]:
    """Share of each class's pixels that are right; nan where no label shows the class."""
    hit, total = np.diagonal(matrix).astype(np.float64), matrix.sum(1)
    return np.divide(hit, total, out=np.full(len(matrix), np.nan), where=total > 0)


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores of a model over one set of classes.

    Attributes:
        name: number of classes as text: "19", "16", "11", "7".
        classes: names, in the order of `iou`.
        iou: per class, 0..1; nan where neither labelled nor predicted.
        miou: mean over the classes that count (see `Absent`).
        accuracy: share of right pixels.
        mean_accuracy: mean over labelled classes of their share of right pixels.
    """

    name: str
    classes: tuple[str, ...]
    iou: tuple[float, ...]
    miou: float
    accuracy: float
    mean_accuracy: float


def common_spaces(labels: str, model: str) -> tuple[str, ...]:
    """Label spaces that both `labels` and `model` reduce to, the finest first."""

    def reduces(source: str, target: str) -> bool:
        try:
            reduction(source, target)
        except KeyError:
            return False
        return True

    common = [name for name in SPACES if reduces(labels, name) and reduces(model, name)]
    if not common:
        raise ValueError(
            f"labels of {labels!r} and a model of {model!r} have no classes in common; reductions "
            "are listed in clouds_jax.data.classes."
        )
    return tuple(sorted(common, key=lambda name: -len(get_space(name))))


def score(
    matrix: Int[np.ndarray, "k j"], labels: str, model: str, absent: Absent = "skipped"
) -> tuple[Score, ...]:
    """The scores in all common label spaces, the finest first: 19 (and 16 of them), 11, 7.

    Args:
        matrix: labels of the space `labels` by predictions of the space `model`.
        labels: label space of the labels.
        model: label space of the predictions.
        absent: treatment of classes that no label shows.
    """
    out = []
    for name in common_spaces(labels, model):
        space = get_space(name)
        merged = reduced(matrix, labels, model, name)
        out.append(_score(merged, range(len(space)), space, absent))
        if name == labels == model == "cityscapes19":
            # From the matrix of 19: who predicts one of the other three is still wrong.
            out.append(_score(merged, SYNTHIA16, space, absent))
    return tuple(out)


def reduced(
    matrix: Int[np.ndarray, "k j"], labels: str, model: str, space: str
) -> Int[np.ndarray, "m n"]:
    """The matrix in a coarser space; a last column holds predictions outside it, if any."""
    merged = merge(
        matrix,
        classes=len(get_space(space)),
        rows=reduction(labels, space),
        columns=reduction(model, space),
    )
    return merged if merged[:, -1].any() else merged[:, :-1]


def _score(
    matrix: Int[np.ndarray, "k j"], over: Iterable[int], space: LabelSpace, absent: Absent
) -> Score:
    over = tuple(over)
    right = class_accuracy(matrix)[list(over)]
    return Score(
        name=str(len(over)),
        classes=tuple(space.names[i] for i in over),
        iou=tuple(iou(matrix)[list(over)].tolist()),
        miou=mean_iou(matrix, absent=absent, over=over),
        accuracy=accuracy(matrix),
        mean_accuracy=float(np.nanmean(right)) if np.isfinite(right).any() else float("nan"),
    )


def absent_of(dataset: str) -> Absent:
    """How the dataset's own tool counts classes that no label shows.

    Source: CLOUDS scores Cityscapes by the official tool and the others by detectron2's evaluator.
    """
    return "zero" if dataset.split("/")[0] == "cityscapes" else "skipped"
