"""Frames of the CARLA simulator with its semantic tags: `carla` and, before 0.9.14, `carla_13tags`.

The two sets of tags overlap, so that a file does not tell which it holds.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clouds_jax.data.datasets.pairing import Layout, pair_files
from clouds_jax.data.datasets.spec import (
    DatasetSpec,
    LabelKind,
    Source,
    Stored,
    id_table,
    read_stored,
)

# Tags 1..19 are Cityscapes' classes in order; 24 is the paint on the road. Source: CARLA's
# documentation of sensor.camera.semantic_segmentation.
TO_TRAIN_ID = {tag: tag - 1 for tag in range(1, 20)} | {24: 0}
# Colours of CARLA's CityScapesPalette by tag; fence and terrain changed with 0.9.14.
COLOURS = (
    (0, (0, 0, 0)),
    (1, (128, 64, 128)),
    (2, (244, 35, 232)),
    (3, (70, 70, 70)),
    (4, (102, 102, 156)),
    (5, (190, 153, 153)),
    (5, (100, 40, 40)),
    (6, (153, 153, 153)),
    (7, (250, 170, 30)),
    (8, (220, 220, 0)),
    (9, (107, 142, 35)),
    (10, (152, 251, 152)),
    (10, (145, 170, 100)),
    (11, (70, 130, 180)),
    (12, (220, 20, 60)),
    (13, (255, 0, 0)),
    (14, (0, 0, 142)),
    (15, (0, 0, 70)),
    (16, (0, 60, 100)),
    (17, (0, 80, 100)),
    (18, (0, 0, 230)),
    (19, (119, 11, 32)),
    (20, (110, 190, 160)),
    (21, (170, 120, 50)),
    (22, (55, 90, 80)),
    (23, (45, 60, 150)),
    (24, (157, 234, 50)),
    (25, (81, 0, 81)),
    (26, (150, 100, 100)),
    (27, (230, 150, 140)),
    (28, (180, 165, 180)),
)
# The tag of today for each of the older ones: 0..12 up to 0.9.9, the others since 0.9.10. All
# vehicles had one tag, which is read as car.
_OF_OLDER = (0, 3, 5, 22, 12, 6, 24, 1, 2, 9, 14, 4, 8, 11, 25, 26, 27, 28, 7, 20, 21, 23, 10)
TO_TRAIN_ID_13 = {old: TO_TRAIN_ID[tag] for old, tag in enumerate(_OF_OLDER) if tag in TO_TRAIN_ID}
COLOURS_13 = tuple((_OF_OLDER.index(tag), colour) for tag, colour in COLOURS if tag in _OF_OLDER)


def read_label(path: Path) -> Stored:
    """A label PNG: tags in one channel, or in red with green and blue empty; or colours."""
    stored = read_stored(path)
    if stored.values.ndim == 3 and not stored.values[..., 1:3].any():
        return Stored(np.ascontiguousarray(stored.values[..., 0]))
    return stored


def examples(name: str, raw: Path, split: str) -> Sequence[Source]:
    """Images with labels that hold the tag; or the folders of the simulator's own recorder."""
    del split  # there is one
    return pair_files(
        name,
        raw,
        [
            Layout(["images/{stem}.jpg", "images/{stem}.png"], [["labels_carlaTags/{stem}.png"]]),
            Layout(
                ["CameraRGB/{stem}.png", "CameraRGB/{stem}.jpg"],
                [["CameraSeg/{stem}.png"], ["CameraSemSeg/{stem}.png"]],
            ),
        ],
        folders=("carla_mini", "carla"),
    )


def _spec(name: str, kind: LabelKind, homepage: str, licence: str) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        label_space="cityscapes19",
        splits={"test": None},
        examples=functools.partial(examples, name),
        kinds={".png": kind},
        read_label=read_label,
        homepage=homepage,
        licence=licence,
    )


SPECS = (
    _spec(
        "carla",
        LabelKind(id_table(TO_TRAIN_ID, range(29)), COLOURS, "Build older tags as carla_13tags."),
        "https://github.com/yjzhai-cs/CarlaScapes",
        "GPL-2.0",
    ),
    _spec(
        "carla_13tags",
        LabelKind(id_table(TO_TRAIN_ID_13, range(23)), COLOURS_13, "Build newer tags as carla."),
        "https://carla.org",
        "that of the recording",
    ),
)
