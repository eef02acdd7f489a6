"""The ConvNeXt trunk under timm's names; open_clip's files hold it under `visual.trunk.`."""

from porting.tables.layers import dense, norm
from porting.tables.layouts import conv2d, depthwise
from porting.tables.rules import Rule

_STAGE = r"stages\.(\d)\."
_BLOCK = _STAGE + r"blocks\.(\d+)\."
_OURS = r"stages.\1.blocks."  # stacked: the leading axis runs over the blocks of a stage
_AT = r"[\2]"

TRUNK = (
    *dense(r"stem\.0", "stem.conv", conv2d),
    *norm(r"stem\.1", "stem.norm"),
    *norm(_STAGE + r"downsample\.0", r"stages.\1.downsample.norm"),
    *dense(_STAGE + r"downsample\.1", r"stages.\1.downsample.conv", conv2d),
    *dense(_BLOCK + "conv_dw", _OURS + "conv_dw", depthwise, at=_AT),
    *norm(_BLOCK + "norm", _OURS + "norm", at=_AT),
    *dense(_BLOCK + r"mlp\.fc1", _OURS + "fc1", at=_AT),
    *dense(_BLOCK + r"mlp\.fc2", _OURS + "fc2", at=_AT),
    Rule(_BLOCK + "gamma", _OURS + "gamma" + _AT),
)
CLIP_ENCODERS = ("convnext_large_d_320", "convnext_base", "convnext_xxlarge", "convnext_debug")
IMAGENET = (
    "convnext_tiny",
    "convnext_small",
    "convnext_in22k_base",
    "convnext_in22k_large",
    "convnext_in22k_xlarge",
)
