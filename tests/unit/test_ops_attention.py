"""Attention against a loop over the allowed keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops.attention import attend

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
    out = attend(query, key, value, jnp.asarray(mask))
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

    ours = gradients(lambda *xs: attend(*xs, mask))
    for got, expected in zip(ours, gradients(plain), strict=True):
        np.testing.assert_allclose(got, expected, atol=ATOL)


def test_a_fully_blocked_row_attends_everywhere_and_has_a_finite_gradient():
    query, key, value = random(1, 2, 1, 4), random(1, 5, 1, 4, seed=1), random(1, 5, 1, 4, seed=2)
    mask = jnp.zeros((1, 2, 5), bool).at[0, 1, 3].set(True)
    out = attend(query, key, value, mask)
    free = attend(query, key, value)
    np.testing.assert_allclose(out[0, 0], free[0, 0], atol=ATOL)
    np.testing.assert_allclose(out[0, 1, 0], value[0, 3, 0], atol=ATOL)
    grad = jax.grad(lambda k: attend(query, k, value, mask).sum())(key)
    assert np.isfinite(grad).all()
