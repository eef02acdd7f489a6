"""CLOUDS' own checkpoints: the frozen CLIP, the head, and buffers of the training.

A file without the CLIP weights (`backbone.*`) converts to a head alone.
"""

from porting.rules import Rule, prefixed
from porting.tables import mask2former_d2, open_clip_convnext, open_clip_resnet
from porting.tables.convnext import CLIP_ENCODERS
from porting.tables.table import Table

_VOID = "belongs to the text classifier; the linear one does not read it"

TABLE = Table(
    name="clouds",
    rules=(
        *prefixed(
            (*open_clip_convnext.RULES, *open_clip_resnet.VISUAL),
            r"backbone\.clip_model\.",
            "encoder.",
        ),
        *mask2former_d2.HEAD,
        mask2former_d2.CRITERION,
        Rule(r"void_embedding\.weight", None, why=_VOID),
    ),
    encoders=(*CLIP_ENCODERS, *open_clip_resnet.CLIP_ENCODERS),
    clip_prefix="backbone.clip_model.",
    source="CLOUDS (CVPR 2024), Detectron2 .pth with the linear class head",
    licence="not stated by its authors; the CLIP part is MIT",
)
