"""Table 5 of the paper: a trained encoder against a frozen one, on GTA5.

    python -m experiments.run table_trainable --row "trained encoder"

The frozen row is that of `table_gta`, and shares its run.
"""

from experiments.paper import CBM, CBM_AVERAGE, figures, joint, warmup
from experiments.tables import Table

COLUMNS = {**CBM, **CBM_AVERAGE}
_ENCODER = "ConvNeXt-L CLIP"
_START = warmup("gta", _ENCODER, COLUMNS, name="trained", encoder__trainable=True)

TABLE = Table(
    "Trained and frozen encoder (Table 5), ConvNeXt-L, GTA5 to Cityscapes, BDD100K and Mapillary.",
    COLUMNS,
    {
        "trained encoder": joint(
            "gta", _ENCODER, COLUMNS, published=figures(COLUMNS, 58.6, 53.0, 62.8, 58.1),
            name="trained", start=_START, encoder__trainable=True,
        ),
        "frozen encoder": joint(
            "gta", _ENCODER, COLUMNS, published=figures(COLUMNS, 60.2, 57.4, 67.0, 61.5)
        ),
    },
)  # fmt: skip
