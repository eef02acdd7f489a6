"""Batch norm whose statistics stay fixed, and a convolution with one behind it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import initializers


class FrozenBatchNorm(nnx.Module):
    """Affine map from stored statistics. They are parameters here, because nothing updates them.

    Args:
        eps: added to the variance; torch's default.
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
    """A convolution without bias and its batch norm over `channels`."""

    def __init__(self, conv: nnx.Module, channels: int, *, eps: float = 1e-5, rngs: nnx.Rngs):
        self.conv = conv
        self.bn = FrozenBatchNorm(channels, eps=eps, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.bn(self.conv(x))
