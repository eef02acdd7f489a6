"""Detectron2's ResNet in plain PyTorch, under its names and under those of MSRA's files.

Detectron2 is not on PyPI, so its ResNet is written out here; the tests compare it with
torchvision's and Hugging Face's.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clouds_jax.nn.encoders.resnet import SIZES, ResNetSize
from porting.reference.encoders import Reference
from porting.reference.resnets import resnet_steps


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm without a counter of batches, and with `Module`'s strict loading."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        nn.Module._load_from_state_dict(self, *args, **kwargs)


class Conv2d(nn.Conv2d):
    """A convolution with the norm after it, as a submodule."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = FrozenBatchNorm2d(outputs)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(input))


class BasicStem(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.conv1 = Conv2d(3, outputs, 7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class BottleneckBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, stride_in_1x1: bool):
        super().__init__()
        outputs = 4 * width
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = None if inputs == outputs else Conv2d(inputs, outputs, 1, stride)
        self.conv1 = Conv2d(inputs, width, 1, first)
        self.conv2 = Conv2d(width, width, 3, second)
        self.conv3 = Conv2d(width, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """Detectron2's ResNet backbone, under its names."""

    def __init__(self, size: ResNetSize):
        super().__init__()
        self.stem = BasicStem(size.stem)
        inputs = size.stem
        for s, (depth, outputs) in enumerate(zip(size.depths, size.widths, strict=True)):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and s > 0 else 1
                blocks.append(BottleneckBlock(inputs, outputs // 4, stride, size.stride_in_1x1))
                inputs = outputs
            self.add_module(f"res{s + 2}", nn.Sequential(*blocks))


def resnet_d2(encoder: str) -> Reference:
    """Detectron2's ResNet with torchvision's weights: reads RGB."""
    model: Any = ResNet(SIZES[encoder]).eval()
    stages = model.res2, model.res3, model.res4, model.res5
    return Reference(model, *resnet_steps(model.stem, stages))


def resnet_msra(encoder: str) -> Reference:
    """Detectron2's ResNet with MSRA's weights: reads BGR.

    Its state dict has the names of MSRA's files, in the style of Caffe2.
    """
    model: Any = ResNet(SIZES[encoder]).eval()

    def renamed(_module, state, _prefix, _metadata) -> None:
        _rename(state, {name: caffe2_name(name) for name in state})

    def named_back(module, state, *_) -> None:
        own = (name for name, _ in [*module.named_parameters(), *module.named_buffers()])
        _rename(state, {caffe2_name(name): name for name in own})

    model.register_state_dict_post_hook(renamed)
    model.register_load_state_dict_pre_hook(named_back)
    steps, taps = resnet_steps(
        lambda x: model.stem(x.flip(1)), (model.res2, model.res3, model.res4, model.res5)
    )
    return Reference(model, steps, taps)


_BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
_NORMS = {"weight": "gamma", "bias": "beta"}


def caffe2_name(name: str) -> str:
    """Name in MSRA's files of a tensor of Detectron2's ResNet.

    Written independently of `porting.tables`, so that a mistake in one of the two shows.
    """
    *block, last = name.split(".")
    normed = block[-1] == "norm"
    block = block[:-1] if normed else block
    if block[0] == "stem":
        where = "res_conv1" if normed else "conv1"
    else:
        where = f"{block[0]}_{block[1]}_{_BRANCHES[block[2]]}"
    return f"{where}_bn_{_NORMS.get(last, last)}" if normed else f"{where}_w"


def d2_name(name: str) -> str:
    """Detectron2's name of a tensor of torchvision's ResNet."""
    rest = "stem." + name
    if name.startswith("layer"):
        rest = f"res{int(name[5]) + 1}{name[6:]}"
    for i in "123":
        rest = rest.replace(f"bn{i}", f"conv{i}.norm")
    return rest.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def _rename(state: dict[str, torch.Tensor], names: Mapping[str, str]) -> None:
    for old, new in names.items():
        if old in state:
            state[new] = state.pop(old)
