"""GTA5 ("Playing for Data"): the zips of images and labels, as they unpack."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.cityscapes import TO_TRAIN_ID
from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, Source, id_table, pair_files

# 62 of the 24,966 images have labels of a wrong size.
BAD = frozenset(f"{number:05d}" for number in (15188, 17705, *range(20801, 20861)))

# The downloads hold palette PNGs whose index is the label id; copies of the data set often hold
# the palette's colours instead. Colours of the labels as in cityscapesScripts.
COLOURS = {
    (0, 0, 0): 0,
    (111, 74, 0): 5,
    (81, 0, 81): 6,
    (128, 64, 128): 7,
    (244, 35, 232): 8,
    (250, 170, 160): 9,
    (230, 150, 140): 10,
    (70, 70, 70): 11,
    (102, 102, 156): 12,
    (190, 153, 153): 13,
    (180, 165, 180): 14,
    (150, 100, 100): 15,
    (150, 120, 90): 16,
    (153, 153, 153): 17,
    (250, 170, 30): 19,
    (220, 220, 0): 20,
    (107, 142, 35): 21,
    (152, 251, 152): 22,
    (70, 130, 180): 23,
    (220, 20, 60): 24,
    (255, 0, 0): 25,
    (0, 0, 142): 26,
    (0, 0, 70): 27,
    (0, 60, 100): 28,
    (0, 0, 90): 29,
    (0, 0, 110): 30,
    (0, 80, 100): 31,
    (0, 0, 230): 32,
    (119, 11, 32): 33,
    (20, 20, 20): 3,
}


def examples(raw: Path, split: str) -> Sequence[Source]:
    """All images but the known bad ones; train-id labels are preferred where they exist."""
    del split  # there is one
    return pair_files(
        "gta5",
        raw,
        ["images/{stem}.png"],
        [["labels/{stem}_labelTrainIds.png"], ["labels/{stem}.png"]],
        folders=("gta5", "gta", "GTA5"),
        drop=BAD,
    )


SPEC = DatasetSpec(
    name="gta5",
    label_space="cityscapes19",
    splits={"train": 24_904},
    examples=examples,
    tables={"_labelTrainIds.png": TRAIN_IDS, ".png": id_table(TO_TRAIN_ID, range(35))},
    colours=COLOURS,
    jitter_size=(1052, 1914),
    homepage="https://download.visinf.tu-darmstadt.de/data/from_games",
    licence="research and education",
)
