"""Selection of the smallest values against NumPy's stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops.lowest_k import lowest_k_mask

select = jax.jit(lowest_k_mask, static_argnums=1)

ROWS = {
    "random": np.random.default_rng(0).normal(size=33),
    "ties": np.random.default_rng(1).integers(-2, 3, size=33),
    "equal": np.full(33, 0.5),
    "signed zeros": np.array([0.0, -0.0] * 16 + [-1.0]),
    "extremes": np.array([np.inf, -np.inf, 3e38, -3e38, 1e-40, -1e-40, 0.0, 1.0] * 4 + [2.0]),
}


def slow(values, k):
    mask = np.zeros(values.shape, bool)
    # -0.0 is 0.0, NaN is last, equal values keep their order.
    order = np.argsort(values + 0.0, axis=-1, kind="stable")
    np.put_along_axis(mask, order[..., :k], True, axis=-1)
    return mask


@pytest.mark.parametrize("k", [0, 1, 8, 17, 32, 33])
def test_each_row_is_marked_as_a_stable_sort_would(k):
    values = np.stack(list(ROWS.values())).astype(np.float32)
    found = select(jnp.asarray(values)[None], k)[0]
    for row, mask in zip(ROWS, zip(found, slow(values, k), strict=True), strict=True):
        np.testing.assert_array_equal(*mask, err_msg=row)


def test_nan_of_either_sign_is_larger_than_infinity():
    values = np.array([np.nan, np.inf, -np.nan, 1.0], np.float32)
    np.testing.assert_array_equal(select(jnp.asarray(values), 2), [False, True, False, True])


def test_bfloat16_is_selected_exactly():
    values = jnp.asarray(np.random.default_rng(3).normal(size=50), jnp.bfloat16)
    found = select(values, 20)
    np.testing.assert_array_equal(found, slow(np.asarray(values, np.float32), 20))


@pytest.mark.parametrize("k", [-1, 6])
def test_a_number_outside_the_row_is_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}; rows of 5 values allow 0..5"):
        lowest_k_mask(jnp.ones(5), k)


def test_nothing_is_sorted():
    text = select.lower(jnp.ones((2, 9)), 3).compile().as_text()
    assert " sort(" not in text
