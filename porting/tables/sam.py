"""Whole files of SAM: an image encoder, the prompt encoder and the mask decoder.

The depth of a ViT decides which of its blocks have global attention, so every size has a table. The
numbers stand here and not in an import, since `clouds_jax.nn.sam.vit` would load JAX; a test keeps
both equal.
"""

import re
from collections.abc import Callable

from porting.tables.layers import batch_norm, dense, norm
from porting.tables.layouts import (
    Layout,
    conv2d,
    depthwise,
    fused_qkv,
    fused_qkv_bias,
    identity,
    linear,
    pointwise,
    single,
)
from porting.tables.rules import Rule, prefixed
from porting.tables.sam_decoder import DECODER
from porting.tables.table import Table

GROUPS = 4  # of blocks in a ViT; the last block of each has global attention
DEPTHS = {"b": 12, "l": 24, "h": 32}  # of ViT-B, ViT-L and ViT-H

_CLASSIFIER = "TinyViT's ImageNet classifier takes no part in SAM"
_NORMS = {"weight": "scale", "bias": "bias"}
_NECK = (
    Rule(r"neck\.0\.weight", "neck.conv1.kernel", pointwise),
    *norm(r"neck\.1", "neck.norm1"),
    Rule(r"neck\.2\.weight", "neck.conv2.kernel", conv2d),
    *norm(r"neck\.3", "neck.norm2"),
)


def _vit(depth: int) -> tuple[Rule, ...]:
    """Rules of a ViT with `depth` blocks."""
    group = depth // GROUPS
    # a block beyond the depth has no rule, so that a file of another size does not fit
    block = rf"blocks\.({'|'.join(map(str, range(depth)))})\."

    def to(path: str) -> Callable[[re.Match], str]:
        def target(match: re.Match) -> str:
            g, j = divmod(int(match[1]), group)
            if j == group - 1:
                return f"globals.{path}[{g}]"
            return f"windows.{path}[{g * (group - 1) + j}]"

        return target

    def layer(pattern: str, path: str, weight: Layout, bias: Layout) -> tuple[Rule, ...]:
        return (
            Rule(block + pattern + r"\.weight", to(path + ".kernel"), weight),
            Rule(block + pattern + r"\.bias", to(path + ".bias"), bias),
        )

    return (
        *dense(r"patch_embed\.proj", "patch", conv2d),
        Rule("pos_embed", "position", single),
        *layer(r"attn\.qkv", "attention.{query,key,value}", fused_qkv, fused_qkv_bias),
        *layer(r"attn\.proj", "attention.out", linear, identity),
        Rule(block + r"attn\.rel_pos_h", to("attention.rows")),
        Rule(block + r"attn\.rel_pos_w", to("attention.columns")),
        *layer(r"mlp\.lin1", "fc1", linear, identity),
        *layer(r"mlp\.lin2", "fc2", linear, identity),
        *(
            Rule(block + rf"norm{n}\.{pattern}", to(f"norm{n}.{path}"))
            for n in (1, 2)
            for pattern, path in _NORMS.items()
        ),
        *_NECK,
    )


def _conv_norm(pattern: str, path: str, layout: Layout, at: str = "") -> tuple[Rule, ...]:
    """Rules of a convolution and its batch norm."""
    return (
        Rule(pattern + r"\.c\.weight", f"{path}.conv.kernel{at}", layout),
        *batch_norm(pattern + r"\.bn", lambda part: f"{path}.bn.{part}{at}"),
    )


_FIRST = r"layers\.(0)\.blocks\.(\d)\."
_BLOCK = r"layers\.([1-3])\.blocks\.(\d)\."
_BETWEEN = r"layers\.(\d)\.downsample\."
_AT = r"[\2]"
_OURS = r"stages.\1.blocks."
_TINY_VIT = (
    *_conv_norm(r"patch_embed\.seq\.0", "patch.0", conv2d),
    *_conv_norm(r"patch_embed\.seq\.2", "patch.1", conv2d),
    *_conv_norm(_FIRST + "conv([13])", _OURS + r"conv\3", pointwise, _AT),
    *_conv_norm(_FIRST + "conv2", _OURS + "conv2", depthwise, _AT),
    *_conv_norm(_BETWEEN + "conv([13])", r"stages.\1.merging.conv\2", pointwise),
    *_conv_norm(_BETWEEN + "conv2", r"stages.\1.merging.conv2", depthwise),
    *norm(_BLOCK + r"attn\.norm", _OURS + "attention.norm", _AT),
    *dense(_BLOCK + r"attn\.qkv", _OURS + "attention.qkv", at=_AT),
    *dense(_BLOCK + r"attn\.proj", _OURS + "attention.out", at=_AT),
    Rule(_BLOCK + r"attn\.attention_biases", _OURS + "attention.biases" + _AT),
    *_conv_norm(_BLOCK + "local_conv", _OURS + "local", depthwise, _AT),
    *norm(_BLOCK + r"mlp\.norm", _OURS + "norm", _AT),
    *dense(_BLOCK + r"mlp\.fc([12])", _OURS + r"fc\3", at=_AT),
    Rule(r"(norm_head|head)\.(weight|bias)", None, why=_CLASSIFIER),
    *_NECK,
)


def _table(
    name: str, encoder: tuple[Rule, ...], models: tuple[str, ...], source: str, licence: str
) -> Table:
    rules = (*prefixed(encoder, r"image_encoder\.", "sam.image_encoder."), *DECODER)
    return Table(name=name, rules=rules, encoders=models, source=source, licence=licence)


def _vit_table(size: str, *more: str) -> Table:
    return _table(
        f"sam_vit_{size}",
        _vit(DEPTHS[size]),
        (f"sam_vit_{size}", *more),
        "segment_anything's sam_vit_*.pth",
        "Apache-2.0",
    )


TABLES = (
    _vit_table("b", "sam_debug"),
    _vit_table("l", "sam_debug_l"),
    _vit_table("h", "sam_debug_h"),
    _table(
        "sam_tiny_vit",
        _TINY_VIT,
        ("mobile_sam", "medsam_lite", "mobile_sam_debug", "medsam_lite_debug"),
        "MobileSAM's mobile_sam.pt, LiteMedSAM's lite_medsam.pth",
        "Apache-2.0",
    ),
)
