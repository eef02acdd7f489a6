"""What runs off CPU: any derivative works, and values and gradients are those of the CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops.attention import attend
from clouds_jax.ops.convolution import conv2d
from clouds_jax.ops.depthwise import depthwise_conv
from clouds_jax.ops.layer_norm import standardise
from clouds_jax.ops.linear import linear

RTOL = 1e-5  # of the largest value

_SAME = ((1, 1), (1, 1))
_MASK = jnp.asarray(np.random.default_rng(7).random((2, 3, 5)) < 0.6).at[0, 1].set(False)
# operation -> function, shapes of its arguments
OPERATIONS = {
    "linear": (linear, [(2, 3, 4), (4, 5)]),
    "standardise": (functools.partial(standardise, eps=1e-6), [(2, 3, 8)]),
    "attend": (attend, [(2, 3, 2, 4), (2, 5, 2, 4), (2, 5, 2, 4)]),
    "masked attend": (
        functools.partial(attend, mask=_MASK), [(2, 3, 2, 4), (2, 5, 2, 4), (2, 5, 2, 4)]
    ),
    "conv2d": (
        functools.partial(conv2d, stride=2, padding=_SAME), [(1, 5, 6, 2), (3, 3, 2, 3)]
    ),
    "depthwise_conv": (
        functools.partial(depthwise_conv, padding=_SAME), [(1, 5, 4, 3), (3, 3, 3)]
    ),
}  # fmt: skip


@pytest.fixture
def elsewhere(monkeypatch):
    """Calls a function as if the program ran on a platform without implementations of its own."""

    def run(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr("clouds_jax.ops.dispatch.jax.default_backend", lambda: "elsewhere")
            return function(*args)

    return run


def arguments(name, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in OPERATIONS[name][1]]


def loss_of(name):
    return lambda *args: jnp.sin(OPERATIONS[name][0](*args)).sum()


def assert_close(got, expected):
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=RTOL * max(1.0, np.abs(two).max()))


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_gradients_off_cpu_are_those_of_the_cpu(name, elsewhere):
    function, args = OPERATIONS[name][0], arguments(name)
    assert_close(elsewhere(function, *args), function(*args))
    gradient = jax.grad(loss_of(name), range(len(args)))
    assert_close(elsewhere(gradient, *args), gradient(*args))


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_forward_derivative_off_cpu_is_that_of_the_gradient(name, elsewhere):
    args, tangents = arguments(name), arguments(name, seed=1)
    gradient = jax.grad(loss_of(name), range(len(args)))(*args)
    expected = sum(jnp.vdot(g, t) for g, t in zip(gradient, tangents, strict=True))
    _, got = elsewhere(jax.jvp, loss_of(name), args, tangents)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_hessian_off_cpu_is_the_slope_of_the_gradient(name, elsewhere):
    args, tangents = arguments(name), arguments(name, seed=1)
    hessian = elsewhere(jax.hessian(loss_of(name)), *args)  # of the first argument
    got = jnp.tensordot(hessian, tangents[0], args[0].ndim)
    step = 1e-2
    gradient = jax.grad(loss_of(name))
    above, below = (gradient(args[0] + s * tangents[0], *args[1:]) for s in (step, -step))
    slope = (above - below) / (2 * step)
    np.testing.assert_allclose(got, slope, rtol=0, atol=3e-3 * np.abs(slope).max())
