"""Figure 5 of the paper: how many generated images are enough, on GTA5.

The paper's curve rises by up to about 3 points and saturates near 5,000 images; its ticks and its
encoder are not told, those here are ours. The row of 10,000 needs as many images:
`python -m porting generate ... --config.generate.count=10000`. The row without any is the warm-up
of as many steps.

    python -m experiments.run figure_images
"""

import dataclasses
from pathlib import Path

from experiments import figures
from experiments.paper import CBM_AVERAGE, joint, warmup
from experiments.tables import Row, Table

COUNTS = (500, 1000, 2500, 5000, 10_000)
_ENCODER = "ConvNeXt-L CLIP"
_START = warmup("gta", _ENCODER, CBM_AVERAGE)

ROWS: dict[int, tuple[str, Row]] = {
    0: ("no image", dataclasses.replace(_START, name=f"{_START.name}_longer", start=_START)),
    **{
        count: (
            f"{count:,} images",
            joint(
                "gta", _ENCODER, CBM_AVERAGE, name=f"{count}_images", data__generated__limit=count
            ),
        )
        for count in COUNTS
    },
}

TABLE = Table(
    "Number of generated images (Figure 5), GTA5, ConvNeXt-L.", CBM_AVERAGE, dict(ROWS.values())
)


def draw(results: Path, to: Path) -> None:
    """Draws the figure."""
    titles = {count: title for count, (title, _) in ROWS.items()}
    series = {"Generated images": ("number of images", titles)}
    figures.lines(results, "figure_images", TABLE, "average", series, to=to)
