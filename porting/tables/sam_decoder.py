"""SAM's prompt encoder and mask decoder under the names of segment_anything.

All SAMs have the same two parts: the tables of whole files include `DECODER`. MobileSAMv2 stores
them in a separate file, as two state dicts.
"""

from porting.tables.layers import dense, norm
from porting.tables.layouts import conv2d, conv_transpose, pointwise, single
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_ATTENTIONS = {
    r"layers\.(\d)\.self_attn": r"layers.\1.self_attention",
    r"layers\.(\d)\.cross_attn_token_to_image": r"layers.\1.token_to_image",
    r"layers\.(\d)\.cross_attn_image_to_token": r"layers.\1.image_to_token",
    "final_attn_token_to_image": "final_attention",
}
_PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
_SHRINK = r"mask_downscaling\."
_GROW = r"output_upscaling\."

_PROMPT_ENCODER = (
    Rule(r"pe_layer\.positional_encoding_gaussian_matrix", "frequencies"),
    Rule(r"point_embeddings\.(\d)\.weight", r"points[\1]", single),
    Rule(r"not_a_point_embed\.weight", "not_a_point", single),
    Rule(r"no_mask_embed\.weight", "no_mask", single),
    *dense(_SHRINK + "0", "mask.conv1", conv2d),
    *norm(_SHRINK + "1", "mask.norm1"),
    *dense(_SHRINK + "3", "mask.conv2", conv2d),
    *norm(_SHRINK + "4", "mask.norm2"),
    *dense(_SHRINK + "6", "mask.out", pointwise),
)
_TRANSFORMER = (
    *(
        rule
        for pattern, path in _ATTENTIONS.items()
        for end, name in _PROJECTIONS.items()
        for rule in dense(rf"{pattern}\.{end}", f"{path}.{name}")
    ),
    *dense(r"layers\.(\d)\.mlp\.lin([12])", r"layers.\1.fc\2"),
    *norm(r"layers\.(\d)\.norm([1-4])", r"layers.\1.norm\2"),
    *norm("norm_final_attn", "final_norm"),
)
_MASK_DECODER = (
    *prefixed(_TRANSFORMER, r"transformer\.", ""),
    Rule(r"iou_token\.weight", "iou_token"),
    Rule(r"mask_tokens\.weight", "mask_tokens"),
    *dense(_GROW + "0", "upscale1", conv_transpose),
    *norm(_GROW + "1", "upscale_norm"),
    *dense(_GROW + "3", "upscale2", conv_transpose),
    *dense(r"output_hypernetworks_mlps\.(\d)\.layers\.(\d)", r"mask_maps.\1.\2"),
    *dense(r"iou_prediction_head\.layers\.(\d)", r"iou_head.\1"),
)

_SAM_HQ = Rule(
    r"mask_decoder\."
    r"(?:hf_token|hf_mlp|compress_vit_feat|embedding_encoder|embedding_maskfeature)\..*",
    None,
    why="SAM-HQ's own layers, which no model here has; to convert the SAM that they were added to:"
    " --drop 'hf_|compress_vit_feat|embedding_(encoder|maskfeature)'",
    refused=True,
)

DECODER = prefixed(
    (
        # the second names are MobileSAMv2's
        *prefixed(_PROMPT_ENCODER, r"(?:prompt_encoder|PromtEncoder)\.", "prompt_encoder."),
        *prefixed(_MASK_DECODER, r"(?:mask_decoder|MaskDecoder)\.", "mask_decoder."),
        _SAM_HQ,
    ),
    "",
    "sam.",
)

TABLE = Table(
    name="sam_decoder",
    rules=DECODER,
    source="a part of segment_anything's files, or MobileSAMv2's Prompt_guided_Mask_Decoder.pt",
    licence="Apache-2.0",
)
