"""TinyViT-5M as MobileSAM's image encoder, and its medical variant for small images.

Source: TinyViT (ECCV 2022, MIT) as in MobileSAM (Apache-2.0), modeling/tiny_vit_sam.py, in eval
    mode. LiteMedSAM (Apache-2.0) embeds patches of one pixel.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import initializers, layers
from clouds_jax.nn.encoders.batch_norm import depthwise, pointwise, spatial
from clouds_jax.nn.sam.vit import Neck
from clouds_jax.nn.sam.windows import join_windows, split_windows

_RATIO = 4  # hidden over outer width, in MBConv and MLP
_KERNEL = 3
_STRIDES = (2, 2, 1)  # between the stages
_WEIGHT = initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class TinyViTSize:
    """Hyperparameters of a TinyViT.

    Attributes:
        widths: channels per stage.
        depths: blocks per stage.
        heads: attention heads of stages 1 to 3; stage 0 is convolutional.
        windows: side of the attention windows of stages 1 to 3, in positions.
        image: side of the square input, in pixels.
        strided: whether the two convolutions before the stages are 3x3 with stride 2, or 1x1 with
            stride 1.
        outputs: channels of the embedding.
    """

    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int] = (4, 5, 10)
    windows: tuple[int, int, int] = (7, 14, 7)
    image: int = 1024
    strided: bool = True
    outputs: int = 256

    @property
    def grid(self) -> int:
        """Side of the embedding, in positions."""
        return self.image // (16 if self.strided else 4)


SIZES = {
    "5m": TinyViTSize(),
    "5m_medical": TinyViTSize(image=256, strided=False),
    "debug": TinyViTSize(
        (8, 16, 24, 32), (1, 2, 2, 1), (2, 3, 4), (3, 5, 3), image=128, outputs=32
    ),
    "debug_medical": TinyViTSize(
        (8, 16, 24, 32), (1, 2, 2, 1), (2, 3, 4), (3, 5, 3), image=32, strided=False, outputs=32
    ),
}


class MBConv(nnx.Module):
    """Residual inverted bottleneck; a GELU also follows the sum."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        hidden = _RATIO * channels
        self.conv1 = pointwise(channels, hidden, rngs=rngs)
        self.conv2 = depthwise(hidden, size=_KERNEL, rngs=rngs)
        self.conv3 = pointwise(hidden, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return layers.gelu(x + self.conv3(layers.gelu(self.conv2(layers.gelu(self.conv1(x))))))


class Merging(nnx.Module):
    """Patch merging between two stages: changes the width, and downsamples by `stride`."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        self.conv1 = pointwise(inputs, outputs, rngs=rngs)
        self.conv2 = depthwise(outputs, size=_KERNEL, stride=stride, rngs=rngs)
        self.conv3 = pointwise(outputs, outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.conv3(layers.gelu(self.conv2(layers.gelu(self.conv1(x)))))


class Attention(nnx.Module):
    """Multi-head self-attention inside a window, with a learned bias per distance.

    Args:
        width: channels.
        heads: attention heads.
        side: of the window, in positions.
    """

    def __init__(self, width: int, heads: int, *, side: int, rngs: nnx.Rngs):
        self.norm = layers.LayerNorm(width, rngs=rngs)
        # Outputs are ordered by head, then query, key, value.
        self.qkv = layers.Linear(width, 3 * width, kernel_init=_WEIGHT, rngs=rngs)
        self.out = layers.Linear(width, width, kernel_init=_WEIGHT, rngs=rngs)
        self.biases = nnx.Param(initializers.ZEROS(rngs.params(), (heads, side * side)))
        self.heads = heads
        self.side = side

    def __call__(self, x: Float[Array, "n s s c"]) -> Float[Array, "n s s c"]:
        n, side, _, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, side * side, self.heads, 3, -1)
        query, key, value = (qkv[..., i, :] for i in range(3))
        scores = jnp.einsum("nqhe,nkhe->nhqk", query * query.shape[-1] ** -0.5, key)
        scores = scores.astype(jnp.float32) + self._bias()[None]
        weights = jax.nn.softmax(scores).astype(value.dtype)
        out = jnp.einsum("nhqk,nkhe->nqhe", weights, value)
        return self.out(out.reshape(n, side, side, width))

    def _bias(self) -> Float[Array, "h p p"]:
        """Bias of every pair of positions, by their distances in rows and columns."""
        rows, columns = np.divmod(np.arange(self.side**2), self.side)
        down, across = (np.abs(x[:, None] - x[None]) for x in (rows, columns))
        return self.biases[...].astype(jnp.float32)[:, down * self.side + across]


class Block(nnx.Module):
    """Transformer block: attention inside windows, a depthwise convolution, an MLP."""

    def __init__(self, width: int, heads: int, *, window: int, rngs: nnx.Rngs):
        hidden = _RATIO * width
        self.attention = Attention(width, heads, side=window, rngs=rngs)
        self.local = depthwise(width, size=_KERNEL, rngs=rngs)
        self.norm = layers.LayerNorm(width, rngs=rngs)
        self.fc1 = layers.Linear(width, hidden, kernel_init=_WEIGHT, rngs=rngs)
        self.fc2 = layers.Linear(hidden, width, kernel_init=_WEIGHT, rngs=rngs)
        self.window = window

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        x = x + join_windows(self.attention(split_windows(x, self.window)), x.shape)
        x = self.local(x)
        return x + self.fc2(layers.gelu(self.fc1(self.norm(x))))


def _merging(size: TinyViTSize, stage: int, rngs: nnx.Rngs) -> Merging:
    inputs, outputs = size.widths[stage : stage + 2]
    return Merging(inputs, outputs, stride=_STRIDES[stage], rngs=rngs)


class Stage(nnx.Module):
    """A stack of blocks, then patch merging, except after the last stage."""

    def __init__(
        self, make: Callable[[nnx.Rngs], nnx.Module], size: TinyViTSize, stage: int, rngs: nnx.Rngs
    ):
        self.blocks = layers.stack_blocks(make, size.depths[stage], rngs)
        last = stage == len(_STRIDES)
        self.merging = None if last else _merging(size, stage, rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        x = layers.scan_blocks(self.blocks, x)
        return x if self.merging is None else self.merging(x)


class TinyViT(nnx.Module):
    """Image encoder of MobileSAM. Square inputs of any size work."""

    def __init__(self, size: TinyViTSize, *, rngs: nnx.Rngs):
        first = size.widths[0]
        kernel, stride = (_KERNEL, 2) if size.strided else (1, 1)
        self.patch = nnx.List(
            [
                spatial(inputs, outputs, size=kernel, stride=stride, rngs=rngs)
                for inputs, outputs in ((3, first // 2), (first // 2, first))
            ]
        )
        attending = zip(size.widths[1:], size.heads, size.windows, strict=True)
        makes = [lambda rngs: MBConv(first, rngs=rngs), *(_block(*each) for each in attending)]
        self.stages = nnx.List([Stage(make, size, stage, rngs) for stage, make in enumerate(makes)])
        self.neck = Neck(size.widths[-1], size.outputs, rngs=rngs)

    def __call__(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b g g d"]:
        """Embeddings of normalised images, at stride 16 (medical: 4)."""
        x = self.embed(images)
        for stage in self.stages:
            x = stage(x)
        return self.neck(x)

    def embed(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b p p c"]:
        """The two convolutions before the stages."""
        first, second = self.patch
        return second(layers.gelu(first(images)))


def _block(width: int, heads: int, window: int) -> Callable[[nnx.Rngs], Block]:
    return lambda rngs: Block(width, heads, window=window, rngs=rngs)
