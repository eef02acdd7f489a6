"""CLIP's RN50 and RN101 under the names of OpenAI and open_clip: visual and text tower.

OpenAI's archives hold float16 kernels, and three integers beside the weights.
"""

from porting.tables import resnet
from porting.tables.layers import dense
from porting.tables.layouts import conv2d
from porting.tables.open_clip_text import NUMBERS, TEXT
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table
from porting.tables.torchvision_resnet import STAGES

CLIP_ENCODERS = ("clip_resnet50", "clip_resnet101", "clip_resnet_debug")
_POOL = r"attnpool\."

VISUAL = prefixed(
    (
        *(
            rule
            for i in (1, 2, 3)
            for rule in resnet.conv_norm(f"conv{i}", f"bn{i}", f"stem.conv{i}.{{}}".format, conv2d)
        ),
        *STAGES,
        Rule(_POOL + "positional_embedding", "attention_pool.position"),
        *dense(_POOL + "q_proj", "attention_pool.query"),
        *dense(_POOL + "k_proj", "attention_pool.key"),
        *dense(_POOL + "v_proj", "attention_pool.value"),
        *dense(_POOL + "c_proj", "attention_pool.out"),
    ),
    r"visual\.",
    "",
)

TABLE = Table(
    name="open_clip_resnet",
    rules=(*prefixed(VISUAL, "", "encoder."), *TEXT, NUMBERS),
    encoders=CLIP_ENCODERS,
    source="OpenAI CLIP RN50.pt and RN101.pt, or open_clip RN50 and RN101",
    licence="MIT (OpenAI)",
)
