"""SYNTHIA-RAND-CITYSCAPES: 16 of the 19 classes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Shaped

from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, Source, id_table, pair_files

# SYNTHIA's id -> train id. Ids 16, 18 and 20 (terrain, truck, train) do not occur in the images.
TO_TRAIN_ID = {
    1: 10,
    2: 2,
    3: 0,
    4: 1,
    5: 4,
    6: 8,
    7: 5,
    8: 13,
    9: 7,
    10: 11,
    11: 18,
    12: 17,
    15: 6,
    16: 9,
    17: 12,
    18: 14,
    19: 15,
    20: 16,
    21: 3,
}


def read_label(path: Path) -> Shaped[np.ndarray, "h w"]:
    """Ids of a label PNG: the last channel (in OpenCV's order) of 16-bit colour files."""
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # PIL would cut it to 8 bits
    if label is None:
        raise ValueError(f"{path}: OpenCV cannot decode it")
    return label[..., -1] if label.ndim == 3 else label


def examples(raw: Path, split: str) -> Sequence[Source]:
    """All images; train-id labels are preferred where they exist."""
    del split  # there is one
    return pair_files(
        "synthia",
        raw,
        ["RGB/{stem}.png"],
        [["GT/LABELS/{stem}_labelTrainIds.png"], ["GT/LABELS/{stem}.png"]],
        folders=("synthia", "RAND_CITYSCAPES"),
    )


SPEC = DatasetSpec(
    name="synthia",
    label_space="cityscapes19",
    splits={"train": 9_400},
    examples=examples,
    tables={"_labelTrainIds.png": TRAIN_IDS, ".png": id_table(TO_TRAIN_ID, range(23))},
    read_label=read_label,
    jitter_size=(760, 1280),
    homepage="https://synthia-dataset.net",
    licence="CC BY-NC-SA 3.0",
)
