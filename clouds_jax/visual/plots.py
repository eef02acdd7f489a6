"""Figures with axes: confusion matrices and learning curves.

They use matplotlib's objects, not its global state, so drawing has no side effects.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from clouds_jax.files import read_json_lines, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinguishable for colour-blind readers, too (Okabe and Ito).
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6e6e6e"


def save(figure: "Figure", path: pathlib.Path, dpi: int = 130) -> None:
    """Writes the figure, in the format that the name's ending says."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or "png", dpi=dpi, facecolor="white")


def confusion_matrix(
    matrix: Int[np.ndarray, "k j"], rows: Sequence[str], columns: Sequence[str], *, title: str = ""
) -> "Figure":
    """Confusion matrix, in per cent of the pixels of each labelled class.

    Classes that no label shows have no row. The number at a row's end is the class's share of all
    pixels.

    Args:
        matrix: pixels by labelled class (row) and predicted class (column).
        rows: names of the labelled classes.
        columns: names of the predicted classes.
        title: title of the figure.
    """
    from matplotlib.figure import Figure  # slow to import; a training draws after its first step

    pixels = matrix.sum(1, keepdims=True)
    kept = np.flatnonzero(pixels) if pixels.any() else np.arange(len(matrix))
    shares = (100 * matrix / np.maximum(pixels, 1))[kept]
    wide, high = 0.46 * len(columns) + 3.1, 0.40 * len(kept) + 2.1
    figure = Figure(figsize=(wide, high), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=55, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(kept)), [rows[int(i)] for i in kept])
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    for y, row in enumerate(shares):
        for x, value in enumerate(row):
            if value >= 0.5:
                ink = "white" if value > 55 else "#303030"
                axes.text(x, y, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=8)
        share = 100 * pixels[kept[y], 0] / max(pixels.sum(), 1)
        axes.text(len(columns) - 0.35, y, f"{share:.1f} %", va="center", color=GREY, fontsize=8)
    axes.text(len(columns) - 0.35, -0.85, "of pixels", color=GREY, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontsize=11, pad=16)
    return figure


def read_series(run: pathlib.Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of each scalar in a run's `metrics.jsonl`, in order of steps.

    A resumed run repeats steps; the later line holds.

    Args:
        run: run directory, or the file itself.
    """
    path = run / "metrics.jsonl" if run.is_dir() else run
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; name run directories, as given to train's --workdir."
        )
    by_step: dict[str, dict[int, float]] = {}
    for line in read_json_lines(path):
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)) and "step" in line:
                by_step.setdefault(name, {})[int(line["step"])] = float(value)
    return {
        name: (sorted(values), [values[step] for step in sorted(values)])
        for name, values in by_step.items()
    }


def smooth(values: Sequence[float], width: int) -> Float[np.ndarray, " n"]:
    """Running mean over a Hann window of `width` values, centred, so that it does not lag."""
    finite = np.asarray(values, np.float64)
    window = np.hanning(width + 2)[1:-1]
    middle = slice(len(window) // 2, len(window) // 2 + len(finite))
    total = np.convolve(finite, window)[middle]
    return total / np.convolve(np.ones(len(finite)), window)[middle]


def curves(runs: Sequence[pathlib.Path]) -> "Figure":
    """Loss and mIoU over the steps of one or several runs.

    Args:
        runs: run directories, one colour each. There is a panel of mIoU if any run was evaluated.
    """
    runs = list(dict.fromkeys(run.resolve() for run in runs))
    logs = {name: read_series(run) for name, run in zip(run_names(runs), runs, strict=True)}
    scores = sorted({key for log in logs.values() for key in log if is_score(key)})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11 if scores else 6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2 if scores else 1, squeeze=False)[0]
    left, right = panels[0], panels[-1]
    for colour, (name, log) in zip(_cycle(LINES, len(logs)), logs.items(), strict=True):
        if "loss" in log:
            steps, values = log["loss"]
            left.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
            mean = smooth(values, max(3, len(values) // 12))
            left.plot(steps, mean, color=colour, linewidth=1.8, label=name)
        for style, score in zip(_cycle(("-", "--", ":", "-."), len(scores)), scores, strict=True):
            if score in log:
                steps, values = log[score]
                label = name if len(scores) == 1 else f"{name}: {score_name(score)}"
                percent = [100 * v if math.isfinite(v) else math.nan for v in values]
                right.plot(
                    steps, percent, style, color=colour, marker="o", ms=4, lw=1.8, label=label
                )
    left.set_title("training loss", loc="left", fontsize=11)
    if scores:
        what = score_name(scores[0]) if len(scores) == 1 else "all evaluated datasets"
        right.set_title(f"mIoU, {what}", loc="left", fontsize=11)
        right.set_ylabel("%")
    for axes in panels:
        axes.set_xlabel("step")
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
        else:
            axes.text(0.5, 0.5, "nothing logged", ha="center", color=GREY, transform=axes.transAxes)
    finite = [v for log in logs.values() for v in log.get("loss", ((), ()))[1] if v > 0]
    if finite and max(finite) > 20 * min(finite):
        left.set_yscale("log")
    return figure


def run_names(runs: Sequence[pathlib.Path]) -> list[str]:
    """Short names of run directories: their paths without the folders that all share.

    `rows/warmup/seed0` and `rows/joint/seed0` are `warmup` and `joint`.
    """
    if len(runs) == 1:
        return [runs[0].name]
    parts = [run.parts for run in runs]
    longest = min(len(part) for part in parts) - 1
    first = _shared(parts, longest)
    last = _shared([part[::-1] for part in parts], longest - first)
    return ["/".join(part[first : len(part) - last]) for part in parts]


def _shared(paths: Sequence[Sequence[str]], most: int) -> int:
    """Number of leading parts, at most `most`, that all paths have in common."""
    return next(
        (i for i in range(most) if len({path[i] for path in paths}) > 1),
        most,
    )


def is_score(key: str) -> bool:
    """Whether a logged number is the mIoU of an evaluation."""
    return key.rsplit("/", 1)[-1] == "miou"


def score_name(key: str) -> str:
    """The dataset's name in the key of a logged mIoU."""
    return key.removeprefix("eval/").removesuffix("/miou")


def _cycle(items: Sequence[str], count: int) -> list[str]:
    return [items[i % len(items)] for i in range(count)]
