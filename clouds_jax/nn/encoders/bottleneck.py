"""Bottleneck blocks and their stages, shared by all ResNets.

Source: torchvision (BSD-3-Clause), Detectron2 (Apache-2.0) and OpenAI's CLIP (MIT), which differ in
    where a block downsamples.
"""

from collections.abc import Sequence
from typing import Literal

import jax
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import layers
from clouds_jax.nn.encoders.batch_norm import pointwise, spatial
from clouds_jax.ops.extents import Extent

EXPANSION = 4  # output channels of a block over those of its 3x3 convolution
Down = Literal["3x3", "1x1", "pool"]


def widths_of(width: int) -> tuple[int, int, int, int]:
    """Channels of res2 to res5; `width`: of the 3x3 convolutions of the first stage."""
    first = EXPANSION * width
    return first, 2 * first, 4 * first, 8 * first


def average_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b h2 w2 c"]:
    """Average pooling over `size` x `size` pixels; incomplete windows at the end are dropped."""
    b, h, w, c = x.shape
    x = x[:, : h // size * size, : w // size * size]
    return x.reshape(b, h // size, size, w // size, size, c).mean((2, 4))


class Bottleneck(nnx.Module):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution.

    Args:
        inputs: channels of the input.
        width: channels of the 3x3 convolution.
        stride: of the block, in pixels.
        down: where the block downsamples. "3x3": in that convolution (torchvision, and Detectron2
            with STRIDE_IN_1X1 off). "1x1": in the first convolution (MSRA's originals). "pool": by
            average pooling after the 3x3 convolution and before the shortcut's (CLIP).
    """

    def __init__(self, inputs: int, width: int, *, stride: int, down: Down, rngs: nnx.Rngs):
        outputs = EXPANSION * width
        self.conv1 = pointwise(inputs, width, rngs=rngs)
        in_conv2 = stride if down == "3x3" else 1
        self.conv2 = spatial(width, width, size=3, stride=in_conv2, rngs=rngs)
        self.conv3 = pointwise(width, outputs, rngs=rngs)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else pointwise(inputs, outputs, rngs=rngs)
        self.stride = stride
        self.down = down

    def __call__(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        stride, pools = self.stride, self.down == "pool"
        # A strided 1x1 convolution reads one of stride^2 positions.
        y = x[:, ::stride, ::stride] if self.down == "1x1" else x
        y = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(y)), extent))
        y = self.conv3(average_pool(y, stride) if pools and stride > 1 else y)
        if self.shortcut is not None:
            x = average_pool(x, stride) if pools else x[:, ::stride, ::stride]
            x = self.shortcut(x)
        return jax.nn.relu(x + y)


class Stage(nnx.Module):
    """The block that changes width and stride, then a stack of the identical others."""

    def __init__(
        self, inputs: int, width: int, depth: int, *, stride: int, down: Down, rngs: nnx.Rngs
    ):
        self.first = Bottleneck(inputs, width, stride=stride, down=down, rngs=rngs)

        def make(rngs: nnx.Rngs) -> Bottleneck:
            return Bottleneck(EXPANSION * width, width, stride=1, down=down, rngs=rngs)

        self.rest = layers.stack_blocks(make, depth - 1, rngs) if depth > 1 else None

    def __call__(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        x = self.first(x, extent)
        return x if self.rest is None else layers.scan_blocks(self.rest, x, extent)


def make_stages(
    stem: int, width: int, depths: tuple[int, ...], *, down: Down, rngs: nnx.Rngs
) -> Sequence[Stage]:
    """Builds the stages at strides 4, 8, 16 and 32, each twice as wide as the one before.

    Args:
        stem: channels of the stem's output.
        width: channels of the 3x3 convolutions of the first stage.
        depths: blocks per stage.
        down: where blocks downsample, see `Bottleneck`.
    """
    stages, inputs = [], stem
    for s, depth in enumerate(depths):
        stride = 1 if s == 0 else 2
        stages.append(Stage(inputs, width << s, depth, stride=stride, down=down, rngs=rngs))
        inputs = EXPANSION * width << s
    return nnx.List(stages)


def run_stages(
    stages: Sequence[Stage], x: Float[Array, "b h4 w4 c"], extent: Extent | None = None
) -> dict[str, Array]:
    """Applies the stages in order; their outputs are res2 to res5."""
    features = {}
    for level, stage in enumerate(stages, start=2):
        features[f"res{level}"] = x = stage(x, extent)
    return features
