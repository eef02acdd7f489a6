"""Mix Transformer (MiT), the encoder of SegFormer.

A stage is an overlapping patch embedding, a stack of blocks and a LayerNorm. The keys and values
of a block's attention come from a map reduced by a strided convolution. A 3x3 depthwise convolution
inside the MLP conveys positions, so there are no position encodings and any image size works.

Source: SegFormer (NeurIPS 2021) as in transformers' SegformerModel (Apache-2.0). The authors' code,
    NVlabs' SegFormer, has another epsilon in the norms of blocks and stages (`MiTSize.eps`).
"""

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import convolution, initializers, layers
from clouds_jax.ops import extents
from clouds_jax.ops.attention import attend
from clouds_jax.ops.extents import Extent

_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)  # stride of the keys and values, in rows and columns
_PATCHES = ((7, 4), (3, 2), (3, 2), (3, 2))  # size and stride
_RATIO = 4  # hidden over outer width of the MLP
_KERNEL = 3
ORIGINAL_EPS = 1e-6  # see `MiTSize.eps`
_SMALLEST = 29  # rows of an image whose first stage has the 8 rows that its reduction needs
_WEIGHT = initializers.truncated_normal(0.02)
_FAN_OUT = initializers.FAN_OUT


@dataclasses.dataclass(frozen=True)
class MiTSize:
    """Hyperparameters of a Mix Transformer.

    Attributes:
        depths: blocks per stage.
        widths: channels per stage.
        eps: of the LayerNorms of blocks and stages: 1e-5 in transformers, 1e-6 in NVlabs' code,
            which the weights were trained with. Those of patch embeddings and reductions have 1e-5
            in both.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (64, 128, 320, 512)
    eps: float = 1e-5


SIZES = {
    "debug": MiTSize((1, 2, 2, 1), (8, 16, 20, 32)),
    "b0": MiTSize((2, 2, 2, 2), (32, 64, 160, 256)),
    "b1": MiTSize((2, 2, 2, 2)),
    "b2": MiTSize((3, 4, 6, 3)),
    "b3": MiTSize((3, 4, 18, 3)),
    "b4": MiTSize((3, 8, 27, 3)),
    "b5": MiTSize((3, 6, 40, 3)),
}


class PatchEmbedding(nnx.Module):
    """Strided convolution of overlapping patches, then LayerNorm."""

    def __init__(self, inputs: int, outputs: int, *, size: int, stride: int, rngs: nnx.Rngs):
        half = (size // 2, size // 2)
        self.conv = convolution.Conv(
            inputs,
            outputs,
            size=size,
            stride=stride,
            padding=(half, half),
            kernel_init=_FAN_OUT,
            bias_init=initializers.ZEROS,
            rngs=rngs,
        )
        self.norm = layers.LayerNorm(outputs, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w i"], extent: Extent | None = None
    ) -> Float[Array, "b h2 w2 o"]:
        return self.norm(self.conv(extents.clear(x, extent)))


class Reduction(nnx.Module):
    """Convolution of `by` x `by` patches, then LayerNorm."""

    def __init__(self, channels: int, *, by: int, rngs: nnx.Rngs):
        self.conv = convolution.Patchify(channels, channels, size=by, rngs=rngs)
        self.norm = layers.LayerNorm(channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return self.norm(self.conv(x))


class Attention(nnx.Module):
    """Multi-head attention from every position of a map to those of its reduction."""

    def __init__(self, channels: int, *, heads: int, reduction: int, rngs: nnx.Rngs):
        def linear():
            return layers.Linear(channels, channels, kernel_init=_WEIGHT, rngs=rngs)

        self.query, self.key, self.value, self.out = linear(), linear(), linear(), linear()
        self.reduce = Reduction(channels, by=reduction, rngs=rngs) if reduction > 1 else None
        self.heads = heads

    def __call__(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> Float[Array, "b h w c"]:
        memory = x if self.reduce is None else self.reduce(x)
        keys = extents.inside_tokens(extent, [(memory.shape[1], memory.shape[2])])
        mask = None if keys is None else keys[:, None]

        def split(y):
            return y.reshape(y.shape[0], -1, self.heads, y.shape[3] // self.heads)

        queries, keys, values = self.query(x), self.key(memory), self.value(memory)
        out = attend(split(queries), split(keys), split(values), mask)
        return self.out(out.reshape(x.shape))


class Block(nnx.Module):
    """Pre-norm transformer block: reduced attention and Mix-FFN."""

    def __init__(self, channels: int, *, heads: int, reduction: int, eps: float, rngs: nnx.Rngs):
        hidden = _RATIO * channels
        self.norm1 = layers.LayerNorm(channels, eps=eps, rngs=rngs)
        self.attention = Attention(channels, heads=heads, reduction=reduction, rngs=rngs)
        self.norm2 = layers.LayerNorm(channels, eps=eps, rngs=rngs)
        self.fc1 = layers.Linear(channels, hidden, kernel_init=_WEIGHT, rngs=rngs)
        self.conv_dw = convolution.DepthwiseConv(hidden, size=_KERNEL, rngs=rngs)
        self.fc2 = layers.Linear(hidden, channels, kernel_init=_WEIGHT, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> Float[Array, "b h w c"]:
        x = x + self.attention(self.norm1(x), extent)
        y = self.conv_dw(extents.clear(self.fc1(self.norm2(x)), extent))
        return x + self.fc2(layers.gelu(y))


class Stage(nnx.Module):
    """Patch embedding, a stack of blocks, LayerNorm."""

    def __init__(self, size: MiTSize, stage: int, *, rngs: nnx.Rngs):
        outputs = size.widths[stage]
        inputs = size.widths[stage - 1] if stage else 3
        patch, stride = _PATCHES[stage]
        self.embed = PatchEmbedding(inputs, outputs, size=patch, stride=stride, rngs=rngs)
        heads, reduction = _HEADS[stage], _REDUCTIONS[stage]
        self.blocks = layers.stack_blocks(
            lambda rngs: Block(outputs, heads=heads, reduction=reduction, eps=size.eps, rngs=rngs),
            size.depths[stage],
            rngs,
        )
        self.norm = layers.LayerNorm(outputs, eps=size.eps, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w i"], extent: Extent | None = None
    ) -> Float[Array, "b h2 w2 o"]:
        return self.norm(layers.scan_blocks(self.blocks, self.embed(x, extent), extent))


class MixTransformer(nnx.Module):
    """Four stages, whose normalised outputs are the features."""

    def __init__(self, size: MiTSize, *, rngs: nnx.Rngs):
        self.stages = nnx.List([Stage(size, stage, rngs=rngs) for stage in range(len(_PATCHES))])

    def __call__(
        self, images: Float[Array, "b h w 3"], extent: Extent | None = None
    ) -> dict[str, Array]:
        """Features res2 to res5 of normalised images, at strides 4, 8, 16 and 32.

        Sizes round up, by the padding of the patch embeddings. Keys and values do not see rows and
        columns at the end of a map that do not fill a patch of the reduction.

        Args:
            images: normalised.
            extent: sizes of the images in a padded batch; None: they fill it.

        Raises:
            ValueError: the images are smaller than 29x29.
        """
        if min(images.shape[1:3]) < _SMALLEST:
            raise ValueError(
                f"MixTransformer: images are {images.shape[1]}x{images.shape[2]}; at least"
                f" {_SMALLEST}x{_SMALLEST} is needed, so that the first stage has keys."
            )
        x = images
        features = {}
        for level, stage in enumerate(self.stages, start=2):
            features[f"res{level}"] = x = stage(x, extent)
        return features
