"""Depthwise convolution: one small kernel per channel.

There are two implementations, of which each platform has its own:

"shift": a sum of shifted copies, with a written-out gradient at stride 1; CPU. XLA's grouped
    convolution is 57 to 94 times slower than torch's there, the sum of shifts 2 to 3 times.
"conv": the grouped convolution of XLA; all other platforms.

Source: torch.nn.Conv2d(groups=channels), as in ConvNeXt (7x7) and EfficientNet-Lite (3x3, 5x5).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from clouds_jax.ops import dispatch
from clouds_jax.ops.convolution import Padding


def depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c"],
    *,
    stride: int = 1,
    padding: Padding,
    implementation: str | None = None,
) -> Float[Array, "b h2 w2 c"]:
    """Cross-correlates every channel of `x` with its own kernel.

    Args:
        x: maps in NHWC.
        kernel: one (kh, kw) kernel per channel.
        stride: step in rows and columns, in pixels.
        padding: zeros ((above, below), (left, right)), in pixels.
        implementation: "shift" or "conv", see the module; None: the one for the platform.

    Returns:
        Maps in the dtype of `x`; sums are float32.
    """
    if implementation is None:
        chosen = dispatch.by_platform(cpu=_shift, default=_conv)
    elif implementation in IMPLEMENTATIONS:
        chosen = IMPLEMENTATIONS[implementation]
    else:
        raise ValueError(
            f"depthwise_conv has no implementation '{implementation}'; it has:"
            f" {', '.join(IMPLEMENTATIONS)}."
        )
    return chosen(x, kernel, stride=stride, padding=padding)


def _shift(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    if stride == 1:
        return _shift_by_one(x, kernel, padding)
    return _sum_of_shifts(x, kernel, stride, padding)


def _sum_of_shifts(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """The sum of shifted copies, computed once; all NaN where the first tap is NaN.

    XLA fuses the sum into every operation that reads it, so a LayerNorm behind it computes it three
    times: 72 ms at 192x192x192 on two cores, against 26. No fusion crosses a conditional, while
    optimization barriers are dropped on CPU before fusion.
    """
    tap = kernel[0, 0, 0]
    add = functools.partial(_add_shifts, stride=stride, padding=padding)
    shape = jax.eval_shape(add, x, kernel)
    return lax.cond(tap == tap, add, lambda *_: jnp.full(shape.shape, jnp.nan, x.dtype), x, kernel)


@functools.partial(
    jax.jit, static_argnames=("stride", "padding")
)  # traced once for shape and value
def _add_shifts(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    kh, kw, _ = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    h = (x.shape[1] - kh) // stride + 1
    w = (x.shape[2] - kw) // stride + 1
    # Without the barrier XLA fuses the padding into each of the kh * kw reads.
    x = lax.optimization_barrier(x)
    out = jnp.zeros(())
    for i in range(kh):
        for j in range(kw):
            rows = slice(i, i + (h - 1) * stride + 1, stride)
            columns = slice(j, j + (w - 1) * stride + 1, stride)
            tap = kernel[i, j].astype(jnp.float32)[None, None, None, :]
            out = out + x[:, rows, columns].astype(jnp.float32) * tap
    return out.astype(x.dtype)


# The gradients are sums of shifts too: the derived ones, of 49 slices, compile for a minute.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shift_by_one(x: Array, kernel: Array, padding: Padding) -> Array:
    return _sum_of_shifts(x, kernel, 1, padding)


def _forward(x: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _shift_by_one(x, kernel, padding), (x, kernel)


def _backward(
    padding: Padding, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    kh, kw, c = kernel.shape
    (top, bottom), (left, right) = padding
    transposed = ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right))
    to_x = _sum_of_shifts(cotangent, kernel[::-1, ::-1], 1, transposed)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    b, h, w, _ = cotangent.shape

    def tap(index: Array) -> Array:
        window = lax.dynamic_slice(padded, (0, index // kw, index % kw, 0), (b, h, w, c))
        return (window.astype(jnp.float32) * cotangent.astype(jnp.float32)).sum((0, 1, 2))

    to_kernel = lax.map(tap, jnp.arange(kh * kw)).reshape(kh, kw, c)
    return to_x.astype(x.dtype), to_kernel.astype(kernel.dtype)


_shift_by_one.defvjp(_forward, _backward)


def _conv(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :].astype(x.dtype),
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
    )


IMPLEMENTATIONS = {"shift": _shift, "conv": _conv}
