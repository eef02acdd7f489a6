"""Hugging Face's ResNet: ResNetModel, ResNetBackbone and ResNetForImageClassification."""

from porting.tables import resnet
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_PARTS = {
    f"conv{i + 1}": (rf"layer\.{i}\.convolution", rf"layer\.{i}\.normalization") for i in range(3)
}
_PARTS["shortcut"] = (r"shortcut\.convolution", r"shortcut\.normalization")
_EMBEDDER = r"embedder\.embedder\."

TRUNK = (
    *resnet.stem(_EMBEDDER + "convolution", _EMBEDDER + "normalization"),
    *resnet.stages(r"encoder\.stages\.(\d)\.layers\.(\d+)\.", 0, _PARTS),
)
RULES = (
    *prefixed(TRUNK, r"(?:resnet\.)?", ""),
    Rule(r"classifier\..*", None, why=resnet.CLASSIFIER),
)

TABLE = Table(
    name="resnet_hf",
    rules=prefixed(RULES, "", "encoder."),
    encoders=resnet.ENCODERS,
    source="Hugging Face ResNet with bottlenecks that stride in the 3x3: microsoft/resnet-50, -101",
    licence="Apache-2.0 (model card of Microsoft's files)",
)
