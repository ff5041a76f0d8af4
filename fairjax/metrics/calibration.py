"""Calibration of predicted probabilities, overall and by group.

The module has the Brier score, calibration curves and their errors.
``fairjax.metrics.logistic_recalibration`` estimates whether a group's risks are too
high or too extreme overall. ``fairjax.metrics.net_benefit`` values the decisions at a
threshold.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from fairjax.metrics._placement import before_and_through
from fairjax.metrics._rows import (
    BinaryTable,
    ScoreRows,
    binary_rows,
    check_sizes,
    float_type,
)
from fairjax.metrics._segments import group_sums, mean_by
from fairjax.metrics.counts import BinaryRows, GroupRows, WeightRows
from fairjax.metrics.order import grouped_score_order
from fairjax.types import check_choice


def brier_score(
    labels: BinaryRows, scores: ScoreRows, weights: WeightRows | None = None
) -> Float[Array, ""]:
    r"""Computes the Brier score: the mean squared error of a predicted probability.

    .. math:: \frac{\sum_i w_i (s_i - y_i)^2}{\sum_i w_i}

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, probabilities in [0, 1].
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The score in [0, 1], lower is better; NaN if all weights are 0.

    Raises:
      ValueError: If the columns differ in length.

    References:
      Brier, "Verification of forecasts expressed in terms of probability", Monthly
      Weather Review 78 (1950).

    Example:
      >>> import jax.numpy as jnp
      >>> brier_score(jnp.array([1, 0]), jnp.array([0.5, 0.0])).item()
      0.125
    """
    everyone = jnp.zeros(np.shape(scores), jnp.int32)
    return group_brier(labels, scores, everyone, num_groups=1, weights=weights)[0]


@functools.partial(jax.jit, static_argnames="num_groups")
def group_brier(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> Float[Array, " groups"]:
    """Computes the Brier score within each group.

    The Brier score mixes calibration, ranking and prevalence: with equal quality, a
    group with rarer outcomes has the lower score.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, probabilities in [0, 1].
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      ``[G]`` in [0, 1]; NaN for a group without weight or with a NaN score.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> group_brier(
      ...     jnp.array([1, 0, 1]), jnp.array([0.5, 0.0, 0.0]), jnp.array([0, 0, 1]),
      ...     num_groups=2,
      ... ).tolist()
      [0.125, 1.0]
    """
    rows = binary_rows(labels, scores, groups, num_groups, weights)
    errors = (rows.scores - rows.labels) ** 2
    return mean_by(rows.mass, errors, rows.groups, num_groups)


class CalibrationCurve(NamedTuple):
    """Predicted against observed risk, in bins of the score.

    Attributes:
      mean_score: ``[G, B]``, the mean score; NaN in an empty bin.
      observed: ``[G, B]``, the fraction of positives, ``events / rows``; NaN likewise.
      rows: ``[G, B]``, number or weight of rows. An interval for a proportion takes
        ``events`` and ``rows``. Integers unless the weights were floating-point.
      events: ``[G, B]``, number or weight of positives.
    """

    mean_score: Float[Array, "groups num_bins"]
    observed: Float[Array, "groups num_bins"]
    rows: Shaped[Array, "groups num_bins"]
    events: Shaped[Array, "groups num_bins"]


@functools.partial(jax.jit, static_argnames=("num_groups", "num_bins", "adaptive"))
def calibration_curve(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    num_bins: int = 10,
    adaptive: bool = True,
    weights: WeightRows | None = None,
) -> CalibrationCurve:
    r"""Computes the mean score and fraction of positives by group and bin of the score.

    Equal-width bins are :math:`((b-1)/B,\, b/B]`, and the first bin includes 0.
    Adaptive bins have equal mass within the group. The bin of a score is
    :math:`\lfloor B m \rfloor`, with :math:`m` the fraction of the group's mass below
    the score plus half of the fraction at the score. So tied scores share a bin. With
    many ties some bins are larger than others, and some are empty.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, probabilities in [0, 1].
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      num_bins: Number of bins, ``B``.
      adaptive: Whether to use bins of equal mass instead of equal width.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The curve. A NaN score makes all bins of the group NaN.

    Raises:
      ValueError: If ``num_groups`` or ``num_bins`` is below 1, or the columns differ in
        length.

    References:
      Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural
      language processing models", EMNLP (2015), for the adaptive bins.

    Example:
      >>> import jax.numpy as jnp
      >>> curve = calibration_curve(
      ...     jnp.array([0, 0, 1, 1]), jnp.array([0.25, 0.25, 0.5, 1.0]),
      ...     jnp.zeros(4, int), num_groups=1, num_bins=2,
      ... )
      >>> curve.mean_score.tolist(), curve.events.tolist(), curve.rows.tolist()
      ([[0.25, 0.75]], [[0, 2]], [[2, 2]])
    """
    check_sizes(num_bins=num_bins)
    table = binary_rows(labels, scores, groups, num_groups, weights)
    if adaptive:
        bins = _adaptive_bins(table, num_groups, num_bins)
    else:
        bins = _equal_bins(table.scores, num_bins, jnp.asarray(scores).dtype)
    bins = jnp.clip(bins, 0, num_bins - 1)
    size = num_groups * num_bins
    ids = jnp.where(table.groups >= 0, table.groups * num_bins + bins, -1)
    rows = group_sums(table.mass, ids, size)
    events = group_sums(table.mass * table.labels, ids, size)
    # A NaN score has no bin, so all bins of the group are unknown.
    lost = group_sums(jnp.isnan(table.scores), table.groups, num_groups) > 0
    total = jnp.where(rows > 0, rows, 1)
    missing = (rows == 0) | jnp.repeat(lost, num_bins)
    shape = (num_groups, num_bins)
    mean_score = mean_by(table.mass, table.scores, ids, size)
    return CalibrationCurve(
        jnp.where(missing, jnp.nan, mean_score).reshape(shape),
        jnp.where(missing, jnp.nan, events / total).reshape(shape),
        rows.reshape(shape),
        events.reshape(shape),
    )


def _equal_bins(scores: Float[Array, " rows"], num_bins: int, dtype):
    # Edges are rounded like the scores, so that a score of .3 lies on the edge .3 in
    # any precision.
    edges = jnp.asarray(np.arange(1, num_bins) / num_bins, dtype)
    return jnp.searchsorted(edges.astype(scores.dtype), scores)


def _adaptive_bins(table: BinaryTable, num_groups: int, num_bins: int):
    order = grouped_score_order(table.scores, table.groups, num_groups=num_groups)
    mass = table.mass[order.order]
    before, through = before_and_through(order, mass)
    total = group_sums(mass, order.group, num_groups)
    total = jnp.append(jnp.where(total > 0, total, 1), 1)[order.group]
    dtype = float_type(total)
    # Multiplied before the division, so that an integer quotient is exact.
    middle = num_bins * (before.astype(dtype) + through)
    bins = jnp.floor(middle / (2 * total.astype(dtype))).astype(jnp.int32)
    return jnp.zeros_like(bins).at[order.order].set(bins, unique_indices=True)


@functools.partial(
    jax.jit, static_argnames=("num_groups", "num_bins", "adaptive", "norm")
)
def group_calibration_error(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    num_bins: int = 10,
    adaptive: bool = True,
    norm: Literal["l1", "max"] = "l1",
    weights: WeightRows | None = None,
) -> Float[Array, " groups"]:
    """Computes the binned calibration error within each group.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, probabilities in [0, 1].
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      num_bins: Number of bins, ``B``.
      adaptive: Whether to use bins of equal mass within the group instead of equal
        width.
      norm: ``"l1"``, the expected calibration error, the mean over rows; or ``"max"``,
        the maximum calibration error, the error of the worst bin.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      ``[G]`` in [0, 1]; NaN for a group without weight or with a NaN score. The error
      is biased upwards, more so with fewer rows in a bin. A small group therefore looks
      worse calibrated than a large group of the same quality.

    Raises:
      ValueError: As ``calibration_curve``, or if ``norm`` is not one of these.

    Example:
      >>> import jax.numpy as jnp
      >>> group_calibration_error(
      ...     jnp.array([1, 0, 1, 1]), jnp.array([1.0, 0.0, 0.5, 0.75]),
      ...     jnp.array([0, 0, 1, 1]), num_groups=2, num_bins=2,
      ... ).tolist()
      [0.0, 0.375]
    """
    check_choice("norm", norm, "l1", "max")
    options = {"num_bins": num_bins, "adaptive": adaptive, "weights": weights}
    curve = calibration_curve(labels, scores, groups, num_groups=num_groups, **options)
    filled = curve.rows > 0
    errors = jnp.where(filled, jnp.abs(curve.observed - curve.mean_score), 0)
    total = jnp.sum(curve.rows, axis=1)
    if norm == "max":
        error = jnp.max(errors, axis=1)
    else:
        fraction = curve.rows / jnp.where(total > 0, total, 1)[:, None]
        error = jnp.sum(fraction * errors, axis=1)
    return jnp.where(total > 0, error, jnp.nan)


def expected_calibration_error(
    labels: BinaryRows,
    scores: ScoreRows,
    *,
    num_bins: int = 10,
    adaptive: bool = True,
    weights: WeightRows | None = None,
) -> Float[Array, ""]:
    r"""Computes the expected calibration error over bins of the score.

    The error is the mean distance between predicted and observed risk,

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} \left|\bar y_b - \bar s_b\right|

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, probabilities in [0, 1].
      num_bins: Number of bins.
      adaptive: Whether to use bins of equal mass instead of equal width. With skewed
        scores, some bins of equal width have few rows.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The error in [0, 1]; NaN if all weights are 0. See ``group_calibration_error`` for
      the bias of the error.

    Raises:
      ValueError: If ``num_bins`` is below 1 or the columns differ in length.

    References:
      Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using
      Bayesian binning", AAAI (2015).

    Example:
      >>> import jax.numpy as jnp
      >>> labels, scores = jnp.array([0, 1, 1, 1]), jnp.array([0.5, 0.5, 0.75, 1.0])
      >>> expected_calibration_error(labels, scores, num_bins=2).item()
      0.0625
    """
    everyone = jnp.zeros(np.shape(scores), jnp.int32)
    options = {"num_bins": num_bins, "adaptive": adaptive, "weights": weights}
    return group_calibration_error(labels, scores, everyone, num_groups=1, **options)[0]
