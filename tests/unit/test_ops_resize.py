"""Bilinear resizing against hand numbers and a slow loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops.resize import resize_bilinear

ATOL = 1e-5


def slow_axis(x, n):
    """Resizes axis 0 in float64."""
    old = x.shape[0]
    rows = []
    for i in range(n):
        at = max((i + 0.5) * old / n - 0.5, 0)
        low = int(at)
        high = min(low + 1, old - 1)
        rows.append(x[low] * (1 - (at - low)) + x[high] * (at - low))
    return np.stack(rows)


def slow(x, size):
    x = np.asarray(x, np.float64)
    x = np.moveaxis(slow_axis(np.moveaxis(x, 1, 0), size[0]), 0, 1)
    return np.moveaxis(slow_axis(np.moveaxis(x, 2, 0), size[1]), 0, 2)


def test_doubling_blends_three_quarters_and_one_quarter():
    x = jnp.asarray([0.0, 4.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(resize_bilinear(x, (1, 4)).ravel(), [0, 1, 3, 4], atol=ATOL)


def test_shrinking_reads_two_pixels_and_does_not_average_the_rest():
    x = jnp.asarray([9.0, 9, 9, 1, 3, 9, 9, 9]).reshape(1, 8, 1, 1)
    np.testing.assert_allclose(resize_bilinear(x, (1, 1)).ravel(), [2], atol=ATOL)


SIZES = [
    ((4, 6), (8, 12)),
    ((24, 16), (3, 4)),
    ((7, 5), (11, 3)),
    ((3, 5), (3, 5)),
    ((1, 2), (3, 7)),
]


@pytest.mark.parametrize("old, new", SIZES)
def test_the_output_equals_the_slow_loop(old, new):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *old, 3)), jnp.float32)
    out = jax.jit(resize_bilinear, static_argnums=1)(x, new)
    np.testing.assert_allclose(out, slow(x, new), atol=ATOL)


@pytest.mark.parametrize("old, new", SIZES)
def test_the_gradient_is_the_transpose_of_the_resize(old, new):
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(1, *old, 2)), jnp.float32)
    share = jnp.asarray(random.normal(size=(1, *new, 2)), jnp.float32)
    _, pull = jax.vjp(lambda x: resize_bilinear(x, new), x)
    other = random.normal(size=x.shape)
    # <resize(other), share> == <other, transpose(share)>
    found = np.sum(other * np.asarray(pull(share)[0], np.float64))
    np.testing.assert_allclose(found, np.sum(slow(other, new) * np.asarray(share)), atol=ATOL * 10)


def test_bfloat16_stays_bfloat16():
    assert resize_bilinear(jnp.ones((1, 2, 3, 1), jnp.bfloat16), (5, 4)).dtype == jnp.bfloat16
