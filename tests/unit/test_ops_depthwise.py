"""Depthwise convolution against a slow loop, in both implementations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from clouds_jax.ops.depthwise import IMPLEMENTATIONS, depthwise_conv

ATOL = 1e-4  # sums of up to 49 products of numbers near 1
ATOL_BFLOAT16 = 0.05


def slow(x, kernel, stride, padding):
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    kh, kw, _ = kernel.shape
    h = (x.shape[1] - kh) // stride + 1
    w = (x.shape[2] - kw) // stride + 1
    out = np.zeros((x.shape[0], h, w, x.shape[3]))
    for j in range(h):
        for i in range(w):
            patch = x[:, j * stride : j * stride + kh, i * stride : i * stride + kw]
            out[:, j, i] = np.sum(patch * kernel[None], axis=(1, 2))
    return out


def case(size, c=3, h=9, w=12):
    random = np.random.default_rng(size)
    x = jnp.asarray(random.normal(size=(2, h, w, c)), jnp.float32)
    return x, jnp.asarray(random.normal(size=(size, size, c)), jnp.float32)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "size, stride, padding",
    [
        (3, 1, ((1, 1), (1, 1))),
        (7, 1, ((3, 3), (3, 3))),
        (5, 2, ((1, 2), (2, 1))),  # "SAME" of TensorFlow is lopsided
        (3, 2, ((0, 1), (0, 1))),
        (3, 2, ((0, 0), (0, 0))),
    ],
)
def test_the_output_equals_the_slow_loop(implementation, size, stride, padding):
    x, kernel = case(size)
    run = jax.jit(
        functools.partial(
            depthwise_conv, stride=stride, padding=padding, implementation=implementation
        )
    )
    np.testing.assert_allclose(run(x, kernel), slow(x, kernel, stride, padding), atol=ATOL)


@pytest.mark.parametrize("padding", [((2, 2), (2, 2)), ((1, 2), (4, 0))])
@pytest.mark.parametrize("stride", [1, 2])
def test_both_implementations_have_the_same_gradients(stride, padding):
    x, kernel = case(5)

    def gradients(implementation):
        def total(x, kernel):
            out = depthwise_conv(
                x, kernel, stride=stride, padding=padding, implementation=implementation
            )
            return jnp.sum(jnp.sin(out))

        return jax.jit(jax.grad(total, (0, 1)))(x, kernel)

    for shift, conv in zip(gradients("shift"), gradients("conv"), strict=True):
        assert np.any(conv)
        np.testing.assert_allclose(shift, conv, atol=ATOL)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_stays_bfloat16(implementation):
    x, kernel = (a.astype(jnp.bfloat16) for a in case(3))
    out = depthwise_conv(x, kernel, padding=((1, 1), (1, 1)), implementation=implementation)
    assert out.dtype == jnp.bfloat16
    expected = slow(x, kernel, 1, ((1, 1), (1, 1)))
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, atol=ATOL_BFLOAT16)


def test_it_runs_in_a_scan_over_stacked_kernels():
    x, kernel = case(3)
    kernels = jnp.stack([kernel, -kernel / 2])

    def block(x, kernel):
        return depthwise_conv(x, kernel, padding=((1, 1), (1, 1))), None

    out, _ = jax.jit(lambda x, kernels: lax.scan(block, x, kernels))(x, kernels)
    padding = ((1, 1), (1, 1))
    expected = slow(slow(x, kernel, 1, padding), -kernel / 2, 1, padding)
    np.testing.assert_allclose(out, expected, atol=ATOL)


def test_an_unknown_implementation_is_refused_with_the_list():
    x, kernel = case(3)
    with pytest.raises(ValueError, match="no implementation 'fft'; it has: shift, conv"):
        depthwise_conv(x, kernel, padding=((1, 1), (1, 1)), implementation="fft")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_broken_kernel_shows(implementation):
    x, kernel = case(3)
    broken = kernel.at[0, 0, 0].set(jnp.nan)
    out = depthwise_conv(x, broken, padding=((1, 1), (1, 1)), implementation=implementation)
    assert np.isnan(out[..., 0]).any()
