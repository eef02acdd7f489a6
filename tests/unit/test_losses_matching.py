"""Matching costs by hand, and the assignment they lead to."""

import jax
import jax.numpy as jnp
import numpy as np

from clouds_jax.losses import matching, points
from clouds_jax.ops import masks
from clouds_jax.typing import Prediction, Targets

EXACT = 1e-5
WEIGHTS = matching.LossWeights(cls=2.0, mask=3.0, dice=7.0)


def test_the_cost_of_one_pixel_by_hand():
    # One pixel, sampled at its centre: the mask of class 0 is 1 there, that of class 1 is 0.
    label = jnp.zeros((1, 4, 4), jnp.uint8)
    targets = Targets(label, jnp.asarray([[True, False]]))
    class_logits = jnp.log(jnp.asarray([[[0.5, 0.2, 0.3]]]))
    mask_logits = jnp.full((1, 1, 1, 1), np.log(3.0))  # probability 0.75
    centre = jnp.full((1, 1, 2), 0.5)
    costs = matching.match_costs(class_logits, mask_logits, targets, centre, weights=WEIGHTS)
    inside = -2 * 0.5 - 3 * np.log(0.75) + 7 * (1 - 2.5 / 2.75)
    outside = -2 * 0.2 - 3 * np.log(0.25) + 7 * (1 - 1 / 1.75)
    np.testing.assert_allclose(costs[0, 0], [inside, outside], rtol=EXACT)


def test_costs_are_finite_for_extreme_logits():
    label = jnp.asarray([[[0, 1], [255, 0]]], jnp.uint8)
    targets = Targets(label, masks.present_classes(label, 2))
    logits = jnp.asarray([1e4, -1e4])[None, None, None].repeat(2, 1).repeat(2, 2)
    where = points.match_points(jax.random.split(jax.random.key(0), 1), 0, 9)
    class_logits = jnp.asarray([[[500.0, -500.0, 0.0], [0.0, 0.0, 500.0]]])
    costs = matching.match_costs(class_logits, logits, targets, where, weights=WEIGHTS)
    assert np.isfinite(costs).all()


def perfect(label, queries):
    """A prediction whose query `queries[o, m]` is mask m, for every output and image."""
    b, h, w = label.shape
    outputs, classes = queries.shape
    class_logits = np.full((outputs, b, 6, classes + 1), -9.0, np.float32)
    mask_logits = np.full((outputs, b, h // 2, w // 2, 6), -9.0, np.float32)
    for output in range(outputs):
        for m, query in enumerate(queries[output]):
            class_logits[output, :, query, m] = 9
            mask_logits[output, ..., query] = np.where(label[:, ::2, ::2] == m, 9, -9)
    return Prediction(jnp.asarray(class_logits), jnp.asarray(mask_logits))


def test_the_right_queries_are_found_for_every_output_and_absent_classes_have_none():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, (2, 5, 3)).repeat(2, 1).repeat(2, 2).astype(np.uint8)
    label[0][label[0] == 2] = 255
    queries = np.asarray([[3, 0, 5, 1], [2, 4, 0, 3]])
    targets = Targets(jnp.asarray(label), masks.present_classes(jnp.asarray(label), 4))
    keys = jax.random.split(jax.random.key(1), 2)
    found = matching.match(perfect(label, queries), targets, keys, weights=WEIGHTS, num_points=200)
    expected = queries[:, None].repeat(2, 1)
    expected[:, 0, 2] = -1
    np.testing.assert_array_equal(found, expected)


def test_matching_has_no_gradient():
    label = jnp.zeros((1, 4, 6), jnp.uint8)
    targets = Targets(label, jnp.asarray([[True, False]]))
    keys = jax.random.split(jax.random.key(1), 1)

    def total(prediction):
        return matching.match(prediction, targets, keys, weights=WEIGHTS, num_points=5).sum() * 1.0

    prediction = Prediction(jnp.ones((1, 1, 2, 3)), jnp.ones((1, 1, 2, 3, 2)))
    for leaf in jax.tree.leaves(jax.grad(total)(prediction)):
        np.testing.assert_array_equal(leaf, 0)
