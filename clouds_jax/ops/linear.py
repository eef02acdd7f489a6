"""The product of activations and a weight matrix, with a fast weight gradient on CPU.

XLA's matrix product is at its best on CPU, close to the machine's limit, where the left operand is
contracted over its last axis. The weight gradient is contracted over rows, and over two axes at
once if the activations have as many before the last one: that runs at half the rate. The
written-out gradient transposes the narrower operand first, which costs little. Other platforms
differentiate the plain product, so forward mode and higher derivatives work there.
"""

import jax
from jax import lax
from jaxtyping import Array, Float

from clouds_jax.ops import dispatch


def linear(x: Float[Array, "*n i"], kernel: Float[Array, "i o"]) -> Float[Array, "*n o"]:
    """Multiplies the last axis of `x` by `kernel`, of the same dtype.

    On CPU only reverse-mode differentiation works.
    """
    return dispatch.by_platform(cpu=_with_written_gradient, default=_product)(x, kernel)


def _product(x: Array, kernel: Array) -> Array:
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])


_with_written_gradient = jax.custom_vjp(_product)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel), (x, kernel)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    inputs, outputs = kernel.shape
    x, grad = x.reshape(-1, inputs), cotangent.reshape(-1, outputs)
    to_x = (grad @ kernel.T).reshape(*cotangent.shape[:-1], inputs)
    return to_x, _transposed_first(x, grad)


_with_written_gradient.defvjp(_forward, _backward)


def _transposed_first(a: Float[Array, "n i"], b: Float[Array, "n o"]) -> Float[Array, "i o"]:
    """The product of `a` transposed and `b`, by transposing the narrower of the two."""
    if a.shape[1] > b.shape[1]:
        return lax.optimization_barrier(_transposed_first(b, a)).T
    # Without the barriers XLA folds the transposition into the product again.
    return lax.optimization_barrier(a.T) @ b
