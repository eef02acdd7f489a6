"""From a confusion matrix to the scores that are reported, in all label spaces that fit."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from clouds_jax import metrics
from clouds_jax.data.classes import SPACES, SYNTHIA16, LabelSpace, get_space, reduction


@dataclasses.dataclass(frozen=True)
class Score:
    """What one set of classes says of a model.

    Attributes:
        name: the number of classes: "19", "16", "11", "7".
        classes: names, in the order of `iou`.
        iou: per class, 0..1; nan where neither labelled nor predicted.
        miou: mean over the classes that count (see `metrics.Absent`).
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
    matrix: Int[np.ndarray, "k j"], labels: str, model: str, absent: metrics.Absent = "skipped"
) -> tuple[Score, ...]:
    """The scores in all common label spaces, the finest first: 19 (and 16 of them), 11, 7.

    Args:
        matrix: labels of the space `labels` by predictions of the space `model`.
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
    """The matrix in a coarser space; a last column holds predictions outside it, if there are."""
    merged = metrics.merge(
        matrix,
        classes=len(get_space(space)),
        rows=reduction(labels, space),
        columns=reduction(model, space),
    )
    return merged if merged[:, -1].any() else merged[:, :-1]


def _score(
    matrix: Int[np.ndarray, "k j"], over: Iterable[int], space: LabelSpace, absent: metrics.Absent
) -> Score:
    over = tuple(over)
    right = metrics.class_accuracy(matrix)[list(over)]
    return Score(
        name=str(len(over)),
        classes=tuple(space.names[i] for i in over),
        iou=tuple(metrics.iou(matrix)[list(over)].tolist()),
        miou=metrics.mean_iou(matrix, absent=absent, over=over),
        accuracy=metrics.accuracy(matrix),
        mean_accuracy=float(np.nanmean(right)) if np.isfinite(right).any() else float("nan"),
    )


def absent_of(dataset: str) -> metrics.Absent:
    """How the dataset's own tool counts classes that no label shows.

    Source: CLOUDS scores Cityscapes by the official tool and the others by detectron2's evaluator.
    """
    return "zero" if dataset.split("/")[0] == "cityscapes" else "skipped"
