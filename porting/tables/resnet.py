"""Bottleneck ResNets under the names of every library: what their tables share.

Ours hold the first block of a stage by itself, because it changes width and size, and the others
in one stack.
"""

import re
from collections.abc import Callable

from porting.tables.layers import TORCH_NORM, batch_norm
from porting.tables.layouts import Layout, conv2d, pointwise
from porting.tables.rules import Rule

Place = Callable[[str], str | Callable[[re.Match], str]]

ENCODERS = ("resnet50", "resnet101", "resnet_debug")
CLASSIFIER = "the ImageNet classifier comes after the last feature"


def conv_norm(
    conv: str,
    norm: str,
    place: Place,
    layout: Layout,
    *,
    kernel: str = r"\.weight",
    endings: dict[str, str] = TORCH_NORM,
) -> tuple[Rule, ...]:
    """A convolution and the batch norm after it.

    Args:
        conv, norm: patterns of their names.
        place: `conv.kernel`, `bn.scale`, ... -> target.
        layout: of the kernel.
        kernel: what follows the convolution's name.
        endings: what follows the norm's name, see `batch_norm`.
    """
    return (
        Rule(conv + kernel, place("conv.kernel"), layout),
        *batch_norm(norm, lambda part: place(f"bn.{part}"), endings),
    )


def stem(conv: str, norm: str, layout: Layout = conv2d, **names) -> tuple[Rule, ...]:
    """The first convolution of an ImageNet ResNet."""
    return conv_norm(conv, norm, "stem.conv1.{}".format, layout, **names)


def stages(block: str, first: int, parts: dict[str, tuple[str, str]], **names) -> tuple[Rule, ...]:
    """All bottlenecks.

    Args:
        block: pattern of a block's name, with the groups stage and block.
        first: number of the first stage.
        parts: `conv1`, `conv2`, `conv3` and `shortcut` -> what follows `block` in the names of the
            convolution and of its norm.
    """

    def place(rest: str) -> Callable[[re.Match], str]:
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
            lambda rest, part=part: place(f"{part}.{rest}"),
            conv2d if part == "conv2" else pointwise,
            **names,
        )
    )
