"""Lets torchvision be imported where its compiled operators do not fit the installed torch.

torchvision is bound to one build of torch. On a CPU machine its wheel may load no operators, and
then its import fails where it declares shapes for `torchvision::nms`. open_clip, timm and
segment_anything import torchvision for image transforms only, so declaring the two operators
without giving them a body is enough.
"""

import importlib
import sys

_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list = []  # torch forgets what it was told when the library object goes


def prepare() -> None:
    """Imports torchvision, with declared operators if it needs them."""
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
