"""Deformable attention against a slow loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.ops.deformable_attention import IMPLEMENTATIONS, deform_attn

RTOL = 1e-5  # of the largest value; float32
RTOL_BFLOAT16 = 2e-2
SIZES = ((2, 3), (5, 4), (1, 7))


def bilinear(level, x, y):
    """Value (e,) of a map (h, w, e) at pixel coordinates, and its slopes in x and y."""
    h, w, e = level.shape

    def pixel(j, i):
        return level[j, i] if 0 <= j < h and 0 <= i < w else np.zeros(e)

    i, j = int(np.floor(x)), int(np.floor(y))
    right, down = x - i, y - j
    top = (1 - right) * pixel(j, i) + right * pixel(j, i + 1)
    bottom = (1 - right) * pixel(j + 1, i) + right * pixel(j + 1, i + 1)
    slope_x = (1 - down) * (pixel(j, i + 1) - pixel(j, i))
    slope_x = slope_x + down * (pixel(j + 1, i + 1) - pixel(j + 1, i))
    return (1 - down) * top + down * bottom, slope_x, bottom - top


def slow(values, points, weights, cotangent):
    """Output and the gradients of <output, cotangent>, sample by sample.

    Of points (b q n l p 2) and weights (b q n l p), the order of the original's arrays.
    """
    b, q, n, levels, p, _ = points.shape
    out = np.zeros((b, q, n, values.shape[-1]))
    to_values, to_points, to_weights = map(np.zeros_like, (values, points, weights))
    starts = np.cumsum([0] + [h * w for h, w in SIZES])
    for bi, qi, ni, li, pi in np.ndindex(b, q, n, levels, p):
        h, w = SIZES[li]
        at = (bi, qi, ni, li, pi)
        inside = slice(starts[li], starts[li] + h * w)
        level = values[bi, inside, ni].reshape(h, w, -1)
        x, y = points[at][0] * w - 0.5, points[at][1] * h - 0.5
        value, slope_x, slope_y = bilinear(level, x, y)
        g = cotangent[bi, qi, ni]
        out[bi, qi, ni] += weights[at] * value
        to_weights[at] = value @ g
        to_points[at] = weights[at] * np.array([slope_x @ g * w, slope_y @ g * h])
        for j in range(h):
            for i in range(w):
                share = max(0, 1 - abs(x - i)) * max(0, 1 - abs(y - j)) * weights[at]
                to_values[bi, starts[li] + j * w + i, ni] += share * g
    return out, (to_values, to_points, to_weights)


@pytest.fixture(scope="module")
def case():
    """Inputs with points inside, outside and across the border, none near a cell's edge."""
    random = np.random.default_rng(0)
    b, q, n, p, e = 2, 5, 3, 2, 4
    size = np.array([(w, h) for h, w in SIZES])[:, None, :]
    cell = random.integers(-3, 9, size=(b, q, n, len(SIZES), p, 2))
    points = (cell + random.uniform(0.1, 0.9, size=cell.shape) + 0.5) / size
    values = random.normal(size=(b, sum(h * w for h, w in SIZES), n, e))
    weights = random.normal(size=points.shape[:-1])
    return values, points, weights, random.normal(size=(b, q, n, e))


def slots_first(x):
    """(b q n l p ...) -> (l p ... b q n)."""
    return jnp.moveaxis(jnp.asarray(x), (0, 1, 2), (-3, -2, -1))


def attend(implementation, dtype, case):
    """Output and gradients of `deform_attn` in one compiled call, in the order of the original."""
    values, points, weights, cotangent = (jnp.asarray(x, jnp.float32) for x in case)

    @jax.jit
    def run(values, points, weights):
        out, pull = jax.vjp(
            lambda v, p, w: deform_attn(
                v, SIZES, slots_first(p), slots_first(w), implementation=implementation
            ),
            values,
            points,
            weights,
        )
        return out, pull(cotangent.astype(out.dtype))

    return run(values.astype(dtype), points, weights)


def assert_close(found, expected, rtol):
    limit = rtol * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=0, atol=limit)


@pytest.mark.parametrize("implementation", [None, *IMPLEMENTATIONS])
def test_the_output_and_the_gradients_equal_the_slow_loop(case, implementation):
    out, gradients = attend(implementation, jnp.float32, case)
    expected, to_inputs = slow(*case)
    assert_close(out, expected, RTOL)
    for found, wanted in zip(gradients, to_inputs, strict=True):
        assert_close(found, wanted, RTOL)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_values_lose_no_more_than_their_own_rounding(case, implementation):
    out, gradients = attend(implementation, jnp.bfloat16, case)
    expected, to_inputs = slow(*case)
    assert out.dtype == gradients[0].dtype == jnp.bfloat16
    assert gradients[1].dtype == gradients[2].dtype == jnp.float32
    assert_close(out, expected, RTOL_BFLOAT16)
    for found, wanted in zip(gradients, to_inputs, strict=True):
        assert_close(found, wanted, RTOL_BFLOAT16)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_slope_at_a_pixel_centre_is_that_of_the_cell_to_the_right(implementation):
    values = jnp.asarray([0.0, 1.0, 5.0]).reshape(1, 3, 1, 1)

    def at(x):
        points = jnp.stack([x, jnp.full_like(x, 0.5)]).reshape(1, 1, 2, 1, 1, 1)
        return deform_attn(
            values, ((1, 3),), points, jnp.ones((1, 1, 1, 1, 1)), implementation=implementation
        ).sum()

    np.testing.assert_allclose(jax.grad(at)(jnp.asarray(0.5)), (5.0 - 1.0) * 3, rtol=RTOL)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_points_far_outside_give_zero(implementation):
    points = jnp.asarray([[-1e30, 0.5, jnp.inf], [0.5, 1e30, 0.5]]).reshape(1, 1, 2, 1, 3, 1)
    values = jnp.ones((1, 6, 1, 2))
    out = deform_attn(
        values, ((2, 3),), points, jnp.ones((1, 1, 1, 3, 1)), implementation=implementation
    )
    np.testing.assert_array_equal(out, np.zeros((1, 3, 1, 2)))


def test_no_queries_give_no_output():
    out = deform_attn(
        jnp.ones((1, 6, 1, 2)), ((2, 3),), jnp.ones((1, 1, 2, 1, 0, 1)), jnp.ones((1, 1, 1, 0, 1))
    )
    assert out.shape == (1, 0, 1, 2)


def test_the_backward_pass_keeps_only_its_inputs():
    """Between the passes nothing may live that is as large as the gathered rows."""
    sizes = ((8, 8), (16, 16))
    values = jax.ShapeDtypeStruct((1, 320, 4, 32), jnp.float32)
    points = jax.ShapeDtypeStruct((2, 4, 2, 1, 320, 4), jnp.float32)
    weights = jax.ShapeDtypeStruct((2, 4, 1, 320, 4), jnp.float32)

    def loss(values, points, weights):
        return deform_attn(values, sizes, points, weights).sum()

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(values, points, weights).compile()
    gathered = 320 * 4 * 2 * 4 * 4 * 32 * 4  # queries, heads, levels, points, corners, e, bytes
    assert compiled.memory_analysis().temp_size_in_bytes < gathered / 2


def test_an_unknown_implementation_is_refused_with_the_list():
    args = (
        jnp.ones((1, 6, 1, 2)),
        ((2, 3),),
        jnp.ones((1, 1, 2, 1, 1, 1)),
        jnp.ones((1, 1, 1, 1, 1)),
    )
    with pytest.raises(ValueError, match="no implementation 'cuda'; it has: rows, packed"):
        deform_attn(*args, implementation="cuda")


def test_levels_that_do_not_fit_the_sizes_are_refused():
    points, weights = jnp.ones((1, 1, 2, 1, 1, 1)), jnp.ones((1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="2 levels.*points have 1 levels"):
        deform_attn(jnp.ones((1, 6, 1, 2)), ((1, 3), (1, 3)), points, weights)


def test_sizes_that_do_not_fit_the_values_are_refused():
    args = (
        jnp.ones((1, 7, 1, 2)),
        ((2, 3),),
        jnp.ones((1, 1, 2, 1, 1, 1)),
        jnp.ones((1, 1, 1, 1, 1)),
    )
    with pytest.raises(ValueError, match="6 positions.*values 7 positions"):
        deform_attn(*args)
