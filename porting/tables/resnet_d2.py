"""ResNet backbones for Detectron2: two families, because the files are of two models.

`resnet_d2` is torchvision's model under Detectron2's names (`ImageNetPretrained/torchvision/*.pkl`,
`tools/convert-torchvision-to-d2.py`): RGB, stride in the 3x3 convolution. All ResNets of
Mask2Former's zoo start from these.

`resnet_msra` is MSRA's model under Caffe2's names (`ImageNetPretrained/MSRA/*.pkl`): BGR without
division by a standard deviation, stride in the first 1x1 convolution.
"""

from porting.tables import resnet
from porting.tables.layouts import conv2d_bgr
from porting.tables.rules import Rule, prefixed
from porting.tables.table import Table

_PARTS = {part: (part, rf"{part}\.norm") for part in ("conv1", "conv2", "conv3", "shortcut")}
TRUNK = (
    *resnet.stem(r"stem\.conv1", r"stem\.conv1\.norm"),
    *resnet.stages(r"res(\d)\.(\d+)\.", 2, _PARTS),
)
RULES = (*TRUNK, Rule(r"stem\.fc\..*", None, why=resnet.CLASSIFIER))

_CAFFE2 = dict(
    kernel="_w",
    endings={"scale": "_gamma", "bias": "_beta", "mean": "_running_mean", "var": "_running_var"},
)
_BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
MSRA_RULES = (
    *resnet.stem("conv1", "res_conv1_bn", conv2d_bgr, **_CAFFE2),
    *resnet.stages(
        r"res(\d)_(\d+)_",
        2,
        {part: (branch, f"{branch}_bn") for part, branch in _BRANCHES.items()},
        **_CAFFE2,
    ),
    Rule("conv1_b", None, why="Detectron2 does not read it: its first convolution has no bias"),
    Rule(r"(fc1000|pred)_[wb]", None, why=resnet.CLASSIFIER),
)

TABLE = Table(
    name="resnet_d2",
    rules=prefixed(RULES, "", "encoder."),
    encoders=resnet.ENCODERS,
    source="Detectron2 ImageNetPretrained/torchvision/R-50.pkl and R-101.pkl",
    licence="BSD-3-Clause (torchvision's weights)",
)
MSRA_TABLE = Table(
    name="resnet_msra",
    rules=prefixed(MSRA_RULES, "", "encoder."),
    encoders=("resnet50_msra", "resnet101_msra", "resnet_msra_debug"),
    source="Detectron2 ImageNetPretrained/MSRA/R-50.pkl and R-101.pkl",
    licence="CC-BY-SA 3.0 (Detectron2 model zoo)",
)
