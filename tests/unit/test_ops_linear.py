"""The product with a weight matrix: values and gradients against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops.linear import linear


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("sizes", [(4, 9), (9, 4), (6, 6)], ids=["widens", "narrows", "keeps"])
def test_values_and_gradients_are_those_of_float64(shape, sizes):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(*shape, sizes[0])), rng.normal(size=sizes)
    cotangent = rng.normal(size=(*shape, sizes[1]))
    y, pull = jax.vjp(linear, jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    to_x, to_kernel = pull(jnp.asarray(cotangent, jnp.float32))
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_x, cotangent @ kernel.T, rtol=1e-5, atol=1e-5)
    expected = x.reshape(-1, sizes[0]).T @ cotangent.reshape(-1, sizes[1])
    np.testing.assert_allclose(to_kernel, expected, rtol=1e-5, atol=1e-5)


def test_gradients_keep_the_dtype():
    x, kernel = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((4, 5), jnp.bfloat16)
    grads = jax.grad(lambda *args: linear(*args).astype(jnp.float32).sum(), (0, 1))(x, kernel)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.bfloat16]
