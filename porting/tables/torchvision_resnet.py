"""torchvision's ResNet-50 and -101; timm's `resnet50` and `resnet101` have the same names."""

from porting.tables import resnet
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

PARTS = {f"conv{i}": (f"conv{i}", f"bn{i}") for i in (1, 2, 3)}
PARTS["shortcut"] = (r"downsample\.0", r"downsample\.1")
STAGES = resnet.stages(r"layer(\d)\.(\d+)\.", 1, PARTS)

RULES = (
    *resnet.stem("conv1", "bn1"),
    *STAGES,
    Rule(r"fc\..*", None, why=resnet.CLASSIFIER),
)

TABLE = Table(
    name="torchvision_resnet",
    rules=prefixed(RULES, "", "encoder."),
    encoders=resnet.ENCODERS,
    source="torchvision resnet50 and resnet101, or timm's of the same names",
    licence="BSD-3-Clause (torchvision) or Apache-2.0 (timm)",
)
