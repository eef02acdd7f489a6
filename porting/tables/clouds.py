"""CLOUDS' own checkpoints: the frozen CLIP, the head, and buffers of training.

One family per class head: `clouds` has the linear one of every released config, `clouds_text` and
`clouds_pooled` those of the other two decoders. A file without CLIP (`backbone.*`) converts to a
head alone; `convert --clip FILE` takes encoder and text tower from a second file of the families
open_clip_convnext or open_clip_resnet.

The class matrix of the text head is in no file: `python -m clouds_jax.text` computes it.
"""

from porting.tables import mask2former_d2, open_clip_convnext, open_clip_resnet, open_clip_text
from porting.tables.convnext import CLIP_ENCODERS
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_VOID = Rule(
    r"void_embedding\.weight",
    None,
    why="belongs to the text classifier; the other ones do not read it",
)
_PREFIX = r"backbone\.clip_model\."

# CLIP under the names of CLOUDS and FC-CLIP
CLIP = (
    *prefixed((*open_clip_convnext.VISUAL, *open_clip_resnet.VISUAL), _PREFIX, "encoder."),
    *prefixed((*open_clip_text.TEXT, open_clip_text.NUMBERS), _PREFIX, ""),
)
CLIP_PREFIX = "backbone.clip_model."
ENCODERS = (*CLIP_ENCODERS, *open_clip_resnet.CLIP_ENCODERS)


def _table(name: str, rules: tuple[Rule, ...], classes: str) -> Table:
    return Table(
        name=name,
        rules=(*CLIP, *rules, mask2former_d2.CRITERION),
        encoders=ENCODERS,
        clip_prefix=CLIP_PREFIX,
        source=f"CLOUDS (CVPR 2024), Detectron2 .pth with the {classes} class head",
        licence="not stated by its authors; the CLIP part is MIT",
    )


TABLE = _table("clouds", (*mask2former_d2.HEAD, _VOID), "linear")
TEXT_TABLE = _table("clouds_text", mask2former_d2.TEXT_HEAD, "text")
POOLED_TABLE = _table("clouds_pooled", (*mask2former_d2.POOLED_HEAD, _VOID), "pooled")
