"""transformers' ConvNeXt: ConvNextModel, ConvNextForImageClassification and ConvNextBackbone.

The backbone has a norm for each of its outputs (`hidden_states_norms`), as do the encoders named
`convnext_*_normed`.
"""

import re
from collections.abc import Callable

from porting.tables.convnext import IMAGENET, NORMED
from porting.tables.layers import dense, norm
from porting.tables.layouts import conv2d, depthwise
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_STAGE = r"encoder\.stages\.(\d)\."
_BLOCK = _STAGE + r"layers\.(\d+)\."
_OURS = r"stages.\1.blocks."
_AT = r"[\2]"


def _feature_norm(part: str) -> Callable[[re.Match], str]:
    """Target of a feature norm; ours count from 0, transformers' from 1."""
    return lambda match: f"feature_norms.{int(match[1]) - 1}.{part}"


TRUNK = (
    *dense(r"embeddings\.patch_embeddings", "stem.conv", conv2d),
    *norm(r"embeddings\.layernorm", "stem.norm"),
    *norm(_STAGE + r"downsampling_layer\.0", r"stages.\1.downsample.norm"),
    *dense(_STAGE + r"downsampling_layer\.1", r"stages.\1.downsample.conv", conv2d),
    *dense(_BLOCK + "dwconv", _OURS + "conv_dw", depthwise, at=_AT),
    *norm(_BLOCK + "layernorm", _OURS + "norm", at=_AT),
    *dense(_BLOCK + "pwconv1", _OURS + "fc1", at=_AT),
    *dense(_BLOCK + "pwconv2", _OURS + "fc2", at=_AT),
    Rule(_BLOCK + "layer_scale_parameter", _OURS + "gamma" + _AT),
)
FEATURE_NORMS = (
    Rule(r"hidden_states_norms\.stage(\d)\.weight", _feature_norm("scale")),
    Rule(r"hidden_states_norms\.stage(\d)\.bias", _feature_norm("bias")),
)
ENCODERS = (*IMAGENET, *NORMED)

_CLASSIFIER = "the norm and classifier of ImageNet come after the last feature"

TABLE = Table(
    name="convnext_hf",
    rules=(
        *prefixed((*TRUNK, *FEATURE_NORMS), r"(?:convnext\.)?", "encoder."),
        Rule(r"(?:(?:convnext\.)?layernorm|classifier)\.(?:weight|bias)", None, why=_CLASSIFIER),
    ),
    encoders=(*ENCODERS, "convnext_in22k_debug", "convnext_in22k_debug_normed"),
    source="Hugging Face ConvNextModel, ConvNextForImageClassification or ConvNextBackbone",
    licence="see the model card of the file (Apache-2.0 for facebook/convnext-*)",
)
