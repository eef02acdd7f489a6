"""The text tower of CLIP models under the names of open_clip and OpenAI.

`TEXT` is part of every table whose files hold a whole CLIP, so that one conversion gives encoder
and tower, and the inverse gives a complete file. The family `open_clip_text` converts the tower
alone.
"""

from porting.tables.layers import dense, norm
from porting.tables.layouts import fused_qkv, fused_qkv_bias
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_BLOCK = r"transformer\.resblocks\.(\d+)\."
_AT = r"[\1]"
_ATTENTION = "blocks.attention.{query,key,value}"

# Models with `custom_text` hold the tower in a submodule, except for the scale.
_TOWER = (
    Rule(r"token_embedding\.weight", "token_embedding"),
    Rule("positional_embedding", "position"),
    *norm(_BLOCK + "ln_1", "blocks.norm1", at=_AT),
    Rule(_BLOCK + r"attn\.in_proj_weight", _ATTENTION + ".kernel" + _AT, fused_qkv),
    Rule(_BLOCK + r"attn\.in_proj_bias", _ATTENTION + ".bias" + _AT, fused_qkv_bias),
    *dense(_BLOCK + r"attn\.out_proj", "blocks.attention.out", at=_AT),
    *norm(_BLOCK + "ln_2", "blocks.norm2", at=_AT),
    *dense(_BLOCK + r"mlp\.c_fc", "blocks.fc1", at=_AT),
    *dense(_BLOCK + r"mlp\.c_proj", "blocks.fc2", at=_AT),
    *norm("ln_final", "norm"),
    # applied as x @ W, so not transposed
    Rule("text_projection", "projection"),
    Rule("attn_mask", None, why="the causal mask is made, not learned"),
)
TEXT = prefixed(
    (*prefixed(_TOWER, r"(?:text\.)?", ""), Rule("logit_scale", "logit_scale")), "", "text."
)
# Archives of OpenAI hold three integers beside the weights.
NUMBERS = Rule(
    "input_resolution|context_length|vocab_size",
    None,
    why="they follow from the shapes",
)

TABLE = Table(
    name="open_clip_text",
    rules=(
        *TEXT,
        NUMBERS,
        Rule(r"visual\..*", None, why="the visual tower has a family of its own"),
    ),
    source="open_clip or OpenAI CLIP, any file with the text tower",
    licence="MIT for LAION's and OpenAI's weights; see the model card of the file",
)
