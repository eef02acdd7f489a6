"""Mask2Former under the names of Hugging Face's Mask2FormerForUniversalSegmentation.

A file with a ConvNeXt or a ResNet converts to encoder and head, one with a Swin Transformer to a
head alone.
"""

import dataclasses

from porting.tables import convnext_hf, resnet, resnet_hf
from porting.tables.layers import dense, norm
from porting.tables.layouts import conv2d, pointwise
from porting.tables.mask2former_d2 import CRITERION, fused_attention, stacked_dense, stacked_norm
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_PIXEL = r"model\.pixel_level_module\.decoder\."
_ENCODER = _PIXEL + r"encoder\.layers\.(\d+)\."
_DECODER = r"model\.transformer_module\.decoder\."
_LAYER = _DECODER + r"layers\.(\d+)\."

PIXEL_DECODER = (
    *dense(_PIXEL + r"input_projections\.(\d)\.0", r"pixel_decoder.input_proj.\1.conv", pointwise),
    *norm(_PIXEL + r"input_projections\.(\d)\.1", r"pixel_decoder.input_proj.\1.norm"),
    Rule(_PIXEL + "level_embed", "pixel_decoder.level_embed"),
    *(
        rule
        for pattern, path in (
            (r"self_attn\.sampling_offsets", "sampling_offsets"),
            (r"self_attn\.attention_weights", "attention_weights"),
            (r"self_attn\.value_proj", "value_proj"),
            (r"self_attn\.output_proj", "output_proj"),
            ("fc1", "fc1"),
            ("fc2", "fc2"),
        )
        for rule in dense(_ENCODER + pattern, "pixel_decoder.layers." + path, at=r"[\1]")
    ),
    *norm(_ENCODER + "self_attn_layer_norm", "pixel_decoder.layers.norm1", at=r"[\1]"),
    *norm(_ENCODER + "final_layer_norm", "pixel_decoder.layers.norm2", at=r"[\1]"),
    Rule(_PIXEL + r"adapter_1\.0\.weight", "pixel_decoder.lateral.conv.kernel", pointwise),
    *norm(_PIXEL + r"adapter_1\.1", "pixel_decoder.lateral.norm"),
    Rule(_PIXEL + r"layer_1\.0\.weight", "pixel_decoder.output.conv.kernel", conv2d),
    *norm(_PIXEL + r"layer_1\.1", "pixel_decoder.output.norm"),
    *dense(_PIXEL + "mask_projection", "pixel_decoder.mask_features", pointwise),
)
DECODER = (
    # the cross-attention is torch's and fused, the self-attention Hugging Face's own
    *fused_attention(_LAYER + "cross_attn", "cross_attention"),
    *stacked_norm(_LAYER + "cross_attn_layer_norm", "cross_norm"),
    *(
        rule
        for pattern, path in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out"))
        for rule in stacked_dense(_LAYER + rf"self_attn\.{pattern}_proj", f"self_attention.{path}")
    ),
    *stacked_norm(_LAYER + "self_attn_layer_norm", "self_norm"),
    *stacked_dense(_LAYER + "fc1", "fc1"),
    *stacked_dense(_LAYER + "fc2", "fc2"),
    *stacked_norm(_LAYER + "final_layer_norm", "ffn_norm"),
    *norm(_DECODER + "layernorm", "transformer_decoder.norm"),
    Rule(r"model\.transformer_module\.queries_features\.weight", "transformer_decoder.query_feat"),
    Rule(r"model\.transformer_module\.queries_embedder\.weight", "transformer_decoder.query_embed"),
    Rule(r"model\.transformer_module\.level_embed\.weight", "transformer_decoder.level_embed"),
    *dense("class_predictor", "transformer_decoder.class_embed"),
    *dense(
        _DECODER + r"mask_predictor\.mask_embedder\.(\d)\.0", r"transformer_decoder.mask_embed.\1"
    ),
)

# The features of a ConvNeXt and of a Swin Transformer have norms under the same names.
_TRUNK = r"model\.pixel_level_module\.encoder\."
_IN_CONVNEXT = _TRUNK + r"embeddings\.layernorm\.weight"
_IN_SWIN = _TRUNK + r"(?:swin\.)?embeddings\.patch_embeddings\.projection\.weight"
_SWIN = "Swin Transformers are no encoders of ours"
ENCODER = (
    *prefixed((*convnext_hf.TRUNK, *resnet_hf.TRUNK), _TRUNK, "encoder."),
    *(
        dataclasses.replace(rule, when=_IN_CONVNEXT)
        for rule in prefixed(convnext_hf.FEATURE_NORMS, _TRUNK, "encoder.")
    ),
    Rule(
        _TRUNK
        + r"(?:swin\.|embeddings\.patch_embeddings\.projection\.|embeddings\.norm\.|"
        + r"encoder\.layers\.).*",
        None,
        why=_SWIN,
    ),
    Rule(_TRUNK + r"hidden_states_norms\..*", None, why=_SWIN, when=_IN_SWIN),
)

TABLE = Table(
    name="mask2former_hf",
    rules=(*prefixed((*PIXEL_DECODER, *DECODER), "", "head."), CRITERION, *ENCODER),
    encoders=(*convnext_hf.NORMED, "convnext_in22k_debug_normed", *resnet.ENCODERS),
    source="Hugging Face Mask2FormerForUniversalSegmentation: model.safetensors or a folder",
    licence="see the model card of the file",
)
