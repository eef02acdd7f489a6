"""Frames of the CARLA simulator (0.9.14 and later) with its semantic tags."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.spec import DatasetSpec, Source, id_table, pair_files

# Tags 1..19 are Cityscapes' classes in order; 24 is the paint on the road. Source: CARLA's
# documentation of sensor.camera.semantic_segmentation.
TO_TRAIN_ID = {tag: tag - 1 for tag in range(1, 20)} | {24: 0}


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images with labels that hold the tag in one channel."""
    del split  # there is one
    return pair_files(
        "carla",
        raw,
        ["images/{stem}.jpg", "images/{stem}.png"],
        [["labels_carlaTags/{stem}.png"]],
        folders=("carla_mini", "carla"),
    )


SPEC = DatasetSpec(
    name="carla",
    label_space="cityscapes19",
    splits={"test": None},
    examples=examples,
    tables={".png": id_table(TO_TRAIN_ID, range(29))},
    homepage="https://github.com/yjzhai-cs/CarlaScapes",
    licence="GPL-2.0",
)
