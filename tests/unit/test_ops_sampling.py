"""Sampling against numbers a person can check and a slow loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops import sampling

ATOL = 1e-5


def slow_sample(plane, point):
    """Bilinear value of one (h, w) plane at one (x, y), in float64."""
    h, w = plane.shape
    x, y = point[0] * w - 0.5, point[1] * h - 0.5
    total = 0.0
    for j in range(h):
        for i in range(w):
            total += max(0.0, 1 - abs(x - i)) * max(0.0, 1 - abs(y - j)) * plane[j, i]
    return total


def slow_samples(plane, points):
    return np.array(
        [slow_sample(np.asarray(plane, np.float64), point) for point in np.asarray(points)]
    )


@pytest.fixture
def random():
    return np.random.default_rng(0)


def some_points(random, *shape):
    """Points inside, on the border and outside of the map."""
    return jnp.asarray(random.uniform(-0.3, 1.3, size=(*shape, 2)), jnp.float32)


def some_label(random, *shape):
    return jnp.asarray(random.choice([0, 1, 3, 255], size=shape), jnp.uint8)  # 2 is absent


@pytest.mark.parametrize(
    "point, expected",
    [
        ((0.5, 0.5), 1.0),  # the pixel's centre
        ((0.0, 0.0), 0.25),  # the map's corner: three of four neighbours are outside
        ((1.0, 0.5), 0.5),  # the middle of the right edge
        ((1.6, 0.5), 0.0),  # outside
        ((-1e30, 0.5), 0.0),  # far outside: no integer holds the coordinate
        ((0.5, np.inf), 0.0),
    ],
)
def test_a_map_of_one_pixel_has_the_values_of_its_neighbourhood(point, expected):
    out = sampling.grid_sample(jnp.ones((1, 1, 1, 1)), jnp.asarray([[point]], jnp.float32))
    np.testing.assert_allclose(out, [[[expected]]], atol=ATOL)


def test_grid_sample_equals_the_slow_loop(random):
    features = jnp.asarray(random.normal(size=(2, 3, 5, 4)), jnp.float32)
    points = some_points(random, 2, 9)
    out = jax.jit(sampling.grid_sample)(features, points)
    for b in range(2):
        for c in range(4):
            expected = slow_samples(features[b, :, :, c], points[b])
            np.testing.assert_allclose(out[b, :, c], expected, atol=ATOL)


def test_grid_sample_keeps_the_dtype_and_sums_in_float32():
    features = jnp.asarray([1.0, 1.0078125], jnp.bfloat16).reshape(1, 1, 2, 1)
    out = sampling.grid_sample(features, jnp.asarray([[[0.5, 0.5], [0.75, 0.5]]]))
    assert out.dtype == jnp.bfloat16
    assert out[0, 1, 0] == features[0, 0, 1, 0]


def test_grid_sample_of_no_points_is_empty():
    assert sampling.grid_sample(jnp.ones((1, 2, 3, 4)), jnp.ones((1, 0, 2))).shape == (1, 0, 4)


def test_sample_classes_equals_sampling_every_mask(random):
    label, points = some_label(random, 2, 5, 3), some_points(random, 2, 11)
    out = jax.jit(sampling.sample_classes, static_argnums=2)(label, points, 4)
    masks = (label[..., None] == jnp.arange(4)[None, None, None, :]).astype(jnp.float32)
    np.testing.assert_allclose(out, sampling.grid_sample(masks, points), atol=ATOL)
    assert not np.any(out[..., 2])
    assert np.any(out[..., 3])


def test_sample_targets_gives_each_slot_its_own_points(random):
    label, points = some_label(random, 2, 5, 3), some_points(random, 2, 3, 7)
    ids = np.array([3, 2, 0])
    out = jax.jit(sampling.sample_targets)(label, points, jnp.asarray(ids))
    for b in range(2):
        for m, name in enumerate(ids):
            expected = slow_samples(label[b] == name, points[b, m])
            np.testing.assert_allclose(out[b, m], expected, atol=ATOL)


def sample_channels(maps, channel, points):
    return sampling.sample_planes(sampling.select_channels(maps, channel), points)


def test_a_plane_is_the_chosen_channel_read_at_the_points_of_the_slot(random):
    maps = jnp.asarray(random.normal(size=(2, 5, 3, 6)), jnp.float32)
    channel = np.array([[5, 0, -1], [2, 2, 4]])
    points = some_points(random, 2, 3, 7)
    out = jax.jit(sample_channels)(maps, jnp.asarray(channel), points)
    for b in range(2):
        for m in range(3):
            plane = maps[b, :, :, channel[b, m]] if channel[b, m] >= 0 else np.zeros((5, 3))
            np.testing.assert_allclose(out[b, m], slow_samples(plane, points[b, m]), atol=ATOL)


def test_the_gradient_of_samples_goes_to_the_chosen_channels_only(random):
    maps = jnp.asarray(random.normal(size=(2, 5, 3, 6)), jnp.float32)
    channel = jnp.asarray([[5, 0, -1], [2, 2, 4]])
    points, share = some_points(random, 2, 3, 7), jnp.asarray(random.normal(size=(2, 3, 7)))

    def total(maps):
        return jnp.sum(sample_channels(maps, channel, points) * share)

    gradient = jax.grad(total)(maps)
    # The sum is linear in the maps: each slope is the sum of the map that is 1 at one place.
    for at in [(0, 4, 1, 5), (0, 0, 2, 0), (1, 2, 2, 2), (1, 4, 0, 4), (0, 2, 1, 1), (1, 2, 1, 5)]:
        one = jnp.zeros_like(maps).at[at].set(1.0)
        np.testing.assert_allclose(gradient[at], total(one), atol=ATOL)
    untouched = [(0, [1, 2, 3, 4]), (1, [0, 1, 3, 5])]
    for b, channels in untouched:
        assert not np.any(gradient[b][..., np.array(channels)])
    assert np.any(gradient[0][..., 5]) and np.any(gradient[1][..., 2])


def test_sampling_channels_makes_nothing_as_large_as_all_channels_at_all_points():
    b, h, w, q, m, p = 1, 8, 8, 64, 4, 512
    args = (
        jax.ShapeDtypeStruct((b, h, w, q), jnp.float32),
        jax.ShapeDtypeStruct((b, m), jnp.int32),
        jax.ShapeDtypeStruct((b, m, p, 2), jnp.float32),
    )

    def total(maps, channel, points):
        return jnp.sum(sample_channels(maps, channel, points) ** 2)

    compiled = jax.jit(jax.grad(total)).lower(*args).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < b * m * p * q * 4 / 2
