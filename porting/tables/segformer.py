"""SegFormer's encoder under three sets of names.

`segformer_hf`: the files of Hugging Face, whose names transformers 5 changes in memory; LayerNorm
epsilon 1e-5. `segformer`: the original (NVlabs), with keys and values in one linear layer and
epsilon 1e-6 in blocks and stages, hence separate encoders.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from porting.tables.layouts import Layout, conv2d, depthwise, fused_kv, fused_kv_bias, linear
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

SIZES = ("b0", "b1", "b2", "b3", "b4", "b5", "debug")
_HEAD = "the decode head and the classifier of SegFormer are no part of the encoder"


@dataclasses.dataclass(frozen=True)
class _Names:
    """Names of the parts in one kind of file; patterns whose first group is the stage.

    Attributes:
        first: number of the first stage.
        embed: patch embedding.
        embed_norm: norm in the patch embedding, after `embed`.
        block: a block; the second group is its number.
        norm: norm of a stage's output.
        norm1, norm2: norms of a block, after `block`.
        attention: our name -> name after `block`, for each linear layer of the attention.
        reduce_conv, reduce_norm: sequence reduction, after `block`.
        fc1, fc2: linear layers of the MLP, after `block`.
    """

    first: int
    embed: str
    embed_norm: str
    block: str
    norm: str
    norm1: str
    norm2: str
    attention: Mapping[str, str]
    reduce_conv: str
    reduce_norm: str
    fc1: str
    fc2: str


_HUB = _Names(
    first=0,
    embed=r"encoder\.patch_embeddings\.(\d)\.",
    embed_norm="layer_norm",
    block=r"encoder\.block\.(\d)\.(\d+)\.",
    norm=r"encoder\.layer_norm\.(\d)",
    norm1="layer_norm_1",
    norm2="layer_norm_2",
    attention={
        "query": r"attention\.self\.query",
        "key": r"attention\.self\.key",
        "value": r"attention\.self\.value",
        "out": r"attention\.output\.dense",
    },
    reduce_conv=r"attention\.self\.sr",
    reduce_norm=r"attention\.self\.layer_norm",
    fc1=r"mlp\.dense1",
    fc2=r"mlp\.dense2",
)
_IN_MEMORY = _Names(
    first=0,
    embed=r"stages\.(\d)\.patch_embeddings\.",
    embed_norm="layer_norm",
    block=r"stages\.(\d)\.blocks\.(\d+)\.",
    norm=r"stages\.(\d)\.layer_norm",
    norm1="layernorm_before",
    norm2="layernorm_after",
    attention={
        "query": r"attention\.q_proj",
        "key": r"attention\.k_proj",
        "value": r"attention\.v_proj",
        "out": r"attention\.o_proj",
    },
    reduce_conv=r"attention\.sequence_reduction\.sequence_reduction",
    reduce_norm=r"attention\.sequence_reduction\.layer_norm",
    fc1=r"mlp\.fc1",
    fc2=r"mlp\.fc2",
)
_ORIGINAL = _Names(
    first=1,
    embed=r"patch_embed(\d)\.",
    embed_norm="norm",
    block=r"block(\d)\.(\d+)\.",
    norm=r"norm(\d)",
    norm1="norm1",
    norm2="norm2",
    attention={"query": r"attn\.q", "{key,value}": r"attn\.kv", "out": r"attn\.proj"},
    reduce_conv=r"attn\.sr",
    reduce_norm=r"attn\.norm",
    fc1=r"mlp\.fc1",
    fc2=r"mlp\.fc2",
)


def _encoder(names: _Names) -> tuple[Rule, ...]:
    def target(path: str) -> Callable[[re.Match], str]:
        def of(match: re.Match) -> str:
            row = f"[{match[2]}]" if match.re.groups == 2 else ""
            return f"stages.{int(match[1]) - names.first}.{path}{row}"

        return of

    def layer(
        pattern: str, path: str, layout: Layout = linear, bias: Layout | None = None
    ) -> tuple[Rule, ...]:
        more: dict[str, Any] = {} if bias is None else dict(layout=bias)
        return (
            Rule(pattern + r"\.weight", target(path + ".kernel"), layout),
            Rule(pattern + r"\.bias", target(path + ".bias"), **more),
        )

    def norm(pattern: str, path: str) -> tuple[Rule, ...]:
        return (
            Rule(pattern + r"\.weight", target(path + ".scale")),
            Rule(pattern + r"\.bias", target(path + ".bias")),
        )

    block = names.block
    attention = [
        rule
        for path, pattern in names.attention.items()
        for rule in (
            layer(block + pattern, f"blocks.attention.{path}", fused_kv, fused_kv_bias)
            if "{" in path
            else layer(block + pattern, f"blocks.attention.{path}")
        )
    ]
    return (
        *layer(names.embed + "proj", "embed.conv", conv2d),
        *norm(names.embed + names.embed_norm, "embed.norm"),
        *norm(block + names.norm1, "blocks.norm1"),
        *attention,
        *layer(block + names.reduce_conv, "blocks.attention.reduce.conv", conv2d),
        *norm(block + names.reduce_norm, "blocks.attention.reduce.norm"),
        *norm(block + names.norm2, "blocks.norm2"),
        *layer(block + names.fc1, "blocks.fc1"),
        *layer(block + r"mlp\.dwconv\.dwconv", "blocks.conv_dw", depthwise),
        *layer(block + names.fc2, "blocks.fc2"),
        *norm(names.norm, "norm"),
    )


HF_TABLE = Table(
    name="segformer_hf",
    rules=(
        *prefixed((*_encoder(_HUB), *_encoder(_IN_MEMORY)), r"(?:segformer\.)?", "encoder."),
        Rule(r"(decode_head|classifier)\..*", None, why=_HEAD),
    ),
    encoders=tuple(f"mit_{size}" for size in SIZES),
    source="Hugging Face SegformerForImageClassification or SegformerForSemanticSegmentation",
    licence="NVIDIA Source Code License for SegFormer (not for commercial use)",
)
TABLE = Table(
    name="segformer",
    rules=(
        # the ImageNet files have no prefix, the trained segmenters have `backbone.`
        *prefixed(_encoder(_ORIGINAL), r"(?:backbone\.)?", "encoder."),
        Rule(r"(decode_head|head)\..*", None, why=_HEAD),
    ),
    encoders=tuple(f"mit_{size}_nvlabs" for size in SIZES),
    source="NVlabs' SegFormer: mit_b*.pth (ImageNet) or segformer.b*.pth",
    licence="NVIDIA Source Code License for SegFormer (not for commercial use)",
)
