"""open_clip's ConvNeXt models: the visual and the text tower."""

from porting.tables.convnext import CLIP_ENCODERS, TRUNK
from porting.tables.layers import dense, norm
from porting.tables.layouts import linear
from porting.tables.open_clip_text import TEXT
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

VISUAL = (
    *prefixed(TRUNK, r"visual\.trunk\.", ""),
    *norm(r"visual\.trunk\.head\.norm", "visual_head.norm"),
    # two linear layers (models with `mlp` projection), or one (`linear`)
    *dense(r"visual\.head\.mlp\.fc1", "visual_head.fc1"),
    Rule(r"visual\.head\.(?:mlp\.fc2|proj)\.weight", "visual_head.fc2.kernel", linear),
)

TABLE = Table(
    name="open_clip_convnext",
    rules=(*prefixed(VISUAL, "", "encoder."), *TEXT),
    encoders=CLIP_ENCODERS,
    source="open_clip: open_clip_model.safetensors or open_clip_pytorch_model.bin",
    licence="MIT for LAION's weights; see the model card of the file",
)
