"""Rows sorted by group and score, once for all rank statistics of all groups.

Sorting is the only cost above O(n) and depends only on the scores and groups, not on
labels or weights. The memory does not grow with the number of groups.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from fairjax.metrics._rows import ScoreRows, as_rows
from fairjax.metrics.counts import GroupRows


class GroupedOrder(NamedTuple):
    """Rows sorted by group and score, with runs of tied scores.

    Attributes:
      order: int32 ``[rows]``, row ids by group, then by ascending score; rows in no
        group come last.
      group: int32 ``[rows]``, the group at each sorted position; ``G`` for no group.
      first: int32 ``[rows]``, for each sorted position, the position of the first equal
        score in the group.
      last: int32 ``[rows]``, one past the position of the last equal score.
      missing: bool ``[rows]``, where the sorted score is NaN.
      starts: int32 ``[G + 1]``, the position of each group's first row, then one past
        the last row of the last group.
    """

    order: Int[Array, " rows"]
    group: Int[Array, " rows"]
    first: Int[Array, " rows"]
    last: Int[Array, " rows"]
    missing: Bool[Array, " rows"]
    starts: Int[Array, " bounds"]

    @property
    def num_groups(self) -> int:
        """Number of groups declared, ``G``; static."""
        return self.starts.shape[0] - 1


@functools.partial(jax.jit, static_argnames="num_groups")
def grouped_score_order(
    scores: ScoreRows, groups: GroupRows, *, num_groups: int
) -> GroupedOrder:
    """Sorts the scores within each group, for all statistics of the order.

    Args:
      scores: ``[rows]``; only their order matters. Without JAX's 64-bit mode, float64
        scores are rounded to float32 and may become tied. A NaN comes last in its
        group.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.

    Returns:
      The order, its groups and its ties.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> order = grouped_score_order(
      ...     jnp.array([0.7, 0.1, 0.2, 0.1]), jnp.array([0, 1, 0, 1]), num_groups=2
      ... )
      >>> order.order.tolist(), order.starts.tolist(), order.first.tolist()
      ([2, 0, 1, 3], [0, 2, 4], [0, 1, 2, 2])
    """
    column, ids = as_rows(num_groups, scores=scores, groups=groups)
    ids = ids.astype(jnp.int32)
    ids = jnp.where((ids >= 0) & (ids < num_groups), ids, num_groups)
    rows = jnp.arange(column.size, dtype=jnp.int32)
    group, ranked, order = jax.lax.sort((ids, column, rows), num_keys=2)
    new = (ranked[1:] != ranked[:-1]) | (group[1:] != group[:-1])
    edge = jnp.ones(min(1, rows.size), bool)
    first = jax.lax.cummax(jnp.where(jnp.concatenate([edge, new]), rows, 0))
    end = jnp.where(jnp.concatenate([new, edge]), rows + 1, rows.size)
    last = jax.lax.cummin(end, reverse=True)
    bounds = jnp.arange(num_groups + 1, dtype=jnp.int32)
    starts = jnp.searchsorted(group, bounds).astype(jnp.int32)
    return GroupedOrder(order, group, first, last, jnp.isnan(ranked), starts)


def score_order(scores: ScoreRows) -> GroupedOrder:
    """Sorts the scores of one group, for many calls of ``auroc_from_order``.

    Args:
      scores: ``[rows]``, as for ``grouped_score_order``.

    Returns:
      The order and its ties.

    Example:
      >>> import jax.numpy as jnp
      >>> score_order(jnp.array([0.7, 0.1, 0.7])).first.tolist()
      [0, 1, 1]
    """
    everyone = jnp.zeros(np.shape(scores), jnp.int32)
    return grouped_score_order(scores, everyone, num_groups=1)
