"""CLIP's ResNets: a stem of three convolutions, average pooling for strides, attention pooling.

Source: the modified ResNet of OpenAI's CLIP (MIT), as in open_clip (MIT); mask embeddings as in
    FC-CLIP (Apache-2.0).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from clouds_jax.nn import initializers, layers
from clouds_jax.nn.encoders import bottleneck
from clouds_jax.nn.encoders.batch_norm import spatial
from clouds_jax.ops import extents, resize
from clouds_jax.ops.attention import attend
from clouds_jax.ops.extents import Extent
from clouds_jax.typing import Features

_HEAD = 64  # channels per head of the attention pool


@dataclasses.dataclass(frozen=True)
class CLIPResNetSize:
    """Hyperparameters of a CLIP ResNet.

    Attributes:
        depths: blocks per stage.
        embedding: width of the image embedding.
        width: channels of the 3x3 convolutions of the first stage, and of the stem's output.
        grid: side of res5 at CLIP's training resolution, which the position embeddings are for.
    """

    depths: tuple[int, int, int, int]
    embedding: int
    width: int = 64
    grid: int = 7

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of res2 to res5."""
        return bottleneck.widths_of(self.width)


SIZES = {
    "clip_resnet_debug": CLIPResNetSize((1, 2, 3, 1), embedding=12, width=8),
    "clip_resnet50": CLIPResNetSize((3, 4, 6, 3), embedding=1024),
    "clip_resnet101": CLIPResNetSize((3, 4, 23, 3), embedding=512),
}


class Stem(nnx.Module):
    """Three 3x3 convolutions, the first with stride 2, then 2x2 average pooling."""

    def __init__(self, outputs: int, *, rngs: nnx.Rngs):
        half = outputs // 2
        self.conv1 = spatial(3, half, size=3, stride=2, rngs=rngs)
        self.conv2 = spatial(half, half, size=3, stride=1, rngs=rngs)
        self.conv3 = spatial(half, outputs, size=3, stride=1, rngs=rngs)

    def __call__(
        self, images: Float[Array, "b h w 3"], extent: Extent | None = None
    ) -> Float[Array, "b h4 w4 c"]:
        x = images
        for conv in (self.conv1, self.conv2, self.conv3):
            x = jax.nn.relu(conv(x, extent))
        return bottleneck.average_pool(x, 2)


class AttentionPool(nnx.Module):
    """Attention pooling: the mean of a map attends to its positions.

    The position embeddings are resized bilinearly to maps of another size, as in FC-CLIP; open_clip
    itself refuses such maps.
    """

    def __init__(self, size: CLIPResNetSize, *, rngs: nnx.Rngs):
        c = size.widths[-1]
        init = initializers.normal(c**-0.5)
        self.position = nnx.Param(init(rngs.params(), (size.grid**2 + 1, c)))
        self.query = layers.Linear(c, c, kernel_init=init, rngs=rngs)
        self.key = layers.Linear(c, c, kernel_init=init, rngs=rngs)
        self.value = layers.Linear(c, c, kernel_init=init, rngs=rngs)
        self.out = layers.Linear(c, size.embedding, kernel_init=init, rngs=rngs)
        self.heads = c // _HEAD

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b v"]:
        """Pools whole maps; the mean attends to all positions and to itself."""
        mean, tokens = self._tokens(x)
        memory = jnp.concatenate([mean, tokens], axis=1)
        return self._attend(mean, memory, None)[:, 0]

    def masks(
        self,
        x: Float[Array, "b h w c"],
        masks: Bool[Array, "b h w q"],
        extent: Extent | None = None,
    ) -> Float[Array, "b q v"]:
        """Pools under masks; the mean attends to the positions of a mask, and not to itself."""
        b, h, w, q = masks.shape
        mean, tokens = self._tokens(x, extent)
        if extent is not None:
            whole = extents.inside(extent, (h, w))[..., None]
            masks = masks | (whole & ~masks.any((1, 2), keepdims=True))
        allowed = masks.reshape(b, h * w, q).transpose(0, 2, 1)
        return self._attend(mean, tokens, allowed)

    def _tokens(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> tuple[Float[Array, "b 1 c"], Float[Array, "b s c"]]:
        """The mean and all positions of a map, with position embeddings added."""
        b, h, w, c = x.shape
        learned = self.position[...].astype(x.dtype)
        grid = math.isqrt(learned.shape[0] - 1)
        spatial, counted = learned[1:].reshape(1, grid, grid, c), None
        if extent is None:
            spatial = resize.resize_bilinear(spatial, (h, w))
        else:
            size = extents.size_on(extent, (h, w))
            whole = jnp.broadcast_to(spatial, (b, grid, grid, c))
            spatial = resize.resize_parts(whole, jnp.full_like(size, grid), size, (h, w))
            counted = extents.inside(extent, (h, w)).reshape(b, h * w, 1)
        tokens = x.reshape(b, h * w, c)
        mean = tokens.mean(1, keepdims=True, where=counted) + learned[None, :1]
        return mean, tokens + spatial.reshape(-1, h * w, c)

    def _attend(
        self,
        mean: Float[Array, "b 1 c"],
        memory: Float[Array, "b s c"],
        mask: Bool[Array, "b q s"] | None,
    ) -> Float[Array, "b q v"]:
        b, s, c = memory.shape
        q = 1 if mask is None else mask.shape[1]
        split = (self.heads, c // self.heads)
        query = jnp.broadcast_to(self.query(mean), (b, q, c)).reshape(b, q, *split)
        key = self.key(memory).reshape(b, s, *split)
        value = self.value(memory).reshape(b, s, *split)
        return self.out(attend(query, key, value, mask).reshape(b, q, c))


class CLIPResNet(nnx.Module):
    """Stem, four stages whose outputs are the features, and the attention pool."""

    def __init__(self, size: CLIPResNetSize, *, rngs: nnx.Rngs):
        self.stem = Stem(size.width, rngs=rngs)
        self.stages = bottleneck.make_stages(
            size.width, size.width, size.depths, down="pool", rngs=rngs
        )
        self.attention_pool = AttentionPool(size, rngs=rngs)

    def __call__(
        self, images: Float[Array, "b h w 3"], extent: Extent | None = None
    ) -> dict[str, Array]:
        """Features res2 to res5 of normalised images, at strides 4, 8, 16 and 32.

        Sizes round up in the first convolution, and down in every average pooling.

        Args:
            images: normalised.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        return bottleneck.run_stages(self.stages, self.stem(images, extent), extent)

    def embed(self, features: Features) -> Float[Array, "b v"]:
        """CLIP's image embedding, not normalised: res5 after attention pooling."""
        return self.attention_pool(features["res5"])

    def pool_masks(
        self,
        res5: Float[Array, "b h w c"],
        masks: Bool[Array, "b h w q"],
        extent: Extent | None = None,
    ) -> Float[Array, "b q v"]:
        """One embedding per mask, not normalised; an empty mask stands for the whole image.

        Args:
            res5: the last feature.
            masks: at the size of res5.
            extent: sizes of the images in a padded batch; None: they fill it.

        Source: FC-CLIP's attention pooling under a mask. There an empty mask gives NaN, which its
            ensemble then leaves out.
        """
        return self.attention_pool.masks(res5, masks, extent)
