"""Calibration of predicted probabilities, overall and by group.

Brier score, calibration curves and their errors. Whether a group's risks are too high
or too extreme as a whole is for ``fairjax.metrics.logistic_recalibration``, and what
decisions at a threshold are worth for ``fairjax.metrics.net_benefit``.
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
    r"""Mean squared error of a predicted probability.

    .. math:: \frac{\sum_i w_i (s_i - y_i)^2}{\sum_i w_i}

    Args:
      labels: ``[rows]``, 0 or 1; other values take no part.
      scores: ``[rows]``, probabilities in [0, 1].
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      In [0, 1], lower is better; NaN without weight.

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
    """Brier score within each group.

    It mixes calibration, ranking and prevalence: a group with rarer outcomes has the
    lower score at the same quality.

    Args:
      labels: ``[rows]``, 0 or 1; other values take no part.
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
      observed: ``[G, B]``, the share of positives, ``events / rows``; NaN likewise.
      rows: ``[G, B]``, rows, or their weight: with ``events`` what an interval for a
        proportion takes. Integers unless the weights were floating-point.
      events: ``[G, B]``, positives, or their weight.
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
    r"""Mean score and share of positives in bins of the score, by group.

    Equal-width bins are :math:`((b-1)/B,\, b/B]`, and 0 belongs to the first.
    Adaptive bins have equal mass within the group: with :math:`m` the group's mass
    below a score plus half of that at it, as a share of the group's, the bin is
    :math:`\lfloor B m \rfloor`. So tied scores share a bin, and where many are tied
    some bins are larger than others and some empty.

    Args:
      labels: ``[rows]``, 0 or 1; other values take no part.
      scores: ``[rows]``, probabilities in [0, 1].
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      num_bins: Number of bins, ``B``.
      adaptive: Bins of equal mass instead of equal width.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The curve. A NaN score makes its group's bins NaN.

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
    # A NaN is in no bin more than in another: it spoils all of its group's.
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
    # Edges are rounded as the scores were: a score of .3 is on the edge .3 in any
    # precision.
    edges = jnp.asarray(np.arange(1, num_bins) / num_bins, dtype)
    return jnp.searchsorted(edges.astype(scores.dtype), scores)


def _adaptive_bins(table: BinaryTable, num_groups: int, num_bins: int):
    order = grouped_score_order(table.scores, table.groups, num_groups=num_groups)
    mass = table.mass[order.order]
    before, through = before_and_through(order, mass)
    total = group_sums(mass, order.group, num_groups)
    total = jnp.append(jnp.where(total > 0, total, 1), 1)[order.group]
    dtype = float_type(total)
    # Multiplied first: the quotient is then exact where it is a whole number.
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
    """Binned calibration error within each group.

    Args:
      labels: ``[rows]``, 0 or 1; other values take no part.
      scores: ``[rows]``, probabilities in [0, 1].
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      num_bins: Number of bins, ``B``.
      adaptive: Bins of equal mass within the group instead of equal width.
      norm: ``"l1"``, the expected calibration error, the mean over rows; or ``"max"``,
        the maximum calibration error, that of the worst bin.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      ``[G]`` in [0, 1]; NaN for a group without weight or with a NaN score. It is
      biased upwards, the more so the fewer rows a bin has: a small group looks worse
      calibrated than a large one of the same quality.

    Raises:
      ValueError: As ``calibration_curve``, or if ``norm`` is neither.

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
        share = curve.rows / jnp.where(total > 0, total, 1)[:, None]
        error = jnp.sum(share * errors, axis=1)
    return jnp.where(total > 0, error, jnp.nan)


def expected_calibration_error(
    labels: BinaryRows,
    scores: ScoreRows,
    *,
    num_bins: int = 10,
    adaptive: bool = True,
    weights: WeightRows | None = None,
) -> Float[Array, ""]:
    r"""Mean distance of predicted from observed risk, over bins of the score.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} \left|\bar y_b - \bar s_b\right|

    Args:
      labels: ``[rows]``, 0 or 1; other values take no part.
      scores: ``[rows]``, probabilities in [0, 1].
      num_bins: Number of bins.
      adaptive: Bins of equal mass instead of equal width, which leave few rows in some
        bins where scores are skewed.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      In [0, 1]; NaN without weight. See ``group_calibration_error`` for its bias.

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
