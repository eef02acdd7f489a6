"""SYNTHIA-RAND-CITYSCAPES: 16 of the 19 classes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from clouds_jax.data.datasets.pairing import Layout, pair_files
from clouds_jax.data.datasets.spec import (
    TRAIN_IDS,
    DatasetSpec,
    LabelKind,
    Source,
    Stored,
    id_table,
    read_stored,
)

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

# Colours of the folder GT/COLOR, by id. Source: README of the download. Lane markings stand before
# walls, whose colour they share, so that neither becomes the other: both are ignored there.
COLOURS = (
    (0, (0, 0, 0)),
    (1, (70, 130, 180)),
    (2, (70, 70, 70)),
    (3, (128, 64, 128)),
    (4, (244, 35, 232)),
    (5, (64, 64, 128)),
    (6, (107, 142, 35)),
    (7, (153, 153, 153)),
    (8, (0, 0, 142)),
    (9, (220, 220, 0)),
    (10, (220, 20, 60)),
    (11, (119, 11, 32)),
    (12, (0, 0, 230)),
    (13, (250, 170, 160)),
    (14, (128, 64, 64)),
    (15, (250, 170, 30)),
    (16, (152, 251, 152)),
    (17, (255, 0, 0)),
    (18, (0, 0, 70)),
    (19, (0, 60, 100)),
    (20, (0, 80, 100)),
    (22, (102, 102, 156)),
    (21, (102, 102, 156)),
)

_FOLDERS = (
    "synthia",
    "SYNTHIA",
    "RAND_CITYSCAPES",
    "synthia/RAND_CITYSCAPES",
    "SYNTHIA_RAND_CITYSCAPES/RAND_CITYSCAPES",
)


def read_label(path: Path) -> Stored:
    """A label PNG: ids in red, instances in green, blue empty, of 16 bits; or ids; or colours.

    Transparency, a fourth channel, is dropped.

    Raises:
        OSError, ValueError: it cannot be decoded.
    """
    with Image.open(path) as image:
        if image.mode == "P":
            return read_stored(path)
    # PIL would cut it to 8 bits, and OpenCV's own reader cannot open all names.
    label = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if label is None:
        raise ValueError(f"{path}: OpenCV cannot decode it")
    if label.ndim == 2:
        return Stored(label)
    blue, red = label[..., 0], label[..., 2]  # OpenCV's order
    if label.dtype == np.uint8 and blue.any():
        return Stored(np.ascontiguousarray(label[..., 2::-1]))
    return Stored(red)


def examples(raw: Path, split: str) -> Sequence[Source]:
    """All images; train-id labels are preferred where they exist."""
    del split  # there is one
    layout = Layout(
        ["RGB/{stem}.png"], [["GT/LABELS/{stem}_labelTrainIds.png"], ["GT/LABELS/{stem}.png"]]
    )
    return pair_files("synthia", raw, [layout], folders=_FOLDERS)


SPEC = DatasetSpec(
    name="synthia",
    label_space="cityscapes19",
    splits={"train": 9_400},
    examples=examples,
    kinds={
        "_labelTrainIds.png": TRAIN_IDS,
        ".png": LabelKind(id_table(TO_TRAIN_ID, range(23)), COLOURS),
    },
    read_label=read_label,
    jitter_size=(760, 1280),
    homepage="https://synthia-dataset.net",
    licence="CC BY-NC-SA 3.0",
)
