"""Table 4 of the paper: what the generated images and SAM add to the warm-up, on GTA5.

    python -m experiments.run table_ablation --row "ConvNeXt-L CLIP, + generated images"

The rows with SAM are those of `table_gta`, and share their runs. The paper does not say whether its
first rows are the warm-up or one of as many steps as the others; here are both.
"""

import dataclasses

from experiments.paper import CBM_AVERAGE, figures, joint, warmup
from experiments.tables import Row, Table

COLUMNS = CBM_AVERAGE
_PUBLISHED = {
    "ResNet-50 CLIP": (50.0, 50.7, 53.3),
    "ResNet-101 CLIP": (51.9, 53.3, 54.7),
    "ConvNeXt-L CLIP": (58.5, 58.6, 61.5),
}


def _rows(encoder: str) -> dict[str, Row]:
    first, generated, sam = (figures(COLUMNS, value) for value in _PUBLISHED[encoder])
    start = warmup("gta", encoder, COLUMNS, published=first)
    longer = dataclasses.replace(start, name=f"{start.name}_longer", start=start, published={})
    return {
        f"{encoder}, warm-up": start,
        f"{encoder}, warm-up, as many steps again": longer,
        f"{encoder}, + generated images": joint(
            "gta", encoder, COLUMNS, published=generated, name="teacher",
            selftrain__labels="teacher",
        ),
        f"{encoder}, + SAM": joint("gta", encoder, COLUMNS, published=sam),
    }  # fmt: skip


TABLE = Table(
    "What generated images and SAM add (Table 4), GTA5 to Cityscapes, BDD100K and Mapillary.",
    COLUMNS,
    {title: row for encoder in _PUBLISHED for title, row in _rows(encoder).items()},
)
