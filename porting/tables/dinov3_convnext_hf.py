"""DINOv3's ConvNeXt as transformers' DINOv3ConvNextModel.

Its last norm is converted: applied to the mean of the last feature it gives the model's global
feature (`pooler_output`), our embedding.
"""

from porting.tables.layers import dense, norm
from porting.tables.layouts import conv2d, depthwise
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_STAGE = r"stages\.(\d)\."
_BLOCK = _STAGE + r"layers\.(\d+)\."
_OURS = r"stages.\1.blocks."
_AT = r"[\2]"

TRUNK = (
    *dense(r"stages\.0\.downsample_layers\.0", "stem.conv", conv2d),
    *norm(r"stages\.0\.downsample_layers\.1", "stem.norm"),
    *norm(r"stages\.([1-3])\.downsample_layers\.0", r"stages.\1.downsample.norm"),
    *dense(r"stages\.([1-3])\.downsample_layers\.1", r"stages.\1.downsample.conv", conv2d),
    *dense(_BLOCK + "depthwise_conv", _OURS + "conv_dw", depthwise, at=_AT),
    *norm(_BLOCK + "layer_norm", _OURS + "norm", at=_AT),
    *dense(_BLOCK + "pointwise_conv1", _OURS + "fc1", at=_AT),
    *dense(_BLOCK + "pointwise_conv2", _OURS + "fc2", at=_AT),
    Rule(_BLOCK + "gamma", _OURS + "gamma" + _AT),
)

TABLE = Table(
    name="dinov3_convnext_hf",
    rules=(
        # the files have no prefix; transformers 5 adds one in memory
        *prefixed(TRUNK, r"(?:model\.)?", "encoder."),
        *prefixed(norm("layer_norm", "visual_head.norm"), "", "encoder."),
    ),
    encoders=tuple(
        f"dinov3_convnext_{size}" for size in ("tiny", "small", "base", "large", "debug")
    ),
    source="Hugging Face DINOv3ConvNextModel: facebook/dinov3-convnext-*-pretrain-lvd1689m",
    licence="DINOv3 License",
)
