"""Files of an evaluation: JSON, a table, the confusion matrix, panels.

results.json              every number of every dataset, by "name/split"
results.md                the same as human-readable tables
NAME_SPLIT_panels.png     image, label, prediction, error
NAME_SPLIT_confusion.png  where the pixels of each class went
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clouds_jax import images
from clouds_jax.data.classes import LabelSpace
from clouds_jax.evaluation.run import Panel, Result
from clouds_jax.files import write_text
from clouds_jax.visual import labels, plots

WORST = 10


def write_numbers(
    results: Sequence[Result], folder: pathlib.Path, about: Mapping[str, Any]
) -> None:
    """Writes results.json and results.md; each whole or not at all.

    Args:
        results: results of one model.
        folder: folder to write, created if missing; files of an earlier evaluation are replaced.
        about: origin of the model for the reports (run, step, versions), JSON values.
    """
    numbers = {result.dataset: as_json(result) for result in results}
    text = json.dumps({"about": dict(about), "datasets": numbers}, indent=1)
    write_text(folder / "results.json", text + "\n")
    write_text(folder / "results.md", table(results, about))


def write_pictures(result: Result, folder: pathlib.Path) -> None:
    """Writes the panels and the confusion matrix of one result."""
    stem = file_stem(result.dataset)
    if result.panels:
        images.write_png(folder / f"{stem}_panels.png", draw_panels(result.panels, result.space))
    names = result.space.names
    columns = list(names) + ["other"] * (result.confusion.shape[1] - len(names))
    figure = plots.confusion_matrix(
        result.confusion, names, columns, title=f"{result.dataset}: mIoU {percent(result.miou)} %"
    )
    plots.save(figure, folder / f"{stem}_confusion.png")


def file_stem(dataset: str) -> str:
    """A dataset's name as part of a file name."""
    return dataset.replace("/", "_")


def draw_panels(panels: Sequence[Panel], space: LabelSpace) -> UInt8[np.ndarray, "h w 3"]:
    """Image, label, prediction and error of each example, with a legend."""
    rows, captions, seen = [], [], set()
    for panel in panels:
        image = images.resize(panel.image, panel.label.shape)
        rows.append(
            [
                image,
                labels.colourise(panel.label, space),
                labels.colourise(panel.predicted, space),
                labels.error_map(image, panel.label, panel.predicted),
            ]
        )
        captions.append(f"{panel.key}    mIoU {percent(panel.miou)} %")
        seen |= set(np.unique(panel.label).tolist()) | set(np.unique(panel.predicted).tolist())
    return labels.panels(
        rows,
        titles=["image", "label", "prediction", "error"],
        captions=captions,
        foot=labels.legend(seen, space, labels.panels_width(4)),
    )


def as_json(result: Result) -> dict[str, Any]:
    """All numbers of a result; nan as null."""
    return {
        "miou": number(result.miou),
        "protocol": result.protocol.name,
        "absent_classes": result.absent,
        "space": result.space.name,
        "scores": {
            score.name: {
                "miou": number(score.miou),
                "accuracy": number(score.accuracy),
                "mean_accuracy": number(score.mean_accuracy),
                "iou": {
                    name: number(value)
                    for name, value in zip(score.classes, score.iou, strict=True)
                },
            }
            for score in result.scores
        },
        "confusion": result.confusion.tolist(),
        "images": {key: number(value) for key, value in result.images.items()},
        "panels": [panel.key for panel in result.panels],
        "seconds": round(result.seconds, 2),
        "images_per_second": round(result.images_per_second, 3),
        "programs": result.programs,
    }


def number(value: float) -> float | None:
    """`value` as JSON can hold it."""
    return float(value) if math.isfinite(value) else None


def percent(value: float) -> str:
    """A share as per cent with one decimal; a dash for nan."""
    return f"{100 * value:.1f}" if math.isfinite(value) else "–"


def summary(results: Sequence[Result]) -> str:
    """Mean IoU of each dataset by number of classes, as a Markdown table."""
    kinds = list(dict.fromkeys(score.name for result in results for score in result.scores))
    rows = []
    for result in results:
        by_kind = {score.name: score for score in result.scores}
        means = [percent(by_kind[k].miou) if k in by_kind else "–" for k in kinds]
        finest = result.scores[0]
        rows.append(
            [
                result.dataset, result.protocol.name, *means, percent(finest.accuracy),
                percent(finest.mean_accuracy), str(len(result.images)),
                f"{result.images_per_second:.2f}",
            ]
        )  # fmt: skip
    head = ["dataset", "protocol", *kinds, "pixel acc.", "class acc.", "images", "images/s"]
    return "\n".join(["mIoU in per cent, by number of classes:", "", *markdown(head, rows, left=2)])


def table(results: Sequence[Result], about: Mapping[str, Any]) -> str:
    """All numbers as Markdown: means, classes, worst images."""
    lines = ["# Evaluation", ""]
    lines += [f"- {key}: {value}" for key, value in about.items() if isinstance(value, str | int)]
    lines += ["", summary(results)]
    for space in dict.fromkeys(result.space.name for result in results):
        group = [result for result in results if result.space.name == space]
        names = group[0].space.names
        lines += ["", f"IoU of each class in per cent ({space}):", ""]
        rows = [
            [name, *(percent(result.scores[0].iou[i]) for result in group)]
            for i, name in enumerate(names)
        ]
        rows.append(["**mean**", *(f"**{percent(result.miou)}**" for result in group)])
        lines += markdown(["class", *(result.dataset for result in group)], rows, left=1)
    for result in results:
        finite = {k: v for k, v in result.images.items() if math.isfinite(v)}
        worst = sorted(finite, key=lambda key: finite[key])[:WORST]
        lines += ["", f"Worst images of {result.dataset} (mIoU over their own classes):", ""]
        lines += markdown(["image", "mIoU"], [[k, percent(finite[k])] for k in worst], left=1)
    return "\n".join(lines) + "\n"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """The lines of a table; the first `left` columns are set left, the others right."""
    width = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        out = [
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, width, strict=True))
        ]
        return "| " + " | ".join(out) + " |"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(width)]
    return [line(head), "| " + " | ".join(rule) + " |", *map(line, rows)]
