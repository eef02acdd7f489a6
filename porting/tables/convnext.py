"""The ConvNeXt trunk, under timm's names and under its authors' own.

open_clip's files hold timm's under `visual.trunk.`. `stem_0` and `stages_0` are timm's names of a
model made with `features_only=True`; with `conv_mlp=True` the linear layers are 1x1 convolutions.

The authors' names (facebookresearch/ConvNeXt) have a second form: mmpretrain's `depthwise_conv` and
`pointwise_conv1` for `dwconv` and `pwconv1`, in mmsegmentation's files under `backbone.`. Files of
segmenters have a norm for each output, `norm0` to `norm3`.
"""

from porting.tables.layers import dense, norm
from porting.tables.layouts import conv2d, depthwise, linear_or_pointwise
from porting.tables.rules import Rule

_STAGE = r"stages[._](\d)\."
_BLOCK = _STAGE + r"blocks\.(\d+)\."
_OURS = r"stages.\1.blocks."  # stacked: the leading axis runs over the blocks of a stage
_AT = r"[\2]"

TRUNK = (
    *dense(r"stem[._]0", "stem.conv", conv2d),
    *norm(r"stem[._]1", "stem.norm"),
    *norm(_STAGE + r"downsample\.0", r"stages.\1.downsample.norm"),
    *dense(_STAGE + r"downsample\.1", r"stages.\1.downsample.conv", conv2d),
    *dense(_BLOCK + "conv_dw", _OURS + "conv_dw", depthwise, at=_AT),
    *norm(_BLOCK + "norm", _OURS + "norm", at=_AT),
    *dense(_BLOCK + r"mlp\.fc1", _OURS + "fc1", linear_or_pointwise, at=_AT),
    *dense(_BLOCK + r"mlp\.fc2", _OURS + "fc2", linear_or_pointwise, at=_AT),
    Rule(_BLOCK + "gamma", _OURS + "gamma" + _AT),
)

_AUTHORS_BLOCK = r"stages\.(\d)\.(\d+)\."
_FIRST_NORM = r"(?:.*\.)?norm0\.weight"  # tells a norm for each output from a last one
AUTHORS_TRUNK = (
    *dense(r"downsample_layers\.0\.0", "stem.conv", conv2d),
    *norm(r"downsample_layers\.0\.1", "stem.norm"),
    *norm(r"downsample_layers\.([1-3])\.0", r"stages.\1.downsample.norm"),
    *dense(r"downsample_layers\.([1-3])\.1", r"stages.\1.downsample.conv", conv2d),
    *dense(_AUTHORS_BLOCK + "(?:dwconv|depthwise_conv)", _OURS + "conv_dw", depthwise, at=_AT),
    *norm(_AUTHORS_BLOCK + "norm", _OURS + "norm", at=_AT),
    *(
        rule
        for n in (1, 2)
        for rule in dense(
            _AUTHORS_BLOCK + rf"(?:pwconv|pointwise_conv){n}",
            _OURS + f"fc{n}",
            linear_or_pointwise,
            at=_AT,
        )
    ),
    Rule(_AUTHORS_BLOCK + "gamma", _OURS + "gamma" + _AT),
    Rule(r"norm([0-3])\.weight", r"feature_norms.\1.scale", when=_FIRST_NORM),
    Rule(r"norm([0-3])\.bias", r"feature_norms.\1.bias", when=_FIRST_NORM),
)

CLIP_ENCODERS = ("convnext_large_d_320", "convnext_base", "convnext_xxlarge", "convnext_debug")
IMAGENET = (
    "convnext_tiny",
    "convnext_small",
    "convnext_in22k_base",
    "convnext_in22k_large",
    "convnext_in22k_xlarge",
)
# with a norm for each output
NORMED = tuple(f"convnext_{size}_normed" for size in ("tiny", "small", "in22k_base", "in22k_large"))
