"""Average precision, cross-group AUROC (xAUC) and equity-scaled AUROC.

``fairjax.metrics.ranking`` has the area under the ROC curve. All functions use the sort
of ``fairjax.metrics.order``.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from fairjax.metrics._placement import before_and_through, mean_fraction, sorted_mass
from fairjax.metrics._rows import ScoreRows, as_rows
from fairjax.metrics._segments import group_sums, running_sums
from fairjax.metrics.counts import BinaryRows, GroupRows, WeightRows
from fairjax.metrics.order import GroupedOrder, grouped_score_order, score_order
from fairjax.types import check_choice


def _above(order: GroupedOrder, mass: Shaped[Array, " rows"]) -> Shaped[Array, " rows"]:
    """Returns the group's mass at or above the score, for each sorted position."""
    # Sums from the top down. Differences from the total would lose digits where the
    # curve begins, and precision is most sensitive there.
    running = running_sums(mass, order.group, order.starts, reverse=True)
    return running[order.first]


@jax.jit
def grouped_auprc_from_order(
    order: GroupedOrder, labels: BinaryRows, weights: WeightRows | None = None
) -> Float[Array, " groups"]:
    """Computes the average precision of each group from sorted scores, in O(n).

    Args:
      order: From ``grouped_score_order``.
      labels: ``[rows]``, 0 or 1, in the original order of rows.
      weights: ``[rows]``, at least 0, in the original order; ones by default.

    Returns:
      ``[G]``, the ``auprc`` of each group.

    Example:
      >>> import jax.numpy as jnp
      >>> order = grouped_score_order(
      ...     jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.zeros(4, int), num_groups=1
      ... )
      >>> grouped_auprc_from_order(order, jnp.array([0, 1, 0, 1])).tolist()
      [1.0]
    """
    mass = sorted_mass(order, labels, weights)
    hits, alarms = _above(order, mass.positive), _above(order, mass.negative)
    selected = hits.astype(jnp.result_type(hits, float)) + alarms
    precision = hits / jnp.where(selected > 0, selected, 1)
    total = group_sums(mass.positive, order.group, order.num_groups)
    gained = jnp.where(mass.undefined, jnp.nan, mass.positive * precision)
    area = group_sums(gained, order.group, order.num_groups)
    return jnp.where(total > 0, area / jnp.where(total > 0, total, 1), jnp.nan)


@jax.jit
def auprc(
    labels: BinaryRows, scores: ScoreRows, weights: WeightRows | None = None
) -> Float[Array, ""]:
    r"""Computes the area under the precision-recall curve, as average precision.

    .. math:: \mathrm{AP} = \sum_k (R_k - R_{k-1})\, P_k
              = \frac{\sum_i w_i y_i P(s_i)}{\sum_i w_i y_i}

    with recall :math:`R_k` and precision :math:`P_k` at each distinct score, from the
    highest down; :math:`P(s)` is the precision of ``score >= s``. Tied rows are
    selected together. The points are not interpolated, which would be too optimistic.
    Random scores have an average precision equal to the prevalence, so groups of
    different prevalence are not comparable.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, higher for the positive class.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The area in (0, 1]; NaN without positives, or if a score with weight is NaN.

    Raises:
      ValueError: If the columns differ in length.

    References:
      Davis and Goadrich, "The relationship between precision-recall and ROC curves",
      ICML (2006).

    Example:
      >>> import jax.numpy as jnp
      >>> labels, scores = jnp.array([0, 1, 0, 1]), jnp.array([0.1, 0.35, 0.4, 0.8])
      >>> round(auprc(labels, scores).item(), 4)
      0.8333
    """
    labels, scores, weights = as_rows(1, labels=labels, scores=scores, weights=weights)
    return grouped_auprc_from_order(score_order(scores), labels, weights)[0]


@functools.partial(jax.jit, static_argnames="num_groups")
def group_auprc(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> Float[Array, " groups"]:
    """Computes the average precision within each group.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, higher for the positive class.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      ``[G]`` in (0, 1]; NaN for a group without positives.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> group_auprc(
      ...     jnp.array([0, 1, 1, 0]), jnp.array([0.2, 0.6, 0.4, 0.9]),
      ...     jnp.array([0, 0, 1, 1]), num_groups=2,
      ... ).tolist()
      [1.0, 0.5]
    """
    labels, scores, groups, weights = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, weights=weights
    )
    order = grouped_score_order(scores, groups, num_groups=num_groups)
    return grouped_auprc_from_order(order, labels, weights)


@functools.partial(jax.jit, static_argnames="num_groups")
def cross_auroc(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> Float[Array, "groups groups"]:
    r"""Computes the cross-group AUROC (xAUC) of positives and negatives of two groups.

    .. math:: \mathrm{xAUC}_{ab} = P(s_i > s_j) + \tfrac12 P(s_i = s_j), \qquad
              i: y_i = 1, g_i = a; \quad j: y_j = 0, g_j = b

    If row ``a`` is low and column ``a`` high, the model ranks group ``a`` below the
    others. The AUROC within each group may still be good. The diagonal is
    ``group_auroc``. Time is O(n log n + nG), memory O(n).

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, higher for the positive class.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      ``[G, G]`` in [0, 1], indexed ``[group of positives, group of negatives]``; NaN
      where either set is empty or has a NaN score with weight.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    References:
      Kallus and Zhou, "The fairness of risk scores beyond classification: bipartite
      ranking and the xAUC metric", NeurIPS (2019).

    Example:
      >>> import jax.numpy as jnp
      >>> cross_auroc(
      ...     jnp.array([0, 1, 1, 0]), jnp.array([0.2, 0.6, 0.4, 0.5]),
      ...     jnp.array([0, 0, 1, 1]), num_groups=2,
      ... ).tolist()
      [[1.0, 1.0], [1.0, 0.0]]
    """
    labels, scores, groups, weights = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, weights=weights
    )
    order = score_order(scores)
    mass = sorted_mass(order, labels, weights)
    group = groups.astype(jnp.int32)[order.order]
    positives = group_sums(mass.positive, group, num_groups)
    lost_positives = group_sums(mass.undefined & (mass.positive > 0), group, num_groups)

    def against(other):
        negative = jnp.where(group == other, mass.negative, 0)
        before, through = before_and_through(order, negative)
        total = jnp.sum(negative)
        lost = jnp.any(mass.undefined & (negative > 0)) | (lost_positives > 0)
        defined = (positives > 0) & (total > 0) & ~lost
        won = mass.positive * mean_fraction(before, through, total)
        won = group_sums(won, group, num_groups)
        return jnp.where(defined, won / jnp.where(positives > 0, positives, 1), jnp.nan)

    return jax.lax.map(against, jnp.arange(num_groups)).T


def equity_scaled_auroc(
    overall: Float[Array | np.ndarray, "*batch"],
    group_aurocs: Float[Array | np.ndarray, "*batch groups"],
    *,
    agg: Literal["sum", "mean"] = "sum",
) -> Float[Array, "*batch"]:
    r"""Computes the equity-scaled AUROC (ES-AUC), reduced by the groups' deviations.

    .. math:: \frac{A}{1 + \sum_g |A - A_g|}

    with :math:`A` the overall AUROC. The published form is the sum, which falls as
    groups are added even if no group is treated worse. Values of the sum are therefore
    comparable between models, not between attributes. Values with ``agg="mean"`` are
    less sensitive to the number of groups. Any rate can replace the AUROC.

    Args:
      overall: ``[...]``, the AUROC of all rows.
      group_aurocs: ``[..., G]``; NaN entries are skipped.
      agg: ``"sum"`` or ``"mean"`` of the deviations.

    Returns:
      ``[...]``, at most ``overall``; NaN if no group has an AUROC.

    Raises:
      ValueError: If ``agg`` is not one of these.

    References:
      Luo et al., "Harvard Glaucoma Fairness: a retinal nerve disease dataset for
      fairness learning and fair identity normalization", IEEE Transactions on Medical
      Imaging 43 (2024).

    Example:
      >>> import jax.numpy as jnp
      >>> equity_scaled_auroc(jnp.array(0.75), jnp.array([0.5, 1.0])).item()
      0.5
    """
    check_choice("agg", agg, "sum", "mean")
    overall, group_aurocs = jnp.asarray(overall), jnp.asarray(group_aurocs)
    known = ~jnp.isnan(group_aurocs)
    deviations = jnp.where(known, jnp.abs(group_aurocs - overall[..., None]), 0)
    number = jnp.sum(known, axis=-1)
    scale = jnp.sum(deviations, axis=-1)
    if agg == "mean":
        scale = scale / jnp.maximum(number, 1)
    return jnp.where(number > 0, overall / (1 + scale), jnp.nan)
