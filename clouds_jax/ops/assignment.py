"""Exact minimum-cost assignment of masks to queries (Hungarian matching), on the device.

Source: the shortest augmenting path method (Crouse, "On implementing 2D rectangular assignment
    algorithms", 2016), which scipy.optimize.linear_sum_assignment follows too. Rows are the few
    masks and columns the many queries, so there are as many augmentations as masks.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

_LARGEST = 1e30  # costs are clipped to it, so that their sums stay inside float32


def assign(costs: Float[Array, "b q m"], present: Bool[Array, "b m"]) -> Int[Array, "b m"]:
    """Assigns a query to every present mask at the least total cost, problem by problem.

    No gradient flows through the costs.

    Args:
        costs: cost of assigning query q to mask m; at least as many queries as masks. Finite costs
            are clipped to +-1e30. NaN and infinity count as a cost so high that the pair is taken
            only if no other is left, minus infinity as one so low that it is always taken; the
            result stays exact for the finite costs.
        present: which masks get a query. The costs of the others are not read.

    Returns:
        The query of each mask, each query at most once; -1 where the mask is absent.

    Raises:
        ValueError: there are fewer queries than masks.
    """
    _, q, m = costs.shape
    if q < m:
        raise ValueError(
            f"assign has {q} queries for {m} masks; it needs at least one query per mask, "
            "so raise num_queries or lower the number of masks."
        )
    if m == 0:
        return jnp.zeros(present.shape, jnp.int32)
    costs = lax.stop_gradient(costs).astype(jnp.float32)
    return jax.vmap(_assign_one)(jnp.swapaxes(costs, 1, 2), present)


def _finite(costs: Float[Array, "m q"], present: Bool[Array, " m"]) -> Float[Array, "m q"]:
    """The costs, with numbers in place of NaN and infinities."""
    finite = jnp.isfinite(costs)
    costs = jnp.clip(costs, -_LARGEST, _LARGEST)
    counted = finite & present[:, None]
    low = jnp.min(jnp.where(counted, costs, _LARGEST))
    high = jnp.max(jnp.where(counted, costs, -_LARGEST))
    # More than any exchange of finite costs can gain.
    step = costs.shape[0] * jnp.maximum(high - low, 0.0) + 1.0
    low, high = jnp.minimum(low, high), jnp.maximum(low, high)  # they cross if no cost is counted
    return jnp.where(finite, costs, jnp.where(costs < 0, low - step, high + step))


def _assign_one(costs: Float[Array, "m q"], present: Bool[Array, " m"]) -> Int[Array, " m"]:
    m, q = costs.shape
    costs = _finite(costs, present)

    def add_row(row, state):
        u, v, row_of, column_of = state
        sink, length, shortest, before, closed = _shortest_path(
            costs, u, v, row_of, row, present[row]
        )

        # Duals: every closed row and column moves by what its distance falls short of the length.
        slack = jnp.where(closed, length - shortest, 0.0)
        owner = jnp.where(closed & (row_of >= 0), row_of, m)
        u = u.at[owner].add(slack, mode="drop").at[row].add(length)
        v = v - slack

        def flip(carry):
            row_of, column_of, column, _ = carry
            owner = before[column]
            row_of = row_of.at[column].set(owner)
            following = column_of[owner]
            return row_of, column_of.at[owner].set(column), following, owner == row

        row_of, column_of, _, _ = lax.while_loop(
            lambda carry: ~carry[3], flip, (row_of, column_of, sink, ~present[row])
        )
        return u, v, row_of, column_of

    # Derived from the inputs instead of constants: inside shard_map a loop's state must start out
    # varying over devices, as it ends.
    by_row = present * 0
    by_column = lax.broadcast(by_row[0], (q,))
    state = (by_row + 0.0, by_column + 0.0, by_column - 1, by_row - 1)
    return lax.fori_loop(0, m, add_row, state)[3]


def _shortest_path(costs, u, v, row_of, row, present):
    """Dijkstra from `row` to the nearest column without a row, over reduced costs.

    Args:
        costs: (m, q).
        u: duals of the rows, (m,).
        v: duals of the columns, (q,).
        row_of: row assigned to each column, -1 where there is none; (q,).
        row: where the path starts.
        present: whether that row is to be assigned; otherwise the path is empty.

    Returns:
        The column reached, the length of the path, the distance of every column, the row before
        every column, and which columns are closed (their distance is final).
    """
    free = row_of < 0

    def step(carry):
        at, _, length, shortest, before, closed = carry
        distance = length + costs[at] - u[at] - v
        nearer = ~closed & (distance < shortest)
        shortest = jnp.where(nearer, distance, shortest)
        before = jnp.where(nearer, at, before)
        length = jnp.min(jnp.where(closed, jnp.inf, shortest))
        # Among equal columns a free one ends the search.
        column = jnp.argmax(jnp.where(~closed & (shortest == length), 1 + free, 0))
        closed = closed.at[column].set(True)
        return row_of[column], jnp.where(free[column], column, -1), length, shortest, before, closed

    zeros = row_of * 0
    start = (
        zeros[0] + row,
        zeros[0] - jnp.where(present, 1, 0),  # an absent row takes no step
        zeros[0] + 0.0,
        zeros + jnp.inf,
        zeros,
        zeros > 0,
    )
    _, sink, *rest = lax.while_loop(lambda carry: carry[1] < 0, step, start)
    return sink, *rest
