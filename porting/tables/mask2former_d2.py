"""Mask2Former under the names of the original code: Detectron2's model zoo, CLOUDS' head.

A file with a ResNet converts to encoder and head, one with a Swin Transformer to a head alone.

The nine layers of the transformer decoder read three feature levels in turn. Ours are stacked by
level: layer L is row L // 3 of stack L % 3.
"""

import re
from collections.abc import Callable

from porting.tables import resnet, resnet_d2
from porting.tables.layers import dense, norm
from porting.tables.layouts import conv2d, fused_qkv, fused_qkv_bias, linear, pointwise
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

LEVELS = 3

_PIXEL = r"pixel_decoder\."
_ENCODER = _PIXEL + r"transformer\.encoder\.layers\.(\d+)\."
_PREDICTOR = r"predictor\."
_CROSS = _PREDICTOR + r"transformer_cross_attention_layers\.(\d+)\."
_SELF = _PREDICTOR + r"transformer_self_attention_layers\.(\d+)\."
_FFN = _PREDICTOR + r"transformer_ffn_layers\.(\d+)\."


def in_stack(rest: str) -> Callable[[re.Match], str]:
    """Target in our stacks; the first group of the pattern is the layer's number."""

    def target(match: re.Match) -> str:
        layer = int(match[1])
        return f"transformer_decoder.layers.{layer % LEVELS}.{rest}[{layer // LEVELS}]"

    return target


def stacked_norm(source: str, path: str) -> tuple[Rule, ...]:
    """Rules of a LayerNorm in a decoder layer."""
    return (
        Rule(source + r"\.weight", in_stack(path + ".scale")),
        Rule(source + r"\.bias", in_stack(path + ".bias")),
    )


def stacked_dense(source: str, path: str) -> tuple[Rule, ...]:
    """Rules of a linear layer in a decoder layer."""
    return (
        Rule(source + r"\.weight", in_stack(path + ".kernel"), linear),
        Rule(source + r"\.bias", in_stack(path + ".bias")),
    )


def fused_attention(source: str, path: str) -> tuple[Rule, ...]:
    """Rules of torch.nn.MultiheadAttention, with query, key and value in one matrix."""
    parts = path + ".{query,key,value}"
    return (
        Rule(source + r"\.in_proj_weight", in_stack(parts + ".kernel"), fused_qkv),
        Rule(source + r"\.in_proj_bias", in_stack(parts + ".bias"), fused_qkv_bias),
        *stacked_dense(source + r"\.out_proj", path + ".out"),
    )


PIXEL_DECODER = (
    *dense(_PIXEL + r"input_proj\.(\d)\.0", r"pixel_decoder.input_proj.\1.conv", pointwise),
    *norm(_PIXEL + r"input_proj\.(\d)\.1", r"pixel_decoder.input_proj.\1.norm"),
    Rule(_PIXEL + r"transformer\.level_embed", "pixel_decoder.level_embed"),
    *(
        rule
        for pattern, path in (
            (r"self_attn\.sampling_offsets", "sampling_offsets"),
            (r"self_attn\.attention_weights", "attention_weights"),
            (r"self_attn\.value_proj", "value_proj"),
            (r"self_attn\.output_proj", "output_proj"),
            ("linear1", "fc1"),
            ("linear2", "fc2"),
        )
        for rule in dense(_ENCODER + pattern, "pixel_decoder.layers." + path, at=r"[\1]")
    ),
    *norm(_ENCODER + "norm1", "pixel_decoder.layers.norm1", at=r"[\1]"),
    *norm(_ENCODER + "norm2", "pixel_decoder.layers.norm2", at=r"[\1]"),
    Rule(_PIXEL + r"adapter_1\.weight", "pixel_decoder.lateral.conv.kernel", pointwise),
    *norm(_PIXEL + r"adapter_1\.norm", "pixel_decoder.lateral.norm"),
    Rule(_PIXEL + r"layer_1\.weight", "pixel_decoder.output.conv.kernel", conv2d),
    *norm(_PIXEL + r"layer_1\.norm", "pixel_decoder.output.norm"),
    *dense(_PIXEL + "mask_features", "pixel_decoder.mask_features", pointwise),
)
PREDICTOR = (
    *fused_attention(_CROSS + "multihead_attn", "cross_attention"),
    *stacked_norm(_CROSS + "norm", "cross_norm"),
    *fused_attention(_SELF + "self_attn", "self_attention"),
    *stacked_norm(_SELF + "norm", "self_norm"),
    *stacked_dense(_FFN + "linear1", "fc1"),
    *stacked_dense(_FFN + "linear2", "fc2"),
    *stacked_norm(_FFN + "norm", "ffn_norm"),
    *norm(_PREDICTOR + "decoder_norm", "transformer_decoder.norm"),
    # the first releases call `query_feat` `static_query`
    Rule(_PREDICTOR + r"(?:query_feat|static_query)\.weight", "transformer_decoder.query_feat"),
    Rule(_PREDICTOR + r"query_embed\.weight", "transformer_decoder.query_embed"),
    Rule(_PREDICTOR + r"level_embed\.weight", "transformer_decoder.level_embed"),
    *dense(_PREDICTOR + r"mask_embed\.layers\.(\d)", r"transformer_decoder.mask_embed.\1"),
)
# The class head is one of three, see clouds_jax.nn.mask2former.class_heads.
_CLASSES = "transformer_decoder.class_embed"
_POOLING = (
    *norm(_PREDICTOR + r"_mask_pooling_proj\.0", _CLASSES + ".pooling.norm"),
    *dense(_PREDICTOR + r"_mask_pooling_proj\.1", _CLASSES + ".pooling.proj"),
)
_LINEAR = dense(_PREDICTOR + "class_embed", _CLASSES)
_POOLED = (*_POOLING, *dense(_PREDICTOR + "class_embed", _CLASSES + ".linear"))
_TEXT = (
    *_POOLING,
    *dense(_PREDICTOR + r"class_embed\.layers\.(\d)", _CLASSES + r".mlp.\1"),
    Rule(_PREDICTOR + "logit_scale", _CLASSES + ".logit_scale"),
)


def _head(classes: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return prefixed((*PIXEL_DECODER, *PREDICTOR, *classes), r"sem_seg_head\.", "head.")


HEAD = _head(_LINEAR)
POOLED_HEAD = _head(_POOLED)
TEXT_HEAD = (
    *_head(_TEXT),
    Rule(r"void_embedding\.weight", f"head.{_CLASSES}.void_embedding"),
)
CRITERION = Rule(
    r"criterion\.empty_weight", None, why="the class weights of the loss come from the config"
)

TABLE = Table(
    name="mask2former_d2",
    rules=(
        *HEAD,
        CRITERION,
        *prefixed(resnet_d2.TRUNK, r"backbone\.", "encoder."),
        Rule(
            r"backbone\.(patch_embed|layers|norm\d)\..*",
            None,
            why="Swin Transformers are no encoders of ours",
        ),
    ),
    encoders=resnet.ENCODERS,
    source="Mask2Former model zoo, .pkl or .pth: the head, and the trunk if it is a ResNet",
    licence="see the model zoo (CC-BY-NC 4.0)",
)
