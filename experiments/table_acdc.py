"""Table 3 of the paper: trained on Cityscapes, scored by night, in snow and in rain (ACDC).

python -m experiments.run table_acdc --row "CLOUDS, ConvNeXt-L CLIP"
"""

from experiments.paper import CLOUDS, figures, joint
from experiments.tables import Quoted, Row, Table

COLUMNS = {"night": ("acdc/night_val",), "snow": ("acdc/snow_val",), "rain": ("acdc/rain_val",)}
_TOLD = f"quoted by {CLOUDS}"


def _clouds(encoder: str, *values: float) -> Row:
    return joint("cityscapes", encoder, COLUMNS, published=figures(COLUMNS, *values))


ROWS: dict[str, Row | Quoted] = {
    "CLIPStyler": Quoted(figures(COLUMNS, 21.3, 41.0, 38.7), _TOLD),
    "PØDA": Quoted(figures(COLUMNS, 25.0, 43.9, 42.3), _TOLD),
    "CLOUDS, ResNet-50 CLIP": _clouds("ResNet-50 CLIP", 29.4, 52.1, 49.7),
    "CLOUDS, ResNet-101 CLIP": _clouds("ResNet-101 CLIP", 33.0, 51.3, 53.4),
    "CLOUDS, ConvNeXt-L CLIP": _clouds("ConvNeXt-L CLIP", 45.1, 65.3, 64.4),
}

TABLE = Table("Cityscapes to ACDC (Table 3).", COLUMNS, ROWS)
