"""Depthwise convolution: one small kernel per channel.

Source: torch.nn.Conv2d(groups=channels), as in ConvNeXt (7x7) and EfficientNet-Lite (3x3, 5x5).
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

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
        return lax.platform_dependent(x, kernel, cpu=forms["shift"], default=forms["conv"])
    if form not in forms:
        raise ValueError(f"depthwise_conv has no form '{form}'; it has: {', '.join(forms)}.")
    return forms[form](x, kernel)


def _shift(x: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
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
