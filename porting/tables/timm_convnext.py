"""ConvNeXt models of timm, of its authors and of mmsegmentation; two families, as `head` means two
things.

In ImageNet models it is the classifier, which is dropped. In CLIP models (`convnext_*.clip_laion*`
without fine-tuning) it is the visual head, whose last layer has a bias of zeros in timm.
"""

from porting.tables.convnext import AUTHORS_TRUNK, CLIP_ENCODERS, IMAGENET, NORMED, TRUNK
from porting.tables.layers import dense, norm
from porting.tables.layouts import linear
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_CLASSIFIER = "the norm and classifier of ImageNet come after the last feature"
_DECODER = "the decode heads of mmsegmentation are no part of the encoder"

RULES = (
    *prefixed((*TRUNK, *AUTHORS_TRUNK), r"(?:backbone\.)?", "encoder."),
    Rule(r"(?:head|norm_pre|norm)\..*", None, why=_CLASSIFIER),
    # mmpretrain's last norm is that of the fourth stage
    Rule(r"backbone\.norm3\..*", None, why=_CLASSIFIER, when=r"head\.fc\.weight"),
    Rule(r"(?:decode_head|auxiliary_head)\..*", None, why=_DECODER),
)

CLIP_RULES = (
    *TRUNK,
    *norm(r"head\.norm", "visual_head.norm"),
    *dense(r"head\.pre_logits\.fc", "visual_head.fc1"),
    Rule(r"head\.fc\.weight", "visual_head.fc2.kernel", linear),
    Rule(r"head\.fc\.bias", None, why="CLIP's projection has no bias", value=0.0),
)

TABLE = Table(
    name="timm_convnext",
    rules=RULES,
    encoders=(*IMAGENET, *NORMED, "convnext_in22k_debug", "convnext_in22k_debug_normed"),
    source="timm convnext_* with an ImageNet classifier: model.safetensors; the authors'"
    " convnext_*.pth; mmsegmentation's, mmpretrain's",
    licence="see the model card of the file (Apache-2.0, MIT or CC-BY-NC 4.0)",
)
CLIP_TABLE = Table(
    name="timm_clip_convnext",
    rules=prefixed(CLIP_RULES, "", "encoder."),
    encoders=CLIP_ENCODERS,
    source="timm convnext_*.clip_laion*: model.safetensors",
    licence="MIT for LAION's weights; see the model card of the file",
)
