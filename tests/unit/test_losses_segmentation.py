"""The set loss and the pixel loss: hand numbers, empty targets, names, several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax import sharding
from clouds_jax.losses import points, segmentation
from clouds_jax.losses.matching import LossWeights
from clouds_jax.ops import masks
from clouds_jax.typing import Prediction, Targets

EXACT = 1e-5
SPLIT = 1e-5  # sums over two devices in another order
CLASSES = 4


def case(b=2, outputs=3, queries=7, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES + 1, (b, 5, 3)).repeat(4, 1).repeat(4, 2)
    label[label == CLASSES] = 255
    label[0][label[0] == 1] = 255  # an absent class
    label = jnp.asarray(label, jnp.uint8)
    prediction = Prediction(
        jnp.asarray(rng.normal(size=(outputs, b, queries, CLASSES + 1)), jnp.float32),
        jnp.asarray(rng.normal(size=(outputs, b, 5, 3, queries)), jnp.float32),
    )
    targets = Targets(label, masks.present_classes(label, CLASSES))
    return prediction, targets, jax.random.split(jax.random.key(seed), b)


# Compiled once per shape and shared by the tests.
loss = jax.jit(functools.partial(segmentation.set_loss, num_points=40), static_argnames="weights")


def test_ten_outputs_give_the_thirty_terms_of_the_original_and_their_sum():
    total, terms = loss(*case(b=1, outputs=10))
    suffixes = ["", *(f"_{i}" for i in range(9))]
    names = [f"loss_{kind}{suffix}" for kind in ("ce", "mask", "dice") for suffix in suffixes]
    assert sorted(terms) == sorted(names)
    np.testing.assert_allclose(total, sum(terms.values()), rtol=EXACT)


def test_the_term_without_suffix_belongs_to_the_last_output():
    prediction, targets, keys = case()
    _, terms = loss(prediction, targets, keys)
    class_logits = prediction.class_logits.at[-1].add(jnp.arange(CLASSES + 1.0)[None, None])
    _, other = loss(Prediction(class_logits, prediction.mask_logits), targets, keys)
    changed = {name for name in terms if not np.allclose(terms[name], other[name])}
    assert "loss_ce" in changed
    assert not {name for name in changed if name.endswith(("_0", "_1"))}


def test_class_loss_is_the_weighted_mean_of_torch_by_hand():
    chance = jnp.asarray([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]])
    query = jnp.asarray([[[-1, 0]]])  # query 0 has class 1, the others have no-object
    ce = segmentation.class_loss(jnp.log(chance)[None, None], query, no_object=0.1)
    expected = -(np.log(0.25) + 0.1 * np.log(0.8) + 0.1 * np.log(0.6)) / 1.2
    np.testing.assert_allclose(ce, [expected], rtol=EXACT)


def test_mask_and_dice_loss_of_a_constant_map_by_hand():
    # Probability 0.75 inside the map; half of the label is class 1, sampled away from its border.
    maps = jnp.full((1, 4, 4, 1), np.log(3.0))
    label = jnp.zeros((1, 4, 4), jnp.uint8).at[:, :, 2:].set(1)
    targets = Targets(label, jnp.asarray([[False, True]]))
    where = jnp.asarray([[0.2, 0.5], [0.8, 0.5], [0.85, 0.5]])
    drawn = points.Draw(*(jnp.tile(p, (1, 2, 1, 1)) for p in (where[:1], where[1:])))
    counts = points.Counts(candidates=1, uncertain=1, random=2)
    mask, dice = segmentation.mask_loss(maps, targets, jnp.asarray([[-1, 0]]), drawn, counts)
    np.testing.assert_allclose(mask, -(2 * np.log(0.75) + np.log(0.25)) / 3, rtol=EXACT)
    np.testing.assert_allclose(dice, 1 - (2 * 1.5 + 1) / (2.25 + 2 + 1), rtol=EXACT)


def test_without_any_target_only_the_class_loss_is_left_and_gradients_are_finite():
    prediction, targets, keys = case()
    label = jnp.full_like(targets.label, 255)
    targets = Targets(label, masks.present_classes(label, CLASSES))
    grad, terms = jax.jit(jax.grad(loss, has_aux=True))(prediction, targets, keys)
    for name, term in terms.items():
        assert (term > 0) == name.startswith("loss_ce"), name
    assert np.isfinite(grad.class_logits).all() and np.any(grad.class_logits)
    np.testing.assert_array_equal(grad.mask_logits, 0)


def test_extreme_logits_give_finite_gradients():
    prediction, targets, keys = case()
    prediction = jax.tree.map(lambda x: 1e4 * x, prediction)
    grad = jax.jit(jax.grad(lambda p: loss(p, targets, keys)[0]))(prediction)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))


def test_a_present_class_without_a_pixel_is_still_a_target():
    prediction, targets, keys = case()
    assert not targets.present[0, 1]
    present = targets.present.at[0, 1].set(True)
    _, terms = loss(prediction, Targets(targets.label, present), keys)
    _, without = loss(prediction, targets, keys)
    assert terms["loss_ce"] != without["loss_ce"]


def test_the_weights_scale_their_terms_and_the_matching_stays():
    _, one = loss(*case(), weights=LossWeights(1.0, 2.0, 3.0))
    _, ten = loss(*case(), weights=LossWeights(10.0, 20.0, 30.0))
    for name in one:
        np.testing.assert_allclose(ten[name], 10 * one[name], rtol=EXACT)


@pytest.mark.parametrize("kind", ["set", "pixel"])
def test_two_devices_have_the_loss_and_gradient_of_one(kind):
    prediction, targets, keys = case(b=4)
    outputs_last = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), prediction)

    def local(reduce, scale, prediction, targets, keys):
        totals = reduce(segmentation.Totals.of(targets))

        def value(scale):
            scaled = jax.tree.map(lambda x: scale * jnp.moveaxis(x, -1, 0), prediction)
            if kind == "set":
                return loss(scaled, targets, keys, totals=totals)
            logits = scaled.mask_logits[0, ..., :CLASSES]
            return segmentation.pixel_loss(logits, targets, keys, totals=totals)

        return reduce(jax.value_and_grad(value, has_aux=True)(scale))

    results = []
    for devices in (1, 2):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        run = sharding.per_device(local, mesh, split=(False, True, True, True), out=(False, False))
        results.append(jax.jit(run)(2.0, outputs_last, targets, keys))
    for one, two in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, two, rtol=SPLIT)


def test_pixel_loss_ignores_255_and_averages_the_rest_by_hand():
    logits = jnp.log(jnp.asarray([0.5, 0.25, 0.25]))[None, None, None].repeat(2, 1).repeat(3, 2)
    label = np.full((1, 8, 12), 255, np.uint8)
    label[0, 0, :3] = 0
    label[0, 7, 11] = 2
    targets = Targets(jnp.asarray(label), masks.present_classes(jnp.asarray(label), 3))
    value, terms = segmentation.pixel_loss(logits, targets, jax.random.split(jax.random.key(0), 1))
    expected = -(3 * np.log(0.5) + np.log(0.25)) / 4
    np.testing.assert_allclose(value, expected, rtol=EXACT)
    np.testing.assert_allclose(terms["loss_ce"], expected, rtol=EXACT)


def test_pixel_loss_of_an_unlabelled_batch_is_zero():
    logits = jnp.ones((1, 2, 3, 3))
    targets = Targets(jnp.full((1, 8, 12), 255, jnp.uint8), jnp.zeros((1, 3), bool))
    keys = jax.random.split(jax.random.key(0), 1)
    value, grad = jax.value_and_grad(lambda x: segmentation.pixel_loss(x, targets, keys)[0])(logits)
    assert value == 0
    np.testing.assert_array_equal(grad, 0)
