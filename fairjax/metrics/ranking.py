"""Ranking and calibration of scores: AUROC, by group and in the worst group; Brier.

The AUROC is exact, ties and weights included. Sorting is its only cost above O(n) and
depends on the scores alone, so ``score_order`` does it once and ``auroc_from_order``
reuses it for every group and every bootstrap replicate.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from fairjax.metrics.counts import BinaryRows, GroupRows, WeightRows

_Scores: TypeAlias = Float[Array | np.ndarray, " rows"]


class ScoreOrder(NamedTuple):
    """The rows of one score column sorted, with its tied runs.

    Attributes:
      order: int32 ``[rows]``, row ids by ascending score.
      first: int32 ``[rows]``, for each sorted position, that of the first equal score.
      last: int32 ``[rows]``, one past that of the last equal score.
      missing: bool ``[rows]``, where the sorted score is NaN.
    """

    order: Int[Array, " rows"]
    first: Int[Array, " rows"]
    last: Int[Array, " rows"]
    missing: Bool[Array, " rows"]


def score_order(scores: _Scores) -> ScoreOrder:
    """Sorts the scores once, for many calls of ``auroc_from_order``.

    Args:
      scores: ``[rows]``; only their order matters. Without JAX's 64-bit mode, float64
        scores are rounded to float32 and may become tied.

    Returns:
      The order and its ties.

    Example:
      >>> import jax.numpy as jnp
      >>> score_order(jnp.array([0.7, 0.1, 0.7])).first.tolist()
      [0, 1, 1]
    """
    scores = jnp.asarray(scores)
    order = jnp.argsort(scores).astype(jnp.int32)
    ranked = scores[order]
    position = jnp.arange(ranked.size, dtype=jnp.int32)
    new = jnp.concatenate([jnp.ones(1, bool), ranked[1:] != ranked[:-1]])[: ranked.size]
    first = jax.lax.cummax(jnp.where(new, position, 0))
    end = jnp.roll(new, -1).at[-1:].set(True)
    last = jax.lax.cummin(jnp.where(end, position + 1, ranked.size), reverse=True)
    return ScoreOrder(order, first, last, jnp.isnan(ranked))


def auroc_from_order(
    order: ScoreOrder, labels: BinaryRows, weights: WeightRows | None = None
) -> Float[Array, ""]:
    """AUROC of already sorted scores, in O(n).

    Map it over weights to bootstrap: ``vmap(auroc_from_order, (None, None, 0))``.

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
    positive = jnp.asarray(labels)[order.order] == 1
    negative = jnp.asarray(labels)[order.order] == 0
    if weights is None:
        mass = jnp.ones(positive.shape)
    else:
        mass = jnp.asarray(weights, jnp.result_type(weights, float))[order.order]
    mass = jnp.where(order.missing & (mass > 0), jnp.nan, mass)
    positives = jnp.where(positive, mass, 0)
    below = jnp.cumsum(jnp.where(negative, mass, 0))
    below = jnp.concatenate([jnp.zeros(1, below.dtype), below])
    total_positive, total_negative = jnp.sum(positives), below[-1]
    defined = (total_positive > 0) & (total_negative > 0)
    # A tied negative counts half: the mean of those before the run and through it.
    # Shares, not counts, are summed: products of counts would leave float32's integers.
    share = (below[order.first] + below[order.last]) / jnp.where(
        defined, 2 * total_negative, 1
    )
    area = jnp.sum(positives * share) / jnp.where(defined, total_positive, 1)
    return jnp.where(defined, area, jnp.nan)


def auroc(
    labels: BinaryRows, scores: _Scores, weights: WeightRows | None = None
) -> Float[Array, ""]:
    r"""Area under the receiver operating characteristic, exact with ties.

    The weighted Mann-Whitney statistic, over positives :math:`i` and negatives
    :math:`j`:

    .. math:: \frac{\sum_{ij} w_i w_j \left([s_i > s_j] + \tfrac12 [s_i = s_j]\right)}
              {\sum_i w_i \sum_j w_j}

    Args:
      labels: ``[rows]``, 0 or 1; other values take no part.
      scores: ``[rows]``, higher for the positive class.
      weights: ``[rows]``, at least 0; ones by default. Integer weights act as repeated
        rows.

    Returns:
      In [0, 1]; NaN if either class has no weight or a score with weight is NaN.

    Hanley and McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143 (1982).

    Example:
      >>> import jax.numpy as jnp
      >>> auroc(jnp.array([0, 0, 1, 1]), jnp.array([0.1, 0.5, 0.5, 0.8])).item()
      0.875
    """
    return auroc_from_order(score_order(scores), labels, weights)


def group_auroc(
    labels: BinaryRows,
    scores: _Scores,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> Float[Array, " groups"]:
    """AUROC within each group, sorting once.

    Args:
      labels: ``[rows]``, 0 or 1.
      scores: ``[rows]``, higher for the positive class.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      ``[G]`` in [0, 1]; NaN for a group that lacks a class.

    Example:
      >>> import jax.numpy as jnp
      >>> group_auroc(
      ...     jnp.array([0, 1, 1, 0]), jnp.array([0.2, 0.6, 0.4, 0.9]),
      ...     jnp.array([0, 0, 1, 1]), num_groups=2,
      ... ).tolist()
      [1.0, 0.0]
    """
    order = score_order(scores)
    mass = jnp.ones(1) if weights is None else jnp.asarray(weights)
    groups = jnp.asarray(groups)
    return jax.vmap(
        lambda group: auroc_from_order(
            order, labels, jnp.where(groups == group, mass, 0)
        )
    )(jnp.arange(num_groups))


class WorstGroup(NamedTuple):
    """The lowest value over groups, and whose it is.

    Attributes:
      value: Scalar; NaN if no group has a value.
      group: int32 scalar, the first group with that value; -1 if there is none.
    """

    value: Shaped[Array, ""]
    group: Int[Array, ""]


def worst_group(values: Float[Array | np.ndarray, " groups"]) -> WorstGroup:
    """The lowest value over the groups that have one.

    Args:
      values: ``[G]``, higher is better (negate a loss); NaN where a group has none.

    Returns:
      The value and its group.

    Example:
      >>> import jax.numpy as jnp
      >>> worst_group(jnp.array([0.75, jnp.nan, 0.5])).group.item()
      2
    """
    values = jnp.asarray(values)
    known = ~jnp.isnan(values)
    group = jnp.argmin(jnp.where(known, values, jnp.inf)).astype(jnp.int32)
    return WorstGroup(values[group], jnp.where(known[group], group, -1))


def brier_score(
    labels: BinaryRows,
    scores: _Scores,
    weights: WeightRows | None = None,
) -> Float[Array, ""]:
    r"""Mean squared error of a predicted probability.

    .. math:: \frac{\sum_i w_i (s_i - y_i)^2}{\sum_i w_i}

    Args:
      labels: ``[rows]``, 0 or 1.
      scores: ``[rows]``, probabilities in [0, 1].
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      In [0, 1], lower is better; NaN without weight.

    Brier, "Verification of forecasts expressed in terms of probability", Monthly
    Weather Review 78 (1950).

    Example:
      >>> import jax.numpy as jnp
      >>> brier_score(jnp.array([1, 0]), jnp.array([0.5, 0.0])).item()
      0.125
    """
    scores = jnp.asarray(scores)
    mass = jnp.ones(scores.shape) if weights is None else jnp.asarray(weights)
    total = jnp.sum(mass)
    errors = jnp.sum(mass * (scores - jnp.asarray(labels)) ** 2)
    return jnp.where(total > 0, errors / jnp.where(total > 0, total, 1), jnp.nan)
