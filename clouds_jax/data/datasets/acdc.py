"""ACDC: four adverse conditions, each a split of its own: "night_val", "fog_train"."""

from collections.abc import Sequence
from pathlib import Path

from clouds_jax.data.datasets.cityscapes import LABEL_ID_KIND
from clouds_jax.data.datasets.pairing import Layout, pair_files
from clouds_jax.data.datasets.spec import TRAIN_IDS, DatasetSpec, Source

_CONDITIONS = ("night", "rain", "snow", "fog")


def examples(raw: Path, split: str) -> Sequence[Source]:
    """Images of one condition, in the official folders per sequence or flattened.

    The archives may lie in folders of their own names, `rgb_anon_trainvaltest` and `gt_trainval`.
    """
    condition, part = split.split("_")

    def patterns(tops: Sequence[str], ending: str) -> list[str]:
        bases = [f"{top}/{condition}/{part}" for top in tops]
        return [f"{base}{deep}/{{stem}}{ending}" for base in bases for deep in ("", "/*")]

    rgb, gt = ("rgb_anon", "rgb_anon_*/rgb_anon"), ("gt", "gt_*/gt")
    layout = Layout(
        patterns(rgb, "_rgb_anon.png"),
        [patterns(gt, "_gt_labelTrainIds.png"), patterns(gt, "_gt_labelIds.png")],
    )
    return pair_files("acdc", raw, [layout], folders=("acdc", "ACDC"))


SPEC = DatasetSpec(
    name="acdc",
    label_space="cityscapes19",
    splits={f"{condition}_train": 400 for condition in _CONDITIONS}
    | {f"{condition}_val": 106 if condition == "night" else 100 for condition in _CONDITIONS},
    examples=examples,
    kinds={"_labelTrainIds.png": TRAIN_IDS, "_labelIds.png": LABEL_ID_KIND},
    homepage="https://acdc.vision.ee.ethz.ch",
    licence="own terms, non-commercial",
)
