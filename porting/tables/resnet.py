"""Rules of bottleneck ResNets, parametrised by the names of a library.

Our modules hold the first block of a stage separately, because it changes width and resolution, and
stack the others.
"""

import re
from collections.abc import Callable

from porting.tables.layers import TORCH_NORM, batch_norm
from porting.tables.layouts import Layout, conv2d, pointwise
from porting.tables.rules import Rule

TargetOf = Callable[[str], str | Callable[[re.Match], str]]

ENCODERS = ("resnet50", "resnet101", "resnet_debug")
CLASSIFIER = "the ImageNet classifier comes after the last feature"


def conv_norm(
    conv: str,
    norm: str,
    target_of: TargetOf,
    layout: Layout,
    *,
    kernel: str = r"\.weight",
    endings: dict[str, str] = TORCH_NORM,
) -> tuple[Rule, ...]:
    """Rules of a convolution and the batch norm after it.

    Args:
        conv, norm: patterns of their names.
        target_of: `conv.kernel`, `bn.scale`, ... -> target.
        layout: layout of the kernel.
        kernel: end of the kernel's name after `conv`.
        endings: ends of the norm's names, see `batch_norm`.
    """
    return (
        Rule(conv + kernel, target_of("conv.kernel"), layout),
        *batch_norm(norm, lambda part: target_of(f"bn.{part}"), endings),
    )


def stem(conv: str, norm: str, layout: Layout = conv2d, **names) -> tuple[Rule, ...]:
    """Rules of the first convolution of an ImageNet ResNet; `names` as in `conv_norm`."""
    return conv_norm(conv, norm, "stem.conv1.{}".format, layout, **names)


def stages(block: str, first: int, parts: dict[str, tuple[str, str]], **names) -> tuple[Rule, ...]:
    """Rules of all bottleneck blocks.

    Args:
        block: pattern of a block's name, with the groups stage and block.
        first: number of the first stage.
        parts: `conv1`, `conv2`, `conv3` and `shortcut` -> names of the convolution and of its norm
            after `block`.
        names: `kernel` and `endings` of `conv_norm`.
    """

    def in_block(rest: str) -> Callable[[re.Match], str]:
        def target(match: re.Match) -> str:
            stage, number = int(match[1]) - first, int(match[2])
            if number == 0:
                return f"stages.{stage}.first.{rest}"
            return f"stages.{stage}.rest.{rest}[{number - 1}]"

        return target

    return tuple(
        rule
        for part, (conv, norm) in parts.items()
        for rule in conv_norm(
            block + conv,
            block + norm,
            lambda rest, part=part: in_block(f"{part}.{rest}"),
            conv2d if part == "conv2" else pointwise,
            **names,
        )
    )
