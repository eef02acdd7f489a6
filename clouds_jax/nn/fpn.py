"""A feature-pyramid head: the baseline for the Mask2Former head."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import convolution, initializers, layers
from clouds_jax.nn.mask2former.head import MASK_STRIDE
from clouds_jax.nn.mask2former.size import check_dtype
from clouds_jax.ops import extents, resize
from clouds_jax.ops.extents import Extent
from clouds_jax.typing import Features


@dataclasses.dataclass(frozen=True)
class FPNSize:
    """Hyperparameters of the FPN head.

    Attributes:
        dim: channels of the pyramid.
        dtype: dtype of the activations, "float32" or "bfloat16". Weights, normalisation and class
            logits are float32 either way.
    """

    dim: int = 128
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype("FPNSize", self.dtype)


class FPNHead(nnx.Module):
    """Lateral 1x1 convolutions, top-down sums, a 3x3 convolution, a linear classifier per pixel.

    Args:
        widths: channels of res2 to res5.
        size: hyperparameters.
        classes: number of classes k.
    """

    def __init__(
        self, widths: tuple[int, int, int, int], size: FPNSize, classes: int, *, rngs: nnx.Rngs
    ):
        dim = size.dim
        self.lateral = nnx.List([layers.Linear(width, dim, rngs=rngs) for width in widths])
        self.output = convolution.Conv(dim, dim, size=3, padding=((1, 1), (1, 1)), rngs=rngs)
        self.norm = layers.GroupNorm(dim, groups=layers.groups_of(dim), rngs=rngs)
        self.classifier = layers.Linear(dim, classes, **initializers.torch_linear(dim), rngs=rngs)
        self.dtype = size.dtype

    def __call__(
        self, features: Features, *, all_outputs: bool, extent: Extent | None = None
    ) -> Float[Array, "b h4 w4 k"]:
        """Class logits at stride 4, float32; a single output, whatever `all_outputs` is."""
        maps = [
            lateral(features[name].astype(self.dtype))
            for lateral, name in zip(self.lateral, ("res2", "res3", "res4", "res5"), strict=True)
        ]
        x = maps.pop()
        while maps:
            finer = maps.pop()
            _, h, w, _ = finer.shape
            x = finer + resize.resize_bilinear(extents.extend(x, extent), (h, w))
        x = self.norm(self.output(extents.clear(x, extent)), extent)
        return self.classifier(jax.nn.relu(x).astype(jnp.float32))

    def scores(
        self,
        output: Float[Array, "b h4 w4 k"],
        size: tuple[int, int],
        extent: Extent | None = None,
    ) -> Float[Array, "b h w k"]:
        """Class probabilities at every pixel.

        Args:
            output: class logits at stride 4.
            size: (h, w) of the images before padding.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        h4, w4 = output.shape[1:3]
        output = extents.extend(output, extent)
        logits = resize.resize_bilinear(output, (h4 * MASK_STRIDE, w4 * MASK_STRIDE))
        return jax.nn.softmax(logits[:, : size[0], : size[1]])
