"""Mapillary Vistas with the 66 classes of version 1.2; also inside the download of version 2.0.

Version 2.0 has 124 classes under other ids, most of which exist in version 1.2 too.
"""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.pairing import Layout, find, pair_files
from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, LabelKind, Source, id_table

# Vistas' id -> train id. Only the front of traffic signs (50) counts; crosswalks are ignored.
TO_TRAIN_ID = {
    2: 1,
    3: 4,
    6: 3,
    13: 0,
    15: 1,
    17: 2,
    19: 11,
    20: 12,
    21: 12,
    22: 12,
    24: 0,
    27: 10,
    29: 9,
    30: 8,
    41: 0,
    45: 5,
    47: 5,
    48: 6,
    50: 7,
    52: 18,
    54: 15,
    55: 13,
    57: 17,
    58: 16,
    61: 14,
}

# Colour of each id, in order. Source: config_v1.2.json of the download.
COLOURS = (
    (165, 42, 42), (0, 192, 0), (196, 196, 196), (190, 153, 153), (180, 165, 180), (90, 120, 150),
    (102, 102, 156), (128, 64, 255), (140, 140, 200), (170, 170, 170), (250, 170, 160),
    (96, 96, 96), (230, 150, 140), (128, 64, 128), (110, 110, 110), (244, 35, 232),
    (150, 100, 100), (70, 70, 70), (150, 120, 90), (220, 20, 60), (255, 0, 0), (255, 0, 100),
    (255, 0, 200), (200, 128, 128), (255, 255, 255), (64, 170, 64), (230, 160, 50), (70, 130, 180),
    (190, 255, 255), (152, 251, 152), (107, 142, 35), (0, 170, 30), (255, 255, 128), (250, 0, 30),
    (100, 140, 180), (220, 220, 220), (220, 128, 128), (222, 40, 40), (100, 170, 30), (40, 40, 40),
    (33, 33, 33), (100, 128, 160), (142, 0, 0), (70, 100, 150), (210, 170, 100), (153, 153, 153),
    (128, 128, 128), (0, 0, 80), (250, 170, 30), (192, 192, 192), (220, 220, 0), (140, 140, 20),
    (119, 11, 32), (150, 0, 255), (0, 60, 100), (0, 0, 142), (0, 0, 90), (0, 0, 230), (0, 80, 100),
    (128, 64, 64), (0, 0, 110), (0, 0, 70), (0, 0, 192), (32, 32, 32), (120, 10, 10), (0, 0, 0),
)  # fmt: skip

_PARTS = {"train": "training", "val": "validation"}
_FOLDERS = ("mapillary_vistas", "mapillary", "mapillary-vistas-dataset_public_v*")
_HINT = (
    "Labels of version 2.0 have ids 0..123, which mean other classes; take those of version 1.2, "
    "in the download of 2.0 under v1.2/labels."
)


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images with train ids where they exist, else with palette PNGs whose index is the id.

    Raises:
        ValueError: the labels are of version 2.0 alone.
    """
    part = _PARTS[split]
    folders = (f"{part}/labels", f"{part}/v1.2/labels")
    layout = Layout(
        [f"{part}/images/{{stem}}.jpg"],
        [
            [f"{folder}/{{stem}}{ending}" for folder in folders]
            for ending in ("_labelTrainIds.png", ".png")
        ],
    )
    try:
        return pair_files("mapillary", raw, [layout], folders=_FOLDERS)
    except FileNotFoundError:
        for place in ("", *(f"{folder}/" for folder in _FOLDERS)):
            if newer := find(raw, [f"{place}{part}/v2.0/labels/{{stem}}.png"]):
                raise ValueError(
                    f"mapillary: {newer[0][1].parent} has {len(newer):,} labels of version 2.0, "
                    f"and there are none of version 1.2. {_HINT}"
                ) from None
        raise


SPEC = DatasetSpec(
    name="mapillary",
    label_space="cityscapes19",
    splits={"train": 18_000, "val": 2_000},
    examples=examples,
    kinds={
        "_labelTrainIds.png": TRAIN_IDS,
        ".png": LabelKind(id_table(TO_TRAIN_ID, range(66)), tuple(enumerate(COLOURS)), _HINT),
    },
    homepage="https://www.mapillary.com/dataset/vistas",
    licence="CC BY-NC-SA 4.0",
)
