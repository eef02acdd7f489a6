"""Batch norm with fixed statistics, and convolutions followed by one."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import initializers, layers
from clouds_jax.nn.convolution import Conv, DepthwiseConv
from clouds_jax.ops import extents
from clouds_jax.ops.convolution import Padding
from clouds_jax.ops.extents import Extent

EPS = 1e-5  # torch's default


class FrozenBatchNorm(nnx.Module):
    """Batch norm in inference mode. Its statistics are parameters, because nothing updates them.

    Args:
        channels: c.
        eps: added to the variance.
    """

    def __init__(self, channels: int, *, eps: float = EPS, rngs: nnx.Rngs):
        self.scale = nnx.Param(initializers.ONES(rngs.params(), (channels,)))
        self.bias = nnx.Param(initializers.ZEROS(rngs.params(), (channels,)))
        self.mean = nnx.Param(initializers.ZEROS(rngs.params(), (channels,)))
        self.var = nnx.Param(initializers.ONES(rngs.params(), (channels,)))
        self.eps = eps

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        var = self.var[...].astype(jnp.float32)
        factor = self.scale[...].astype(jnp.float32) * jax.lax.rsqrt(var + self.eps)
        shift = self.bias[...].astype(jnp.float32) - self.mean[...].astype(jnp.float32) * factor
        y = x.astype(jnp.float32) * factor[None, None, None] + shift[None, None, None]
        return y.astype(x.dtype)


class ConvNorm(nnx.Module):
    """A convolution without bias, then a frozen batch norm over its `channels` outputs."""

    def __init__(self, conv: nnx.Module, channels: int, *, eps: float = EPS, rngs: nnx.Rngs):
        self.conv = conv
        self.bn = FrozenBatchNorm(channels, eps=eps, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        """The normalised output; with an extent, the convolution reads zeros beyond the images."""
        return self.bn(self.conv(extents.clear(x, extent)))


def pointwise(inputs: int, outputs: int, *, eps: float = EPS, rngs: nnx.Rngs) -> ConvNorm:
    """1x1 convolution, then batch norm."""
    conv = layers.Linear(
        inputs, outputs, kernel_init=initializers.FAN_OUT, bias_init=None, rngs=rngs
    )
    return ConvNorm(conv, outputs, eps=eps, rngs=rngs)


def spatial(
    inputs: int,
    outputs: int,
    *,
    size: int,
    stride: int,
    padding: Padding | None = None,
    eps: float = EPS,
    rngs: nnx.Rngs,
) -> ConvNorm:
    """Dense convolution, then batch norm; `padding` None: half the size all around."""
    half = (size // 2, size // 2)
    conv = Conv(
        inputs,
        outputs,
        size=size,
        stride=stride,
        padding=(half, half) if padding is None else padding,
        kernel_init=initializers.FAN_OUT,
        rngs=rngs,
    )
    return ConvNorm(conv, outputs, eps=eps, rngs=rngs)


def depthwise(
    channels: int,
    *,
    size: int,
    stride: int = 1,
    padding: Padding | None = None,
    eps: float = EPS,
    rngs: nnx.Rngs,
) -> ConvNorm:
    """Depthwise convolution, then batch norm; `padding` None: half the size all around."""
    conv = DepthwiseConv(
        channels,
        size=size,
        stride=stride,
        padding=padding,
        kernel_init=initializers.normal((2 / size**2) ** 0.5),
        bias_init=None,
        rngs=rngs,
    )
    return ConvNorm(conv, channels, eps=eps, rngs=rngs)
