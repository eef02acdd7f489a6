"""Confusion matrices against hand numbers, a slow loop and the official Cityscapes tool."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import category2labels, trainId2label

from clouds_jax.constants import IGNORE
from clouds_jax.evaluation import metrics

EXACT = dict(rtol=0, atol=1e-6)
CLASSES = 19


def images(seed, *, absent=(), never_predicted=(), shape=(2, 37, 53), ignored=0.1):
    """Labels and half-right predictions with ignored pixels and missing classes."""
    rng = np.random.default_rng(seed)
    label = rng.choice([c for c in range(CLASSES) if c not in absent], shape)
    other = rng.choice([c for c in range(CLASSES) if c not in never_predicted], shape)
    right = rng.random(shape) < 0.5
    right &= ~np.isin(label, never_predicted)
    predicted = np.where(right, label, other)
    label[rng.random(shape) < ignored] = IGNORE
    return jnp.asarray(predicted, jnp.int32), jnp.asarray(label, jnp.uint8)


def total(predicted, label, **options):
    counts = metrics.confusion(predicted, label, classes=CLASSES, **options)
    return np.asarray(counts, np.int64).sum(0)


def test_confusion_of_six_pixels():
    label = jnp.asarray([[[0, 0, 1], [1, 2, 255]]])
    predicted = jnp.asarray([[[0, 1, 1], [1, 0, 2]]])
    out = metrics.confusion(predicted, label, classes=3)
    np.testing.assert_array_equal(out, [[[1, 1, 0], [0, 2, 0], [1, 0, 0]]])
    np.testing.assert_allclose(metrics.iou(np.asarray(out[0])), [1 / 3, 2 / 3, 0])


def test_confusion_equals_a_slow_loop_image_by_image():
    predicted, label = images(0, shape=(3, 5, 7))
    want = np.zeros((3, CLASSES, CLASSES), np.int32)
    for b, y, x in np.ndindex(label.shape):
        if label[b, y, x] != IGNORE:
            want[b, label[b, y, x], predicted[b, y, x]] += 1
    got = jax.jit(lambda p, t: metrics.confusion(p, t, classes=CLASSES))(predicted, label)
    np.testing.assert_array_equal(got, want)


def test_an_image_of_ignored_pixels_counts_nothing():
    label = jnp.full((1, 4, 6), IGNORE, jnp.uint8)
    matrix = total(jnp.zeros((1, 4, 6), jnp.int32), label)
    assert matrix.sum() == 0
    assert np.isnan(metrics.iou(matrix)).all()
    assert np.isnan(metrics.mean_iou(matrix))
    assert np.isnan(metrics.accuracy(matrix))
    assert np.isnan(metrics.class_accuracy(matrix)).all()


@pytest.mark.parametrize(
    "absent, never_predicted",
    [((), ()), ((3, 16), ()), ((3, 16), (3, 16)), ((0, 16), (16, 5))],
    ids=["all present", "predicted though absent", "absent from both", "mixed"],
)
def test_iou_equals_the_official_cityscapes_tool(absent, never_predicted):
    predicted, label = images(1, absent=absent, never_predicted=never_predicted)
    matrix = total(predicted, label)
    args = argparse.Namespace()
    theirs = official.generateMatrix(args)
    to_id = np.zeros(256, np.int64)  # 0 is "unlabeled", ignored by the tool
    for train_id in range(CLASSES):
        to_id[train_id] = trainId2label[train_id].id
    np.add.at(theirs, (to_id[np.asarray(label)], to_id[np.asarray(predicted)]), 1)

    want = {c: official.getIouScoreForLabel(int(to_id[c]), theirs, args) for c in range(CLASSES)}
    np.testing.assert_allclose(metrics.iou(matrix), list(want.values()), **EXACT)
    np.testing.assert_allclose(
        metrics.mean_iou(matrix, absent="zero"), official.getScoreAverage(want, args), **EXACT
    )
    present = [want[c] for c in range(CLASSES) if c not in absent]
    np.testing.assert_allclose(metrics.mean_iou(matrix), np.mean(present), **EXACT)

    names = ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
    lookup = np.full(256, IGNORE, np.uint8)
    for category, name in enumerate(names):
        for entry in category2labels[name]:
            if not entry.ignoreInEval:
                lookup[entry.trainId] = category
    merged = metrics.merge(matrix, classes=len(names), rows=lookup, columns=lookup)
    scores = [official.getIouScoreForCategory(name, theirs, args) for name in names]
    np.testing.assert_allclose(metrics.iou(merged), scores, **EXACT)


def test_a_predicted_absent_class_is_skipped_by_one_convention_and_zero_by_the_other():
    matrix = np.array([[3, 0, 1], [0, 0, 0], [0, 0, 4]])
    matrix[0, 1] = 2  # class 1 is predicted, never labelled
    np.testing.assert_allclose(metrics.iou(matrix), [3 / 6, 0, 4 / 5])
    assert metrics.mean_iou(matrix) == pytest.approx((0.5 + 0.8) / 2)
    assert metrics.mean_iou(matrix, absent="zero") == pytest.approx((0.5 + 0 + 0.8) / 3)


def test_the_mean_over_some_classes_takes_their_iou_from_the_whole_matrix():
    predicted, label = images(2, absent=(4,))
    matrix = total(predicted, label)
    over = (0, 2, 4, 18)
    want = metrics.iou(matrix)[[0, 2, 18]].mean()
    assert metrics.mean_iou(matrix, over=over) == pytest.approx(want)


def test_merged_matrix_equals_the_matrix_of_merged_images():
    predicted, label = images(3)
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[:CLASSES] = np.arange(CLASSES) // 4
    merged = metrics.merge(total(predicted, label), classes=5, rows=lookup, columns=lookup)
    fine = metrics.confusion(
        jnp.asarray(lookup)[predicted], jnp.asarray(lookup)[label], classes=5, columns=6
    )
    np.testing.assert_array_equal(merged, np.asarray(fine).sum(0))


def test_a_prediction_without_counterpart_is_a_miss_and_a_label_without_one_is_ignored():
    matrix = np.array([[5, 1, 2], [1, 4, 0], [7, 7, 7]])
    rows = np.full(256, IGNORE, np.uint8)
    rows[:3] = [0, 1, IGNORE]
    columns = rows.copy()
    merged = metrics.merge(matrix, classes=2, rows=rows, columns=columns)
    np.testing.assert_array_equal(merged, [[5, 1, 2], [1, 4, 0]])
    np.testing.assert_allclose(metrics.iou(merged), [5 / 9, 4 / 6])
    assert metrics.accuracy(merged) == pytest.approx(9 / 13)


def test_rows_and_columns_may_be_of_different_label_spaces():
    predicted = jnp.asarray([[[0, 3, 4, 1]]])
    label = jnp.asarray([[[0, 1, 1, 255]]])
    out = metrics.confusion(predicted, label, classes=2, columns=5)
    np.testing.assert_array_equal(out, [[[1, 0, 0, 0, 0], [0, 0, 0, 1, 1]]])


def test_accuracies_of_a_small_matrix():
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert metrics.accuracy(matrix) == pytest.approx(7 / 8)
    np.testing.assert_allclose(metrics.class_accuracy(matrix), [0.75, 1.0, np.nan])


def test_sums_do_not_overflow_32_bits():
    matrix = np.full((2, 2), 3_000_000_000, np.int64)
    np.testing.assert_allclose(metrics.iou(matrix), [1 / 3, 1 / 3])
