"""Initialisers of parameters, with two sources of random numbers.

Given a key of JAX they are the functions of `jax.nn.initializers`, bit for bit. Given a key of
`nn.rngs.HostKeys` they draw with NumPy on the host: the hundreds of shapes of a large model would
take minutes to compile, and NumPy needs no compilation.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike

from clouds_jax.nn.rngs import Draw, HostKey, HostKeys

Shape = Sequence[int]


@dataclasses.dataclass(frozen=True)
class Initializer:
    """Draws a parameter: `initializer(key, shape)`.

    Attributes:
        on_device: (key, shape, dtype) -> array.
        on_host: shape -> how NumPy fills an array of it.
    """

    on_device: Callable[..., Array]
    on_host: Callable[[Shape], Draw]

    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> ArrayLike:
        if isinstance(key, HostKey):
            return key.draw(tuple(shape), self.on_host(shape))
        return self.on_device(key, shape, dtype)


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""

    def on_device(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return Initializer(on_device, lambda shape: _uniform(bound))


def normal(std: float) -> Initializer:
    """N(0, std^2)."""
    return Initializer(jax.nn.initializers.normal(std), lambda shape: _normal(std))


def truncated_normal(std: float) -> Initializer:
    """N(0, std^2), drawn again beyond two standard deviations."""
    return Initializer(jax.nn.initializers.truncated_normal(std), lambda shape: _truncated(std))


def fixed(values: np.ndarray) -> Initializer:
    """The given values, reshaped."""

    def on_device(key, shape, dtype):
        return jnp.asarray(values.reshape(shape))

    def fill(rng: np.random.Generator | None, out: np.ndarray) -> None:
        out.reshape(-1, values.size)[...] = values.reshape(-1)

    return Initializer(on_device, lambda shape: Draw(fill, splits=False))


def filled(rngs: nnx.Rngs, shape: Shape, value: float) -> ArrayLike:
    """An array full of one value; takes no key."""
    if isinstance(rngs, HostKeys):
        return rngs.draw(tuple(shape), _constant(value))
    return jnp.full(shape, value)


def _constant(value: float) -> Draw:
    return Draw(lambda rng, out: out.fill(value))


def _by_quantile(scale: float, quantiles: Callable[[], np.ndarray]) -> Draw:
    """Draws from a table of 65,536 equally likely values: several times as fast as exact draws."""

    def fill(rng: np.random.Generator, out: np.ndarray) -> None:
        table = (scale * quantiles()).astype(np.float32)
        table.take(rng.integers(0, len(table), out.size, np.uint16), out=out, mode="clip")

    return Draw(fill)


@functools.cache
def _levels() -> np.ndarray:
    """Centres of 65,536 parts of (0, 1)."""
    return (np.arange(1 << 16) + 0.5) / (1 << 16)


@functools.cache
def _normal_quantiles() -> np.ndarray:
    from scipy import special  # slow to import, and loaded weights need no draws

    return special.ndtri(_levels())


@functools.cache
def _truncated_quantiles() -> np.ndarray:
    from scipy import special

    low, high = special.ndtr((-2.0, 2.0))
    return special.ndtri(low + (high - low) * _levels())


def _uniform(bound: float) -> Draw:
    return _by_quantile(bound, lambda: 2 * _levels() - 1)


def _normal(std: float) -> Draw:
    return _by_quantile(std, _normal_quantiles)


def _truncated(std: float) -> Draw:
    return _by_quantile(std, _truncated_quantiles)


def _fans(shape: Shape) -> tuple[int, int]:
    """(fan in, fan out) of a kernel [..., in, out], as `jax.nn.initializers` counts them."""
    receptive = math.prod(shape[:-2])
    return shape[-2] * receptive, shape[-1] * receptive


XAVIER = Initializer(
    jax.nn.initializers.glorot_uniform(), lambda s: _uniform(math.sqrt(6 / sum(_fans(s))))
)
# U(+-sqrt(3 / fan in))
KAIMING = Initializer(
    jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform"),
    lambda s: _uniform(math.sqrt(3 / _fans(s)[0])),
)
# N(0, 2 / fan out)
FAN_OUT = Initializer(
    jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    lambda s: _normal(math.sqrt(2 / _fans(s)[1])),
)
ZEROS = Initializer(jax.nn.initializers.zeros, lambda shape: _constant(0.0))
ONES = Initializer(jax.nn.initializers.ones, lambda shape: _constant(1.0))
NORMAL = normal(1.0)


def torch_linear(fan_in: int) -> dict[str, Initializer]:
    """The initialisers of torch.nn.Linear: U(+-1 / sqrt(fan_in)) for kernel and bias."""
    bound = 1 / math.sqrt(fan_in)
    return dict(kernel_init=uniform(bound), bias_init=uniform(bound))
