"""Cityscapes, fine annotations: the official zips leftImg8bit and gtFine."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, Source, id_table, pair_files

# Label id of each train id, in order. GTA5 has the same. Source: cityscapesScripts, labels.py.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TO_TRAIN_ID = {label_id: train_id for train_id, label_id in enumerate(LABEL_IDS)}


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images with train-id labels where the official tool made them, else with label ids."""
    labels = f"gtFine/{split}/*/{{stem}}_gtFine_"
    return pair_files(
        "cityscapes",
        raw,
        [f"leftImg8bit/{split}/*/{{stem}}_leftImg8bit.png"],
        [[labels + "labelTrainIds.png"], [labels + "labelIds.png"]],
        folders=("cityscapes",),
    )


SPEC = DatasetSpec(
    name="cityscapes",
    label_space="cityscapes19",
    splits={"train": 2_975, "val": 500},
    examples=examples,
    tables={
        "_labelTrainIds.png": TRAIN_IDS,
        "_labelIds.png": id_table(TO_TRAIN_ID, range(34)),
    },
    jitter_size=(1024, 2048),
    homepage="https://www.cityscapes-dataset.com",
    licence="own terms, non-commercial",
)
