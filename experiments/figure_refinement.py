"""Figure 6 of the paper: points per component, and how large a component must be, on GTA5.

In the paper fewer points and a higher threshold are better; its code has 5 points and 5,000 pixels.
Its ticks are not told, those here are ours. Below a threshold of 2,500 pixels an image can have
more components than are worth a slot: the 256 first ones are prompted.

    python -m experiments.run figure_refinement
"""

from pathlib import Path

from experiments import figures
from experiments.paper import CBM_AVERAGE, joint
from experiments.tables import Row, Table

_ENCODER = "ConvNeXt-L CLIP"
_POINTS, _AREA = 5, 5_000  # of the paper's code: its row of Table 1, and a point of both curves


def _points(count: int) -> Row:
    if count == _POINTS:
        return joint("gta", _ENCODER, CBM_AVERAGE)
    return joint(
        "gta", _ENCODER, CBM_AVERAGE, name=f"{count}_points", selftrain__rules__num_points=count
    )


def _area(pixels: int) -> Row:
    if pixels == _AREA:
        return joint("gta", _ENCODER, CBM_AVERAGE)
    few = {} if pixels >= 2_500 else {"selftrain__components": 256}
    return joint(
        "gta", _ENCODER, CBM_AVERAGE, name=f"{pixels}_pixels", selftrain__rules__min_area=pixels,
        **few,
    )  # fmt: skip


POINTS = {count: (f"{count} points", _points(count)) for count in (1, 3, 5, 10, 20)}
# five points need five pixels, so 4 stands for no threshold
AREAS = {
    pixels: (f"more than {pixels:,} pixels", _area(pixels))
    for pixels in (4, 500, 1000, 2500, 5000, 10_000)
}

TABLE = Table(
    "Points per component and size of components (Figure 6), GTA5, ConvNeXt-L.",
    CBM_AVERAGE,
    dict([*POINTS.values(), *AREAS.values()]),
)


def draw(results: Path, to: Path) -> None:
    """Draws the figure."""
    series = {
        "Points": ("points per component", {x: title for x, (title, _) in POINTS.items()}),
        "Size": ("least pixels of a component", {x: title for x, (title, _) in AREAS.items()}),
    }
    figures.lines(results, "figure_refinement", TABLE, "average", series, to=to)
