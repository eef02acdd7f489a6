"""Table 2 of the paper: trained on SYNTHIA, scored over its 16 classes.

python -m experiments.run table_synthia --row "CLOUDS, ConvNeXt-L CLIP"
"""

from experiments.paper import CBM, CBM_AVERAGE, CLOUDS, figures, joint, warmup
from experiments.tables import Quoted, Row, Table

COLUMNS = {**CBM, **CBM_AVERAGE}
_SPACE = "16"
_TOLD = f"quoted by {CLOUDS}"
_RERUN = f"their method, rerun by {CLOUDS}"


def _clouds(encoder: str, *values: float) -> Row:
    return joint(
        "synthia", encoder, COLUMNS, published=figures(COLUMNS, *values), space=_SPACE
    )  # fmt: skip


def _quoted(*values: float, source: str = _TOLD) -> Quoted:
    return Quoted(figures(COLUMNS, *values), source)


ROWS: dict[str, Row | Quoted] = {
    "DRPC, ResNet-50": _quoted(35.7, 31.5, 32.7, 33.3),
    "SAN-SAW, ResNet-50": _quoted(38.9, 35.2, 34.5, 36.2),
    "MoDify, ResNet-50": _quoted(38.9, 33.7, 36.2, 36.3),
    "TLDR, ResNet-50": _quoted(41.9, 34.4, 36.8, 37.7),
    "DRPC, ResNet-101": _quoted(37.6, 34.4, 34.1, 35.3),
    "GTR, ResNet-101": _quoted(39.7, 35.3, 36.4, 37.1),
    "FSDR, ResNet-101": _quoted(40.8, 37.4, 39.6, 39.3),
    "SAN-SAW, ResNet-101": _quoted(40.9, 36.0, 37.3, 38.0),
    "TLDR, ResNet-101": _quoted(42.6, 35.5, 37.5, 38.5),
    "MoDify, ResNet-101": _quoted(43.4, 39.5, 42.3, 41.7),
    "HRDA, ResNet-101": _quoted(34.9, 25.0, 34.0, 31.3, source=_RERUN),
    "HRDA, MiT-B5": _quoted(39.6, 32.6, 40.0, 37.4, source=_RERUN),
    # the head of FC-CLIP on ours: its own code differs in more than that
    "FC-CLIP's head, ConvNeXt-L": warmup(
        "synthia", "ConvNeXt-L CLIP", COLUMNS, published=figures(COLUMNS, 38.0, 29.9, 39.0, 35.6),
        space=_SPACE, name="fcclip", head__classifier="pooled", head__ensemble__enabled=True,
    ),
    "CLOUDS, ResNet-50 CLIP": _clouds("ResNet-50 CLIP", 46.1, 37.6, 48.1, 43.9),
    "CLOUDS, ResNet-101 CLIP": _clouds("ResNet-101 CLIP", 49.1, 40.3, 50.1, 46.5),
    "CLOUDS, MiT-B5 ImageNet": _clouds("MiT-B5 ImageNet", 42.2, 38.3, 43.6, 41.4),
    "CLOUDS, ConvNeXt-L CLIP": _clouds("ConvNeXt-L CLIP", 53.4, 47.0, 55.8, 52.1),
}  # fmt: skip

TABLE = Table("SYNTHIA to Cityscapes, BDD100K and Mapillary (Table 2), 16 classes.", COLUMNS, ROWS)
