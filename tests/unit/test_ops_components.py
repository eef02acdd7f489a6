"""Components of label maps against scipy, and the points drawn inside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from clouds_jax.ops import components

CLASSES = 4
CHANCE = 1e-4  # of a fair draw that a test still refuses


def spiral(side):
    label = np.zeros((side, side), np.uint8)
    top, left, bottom, right = 0, 0, side - 1, side - 1
    while top <= bottom and left <= right:
        label[top, left : right + 1] = 1
        label[top : bottom + 1, right] = 1
        label[bottom, left + 1 : right + 1] = 1
        label[top + 2 : bottom + 1, left + 1] = 1
        top, left, bottom, right = top + 2, left + 1, bottom - 2, right - 2
        left += 1
    return label


def serpent(h, w):
    """One path that turns at every second row."""
    label = np.zeros((h, w), np.uint8)
    label[::2] = 1
    label[1::4, -1] = 1
    label[3::4, 0] = 1
    return label


def comb(h, w):
    label = np.zeros((h, w), np.uint8)
    label[:, ::2] = 1
    label[-1] = 1
    return label


SHAPES = {
    "one colour": np.zeros((7, 11), np.uint8),
    "checkerboard": (np.indices((9, 14)).sum(0) % 2).astype(np.uint8),
    "spiral": spiral(33),
    "serpent": serpent(41, 30),
    "comb": comb(23, 31),
    "upside-down comb": comb(23, 31)[::-1].copy(),
    "one pixel": np.full((1, 1), 3, np.uint8),
    "one row": np.array([[0, 0, 1, 0, 0, 0]], np.uint8),
    "one column": np.array([[0], [0], [1], [0]], np.uint8),
    "diagonal neighbours": np.eye(6, dtype=np.uint8),
    "all ignored": np.full((5, 4), 255, np.uint8),
}


def expected_roots(maps):
    """First pixel of every component of a stack of maps, by scipy class after class."""
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = scipy.ndimage.generate_binary_structure(2, 1)
    roots = np.full(maps.shape, -1)
    flat = np.broadcast_to(np.arange(maps[0].size).reshape(maps[0].shape), maps.shape)
    for value in np.unique(maps):
        regions, count = scipy.ndimage.label(maps == value, in_plane)
        first = scipy.ndimage.minimum(flat, regions, np.arange(1, count + 1))
        inside = regions > 0
        roots[inside] = np.asarray(first, int)[regions[inside] - 1]
    return roots


roots_of = jax.jit(components.connected_components)


@pytest.mark.parametrize("name", SHAPES)
def test_any_shape_is_labelled_as_scipy_labels_it(name):
    label = SHAPES[name]
    np.testing.assert_array_equal(roots_of(jnp.asarray(label)), expected_roots(label[None])[0])


@pytest.mark.slow
def test_ten_thousand_random_maps_are_labelled_as_scipy_labels_them():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 2, (10_000, 13, 17)).astype(np.uint8)
    maps[3_000:] += rng.integers(0, 2, (7_000, 13, 17)).astype(np.uint8)
    # large regions with rough borders, as labels have them
    maps[6_000:] = maps[6_000:, ::4, ::4].repeat(4, 1).repeat(4, 2)[:, :13, :17]
    np.testing.assert_array_equal(jax.vmap(roots_of)(jnp.asarray(maps)), expected_roots(maps))


def blocks():
    """Two regions of class 2, one of class 0, specks of class 1, one ignored."""
    label = np.full((20, 30), 255, np.uint8)
    label[1:5, 1:6] = 2  # 20 pixels
    label[7:13, 2:9] = 0  # 42 pixels
    label[7:10, 20:27] = 2  # 21 pixels
    label[15, ::2] = 1
    return label


def test_large_components_come_by_class_and_then_in_raster_order():
    label = blocks()
    found = components.large_components(jnp.asarray(label), min_area=19, limit=5)
    assert found.label.tolist() == [0, 2, 2, 255, 255]
    assert found.area.tolist() == [42, 20, 21, 0, 0]
    assert found.valid.tolist() == [True, True, True, False, False]
    slot = np.asarray(found.slot)
    assert (slot[1:5, 1:6] == 1).all() and (slot[7:10, 20:27] == 2).all()
    assert (slot[(label == 255) | (label == 1)] == 5).all()
    assert [(slot == i).sum() for i in range(3)] == [42, 20, 21]


def test_a_component_of_exactly_the_smallest_area_is_left_out():
    found = components.large_components(jnp.asarray(blocks()), min_area=20, limit=5)
    assert found.label.tolist() == [0, 2, 255, 255, 255]
    assert found.area.tolist()[:2] == [42, 21]


def test_there_are_as_many_slots_as_components_can_be():
    assert components.max_components((768, 768), 5000) == 117
    found = components.large_components(jnp.zeros((10, 10), jnp.uint8), min_area=9)
    assert found.label.shape == (10,)


def test_points_are_distinct_pixels_of_their_component():
    label = blocks()
    found = components.large_components(jnp.asarray(label), min_area=19, limit=6)
    for seed in range(50):
        bits = jax.random.bits(jax.random.key(seed), (6, 20), jnp.uint32)
        points = np.asarray(components.random_points(found, bits))
        for slot in range(3):
            x, y = points[slot].T
            assert (np.asarray(found.slot)[y, x] == slot).all()
            assert len({*map(tuple, points[slot])}) == 20  # all 20 pixels of the second one
        assert not points[3:].any()


@pytest.mark.slow
def test_points_are_uniform_over_their_component():
    from scipy import stats  # two seconds, which every worker would wait for

    label = np.full((9, 12), 255, np.uint8)
    label[2:7, 3:8] = 1
    label[4, 5] = 255
    label[2:7, 8] = [1, 255, 1, 1, 255]
    pixels = int((label == 1).sum())
    found = components.large_components(jnp.asarray(label), min_area=5, limit=1)
    bits = jax.random.bits(jax.random.key(0), (4000, 1, 3), jnp.uint32)
    points = np.asarray(jax.vmap(lambda b: components.random_points(found, b))(bits))[:, 0]
    counts = np.zeros(label.shape, int)
    np.add.at(counts, (points[..., 1].ravel(), points[..., 0].ravel()), 1)
    assert counts[label != 1].sum() == 0
    assert (label == 1).sum() == pixels
    for i in range(3):  # each of the three points alone, too
        one = np.zeros(label.shape, int)
        np.add.at(one, (points[:, i, 1], points[:, i, 0]), 1)
        assert stats.chisquare(one[label == 1]).pvalue > CHANCE
    assert stats.chisquare(counts[label == 1]).pvalue > CHANCE
