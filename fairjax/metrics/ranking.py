"""Ranking of scores: AUROC, exact with ties and weights, overall and by group.

Sorting is the only cost above O(n) and depends only on the scores and groups.
``grouped_score_order`` sorts once, and ``grouped_auroc_from_order`` reuses the order
for every bootstrap replicate. The memory does not grow with the number of groups.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from fairjax.metrics._placement import before_and_through, mean_fraction, sorted_mass
from fairjax.metrics._rows import ScoreRows, as_rows
from fairjax.metrics._segments import group_sums
from fairjax.metrics.counts import BinaryRows, GroupRows, WeightRows
from fairjax.metrics.order import GroupedOrder, grouped_score_order, score_order


@jax.jit
def grouped_auroc_from_order(
    order: GroupedOrder, labels: BinaryRows, weights: WeightRows | None = None
) -> Float[Array, " groups"]:
    """Computes the AUROC of each group from sorted scores, in O(n).

    To bootstrap, map the function over weights ``[B, n]`` in batches:
    ``lax.map(lambda w: grouped_auroc_from_order(order, labels, w), weights,
    batch_size=16)``.

    Args:
      order: From ``grouped_score_order``.
      labels: ``[rows]``, 0 or 1, in the original order of rows.
      weights: ``[rows]``, at least 0, in the original order; ones by default. Integers
        (bootstrap multiplicities) are faster than floats; their sum in a group must be
        at most 2³¹ - 1.

    Returns:
      ``[G]``, the ``auroc`` of each group.

    Example:
      >>> import jax.numpy as jnp
      >>> order = grouped_score_order(
      ...     jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.zeros(4, int), num_groups=1
      ... )
      >>> grouped_auroc_from_order(order, jnp.array([0, 0, 1, 1])).tolist()
      [0.75]
    """
    mass = sorted_mass(order, labels, weights)
    # A tied negative counts half: the mean of the counts before and through the run.
    before, through = before_and_through(order, mass.negative)
    positives = group_sums(mass.positive, order.group, order.num_groups)
    negatives = group_sums(mass.negative, order.group, order.num_groups)
    defined = (positives > 0) & (negatives > 0)
    # Sums fractions, not counts, because products of counts can exceed the integers
    # that floats represent exactly. Division by the total, rather than multiplication
    # by its inverse, gives exactly 1 for a perfect order.
    fraction = mean_fraction(before, through, jnp.append(negatives, 0)[order.group])
    won = mass.positive * fraction
    won = group_sums(
        jnp.where(mass.undefined, jnp.nan, won), order.group, order.num_groups
    )
    return jnp.where(defined, won / jnp.where(defined, positives, 1), jnp.nan)


def auroc_from_order(
    order: GroupedOrder, labels: BinaryRows, weights: WeightRows | None = None
) -> Float[Array, ""]:
    """Computes the AUROC of sorted scores, in O(n).

    To bootstrap, map the function over weights:
    ``vmap(auroc_from_order, (None, None, 0))``.

    Args:
      order: From ``score_order(scores)``.
      labels: ``[rows]``, 0 or 1, in the original order of rows.
      weights: ``[rows]``, at least 0, in the original order; ones by default.

    Returns:
      As ``auroc``.

    Example:
      >>> import jax.numpy as jnp
      >>> order = score_order(jnp.array([0.1, 0.4, 0.35, 0.8]))
      >>> auroc_from_order(order, jnp.array([0, 0, 1, 1])).item()
      0.75
    """
    return grouped_auroc_from_order(order, labels, weights)[0]


@jax.jit
def auroc(
    labels: BinaryRows, scores: ScoreRows, weights: WeightRows | None = None
) -> Float[Array, ""]:
    r"""Computes the area under the ROC curve (AUROC), exact with ties.

    The AUROC is the weighted Mann-Whitney statistic, over positives :math:`i` and
    negatives :math:`j`:

    .. math:: \frac{\sum_{ij} w_i w_j \left([s_i > s_j] + \tfrac12 [s_i = s_j]\right)}
              {\sum_i w_i \sum_j w_j}

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, higher for the positive class.
      weights: ``[rows]``, at least 0; ones by default. Integer weights act as repeated
        rows.

    Returns:
      The area in [0, 1]; NaN if either class has no weight or a score with weight is
      NaN.

    References:
      Hanley and McNeil, "The meaning and use of the area under a receiver operating
      characteristic (ROC) curve", Radiology 143 (1982).

    Example:
      >>> import jax.numpy as jnp
      >>> auroc(jnp.array([0, 0, 1, 1]), jnp.array([0.1, 0.5, 0.5, 0.8])).item()
      0.875
    """
    labels, scores, weights = as_rows(1, labels=labels, scores=scores, weights=weights)
    return auroc_from_order(score_order(scores), labels, weights)


@functools.partial(jax.jit, static_argnames="num_groups")
def group_auroc(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> Float[Array, " groups"]:
    """Computes the AUROC within each group, with a single sort.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, higher for the positive class.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      ``[G]`` in [0, 1]; NaN for a group that lacks a class or has a NaN score with
      weight.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> group_auroc(
      ...     jnp.array([0, 1, 1, 0]), jnp.array([0.2, 0.6, 0.4, 0.9]),
      ...     jnp.array([0, 0, 1, 1]), num_groups=2,
      ... ).tolist()
      [1.0, 0.0]
    """
    labels, scores, groups, weights = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, weights=weights
    )
    order = grouped_score_order(scores, groups, num_groups=num_groups)
    return grouped_auroc_from_order(order, labels, weights)


class WorstGroup(NamedTuple):
    """The lowest value over groups, and its group.

    Attributes:
      value: Scalar; NaN if no group has a value.
      group: int32 scalar, the first group with the lowest value; -1 if there is none.
    """

    value: Shaped[Array, ""]
    group: Int[Array, ""]


def worst_group(values: Float[Array | np.ndarray, " groups"]) -> WorstGroup:
    """Returns the lowest value over the groups that have a value.

    Args:
      values: ``[G]``, higher is better (negate a loss); NaN for a group without a
        value.

    Returns:
      The lowest value and its group.

    Example:
      >>> import jax.numpy as jnp
      >>> worst_group(jnp.array([0.75, jnp.nan, 0.5])).group.item()
      2
    """
    values = jnp.asarray(values)
    known = ~jnp.isnan(values)
    group = jnp.argmin(jnp.where(known, values, jnp.inf)).astype(jnp.int32)
    return WorstGroup(values[group], jnp.where(known[group], group, -1))
