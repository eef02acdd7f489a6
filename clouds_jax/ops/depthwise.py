"""Depthwise convolution: one small kernel per channel.

Source: torch.nn.Conv2d(groups=channels), as in ConvNeXt (7x7) and EfficientNet-Lite (3x3, 5x5).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from clouds_jax.ops import dispatch

Padding = tuple[tuple[int, int], tuple[int, int]]


def depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c"],
    *,
    stride: int = 1,
    padding: Padding,
    form: str | None = None,
) -> Float[Array, "b h2 w2 c"]:
    """Correlates every channel of `x` with its own kernel.

    Args:
        x: maps in NHWC.
        kernel: one (kh, kw) kernel per channel.
        stride: step in rows and columns.
        padding: zeros ((above, below), (left, right)).
        form: "shift" (a sum of shifted copies), "conv" (the grouped convolution of XLA), or None
            for the one that suits the platform.

    Returns:
        Maps in the dtype of `x`; sums are float32.
    """
    forms = {
        name: functools.partial(f, stride=stride, padding=padding) for name, f in FORMS.items()
    }
    if form is None:
        # XLA's grouped convolution is 57 to 94 times slower than torch's on CPU; the sum of
        # shifts 2 to 3 times.
        return dispatch.suited(cpu=forms["shift"], default=forms["conv"])(x, kernel)
    if form not in forms:
        raise ValueError(f"depthwise_conv has no form '{form}'; it has: {', '.join(forms)}.")
    return forms[form](x, kernel)


def _shift(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    if stride == 1:
        return _shift_by_one(x, kernel, padding)
    return _sum_of_shifts(x, kernel, stride, padding)


def _sum_of_shifts(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """The sum as a whole; NaN where the first tap is NaN.

    XLA fuses a sum into all that reads it, and a LayerNorm behind it computes it three times: at
    192x192x192 in 72 ms on two cores, against 26. A condition on a value is what no fusion crosses;
    CPUs drop optimization barriers before they fuse.
    """
    tap = kernel[0, 0, 0]
    add = functools.partial(_add_shifts, stride=stride, padding=padding)
    shape = jax.eval_shape(add, x, kernel)
    return lax.cond(tap == tap, add, lambda *_: jnp.full(shape.shape, jnp.nan, x.dtype), x, kernel)


@functools.partial(jax.jit, static_argnames=("stride", "padding"))  # traced once, asked for twice
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


# The gradients in the same form: what differentiation makes of 49 slices compiles for a minute.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shift_by_one(x: Array, kernel: Array, padding: Padding) -> Array:
    return _sum_of_shifts(x, kernel, 1, padding)


def _forward(x: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _shift_by_one(x, kernel, padding), (x, kernel)


def _backward(
    padding: Padding, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:  # fmt: skip
    x, kernel = saved
    kh, kw, c = kernel.shape
    (top, bottom), (left, right) = padding
    turned = ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right))
    by_x = _sum_of_shifts(grad, kernel[::-1, ::-1], 1, turned)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    b, h, w, _ = grad.shape

    def tap(place: Array) -> Array:
        seen = lax.dynamic_slice(padded, (0, place // kw, place % kw, 0), (b, h, w, c))
        return (seen.astype(jnp.float32) * grad.astype(jnp.float32)).sum((0, 1, 2))

    by_kernel = lax.map(tap, jnp.arange(kh * kw)).reshape(kh, kw, c)
    return by_x.astype(x.dtype), by_kernel.astype(kernel.dtype)


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


FORMS = {"shift": _shift, "conv": _conv}
