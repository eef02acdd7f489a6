"""ResNets trained on ImageNet, without pooling and classifier.

Source: torchvision's resnet50 and resnet101 (BSD-3-Clause), which Mask2Former starts from too;
    MSRA's originals as Detectron2 reads them (Apache-2.0).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn.encoders import bottleneck
from clouds_jax.nn.encoders.batch_norm import spatial
from clouds_jax.ops import extents
from clouds_jax.ops.extents import Extent


@dataclasses.dataclass(frozen=True)
class ResNetSize:
    """Hyperparameters of a ResNet.

    Attributes:
        depths: blocks per stage.
        width: channels of the 3x3 convolutions of the first stage.
        stem: channels of the first convolution.
        stride_in_1x1: downsample in the first 1x1 convolution of a block, not in the 3x3 one.
    """

    depths: tuple[int, int, int, int]
    width: int = 64
    stem: int = 64
    stride_in_1x1: bool = False

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of res2 to res5."""
        return bottleneck.widths_of(self.width)


SIZES = {
    "resnet_debug": ResNetSize((1, 2, 3, 1), width=8),
    "resnet50": ResNetSize((3, 4, 6, 3)),
    "resnet101": ResNetSize((3, 4, 23, 3)),
    "resnet_msra_debug": ResNetSize((1, 2, 3, 1), width=8, stride_in_1x1=True),
    "resnet50_msra": ResNetSize((3, 4, 6, 3), stride_in_1x1=True),
    "resnet101_msra": ResNetSize((3, 4, 23, 3), stride_in_1x1=True),
}


class Stem(nnx.Module):
    """7x7 convolution with stride 2, then 3x3 max pooling with stride 2."""

    def __init__(self, outputs: int, *, rngs: nnx.Rngs):
        self.conv1 = spatial(3, outputs, size=7, stride=2, rngs=rngs)

    def __call__(
        self, images: Float[Array, "b h w 3"], extent: Extent | None = None
    ) -> Float[Array, "b h4 w4 c"]:
        # Every window has a pixel of its image, which is no less than the zeros beyond it.
        x = extents.clear(jax.nn.relu(self.conv1(images, extent)), extent)
        border = ((0, 0), (1, 1), (1, 1), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), border)


class ResNet(nnx.Module):
    """Stem and four stages, whose outputs are the features."""

    def __init__(self, size: ResNetSize, *, rngs: nnx.Rngs):
        self.stem = Stem(size.stem, rngs=rngs)
        self.stages = bottleneck.make_stages(
            size.stem,
            size.width,
            size.depths,
            down="1x1" if size.stride_in_1x1 else "3x3",
            rngs=rngs,
        )

    def __call__(
        self, images: Float[Array, "b h w 3"], extent: Extent | None = None
    ) -> dict[str, Array]:
        """Features res2 to res5 of normalised images, at strides 4, 8, 16 and 32.

        Sizes round up in every halving.

        Args:
            images: normalised.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        return bottleneck.run_stages(self.stages, self.stem(images, extent), extent)
