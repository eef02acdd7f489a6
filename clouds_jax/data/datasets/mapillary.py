"""Mapillary Vistas with the 66 classes of version 1.2; also inside the download of version 2.0."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, Source, id_table, pair_files

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

_FOLDERS = {"train": "training", "val": "validation"}


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images with train ids where they exist, else with palette PNGs whose index is the id."""
    folder = _FOLDERS[split]
    return pair_files(
        "mapillary",
        raw,
        [f"{folder}/images/{{stem}}.jpg"],
        [
            [f"{folder}/labels/{{stem}}_labelTrainIds.png"],
            [f"{folder}/labels/{{stem}}.png"],
            [f"{folder}/v1.2/labels/{{stem}}.png"],
        ],
        folders=("mapillary_vistas", "mapillary"),
    )


SPEC = DatasetSpec(
    name="mapillary",
    label_space="cityscapes19",
    splits={"train": 18_000, "val": 2_000},
    examples=examples,
    tables={"_labelTrainIds.png": TRAIN_IDS, ".png": id_table(TO_TRAIN_ID, range(66))},
    homepage="https://www.mapillary.com/dataset/vistas",
    licence="CC BY-NC-SA 4.0",
)
