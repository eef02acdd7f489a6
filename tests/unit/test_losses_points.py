"""Points of the losses: counts, independence of the batch, and which ones are uncertain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax.losses import points


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def test_the_counts_are_those_of_the_paper():
    counts = points.Counts.of(12_544, oversample=3.0, importance=0.75)
    assert counts == points.Counts(candidates=37_632, uncertain=9_408, random=3_136)


def test_odd_counts_round_down_and_still_add_up():
    counts = points.Counts.of(7, oversample=2.5, importance=0.6)
    assert counts == points.Counts(candidates=17, uncertain=4, random=3)


def test_more_uncertain_points_than_candidates_is_refused():
    with pytest.raises(
        ValueError, match=r"oversample=0.5 gives 5 candidates .*importance=0.75 makes 7"
    ):
        points.Counts.of(10, oversample=0.5, importance=0.75)


def test_points_lie_in_the_map_and_differ_between_outputs_examples_and_masks():
    counts = points.Counts(candidates=5, uncertain=2, random=4)
    draws = [points.draw(keys(2), output, 3, counts) for output in (0, 1)]
    for part, size in (("candidates", 5), ("random", 4)):
        drawn = np.stack([getattr(d, part) for d in draws])
        assert drawn.shape == (2, 2, 3, size, 2)
        assert drawn.min() >= 0 and drawn.max() < 1
        assert len(np.unique(drawn.reshape(-1, 2), axis=0)) == drawn.size / 2


def test_an_example_draws_the_same_points_alone_and_in_a_batch():
    counts = points.Counts(candidates=5, uncertain=2, random=4)
    whole = points.draw(keys(3), 4, 2, counts)
    alone = points.draw(keys(3)[1:2], 4, 2, counts)
    np.testing.assert_array_equal(whole.candidates[1:2], alone.candidates)
    np.testing.assert_array_equal(whole.random[1:2], alone.random)
    both = points.match_points(keys(3), 4, 6)
    np.testing.assert_array_equal(both[1:2], points.match_points(keys(3)[1:2], 4, 6))


def test_the_most_uncertain_candidates_are_chosen_and_all_random_points_kept():
    # A map of one row and four columns, whose centres are at 1/8, 3/8, 5/8, 7/8; another one is
    # the reverse, and one has no query.
    row = jnp.asarray([5.0, -1.0, 0.5, -7.0])
    planes = jnp.stack([row, row[::-1], 0 * row])[None, :, None]
    x = jnp.asarray([1, 3, 5, 7]) / 8
    candidates = jnp.stack([x, jnp.full(4, 0.5)], axis=-1)[None, None].repeat(3, 1)
    drawn = points.Draw(candidates, jnp.full((1, 3, 1, 2), 0.25))
    counts = points.Counts(candidates=4, uncertain=3, random=1)
    where = points.choose_uncertain(planes, drawn, counts)
    assert where.shape == (1, 3, 4, 2)
    np.testing.assert_allclose(where[0, 0, :, 0], [1 / 8, 3 / 8, 5 / 8, 1 / 4])
    np.testing.assert_allclose(where[0, 1, :, 0], [3 / 8, 5 / 8, 7 / 8, 1 / 4])
    np.testing.assert_allclose(where[0, 2, :, 0], [1 / 8, 3 / 8, 5 / 8, 1 / 4])  # all alike


def test_points_are_uniform():
    drawn = np.asarray(points.match_points(keys(1), 0, 20_000))[0]
    counts, _, _ = np.histogram2d(*drawn.T, bins=4, range=((0, 1), (0, 1)))
    # 1250 in each of 16 cells, standard deviation 34.
    assert 1250 - 5 * 34 < counts.min() and counts.max() < 1250 + 5 * 34
