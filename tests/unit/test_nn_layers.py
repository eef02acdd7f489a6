"""Layers: positions of attention, norms, stacks against single blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import layers
from clouds_jax.nn.rngs import Keys
from clouds_jax.ops.attention import attend

ATOL = 1e-5


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_the_position_moves_the_keys_and_not_the_values():
    attention = layers.Attention(8, 2, rngs=nnx.Rngs(0))
    queries, memory, position = random(2, 3, 8), random(2, 5, 8, seed=1), random(5, 8, seed=2)
    out = attention(queries, memory, position)

    def split(x):
        return x.reshape(*x.shape[:2], 2, 4)

    expected = attention.out(
        attend(
            split(attention.query(queries)),
            split(attention.key(memory + position[None])),
            split(attention.value(memory)),
        ).reshape(queries.shape)
    )
    np.testing.assert_allclose(out, expected, atol=ATOL)


def test_a_stack_applies_its_blocks_in_order():
    stack = layers.stack_blocks(lambda rngs: layers.Linear(4, 4, rngs=rngs), 3, nnx.Rngs(0))
    assert stack.kernel.shape == (3, 4, 4) and stack.bias.shape == (3, 4)
    x = expected = random(2, 5, 4)
    for i in range(3):
        expected = expected @ stack.kernel[...][i]
    np.testing.assert_allclose(layers.scan_blocks(stack, x), expected, atol=ATOL)
    assert not np.allclose(stack.kernel[...][0], stack.kernel[...][1])


def test_a_stack_has_the_numbers_of_blocks_drawn_one_after_the_other():
    drawn, stacked = nnx.Rngs(3), nnx.Rngs(3)
    blocks = [layers.Linear(4, 2, rngs=drawn) for _ in range(3)]
    stack = layers.stack_blocks(lambda rngs: layers.Linear(4, 2, rngs=rngs), 3, stacked)
    for i, block in enumerate(blocks):
        np.testing.assert_array_equal(stack.kernel[...][i], block.kernel[...])
    assert drawn.params() == stacked.params()


def test_norms_have_zero_mean_and_unit_variance_in_float32_whatever_the_input_is():
    x = random(2, 4, 6, 8) * 3 + 100
    for norm, axes in (
        (layers.LayerNorm(8, rngs=nnx.Rngs(0)), 3),
        (layers.GroupNorm(8, groups=1, rngs=nnx.Rngs(0)), (1, 2, 3)),
    ):
        y = norm(x)
        np.testing.assert_allclose(y.mean(axes), 0, atol=1e-4)
        np.testing.assert_allclose(y.var(axes), 1, atol=1e-3)
        half = norm(x.astype(jnp.bfloat16))
        assert half.dtype == jnp.bfloat16
        assert abs(float(half.astype(jnp.float32).mean())) < 0.01


def test_misfitting_widths_are_refused():
    with pytest.raises(ValueError, match="10 channels are not divisible by 4 groups"):
        layers.GroupNorm(10, groups=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="width 10 is not divisible by 4 heads"):
        layers.Attention(10, 4, rngs=nnx.Rngs(0))


def test_keys_without_variables_are_those_of_flax():
    ours, theirs = Keys(jax.random.key(3)), nnx.Rngs(jax.random.key(3))
    for _ in range(3):
        np.testing.assert_array_equal(
            jax.random.key_data(ours.params()), jax.random.key_data(theirs.params())
        )
