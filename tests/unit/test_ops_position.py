"""Sine position codes against their formula, written out for single pixels."""

import math

import numpy as np
import pytest

from clouds_jax.ops.position import sine_position

ATOL = 1e-6


@pytest.mark.parametrize("row, column", [(0, 0), (1, 4), (2, 3)])
def test_a_pixel_holds_y_then_x_in_pairs_of_sine_and_cosine(row, column):
    h, w, dim = 3, 5, 8
    code = sine_position((h, w), dim)[row, column]
    y = (row + 1) / (h + 1e-6) * 2 * math.pi
    x = (column + 1) / (w + 1e-6) * 2 * math.pi
    # dim 8: four channels per axis, two wavelengths, 1 and 10000 ** (2 / 4) = 100
    half = [[math.sin(v), math.cos(v), math.sin(v / 100), math.cos(v / 100)] for v in (y, x)]
    np.testing.assert_allclose(code, half[0] + half[1], atol=ATOL)


def test_it_is_a_float32_constant_of_the_asked_size():
    code = sine_position((2, 7), 256)
    assert code.shape == (2, 7, 256) and code.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        code[0, 0, 0] = 1.0


def test_a_width_that_is_no_multiple_of_four_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        sine_position((2, 2), 6)
