"""Label maps, masks and pooling, on maps a person can read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops import masks

RTOL = 1e-5


@pytest.fixture
def label():
    return jnp.asarray([[[0, 0, 255], [2, 0, 255]], [[255] * 3, [255] * 3]], jnp.uint8)


def test_present_classes_are_those_that_occur(label):
    found = jax.jit(masks.present_classes, static_argnums=1)(label, 4)
    np.testing.assert_array_equal(found, [[True, False, True, False], [False] * 4])


def test_ids_above_the_classes_do_not_count(label):
    assert masks.present_classes(label, 2).tolist() == [[True, False], [False, False]]


def test_masks_of_label_hold_the_pixels_of_their_class(label):
    found = masks.masks_of_label(label, 3)
    assert found.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(found[0, 0], [[True, True, False], [False, True, False]])
    np.testing.assert_array_equal(found[0, 2], [[False, False, False], [True, False, False]])
    assert not np.any(found[0, 1]) and not np.any(found[1])


def test_label_of_masks_is_the_inverse_of_masks_of_label(label):
    np.testing.assert_array_equal(masks.label_of_masks(masks.masks_of_label(label, 3)), label)


def test_a_pixel_in_two_masks_is_ignored():
    both = jnp.asarray([[[True, True, False]], [[False, True, False]]])[None]
    np.testing.assert_array_equal(masks.label_of_masks(both), [[[0, 255, 255]]])


def test_pool_masks_is_the_mean_under_each_mask_and_zero_for_an_empty_one():
    random = np.random.default_rng(0)
    features = random.normal(size=(2, 3, 5, 4)).astype(np.float32)
    under = random.uniform(size=(2, 3, 5, 6)) < 0.5
    under[0, :, :, 2] = False
    found = jax.jit(masks.pool_masks)(jnp.asarray(features), jnp.asarray(under))
    for b in range(2):
        for q in range(6):
            inside = under[b, :, :, q]
            mean = features[b][inside].mean(axis=0) if inside.any() else np.zeros(4)
            np.testing.assert_allclose(found[b, q], mean, rtol=RTOL, atol=RTOL)


def test_pool_masks_counts_more_pixels_than_bfloat16_can():
    features = jnp.ones((1, 40, 50, 1), jnp.bfloat16)
    found = masks.pool_masks(features, jnp.ones((1, 40, 50, 1), bool))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, jnp.ones((1, 1, 1), jnp.bfloat16))
