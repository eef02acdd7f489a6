"""BDD100K's 10k images with semantic masks, in the tree of today or the older `seg`."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.pairing import Layout, pair_files
from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, Source


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images of the 10k set with the masks of sem_seg, which hold train ids.

    The archives may lie in folders of their own names, such as `bdd100k_images_10k`.
    """
    tops = ("", "bdd100k_*/bdd100k/")
    return pair_files(
        "bdd100k",
        raw,
        [
            Layout(
                [f"{top}images/10k/{split}/{{stem}}.jpg" for top in tops],
                [[f"{top}labels/sem_seg/masks/{split}/{{stem}}.png" for top in tops]],
            ),
            Layout(
                [f"seg/images/{split}/{{stem}}.jpg"],
                [[f"seg/labels/{split}/{{stem}}_train_id.png"]],
            ),
        ],
        folders=("bdd100k", "bdd10k", "BDD100K"),
    )


SPEC = DatasetSpec(
    name="bdd100k",
    label_space="cityscapes19",
    splits={"train": 7_000, "val": 1_000},
    examples=examples,
    kinds={".png": TRAIN_IDS},
    homepage="https://www.vis.xyz/bdd100k",
    licence="own terms, non-commercial",
)
