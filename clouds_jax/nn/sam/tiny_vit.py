"""TinyViT-5M as MobileSAM's image encoder, and its medical variant for small images.

Source: TinyViT (ECCV 2022, MIT) as in MobileSAM (Apache-2.0), modeling/tiny_vit_sam.py, in eval
    mode; LiteMedSAM (Apache-2.0) embeds patches of one pixel.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import convolution, initializers, layers
from clouds_jax.nn.encoders.batch_norm import ConvNorm
from clouds_jax.nn.sam.vit import Neck, join, split
from clouds_jax.ops import depthwise

_RATIO = 4  # of the hidden to the outer width, in MBConv and MLP
_KERNEL = 3
_HALF = ((_KERNEL // 2, _KERNEL // 2),) * 2
_STRIDES = (2, 2, 1)  # between the stages
_FAN_OUT = initializers.FAN_OUT
_WEIGHT = initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class TinyViTSize:
    """Numbers of one encoder.

    Attributes:
        widths: channels per stage.
        depths: blocks per stage.
        heads: attention heads of stages 1 to 3; stage 0 is convolutions.
        windows: positions along each side of a window, of stages 1 to 3.
        image: pixels of the square input along each side.
        strided: whether the two convolutions before the stages halve the map and see 3x3 pixels,
            or keep it and see one.
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
        """Positions along each side of the embedding."""
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


def _pointwise(inputs: int, outputs: int, rngs: nnx.Rngs) -> ConvNorm:
    conv = layers.Linear(inputs, outputs, kernel_init=_FAN_OUT, bias_init=None, rngs=rngs)
    return ConvNorm(conv, outputs, rngs=rngs)


class Depthwise(nnx.Module):
    """Depthwise 3x3 convolution without bias."""

    def __init__(self, channels: int, *, stride: int = 1, rngs: nnx.Rngs):
        init = initializers.normal((2 / _KERNEL**2) ** 0.5)
        self.kernel = nnx.Param(init(rngs.params(), (_KERNEL, _KERNEL, channels)))
        self.stride = stride

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kernel = self.kernel[...].astype(x.dtype)
        return depthwise.depthwise_conv(x, kernel, stride=self.stride, padding=_HALF)


def _depthwise(channels: int, stride: int, rngs: nnx.Rngs) -> ConvNorm:
    return ConvNorm(Depthwise(channels, stride=stride, rngs=rngs), channels, rngs=rngs)


class MBConv(nnx.Module):
    """Inverted bottleneck beside a shortcut; GELU also follows the sum."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        hidden = _RATIO * channels
        self.conv1 = _pointwise(channels, hidden, rngs)
        self.conv2 = _depthwise(hidden, 1, rngs)
        self.conv3 = _pointwise(hidden, channels, rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return layers.gelu(x + self.conv3(layers.gelu(self.conv2(layers.gelu(self.conv1(x))))))


class Merging(nnx.Module):
    """Between two stages: to the next one's width, and to half the size where `stride` is 2."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        self.conv1 = _pointwise(inputs, outputs, rngs)
        self.conv2 = _depthwise(outputs, stride, rngs)
        self.conv3 = _pointwise(outputs, outputs, rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.conv3(layers.gelu(self.conv2(layers.gelu(self.conv1(x)))))


class Attention(nnx.Module):
    """Self-attention inside a window, with a learned bias for every distance.

    Args:
        side: positions along each side of the window.
    """

    def __init__(self, width: int, heads: int, *, side: int, rngs: nnx.Rngs):
        self.norm = layers.LayerNorm(width, rngs=rngs)
        # the outputs of a head follow each other: its query, its key, its value
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
        shares = jax.nn.softmax(scores).astype(value.dtype)
        out = jnp.einsum("nhqk,nkhe->nqhe", shares, value)
        return self.out(out.reshape(n, side, side, width))

    def _bias(self) -> Float[Array, "h p p"]:
        """Bias between any two positions: that of their distances in rows and columns."""
        rows, columns = np.divmod(np.arange(self.side**2), self.side)
        apart = [np.abs(place[:, None] - place[None]) for place in (rows, columns)]
        return self.biases[...].astype(jnp.float32)[:, apart[0] * self.side + apart[1]]


class Block(nnx.Module):
    """Attention inside windows, a depthwise convolution, an MLP."""

    def __init__(self, width: int, heads: int, *, window: int, rngs: nnx.Rngs):
        hidden = _RATIO * width
        self.attention = Attention(width, heads, side=window, rngs=rngs)
        self.local = _depthwise(width, 1, rngs)
        self.norm = layers.LayerNorm(width, rngs=rngs)
        self.fc1 = layers.Linear(width, hidden, kernel_init=_WEIGHT, rngs=rngs)
        self.fc2 = layers.Linear(hidden, width, kernel_init=_WEIGHT, rngs=rngs)
        self.window = window

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        x = x + join(self.attention(split(x, self.window)), x.shape)
        x = self.local(x)
        return x + self.fc2(layers.gelu(self.fc1(self.norm(x))))


def _merging(size: TinyViTSize, stage: int, rngs: nnx.Rngs) -> Merging:
    inputs, outputs = size.widths[stage : stage + 2]
    return Merging(inputs, outputs, stride=_STRIDES[stage], rngs=rngs)


class Stage(nnx.Module):
    """A stack of blocks, and what leads to the next stage, if there is one."""

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
        self.patch = nnx.List(
            [
                _patch(inputs, outputs, strided=size.strided, rngs=rngs)
                for inputs, outputs in ((3, first // 2), (first // 2, first))
            ]
        )
        numbers = zip(size.widths[1:], size.heads, size.windows, strict=True)
        makes = [lambda rngs: MBConv(first, rngs=rngs), *(_block(*each) for each in numbers)]
        self.stages = nnx.List([Stage(make, size, stage, rngs) for stage, make in enumerate(makes)])
        self.neck = Neck(size.widths[-1], size.outputs, rngs=rngs)

    def __call__(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b g g d"]:
        """Embeddings of normalised images, at a sixteenth of their size (medical: a quarter)."""
        x = self.embed(images)
        for stage in self.stages:
            x = stage(x)
        return self.neck(x)

    def embed(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b p p c"]:
        """The two convolutions before the stages."""
        first, second = self.patch
        return second(layers.gelu(first(images)))


def _patch(inputs: int, outputs: int, *, strided: bool, rngs: nnx.Rngs) -> ConvNorm:
    size, stride, pad = (_KERNEL, 2, 1) if strided else (1, 1, 0)
    conv = convolution.Conv(
        inputs,
        outputs,
        size=size,
        stride=stride,
        padding=((pad, pad), (pad, pad)),
        kernel_init=_FAN_OUT,
        rngs=rngs,
    )
    return ConvNorm(conv, outputs, rngs=rngs)


def _block(width: int, heads: int, window: int) -> Callable[[nnx.Rngs], Block]:
    return lambda rngs: Block(width, heads, window=window, rngs=rngs)
