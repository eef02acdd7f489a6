"""How one PyTorch tensor becomes one or several of ours, and the exact inverse.

Every layout is a pair of functions that only move values, without arithmetic, so that a conversion
and its inverse are bit-equal. Our kernels are (..., in, out): a dense kernel is torch's transposed,
a convolution is HWIO.

The outputs of the deformable attention's two projections keep torch's order on their last axis
(head, level, point, xy and head, level, point), so `linear` serves them too.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way of storing a weight.

    Attributes:
        name: name in error messages and reports.
        rank: number of axes of the source tensor, or None for any.
        parts: number of targets that one source tensor fills.
        forward: source tensor -> one array per target.
        backward: the arrays of the targets -> source tensor.
    """

    name: str
    rank: int | None
    parts: int
    forward: Callable[[np.ndarray], Sequence[np.ndarray]]
    backward: Callable[[Sequence[np.ndarray]], np.ndarray]


def _one_part(name: str, rank: int | None, forward: Callable, backward: Callable) -> Layout:
    """A layout with a single target."""
    return Layout(name, rank, 1, lambda x: (forward(x),), lambda parts: backward(parts[0]))


identity = _one_part("identity", None, lambda x: x, lambda y: y)

# (out, in) <-> (in, out)
linear = _one_part("linear", 2, lambda x: x.T, lambda y: y.T)

# (out, in, kh, kw) <-> (kh, kw, in, out)
conv2d = _one_part(
    "conv2d", 4, lambda x: x.transpose(2, 3, 1, 0), lambda y: y.transpose(3, 2, 0, 1)
)

# the same for a first layer that reads BGR: ours read RGB
conv2d_bgr = _one_part(
    "conv2d_bgr",
    4,
    lambda x: x[:, ::-1].transpose(2, 3, 1, 0),
    lambda y: y.transpose(3, 2, 0, 1)[:, ::-1],
)

# (out, in, 1, 1) <-> (in, out): a 1x1 convolution is a dense layer over channels
pointwise = _one_part(
    "pointwise", 4, lambda x: _squeezed(x, (2, 3)).T, lambda y: y.T[:, :, None, None]
)

# (out, in) or (out, in, 1, 1) <-> (in, out): files store the same layer in either way; the way back
# gives (out, in), to be reshaped to the file's shape
linear_or_pointwise = _one_part(
    "linear_or_pointwise",
    None,
    lambda x: x.T if x.ndim == 2 else _matrix(x).T,
    lambda y: y.T,
)

# (in, out, kh, kw) of a transposed convolution <-> (kh, kw, in, out)
conv_transpose = _one_part(
    "conv_transpose", 4, lambda x: x.transpose(2, 3, 0, 1), lambda y: y.transpose(2, 3, 0, 1)
)

# (1, ...) of an embedding with one entry, or of positions with a batch axis <-> (...)
single = _one_part("single", None, lambda x: _squeezed(x, (0,)), lambda y: y[None])

# (c, 1, kh, kw) <-> (kh, kw, c)
depthwise = _one_part(
    "depthwise",
    4,
    lambda x: _squeezed(x, (1,)).transpose(1, 2, 0),
    lambda y: y.transpose(2, 0, 1)[:, None],
)


def _fused(name: str, parts: int) -> tuple[Layout, Layout]:
    """Layouts of linear layers concatenated along the rows of one matrix, and of their biases."""
    return (
        Layout(
            name,
            2,
            parts,
            lambda x: [part.T for part in np.split(x, parts)],
            lambda targets: np.concatenate([target.T for target in targets]),
        ),
        Layout(f"{name}_bias", 1, parts, lambda x: np.split(x, parts), np.concatenate),
    )


# query, key and value of torch.nn.MultiheadAttention: (3d, d) and (3d)
fused_qkv, fused_qkv_bias = _fused("fused_qkv", 3)
# key and value of SegFormer's original: (2d, d) and (2d)
fused_kv, fused_kv_bias = _fused("fused_kv", 2)


def _matrix(x: np.ndarray) -> np.ndarray:
    """The matrix (out, in) of a 1x1 convolution."""
    if x.ndim != 4:
        raise ValueError(f"it has {x.ndim} axes, not 2 or 4")
    return _squeezed(x, (2, 3))


def _squeezed(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Removes `axes` from `x`; the error names an axis that is longer than 1."""
    for axis in axes:
        if x.shape[axis] != 1:
            raise ValueError(f"axis {axis} has length {x.shape[axis]}, not 1")
    return x.squeeze(axes)
