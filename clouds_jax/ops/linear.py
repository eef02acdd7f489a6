"""The product of activations and a weight matrix, with the weight's gradient written out.

XLA's product of matrices is at its best on a CPU, close to the machine's limit, where the left
operand is contracted over its last axis. The gradient of the weight is contracted over rows, and
over two axes at once if the activations have as many before the last one: that runs at half the
rate. Here the narrower operand is transposed first, which costs little.
"""

import jax
from jax import lax
from jaxtyping import Array, Float

from clouds_jax.ops import dispatch


@jax.custom_vjp
def linear(x: Float[Array, "*n i"], kernel: Float[Array, "i o"]) -> Float[Array, "*n o"]:
    """Multiplies the last axis of `x` with `kernel`, of the same dtype."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return linear(x, kernel), (x, kernel)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    inputs, outputs = kernel.shape
    x, grad = x.reshape(-1, inputs), cotangent.reshape(-1, outputs)
    to_kernel = dispatch.suited(cpu=_transposed_first, default=_plain)(x, grad)
    return (grad @ kernel.T).reshape(*cotangent.shape[:-1], inputs), to_kernel


linear.defvjp(_forward, _backward)


def _plain(a: Float[Array, "n i"], b: Float[Array, "n o"]) -> Float[Array, "i o"]:
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


def _transposed_first(a: Float[Array, "n i"], b: Float[Array, "n o"]) -> Float[Array, "i o"]:
    if a.shape[1] > b.shape[1]:
        return lax.optimization_barrier(_transposed_first(b, a)).T
    # without the barriers XLA folds the transposition into the product again
    return lax.optimization_barrier(a.T) @ b
