"""The pictures of figures, from rows of tables: filled marks are ours, hollow ones published."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clouds_jax.visual import plots
from experiments.tables import Quoted, Table, miou, records

matplotlib.use("Agg")

_OURS, _THEIRS = "#1f6fb2", "#777777"


def values(results: Path, name: str, table: Table, title: str, column: str) -> list[float]:
    """Ours, one of each finished seed."""
    row = table.rows[title]
    if isinstance(row, Quoted):
        return []
    found = records(results, name, title, row)
    scored = (miou(record, table.columns[column], row.space) for record in found)
    return [value for value in scored if value is not None]


def over_time(
    results: Path, name: str, table: Table, column: str, *, year: float, to: Path
) -> None:
    """A point per method: when it appeared, and its mIoU.

    Args:
        results: folder of results.
        name, table: whose rows are shown.
        column: whose figures.
        year: of the rows that are not quoted.
        to: PNG.
    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots()
    places = []
    for title, row in table.rows.items():
        when = row.year if isinstance(row, Quoted) else year
        colour = _THEIRS if isinstance(row, Quoted) else _OURS
        if column in row.published:
            axes.plot(when, row.published[column], "o", mfc="white", mec=colour)
            places.append((when, row.published[column], title, colour))
        for value in values(results, name, table, title, column):
            axes.plot(when, value, "o", color=_OURS)
            places.append((when, value, f"{title} (here)", _OURS))
    axes.set_xlabel("year of publication")
    axes.set_ylabel(f"mIoU, {column}, %")
    axes.set_title(f"{table.title} Hollow: published; filled: run here.", fontsize=10)
    axes.grid(alpha=0.3)
    # room for the names of the newest
    axes.set_xlim(min(x for x, *_ in places) - 0.3, max(x for x, *_ in places) + 1.9)
    _label(axes, FigureCanvasAgg(figure), places)
    plots.save(figure, to)


def _label(
    axes: Axes, canvas: FigureCanvasAgg, places: Sequence[tuple[float, float, str, str]]
) -> None:
    """Names beside the points, moved up where they would cover each other."""
    canvas.draw()  # the places of texts are known after it
    renderer, taken = canvas.get_renderer(), []
    for x, y, text, colour in sorted(places, key=lambda place: place[1]):
        shown = axes.annotate(
            text, (x, y), (6, 0), textcoords="offset points", fontsize=7, color=colour, va="center"
        )  # fmt: skip
        for up in range(0, 60, 2):
            shown.set_position((6, up))
            box = shown.get_window_extent(renderer)
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(shown.get_window_extent(renderer))


def lines(
    results: Path, name: str, table: Table, column: str,
    series: Mapping[str, tuple[str, Mapping[int, str]]], *, to: Path,
) -> None:  # fmt: skip
    """mIoU against a number, one picture beside the other.

    Args:
        results: folder of results.
        name, table: whose rows are shown.
        column: whose figures.
        series: heading -> (what the number is, number -> title of the row).
        to: PNG.
    """
    figure = Figure(figsize=(5.5 * len(series), 4), layout="constrained")
    for axes, (heading, (what, rows)) in zip(
        figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True
    ):
        found = {x: values(results, name, table, title, column) for x, title in rows.items()}
        found = {x: ys for x, ys in found.items() if ys}
        means = [sum(ys) / len(ys) for ys in found.values()]
        axes.plot(list(found), means, "o-", color=_OURS)
        for x, ys in found.items():
            axes.plot([x] * len(ys), ys, ".", color=_OURS, alpha=0.5)
        left = [str(x) for x in rows if x not in found]
        told = f"\nnot run: {', '.join(left)}" if left else ""
        axes.set_title(f"{heading}{told}", fontsize=10)
        axes.set_xlabel(what)
        axes.set_ylabel(f"mIoU, {column}, %")
        axes.set_xticks(list(rows))
        axes.grid(alpha=0.3)
    plots.save(figure, to)
