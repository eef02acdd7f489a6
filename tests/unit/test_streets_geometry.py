"""The camera of the street scenes, and the two ways to paint with it."""

import numpy as np
import pytest

from clouds_jax.streets.camera import NEAR, Camera, clip_near
from clouds_jax.streets.canvas import Canvas
from clouds_jax.streets.rng import Rng

TOLERANCE = 1e-9
WALL_TOLERANCE = 1e-6  # pixels; a bend makes the wall's depth a difference of near numbers
KNOWN = 0.015603484532018208  # first draw of the key ("streets", 0)


def camera(curve: float = 0.0, slope: float = 0.0) -> Camera:
    return Camera(200, 100, 150.0, 96.0, 44.0, 1.5, 1.4, curve, slope)


def test_a_point_at_the_camera_s_height_lies_on_the_horizon():
    u, v = camera().project(np.array([1.5, 1.4, 10.0]))
    assert (u, v) == (96.0, 44.0)


def test_one_metre_at_ten_metres_is_a_tenth_of_the_focal_length():
    u, v = camera().project(np.array([2.5, 0.4, 10.0]))
    assert (u, v) == (111.0, 59.0)


@pytest.mark.parametrize("slope", [0.0, 3e-4, -1e-5])
def test_row_depths_invert_the_projection_of_the_ground(slope):
    lens = camera(slope=slope)
    depth = lens.row_depths()
    rows = np.flatnonzero(depth < 100)
    assert len(rows) > 40
    v = lens.ground(np.stack([np.zeros(len(rows)), depth[rows]], -1))[:, 1]
    np.testing.assert_allclose(v, rows + 0.5, atol=TOLERANCE)


@pytest.mark.parametrize("x", [-6.0, 8.0])
@pytest.mark.parametrize("curve", [0.0, 4e-4, -4e-4])
def test_wall_depths_invert_the_projection_of_a_wall(x, curve):
    lens = camera(curve=curve)
    depth = lens.wall_depths(x)
    columns = np.flatnonzero(depth < 150)
    assert len(columns) > 20
    points = np.stack([np.full(len(columns), x), np.ones(len(columns)), depth[columns]], -1)
    np.testing.assert_allclose(lens.project(points)[:, 0], columns + 0.5, atol=WALL_TOLERANCE)


def test_polygons_are_cut_at_the_near_plane():
    square = np.array([(0, 0, -1.0), (1, 0, -1.0), (1, 0, 3.0), (0, 0, 3.0)])
    cut = clip_near(square)
    assert len(cut) == 4 and cut[:, 2].min() == pytest.approx(NEAR)
    assert len(clip_near(square - (0, 0, 5.0))) == 0
    np.testing.assert_array_equal(clip_near(square + (0, 0, 5.0)), square + (0, 0, 5.0))


def test_labels_have_no_soft_edges_and_cover_what_is_coloured():
    canvas = Canvas(20, 30)
    canvas.polygon(np.array([(4.2, 3.0), (25.0, 6.5), (12.0, 17.3)]), (200, 100, 50), 7)
    assert set(np.unique(canvas.label)) == {7, 255}
    full = (canvas.image == (200, 100, 50)).all(-1)
    assert full.sum() > 60
    assert (canvas.label[full] == 7).all()


def test_colour_without_a_label_leaves_the_labels():
    canvas = Canvas(20, 30)
    canvas.disc((15.0, 10.0), 6.0, 6.0, (255, 255, 255), None)
    assert (canvas.label == 255).all() and canvas.image.max() == 255


def test_a_stroke_without_length_is_a_disc():
    canvas = Canvas(40, 40)
    canvas.limb((20.0, 20.0), (20.0, 20.0), 8.0, 8.0, (255, 255, 255), 3)
    assert 150 < (canvas.label == 3).sum() < 250


def test_draws_of_a_key_repeat_and_of_other_keys_differ():
    first, again, other = Rng("a", 1), Rng("a", 1), Rng("a", 2)
    draws = [first.unit() for _ in range(600)]
    assert draws == [again.unit() for _ in range(600)]
    assert draws != [other.unit() for _ in range(600)]
    assert 0 <= min(draws) and max(draws) < 1 and 0.45 < np.mean(draws) < 0.55


def test_dice_give_the_known_numbers_of_pcg64():
    """Shards drawn elsewhere or later must be the same: this stream may never change."""
    assert Rng("streets", 0).unit() == KNOWN


def test_integers_reach_both_ends():
    rng = Rng(3)
    assert {rng.integer(2, 4) for _ in range(100)} == {2, 3, 4}
