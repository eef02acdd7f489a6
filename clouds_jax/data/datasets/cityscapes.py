"""Cityscapes, fine annotations: the official zips leftImg8bit and gtFine."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.pairing import Layout, pair_files
from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, LabelKind, Source, id_table

# Label id of each train id, in order. GTA5 has the same. Source: cityscapesScripts, labels.py.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TO_TRAIN_ID = {label_id: train_id for train_id, label_id in enumerate(LABEL_IDS)}
# Colour of each label id. Source: as above.
COLOURS = {
    0: (0, 0, 0),
    1: (0, 0, 0),
    2: (0, 0, 0),
    3: (0, 0, 0),
    4: (0, 0, 0),
    5: (111, 74, 0),
    6: (81, 0, 81),
    7: (128, 64, 128),
    8: (244, 35, 232),
    9: (250, 170, 160),
    10: (230, 150, 140),
    11: (70, 70, 70),
    12: (102, 102, 156),
    13: (190, 153, 153),
    14: (180, 165, 180),
    15: (150, 100, 100),
    16: (150, 120, 90),
    17: (153, 153, 153),
    18: (153, 153, 153),
    19: (250, 170, 30),
    20: (220, 220, 0),
    21: (107, 142, 35),
    22: (152, 251, 152),
    23: (70, 130, 180),
    24: (220, 20, 60),
    25: (255, 0, 0),
    26: (0, 0, 142),
    27: (0, 0, 70),
    28: (0, 60, 100),
    29: (0, 0, 90),
    30: (0, 0, 110),
    31: (0, 80, 100),
    32: (0, 0, 230),
    33: (119, 11, 32),
}
LABEL_ID_KIND = LabelKind(id_table(TO_TRAIN_ID, range(34)), tuple(COLOURS.items()))


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images with train-id labels where the official tool made them, else with label ids.

    The archives may lie in folders of their own names, such as `gtFine_trainvaltest`.
    """
    tops = ("gtFine", "gtFine_*/gtFine")
    layout = Layout(
        [
            f"{top}/{split}/*/{{stem}}_leftImg8bit.png"
            for top in ("leftImg8bit", "leftImg8bit_*/leftImg8bit")
        ],
        [
            [f"{top}/{split}/*/{{stem}}_gtFine_{kind}.png" for top in tops]
            for kind in ("labelTrainIds", "labelIds")
        ],
    )
    return pair_files("cityscapes", raw, [layout], folders=("cityscapes", "Cityscapes"))


SPEC = DatasetSpec(
    name="cityscapes",
    label_space="cityscapes19",
    splits={"train": 2_975, "val": 500},
    examples=examples,
    kinds={"_labelTrainIds.png": TRAIN_IDS, "_labelIds.png": LABEL_ID_KIND},
    jitter_size=(1024, 2048),
    homepage="https://www.cityscapes-dataset.com",
    licence="own terms, non-commercial",
)
