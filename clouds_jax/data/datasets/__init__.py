"""The datasets that `python -m clouds_jax.data.build` turns into shards."""

import fnmatch

from clouds_jax.data.datasets import (
    acdc,
    bdd100k,
    camvid,
    carla,
    cityscapes,
    fake,
    folder,
    gta5,
    mapillary,
    streets,
    synthia,
)
from clouds_jax.data.datasets.spec import DatasetSpec

DATASETS: dict[str, DatasetSpec] = {
    module.SPEC.name: module.SPEC
    for module in (
        gta5,
        synthia,
        cityscapes,
        bdd100k,
        mapillary,
        acdc,
        camvid,
        folder,
        fake,
    )
} | {spec.name: spec for spec in (*carla.SPECS, *streets.SPECS)}


def get_dataset(name: str) -> DatasetSpec:
    """The dataset of that name."""
    if name not in DATASETS:
        raise KeyError(f"DATASETS has no {name!r}; it has: {', '.join(DATASETS)}.")
    return DATASETS[name]


def list_datasets(pattern: str = "*") -> list[str]:
    """Names that `python -m clouds_jax.data.build` and `config.data.batch` take.

    Args:
        pattern: shell pattern, such as "streets_*_night".
    """
    return fnmatch.filter(sorted(DATASETS), pattern)
