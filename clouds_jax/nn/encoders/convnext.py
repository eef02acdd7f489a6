"""ConvNeXt, the image encoder of CLIP's convolutional models, and its visual head.

Source: timm's ConvNeXt (Apache-2.0) as the visual tower of open_clip (MIT). The weights that CLOUDS
uses, convnext_large_d_320, are LAION's (MIT). transformers' ConvNextModel, ConvNextBackbone and
DINOv3ConvNextModel (Apache-2.0) have the same trunk.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from clouds_jax.nn import convolution, initializers, layers
from clouds_jax.ops import extents
from clouds_jax.ops import masks as ops_masks
from clouds_jax.ops.extents import Extent
from clouds_jax.typing import Features

Remat = Literal["none", "blocks", "stages"]

_KERNEL = 7
_LAYER_SCALE = 1e-6  # initial gamma
_WEIGHT = initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class ConvNeXtSize:
    """Hyperparameters of a ConvNeXt.

    Attributes:
        depths: blocks per stage.
        widths: channels per stage.
        hidden: width between the two linear layers of the visual head; None: a single layer.
        embedding: width of the image embedding; None: no visual head.
        eps: of every LayerNorm.
        projected: whether linear layers follow the norm of the visual head; not in DINOv3.
        feature_norms: whether each feature passes a LayerNorm of its own, which the next stage
            does not see, as in transformers' ConvNextBackbone.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    hidden: int | None = None
    embedding: int | None = None
    eps: float = 1e-6
    projected: bool = True
    feature_norms: bool = False


def _dinov3(depths: tuple[int, int, int, int], widths: tuple[int, int, int, int]) -> ConvNeXtSize:
    return ConvNeXtSize(depths, widths, embedding=widths[-1], projected=False)


_DEEP = (3, 3, 27, 3)
SIZES = {
    "debug": ConvNeXtSize((1, 1, 2, 1), (8, 16, 24, 32), hidden=24, embedding=12),
    "tiny": ConvNeXtSize((3, 3, 9, 3), (96, 192, 384, 768)),
    "base": ConvNeXtSize(_DEEP, (128, 256, 512, 1024), embedding=512),
    "large_d_320": ConvNeXtSize(_DEEP, (192, 384, 768, 1536), hidden=1536, embedding=768),
    "xxlarge": ConvNeXtSize((3, 4, 30, 3), (384, 768, 1536, 3072), embedding=1024, eps=1e-5),
    # Trained on ImageNet; the classifier and the norm before it are left out.
    "in22k_debug": ConvNeXtSize((1, 1, 2, 1), (8, 16, 24, 32)),
    "small": ConvNeXtSize(_DEEP, (96, 192, 384, 768)),
    "in22k_base": ConvNeXtSize(_DEEP, (128, 256, 512, 1024)),
    "in22k_large": ConvNeXtSize(_DEEP, (192, 384, 768, 1536)),
    "in22k_xlarge": ConvNeXtSize(_DEEP, (256, 512, 1024, 2048)),
    "dinov3_debug": _dinov3((1, 1, 2, 1), (8, 16, 24, 32)),
    "dinov3_tiny": _dinov3((3, 3, 9, 3), (96, 192, 384, 768)),
    "dinov3_small": _dinov3(_DEEP, (96, 192, 384, 768)),
    "dinov3_base": _dinov3(_DEEP, (128, 256, 512, 1024)),
    "dinov3_large": _dinov3(_DEEP, (192, 384, 768, 1536)),
}
SIZES |= {
    f"{name}_normed": dataclasses.replace(SIZES[name], feature_norms=True)
    for name in ("in22k_debug", "tiny", "small", "in22k_base", "in22k_large")
}


@dataclasses.dataclass(frozen=True)
class StochasticDepth:
    """Stochastic depth: examples skip blocks at random, deeper blocks more often.

    Attributes:
        rate: probability of skipping the last block; it grows linearly from 0 at the first.
        keys: of the random numbers, one per example.

    Source: timm's drop_path_rate.
    """

    rate: float
    keys: Key[Array, " b"]

    def of_stages(self, depths: Sequence[int]) -> list[tuple[Array, Array]]:
        """Rates and keys of the blocks of each stage."""
        total = sum(depths)
        rates = jnp.linspace(0, self.rate, total)
        each = jax.vmap(jax.random.fold_in, (None, 0))
        keys = jax.vmap(each, (0, None), 1)(self.keys, jnp.arange(total))  # block, example
        ends = np.cumsum(depths)
        return [(rates[e - d : e], keys[e - d : e]) for d, e in zip(depths, ends, strict=True)]


class Block(nnx.Module):
    """Residual block: 7x7 depthwise convolution, LayerNorm, MLP with exact GELU, layer scale."""

    def __init__(self, channels: int, *, eps: float, rngs: nnx.Rngs):
        self.conv_dw = convolution.DepthwiseConv(channels, size=_KERNEL, rngs=rngs)
        self.norm = layers.LayerNorm(channels, eps=eps, rngs=rngs)
        self.fc1 = layers.Linear(channels, 4 * channels, kernel_init=_WEIGHT, rngs=rngs)
        self.fc2 = layers.Linear(4 * channels, channels, kernel_init=_WEIGHT, rngs=rngs)
        self.gamma = nnx.Param(initializers.filled(rngs, (channels,), _LAYER_SCALE))

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        extent: Extent | None = None,
        rate: Float[Array, ""] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """The block's output; each example skips the block with probability `rate`, if given."""
        y = self.fc1(self.norm(self.conv_dw(extents.clear(x, extent))))
        y = self.fc2(layers.gelu(y))
        y = y.astype(jnp.float32) * self.gamma[...].astype(jnp.float32)[None, None, None]
        if rate is not None and keys is not None:
            kept = jax.vmap(jax.random.bernoulli, (0, None))(keys, 1 - rate)
            y = jnp.where(kept[:, None, None, None], y / (1 - rate), 0)
        return (x.astype(jnp.float32) + y).astype(x.dtype)


class Downsample(nnx.Module):
    """LayerNorm, then a convolution of 2x2 patches."""

    def __init__(self, inputs: int, outputs: int, *, eps: float, rngs: nnx.Rngs):
        self.norm = layers.LayerNorm(inputs, eps=eps, rngs=rngs)
        self.conv = convolution.Patchify(inputs, outputs, size=2, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.conv(self.norm(x))


class Stem(nnx.Module):
    """Convolution of 4x4 patches, then LayerNorm."""

    def __init__(self, outputs: int, *, eps: float, rngs: nnx.Rngs):
        self.conv = convolution.Patchify(3, outputs, size=4, rngs=rngs)
        self.norm = layers.LayerNorm(outputs, eps=eps, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h4 w4 c"]:
        return self.norm(self.conv(x))


class Stage(nnx.Module):
    """Downsampling, except in the first stage, then a stack of blocks."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, eps: float, rngs: nnx.Rngs):
        changes = inputs != outputs
        self.downsample = Downsample(inputs, outputs, eps=eps, rngs=rngs) if changes else None
        self.blocks = layers.stack_blocks(
            lambda rngs: Block(outputs, eps=eps, rngs=rngs), depth, rngs
        )

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        extent: Extent | None = None,
        each: tuple[Array, ...] = (),
        remat: Remat = "none",
    ) -> Float[Array, "b h2 w2 d"]:
        if self.downsample is not None:
            x = self.downsample(x)
        return layers.scan_blocks(self.blocks, x, extent, each=each, remat=remat == "blocks")


def _again(stage: Stage) -> Callable[..., Array]:
    """The stage, of which the gradient keeps the input alone."""
    graphdef, state = nnx.split(stage)

    @jax.checkpoint
    def run(state: Any, x: Array, extent: Extent | None, each: tuple[Array, ...]) -> Array:
        return nnx.merge(graphdef, state)(x, extent, each)

    return lambda x, extent, each, remat: run(state, x, extent, each)


class VisualHead(nnx.Module):
    """LayerNorm and up to two linear layers, from pooled features to the image embedding."""

    def __init__(self, size: ConvNeXtSize, *, rngs: nnx.Rngs):
        width = size.widths[-1]
        self.norm = layers.LayerNorm(width, eps=size.eps, rngs=rngs)
        hidden, v = size.hidden, size.embedding
        assert v is not None
        self.fc1 = layers.Linear(width, hidden, kernel_init=_WEIGHT, rngs=rngs) if hidden else None
        self.fc2 = (
            layers.Linear(hidden or width, v, kernel_init=_WEIGHT, bias_init=None, rngs=rngs)
            if size.projected
            else None
        )

    def __call__(self, pooled: Float[Array, "*n c"]) -> Float[Array, "*n v"]:
        x = self.norm(pooled)
        if self.fc1 is not None:
            x = layers.gelu(self.fc1(x))
        return x if self.fc2 is None else self.fc2(x)


class ConvNeXt(nnx.Module):
    """Four stages whose outputs are the features, and the visual head."""

    def __init__(self, size: ConvNeXtSize, *, rngs: nnx.Rngs):
        self.depths = size.depths
        self.stem = Stem(size.widths[0], eps=size.eps, rngs=rngs)
        inputs = (size.widths[0], *size.widths[:-1])
        self.stages = nnx.List(
            [
                Stage(i, o, depth, eps=size.eps, rngs=rngs)
                for i, o, depth in zip(inputs, size.widths, size.depths, strict=True)
            ]
        )
        self.feature_norms = (
            nnx.List([layers.LayerNorm(width, eps=size.eps, rngs=rngs) for width in size.widths])
            if size.feature_norms
            else None
        )
        self.visual_head = None if size.embedding is None else VisualHead(size, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "b h w 3"],
        drop: StochasticDepth | None = None,
        remat: Remat = "none",
        extent: Extent | None = None,
    ) -> dict[str, Array]:
        """Features res2 to res5 of normalised images, at strides 4, 8, 16 and 32.

        Sizes round down, as in a strided convolution without padding. Features are not normalised,
        unless the size has `feature_norms`.

        Args:
            images: normalised.
            drop: stochastic depth, for training the encoder itself; None: no block is skipped.
            remat: what the gradient computes again instead of keeping it.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        x = self.stem(images)
        features = {}
        each = [()] * len(self.depths) if drop is None else drop.of_stages(self.depths)
        for s, stage in enumerate(self.stages):
            run = _again(stage) if remat == "stages" else stage
            x = run(x, extent, each[s], remat)
            features[f"res{s + 2}"] = x if self.feature_norms is None else self.feature_norms[s](x)
        return features

    def embed(self, features: Features) -> Float[Array, "b v"]:
        """The image embedding, not normalised: the mean of res5 through the visual head.

        CLIP's image embedding, or DINOv3's global feature (`pooler_output` in transformers).

        Raises:
            ValueError: this size has no visual head.
        """
        if self.visual_head is None:
            raise ValueError("This ConvNeXt has no visual head: its size has embedding=None.")
        return self.visual_head(features["res5"].mean((1, 2)))

    def pool_masks(
        self,
        res5: Float[Array, "b h w c"],
        masks: Bool[Array, "b h w q"],
        extent: Extent | None = None,
    ) -> Float[Array, "b q v"]:
        """One embedding per mask, not normalised: its mean of res5 through the visual head.

        An empty mask gets the embedding of a zero feature.

        Args:
            res5: the last feature.
            masks: at the size of res5.
            extent: sizes of the images in a padded batch; None: they fill it.

        Raises:
            ValueError: this size has no visual head.

        Source: FC-CLIP (Apache-2.0), for its ConvNeXt.
        """
        if self.visual_head is None:
            raise ValueError("This ConvNeXt has no visual head: its size has embedding=None.")
        return self.visual_head(ops_masks.pool_masks(extents.clear(res5, extent), masks))
