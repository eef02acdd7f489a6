"""Makes torchvision importable where its compiled operators do not fit the installed torch.

torchvision is bound to one build of torch. On a CPU machine its wheel may load no operators, and
then its import fails where it registers shapes for `torchvision::nms`. open_clip, timm and
segment_anything import torchvision for image transforms only, so it suffices to declare the two
operators without an implementation.
"""

import importlib
import sys

_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list = []  # torch drops the declarations when the library object is deleted


def prepare() -> None:
    """Imports torchvision; declares its operators first where they are missing."""
    if "torchvision" in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name, schema in _OPERATORS.items():
            library.define(name + schema)
        _libraries.append(library)
        importlib.import_module("torchvision")
