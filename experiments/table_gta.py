"""Table 1 of the paper: trained on GTA5, scored on real streets of three datasets, 19 classes.

    python -m experiments.run table_gta --row "CLOUDS, ConvNeXt-L CLIP"

A row runs its warm-up first. Data, generated images and weights: see `configs/joint_gta.py`.
"""

from experiments.paper import CBM, CBM_AVERAGE, CLOUDS, figures, joint, warmup
from experiments.tables import Quoted, Row, Table

COLUMNS = {**CBM, **CBM_AVERAGE}
_TOLD = f"quoted by {CLOUDS}"
_RERUN = f"their method, rerun by {CLOUDS}"


def _clouds(encoder: str, *values: float) -> Row:
    return joint("gta", encoder, COLUMNS, published=figures(COLUMNS, *values))


def _quoted(year: float, *values: float, source: str = _TOLD) -> Quoted:
    return Quoted(figures(COLUMNS, *values), source, year)


ROWS: dict[str, Row | Quoted] = {
    "IBN-Net, ResNet-50": _quoted(2018.7, 33.9, 32.3, 37.8, 34.6),
    "IBN-Net, ResNet-101": _quoted(2018.7, 37.4, 34.2, 36.8, 36.1),
    "ISW, ResNet-50": _quoted(2021.5, 36.6, 35.2, 40.3, 37.4),
    "ISW, ResNet-101": _quoted(2021.5, 37.2, 33.4, 35.6, 35.4),
    "SHADE, ResNet-50": _quoted(2022.8, 44.7, 39.3, 43.3, 42.4),
    "SHADE, ResNet-101": _quoted(2022.8, 46.6, 43.7, 45.5, 45.3),
    "HRDA, ResNet-101": _quoted(2023.3, 39.6, 38.7, 42.2, 40.1, source=_RERUN),
    "HRDA, MiT-B5": _quoted(2023.3, 57.4, 49.1, 61.1, 55.9),
    "TLDR, ResNet-50": _quoted(2023.8, 46.5, 42.6, 46.2, 45.1),
    "TLDR, ResNet-101": _quoted(2023.8, 47.6, 44.9, 48.8, 47.1),
    "MoDify, ResNet-50": _quoted(2023.8, 45.7, 40.1, 46.2, 44.0),
    "MoDify, ResNet-101": _quoted(2023.8, 48.8, 44.2, 47.5, 46.8),
    "PTDiffSeg": Quoted({"Cityscapes": 52.0}, _TOLD, 2023.9),
    "Grounding-SAM, ViT-H": _quoted(2023.3, 43.5, 39.4, 48.4, 43.8),
    "CAT-Seg, ViT-G/14": _quoted(2023.2, 45.0, 47.6, 51.8, 48.2),
    "ODISE": _quoted(2023.5, 53.8, 53.6, 59.1, 55.5),
    "FC-CLIP trained on COCO, ConvNeXt-L": _quoted(2023.9, 56.2, 54.2, 60.6, 57.0),
    # the head of FC-CLIP on ours: its own code differs in more than that
    "FC-CLIP's head trained on GTA5, ConvNeXt-L": warmup(
        "gta", "ConvNeXt-L CLIP", COLUMNS, published=figures(COLUMNS, 53.6, 47.6, 57.4, 52.9),
        name="fcclip", head__classifier="pooled", head__ensemble__enabled=True,
    ),
    "CLOUDS, ResNet-50 CLIP": _clouds("ResNet-50 CLIP", 54.6, 46.7, 58.6, 53.3),
    "CLOUDS, ResNet-101 ImageNet": _clouds("ResNet-101 ImageNet", 50.6, 44.8, 56.6, 50.7),
    "CLOUDS, ResNet-101 CLIP": _clouds("ResNet-101 CLIP", 55.7, 49.3, 59.0, 54.7),
    "CLOUDS, MiT-B5 ImageNet": _clouds("MiT-B5 ImageNet", 58.1, 53.8, 62.3, 58.1),
    "CLOUDS, ConvNeXt-L CLIP": _clouds("ConvNeXt-L CLIP", 60.2, 57.4, 67.0, 61.5),
}  # fmt: skip

TABLE = Table("GTA5 to Cityscapes, BDD100K and Mapillary (Table 1).", COLUMNS, ROWS)
