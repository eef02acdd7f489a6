"""Convolutions: dense, of patches, depthwise."""

from collections.abc import Callable

from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import initializers
from clouds_jax.ops.convolution import Padding, conv2d
from clouds_jax.ops.depthwise import depthwise_conv
from clouds_jax.ops.linear import linear

_NORMAL = initializers.truncated_normal(0.02)


class Conv(nnx.Module):
    """Dense 2D convolution.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        size: rows and columns of the kernel.
        stride: step in rows and columns, in pixels.
        padding: zeros ((above, below), (left, right)), in pixels.
        kernel_init: initialiser of the kernel.
        bias_init: initialiser of the bias; None: no bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        size: int,
        stride: int = 1,
        padding: Padding,
        kernel_init: Callable = initializers.KAIMING,
        bias_init: Callable | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, inputs, outputs)))
        has_bias = bias_init is not None
        self.bias = nnx.Param(bias_init(rngs.params(), (outputs,))) if has_bias else None
        self.stride = stride
        self.padding = padding

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.kernel[...].astype(x.dtype)
        y = conv2d(x, kernel, stride=self.stride, padding=self.padding)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)[None, None, None]


class Patchify(nnx.Module):
    """Convolution whose stride is its size, as one matrix product over patches.

    Rows and columns at the end that do not fill a patch are dropped.
    """

    def __init__(self, inputs: int, outputs: int, *, size: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_NORMAL(rngs.params(), (size, size, inputs, outputs)))
        self.bias = nnx.Param(initializers.ZEROS(rngs.params(), (outputs,)))
        self.size = size

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        b, h, w, c = x.shape
        p = self.size
        x = x[:, : h // p * p, : w // p * p]
        x = x.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(b, h // p, w // p, p * p * c)
        kernel = self.kernel[...].reshape(p * p * c, -1).astype(x.dtype)
        return linear(x, kernel) + self.bias[...].astype(x.dtype)[None, None, None]


class DepthwiseConv(nnx.Module):
    """Depthwise 2D convolution.

    Args:
        channels: c.
        size: rows and columns of the kernel.
        stride: step in rows and columns, in pixels.
        padding: zeros ((above, below), (left, right)), in pixels; None: half the size all around,
            which keeps the size of the map at stride 1.
        kernel_init: initialiser of the kernel.
        bias_init: initialiser of the bias; None: no bias.
    """

    def __init__(
        self,
        channels: int,
        *,
        size: int,
        stride: int = 1,
        padding: Padding | None = None,
        kernel_init: Callable = _NORMAL,
        bias_init: Callable | None = initializers.ZEROS,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, channels)))
        has_bias = bias_init is not None
        self.bias = nnx.Param(bias_init(rngs.params(), (channels,))) if has_bias else None
        self.stride = stride
        half = (size // 2, size // 2)
        self.padding = (half, half) if padding is None else padding

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kernel = self.kernel[...].astype(x.dtype)
        y = depthwise_conv(x, kernel, stride=self.stride, padding=self.padding)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)[None, None, None]
