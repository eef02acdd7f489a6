"""ACDC: four adverse conditions, each a split of its own: "night_val", "fog_train"."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.cityscapes import TO_TRAIN_ID
from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, Source, id_table, pair_files

_CONDITIONS = ("night", "rain", "snow", "fog")


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images of one condition, in the official folders per sequence or flattened."""
    condition, part = split.split("_")

    def patterns(top: str, ending: str) -> list[str]:
        base = f"{top}/{condition}/{part}"
        return [f"{base}/{{stem}}{ending}", f"{base}/*/{{stem}}{ending}"]

    return pair_files(
        "acdc",
        raw,
        patterns("rgb_anon", "_rgb_anon.png"),
        [patterns("gt", "_gt_labelTrainIds.png"), patterns("gt", "_gt_labelIds.png")],
        folders=("acdc", "ACDC"),
    )


SPEC = DatasetSpec(
    name="acdc",
    label_space="cityscapes19",
    splits={f"{condition}_train": 400 for condition in _CONDITIONS}
    | {f"{condition}_val": 106 if condition == "night" else 100 for condition in _CONDITIONS},
    examples=examples,
    tables={
        "_labelTrainIds.png": TRAIN_IDS,
        "_labelIds.png": id_table(TO_TRAIN_ID, range(34)),
    },
    homepage="https://acdc.vision.ee.ethz.ch",
    licence="own terms, non-commercial",
)
