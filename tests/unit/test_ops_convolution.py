"""The convolution against the sum of matrix products that it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops.convolution import conv2d

ATOL = 1e-4


@pytest.mark.parametrize("size", [(5, 7), (8, 6), (2, 3)])
@pytest.mark.parametrize("stride, padding", [(1, ((1, 1), (1, 1))), (2, ((0, 1), (0, 1)))])
def test_values_and_gradients_of_a_convolution_are_those_of_its_sum(size, stride, padding):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)

    def ours(x, kernel):
        return conv2d(x, kernel, stride=stride, padding=padding)

    def written_out(x, kernel):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        h, w = ((n - 3) // stride + 1 for n in x.shape[1:3])
        return sum(
            x[:, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
            @ kernel[i, j]
            for i in range(3)
            for j in range(3)
        )

    def loss(f, x, kernel):
        return jnp.sin(f(x, kernel)).sum()

    np.testing.assert_allclose(ours(x, kernel), written_out(x, kernel), atol=ATOL)
    for argnum in (1, 2):
        got = jax.grad(loss, argnum)(ours, x, kernel)
        expected = jax.grad(loss, argnum)(written_out, x, kernel)
        np.testing.assert_allclose(got, expected, atol=ATOL)
