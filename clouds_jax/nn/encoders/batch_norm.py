"""Batch norm with fixed statistics, alone and after a convolution."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import initializers


class FrozenBatchNorm(nnx.Module):
    """Batch norm in inference mode. Its statistics are parameters, because nothing updates them.

    Args:
        channels: c.
        eps: added to the variance; the default is torch's.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, rngs: nnx.Rngs):
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

    def __init__(self, conv: nnx.Module, channels: int, *, eps: float = 1e-5, rngs: nnx.Rngs):
        self.conv = conv
        self.bn = FrozenBatchNorm(channels, eps=eps, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.bn(self.conv(x))
