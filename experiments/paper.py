"""What the paper's tables share: encoders, datasets, how a row of CLOUDS comes about."""

from collections.abc import Mapping
from typing import Any

from experiments.tables import Row

CLOUDS = "CLOUDS (CVPR 2024), its tables"

# heading -> dataset
CBM = {
    "Cityscapes": ("cityscapes/val",),
    "BDD100K": ("bdd100k/val",),
    "Mapillary": ("mapillary/val",),
}
CBM_AVERAGE = {"average": tuple(ref for refs in CBM.values() for ref in refs)}

# title -> (name of runs, keys of the config)
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-50 CLIP": (
        "r50", {"encoder.name": "clip_resnet50", "encoder.weights": "weights/clip_resnet50"},
    ),
    "ResNet-101 ImageNet": (
        "r101_imagenet", {"encoder.name": "resnet101", "encoder.weights": "weights/resnet101"},
    ),
    "ResNet-101 CLIP": (
        "r101", {"encoder.name": "clip_resnet101", "encoder.weights": "weights/clip_resnet101"},
    ),
    "MiT-B5 ImageNet": (
        "mit_b5", {"encoder.name": "mit_b5", "encoder.weights": "weights/mit_b5"},
    ),
    "ConvNeXt-L CLIP": ("convnext_l", {}),
}  # fmt: skip


def figures(columns: Mapping[str, Any], *values: float) -> dict[str, float]:
    """Published figures by column."""
    return dict(zip(columns, values, strict=True))


def warmup(
    source: str, encoder: str, columns: Mapping[str, tuple[str, ...]], *,
    published: Mapping[str, float] | None = None, space: str = "", name: str = "", **settings: Any,
) -> Row:  # fmt: skip
    """The first phase on a source with an encoder, as a row; arguments as of `joint`."""
    return _row(f"warmup_{source}", encoder, columns, None, published, space, settings, name)


def joint(
    source: str, encoder: str, columns: Mapping[str, tuple[str, ...]], *,
    published: Mapping[str, float] | None = None, space: str = "", name: str = "",
    start: Row | None = None, **settings: Any,
) -> Row:  # fmt: skip
    """CLOUDS on a source with an encoder, behind its warm-up.

    Args:
        source: "gta", "synthia" or "cityscapes".
        encoder: a key of `ENCODERS`.
        columns: of the table, with what to score.
        published: the paper's figures.
        space: see `Row`.
        name: what tells the run from others with the same source and encoder.
        start: the warm-up; None: that of the source and the encoder.
        settings: config keys that differ, dots written as two underscores.
    """
    start = start or warmup(source, encoder, columns, space=space)
    return _row(f"joint_{source}", encoder, columns, start, published, space, settings, name)


def _row(
    config: str, encoder: str, columns: Mapping[str, tuple[str, ...]], start: Row | None,
    published: Mapping[str, float] | None, space: str, settings: Mapping[str, Any], name: str,
) -> Row:  # fmt: skip
    short, keys = ENCODERS[encoder]
    # every dataset once: a mean's datasets have columns of their own as a rule
    datasets = tuple(dict.fromkeys(ref for refs in columns.values() for ref in refs))
    return Row(
        "_".join(filter(None, (config, short, name))),
        f"configs/{config}.py",
        datasets,
        "clouds",
        set={**keys, **{key.replace("__", "."): value for key, value in settings.items()}},
        start=start,
        space=space,
        published=published or {},
        source=CLOUDS if published else "",
    )
