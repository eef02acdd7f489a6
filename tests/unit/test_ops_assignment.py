"""The assignment against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from scipy.optimize import linear_sum_assignment

from clouds_jax.ops.assignment import assign

RTOL = 1e-6  # of the largest cost, per mask; float32 against float64


def draw(kind, random, b, q, m):
    if kind == "uniform":
        return random.uniform(size=(b, q, m))
    if kind == "ties":
        return random.integers(0, 3, size=(b, q, m))
    if kind == "equal":
        return np.ones((b, q, m))
    if kind == "all masks want the same queries":
        return random.normal(size=(b, q, 1)) + 1e-3 * random.normal(size=(b, q, m))
    # The product of ranks: every new mask moves all those before it.
    product = np.arange(1, q + 1)[:, None] * np.arange(1, m + 1)[None, :]
    return np.broadcast_to(product, (b, q, m)) / q


def check(costs, present, found):
    """Each problem: every present mask has its own query, at SciPy's total cost."""
    for cost, here, queries in zip(costs.astype(np.float64), present, found, strict=True):
        assert np.all(queries[~here] == -1)
        masks = np.flatnonzero(here)
        queries = queries[masks]
        assert np.all((queries >= 0) & (queries < cost.shape[0]))
        assert len(set(queries.tolist())) == len(queries)
        rows, columns = linear_sum_assignment(cost[:, here])
        best = cost[:, here][rows, columns].sum()
        limit = RTOL * np.abs(cost).max() * max(len(masks), 1)
        np.testing.assert_allclose(cost[queries, masks].sum(), best, rtol=0, atol=limit)


run = jax.jit(assign)

KINDS = ["uniform", "ties", "equal", "all masks want the same queries", "product"]


@pytest.mark.parametrize("q, m", [(100, 19), (7, 7), (5, 1)])
def test_the_total_cost_is_that_of_scipy(q, m):
    random = np.random.default_rng(0)
    each = 40  # problems of a kind, all solved in one call
    costs = np.concatenate([draw(kind, random, each, q, m) for kind in KINDS]).astype(np.float32)
    present = random.uniform(size=(len(costs), m)) < 0.7
    present[::each], present[1::each] = True, False
    check(costs, present, np.asarray(run(jnp.asarray(costs), jnp.asarray(present))))


def test_costs_of_absent_masks_are_not_read():
    costs = np.random.default_rng(1).normal(size=(1, 6, 3)).astype(np.float32)
    present = jnp.asarray([[True, False, True]])
    plain = run(jnp.asarray(costs), present)
    costs[:, :, 1] = np.nan
    np.testing.assert_array_equal(run(jnp.asarray(costs), present), plain)


def test_no_masks_give_an_empty_assignment():
    assert assign(jnp.ones((2, 5, 0)), jnp.ones((2, 0), bool)).shape == (2, 0)


def test_nan_and_infinity_are_taken_only_when_nothing_else_is_left():
    random = np.random.default_rng(2)
    costs = random.uniform(size=(30, 8, 4)).astype(np.float32)
    bad = random.uniform(size=costs.shape) < 0.4
    bad[:, :4] &= ~np.eye(4, dtype=bool)[None]  # a finite assignment exists
    forbidden = np.where(bad, np.inf, costs)
    holes = np.where(bad, random.choice([np.nan, np.inf], size=costs.shape), costs)
    found = np.asarray(run(jnp.asarray(holes, jnp.float32), jnp.ones((30, 4), bool)))
    for cost, queries in zip(forbidden.astype(np.float64), found, strict=True):
        rows, columns = linear_sum_assignment(cost)
        total = cost[queries, np.arange(4)].sum()
        np.testing.assert_allclose(total, cost[rows, columns].sum(), atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_any_cost_gives_every_mask_its_own_query(value):
    costs = np.random.default_rng(3).normal(size=(3, 5, 5)).astype(np.float32)
    costs[0, :, :] = value
    costs[1, 2, :] = value
    costs[2, :, 3] = value
    found = np.asarray(run(jnp.asarray(costs), jnp.ones((3, 5), bool)))
    for queries in found:
        assert sorted(queries) == list(range(5))


def test_minus_infinity_is_always_taken():
    costs = np.random.default_rng(4).normal(size=(1, 6, 3)).astype(np.float32)
    costs[0, 4, 1] = -np.inf
    assert run(jnp.asarray(costs), jnp.ones((1, 3), bool))[0, 1] == 4


def test_fewer_queries_than_masks_are_refused():
    with pytest.raises(ValueError, match="3 queries for 4 masks"):
        assign(jnp.ones((1, 3, 4)), jnp.ones((1, 4), bool))


def test_it_needs_no_gradient():
    gradient = jax.grad(
        lambda c: jnp.sum(c) + jnp.sum(assign(c, jnp.ones((1, 2), bool)).astype(jnp.float32))
    )(jnp.ones((1, 3, 2)))
    np.testing.assert_array_equal(gradient, np.ones((1, 3, 2)))


@pytest.mark.parametrize("check_vma", [True, False])
def test_in_shard_map_it_gives_the_same_and_does_not_communicate(check_vma):
    random = np.random.default_rng(5)
    costs = jnp.asarray(random.uniform(size=(4, 9, 3)), jnp.float32)
    present = jnp.asarray(random.uniform(size=(4, 3)) < 0.8)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.jit(
        jax.shard_map(
            assign,
            mesh=mesh,
            in_specs=(P("data"), P("data")),
            out_specs=P("data"),
            check_vma=check_vma,
        )
    )
    np.testing.assert_array_equal(spread(costs, present), run(costs, present))
    text = spread.lower(costs, present).compile().as_text()
    assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all", "permute("))
