"""GTA5 ("Playing for Data"): the zips of images and labels, as they unpack."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets import cityscapes
from clouds_jax.data.datasets.pairing import Layout, pair_files
from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, LabelKind, Source, id_table

# 62 of the 24,966 images have labels of a wrong size.
BAD = frozenset(f"{number:05d}" for number in (15188, 17705, *range(20801, 20861)))

# The downloads hold palette PNGs whose index is the label id; copies of the data set often hold
# the palette's colours instead. Ids and colours are Cityscapes', but for these two.
COLOURS = (*cityscapes.COLOURS.items(), (3, (20, 20, 20)), (34, (0, 0, 142)))


def examples(raw: Path, split: str) -> Sequence[Source]:
    """All images but the known bad ones; train-id labels are preferred where they exist.

    The ten parts may lie in folders of their own names, `01_images` to `10_labels`.
    """
    del split  # there is one
    part = "[0-9][0-9]_"
    layout = Layout(
        ["images/{stem}.png", part + "images/images/{stem}.png"],
        [
            [f"labels/{{stem}}{ending}", f"{part}labels/labels/{{stem}}{ending}"]
            for ending in ("_labelTrainIds.png", ".png")
        ],
        keep=lambda stem: stem not in BAD,
    )
    return pair_files("gta5", raw, [layout], folders=("gta5", "gta", "GTA5"))


SPEC = DatasetSpec(
    name="gta5",
    label_space="cityscapes19",
    splits={"train": 24_904},
    examples=examples,
    kinds={
        "_labelTrainIds.png": TRAIN_IDS,
        ".png": LabelKind(id_table(cityscapes.TO_TRAIN_ID, range(35)), COLOURS),
    },
    jitter_size=(1052, 1914),
    homepage="https://download.visinf.tu-darmstadt.de/data/from_games",
    licence="research and education",
)
