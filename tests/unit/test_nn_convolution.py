"""The convolution's written-out gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import convolution

ATOL = 1e-4


@pytest.mark.parametrize("size", [(5, 7), (8, 6), (2, 3)])
@pytest.mark.parametrize("stride, padding", [(1, ((1, 1), (1, 1))), (2, ((0, 1), (0, 1)))])
def test_the_gradients_of_a_convolution_are_those_of_the_sum_it_is(size, stride, padding):
    conv = convolution.Conv(3, 4, size=3, stride=stride, padding=padding, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)

    def written_out(x, kernel):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        h, w = ((n - 3) // stride + 1 for n in x.shape[1:3])
        return sum(
            x[:, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
            @ kernel[i, j]
            for i in range(3)
            for j in range(3)
        )

    graphdef, state = nnx.split(conv)

    def loss(f, x, kernel):
        return jnp.sin(f(x, kernel)).sum()

    def ours(x, kernel):
        return nnx.merge(graphdef, nnx.State({"kernel": nnx.Param(kernel)}))(x)

    kernel = conv.kernel[...]
    for argnum in (1, 2):
        got = jax.grad(loss, argnum)(ours, x, kernel)
        expected = jax.grad(loss, argnum)(written_out, x, kernel)
        np.testing.assert_allclose(got, expected, atol=ATOL)
