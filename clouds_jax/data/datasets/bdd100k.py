"""BDD100K's 10k images with semantic masks."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, Source, pair_files


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images of the 10k set with the masks of sem_seg, which hold train ids."""
    return pair_files(
        "bdd100k",
        raw,
        [f"images/10k/{split}/{{stem}}.jpg"],
        [[f"labels/sem_seg/masks/{split}/{{stem}}.png"]],
        folders=("bdd100k", "bdd10k"),
    )


SPEC = DatasetSpec(
    name="bdd100k",
    label_space="cityscapes19",
    splits={"train": 7_000, "val": 1_000},
    examples=examples,
    tables={".png": TRAIN_IDS},
    homepage="https://www.vis.xyz/bdd100k",
    licence="own terms, non-commercial",
)
