"""Layers: attention against a loop, stacks against single blocks, initial bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import layers
from clouds_jax.nn.rngs import Keys

ATOL = 1e-5


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def attend_slowly(query, key, value, mask):
    """One head and row at a time, softmax over the allowed keys only."""
    out = np.zeros(query.shape)
    b, q, n, e = query.shape
    for i, j, h in np.ndindex(b, q, n):
        allowed = mask[i, j] if mask[i, j].any() else np.ones_like(mask[i, j])
        scores = key[i, allowed, h] @ query[i, j, h] / np.sqrt(e)
        weights = np.exp(scores - scores.max())
        out[i, j, h] = weights / weights.sum() @ value[i, allowed, h]
    return out


def test_attention_equals_a_loop_over_the_allowed_keys():
    query, key, value = (random(2, s, 2, 3, seed=s) for s in (4, 7, 7))
    value = random(2, 7, 2, 3, seed=1)
    mask = np.random.default_rng(2).random((2, 4, 7)) < 0.4
    mask[0, 1] = False
    out = layers.attend(query, key, value, jnp.asarray(mask))
    expected = attend_slowly(*(np.asarray(x, np.float64) for x in (query, key, value)), mask)
    np.testing.assert_allclose(out, expected, atol=ATOL)


@pytest.mark.parametrize("masked", [True, False])
def test_the_gradient_of_attention_is_that_of_its_definition(masked):
    rng = np.random.default_rng(5)
    args = [jnp.asarray(rng.normal(size=(2, n, 3, 4)), jnp.float32) for n in (5, 7, 7)]
    mask = jnp.asarray(rng.random((2, 5, 7)) < 0.6).at[0, 1].set(False) if masked else None

    def plain(query, key, value):
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / 2
        if mask is not None:
            allowed = mask | ~mask.any(-1, keepdims=True)
            scores = jnp.where(allowed[:, None], scores, -jnp.inf)
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)

    def gradients(function):
        return jax.grad(lambda *xs: jnp.sin(function(*xs)).sum(), (0, 1, 2))(*args)

    found = gradients(lambda *xs: layers.attend(*xs, mask))
    for one, two in zip(found, gradients(plain), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_fully_blocked_row_attends_everywhere_and_has_a_finite_gradient():
    query, key, value = random(1, 2, 1, 4), random(1, 5, 1, 4, seed=1), random(1, 5, 1, 4, seed=2)
    mask = jnp.zeros((1, 2, 5), bool).at[0, 1, 3].set(True)
    out = layers.attend(query, key, value, mask)
    free = layers.attend(query, key, value)
    np.testing.assert_allclose(out[0, 0], free[0, 0], atol=ATOL)
    np.testing.assert_allclose(out[0, 1, 0], value[0, 3, 0], atol=ATOL)
    grad = jax.grad(lambda k: layers.attend(query, k, value, mask).sum())(key)
    assert np.isfinite(grad).all()


def test_the_position_moves_the_keys_and_not_the_values():
    attention = layers.Attention(8, 2, rngs=nnx.Rngs(0))
    queries, memory, position = random(2, 3, 8), random(2, 5, 8, seed=1), random(5, 8, seed=2)
    out = attention(queries, memory, position)

    def split(x):
        return x.reshape(*x.shape[:2], 2, 4)

    expected = attention.out(
        layers.attend(
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
