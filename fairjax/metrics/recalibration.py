"""Calibration intercept and slope by group: logistic recalibration of the risks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.metrics._rows import (
    BinaryTable,
    PatientRows,
    ScoreRows,
    binary_rows,
    compiled,
    float_type,
)
from fairjax.metrics._segments import group_sums, mean_by
from fairjax.metrics.counts import BinaryRows, GroupRows, WeightRows
from fairjax.metrics.influence import influence_variance

_MAX_ITERATIONS = 50


class Recalibration(NamedTuple):
    """Logistic models that recalibrate the risks of each group.

    Attributes:
      intercept: ``[G]``, calibration in the large, with the slope fixed at 1. Above 0
        the risks are too low.
      intercept_se: ``[G]``, standard error of ``intercept``.
      slope: ``[G]``, the calibration slope. Below 1 the risks are too extreme.
      slope_se: ``[G]``, standard error of ``slope``.
      slope_intercept: ``[G]``, the intercept of the model with a free slope, which is
        not the calibration in the large.
      converged: ``[G]``, whether both fits exist and converged.
    """

    intercept: Float[Array, " groups"]
    intercept_se: Float[Array, " groups"]
    slope: Float[Array, " groups"]
    slope_se: Float[Array, " groups"]
    slope_intercept: Float[Array, " groups"]
    converged: Bool[Array, " groups"]


@compiled("num_groups", "num_patients")
def logistic_recalibration(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
    clip: float | Float[Array, ""] = 1e-6,
    patients: PatientRows | None = None,
    num_patients: int | None = None,
) -> Recalibration:
    r"""Fits logistic regressions of the outcome on the risk's logit, within each group.

    .. math:: \mathrm{logit}\,P(y = 1) = \alpha + \mathrm{logit}\,s, \qquad
              \mathrm{logit}\,P(y = 1) = \alpha' + \beta\,\mathrm{logit}\,s

    Newton's method maximises the likelihood. Perfect calibration is :math:`\alpha = 0`
    and :math:`\beta = 1`. Standard errors assume the model and independent rows, and
    treat weights as repetitions. With patients the standard errors are sandwich
    estimates, valid under any correlation within patients.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, probabilities in [0, 1].
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.
      clip: Minimum distance of scores from 0 and 1, whose logits are infinite. If a
        model gives scores of 0 or 1, the slope depends on ``clip``.
      patients: ``[rows]``, codes of the patients, if patients have several rows.
      num_patients: Number of codes; needed with ``patients``.

    Returns:
      The estimates. All are NaN for a group that lacks a class or has a NaN score. Only
      the slope is NaN where it has no finite estimate: the scores separate the classes,
      or are all equal.

    Raises:
      ValueError: If ``num_groups`` is below 1, the columns differ in length, only one
        of ``patients`` and ``num_patients`` is given, or a code is outside the range.

    References:
      Cox, "Two further applications of a model for binary regression", Biometrika 45
      (1958); Van Calster et al., "Calibration: the Achilles heel of predictive
      analytics", BMC Medicine 17 (2019).

    Example:
      >>> import jax.numpy as jnp
      >>> fit = logistic_recalibration(
      ...     jnp.array([0, 0, 0, 1, 0, 1, 1, 1]), jnp.repeat(jnp.array([0.1, 0.9]), 4),
      ...     jnp.zeros(8, int), num_groups=1,
      ... )
      >>> round(fit.slope.item(), 3), abs(round(fit.intercept.item(), 3))
      (0.5, 0.0)
    """
    table = binary_rows(labels, scores, groups, num_groups, weights)
    dtype = float_type(table.scores, table.mass)
    risk = jnp.clip(table.scores.astype(dtype), clip, 1 - clip)
    logit = jnp.log(risk) - jnp.log1p(-risk)
    # Centring within the group makes intercept and slope nearly uncorrelated.
    centre = mean_by(table.mass, logit, table.groups, num_groups)
    row = jnp.maximum(table.groups, 0)
    centred = jnp.where(table.groups >= 0, logit - centre[row], 0)
    rows = table._replace(scores=centred, mass=table.mass.astype(dtype))
    overlap, both = _overlap(table, logit, num_groups)
    large = _fit(rows, num_groups, both, free_slope=False)
    line = _fit(rows, num_groups, overlap, free_slope=True)
    s0, s1, s2 = line.information
    determinant = s0 * s2 - s1**2

    def known(fit, value):
        return jnp.where(fit.converged(), value, jnp.nan)

    intercept_variance, slope_variance = 1 / large.information[0], s0 / determinant
    if patients is not None:

        def robust(fit, direction):
            risk = jax.nn.sigmoid(fit.intercept[row] + fit.slope[row] * rows.scores)
            influence = direction * rows.mass * (rows.labels - risk)
            return influence_variance(
                jnp.where(rows.groups >= 0, influence, 0),
                rows.groups,
                num_groups=num_groups,
                patients=patients,
                num_patients=num_patients,
            )

        intercept_variance = robust(large, intercept_variance[row])
        along = (s0[row] * rows.scores - s1[row]) / determinant[row]
        slope_variance = robust(line, along)
    return Recalibration(
        known(large, large.intercept - centre),
        known(large, jnp.sqrt(intercept_variance)),
        known(line, line.slope),
        known(line, jnp.sqrt(slope_variance)),
        known(line, line.intercept - line.slope * centre),
        large.converged() & line.converged(),
    )


class _Fit(NamedTuple):
    """Newton's iterate of every group, with values at the last accepted point."""

    intercept: Array
    slope: Array
    log_likelihood: Array
    step: Array
    information: Array
    near: Array
    active: Array
    iteration: Array

    def converged(self) -> Array:
        return self.near & ~self.active


def _overlap(table, logit, num_groups):
    """Returns which groups have a finite slope, and which have both classes.

    A slope is infinite where a threshold separates the classes, even with ties there.
    """

    def extremes(label):
        mine = (table.labels == label) & (table.groups >= 0)
        ids = jnp.where(mine, table.groups, num_groups)
        low = jax.ops.segment_min(logit, ids, num_groups + 1)[:num_groups]
        high = jax.ops.segment_max(logit, ids, num_groups + 1)[:num_groups]
        return low, high, group_sums(mine, table.groups, num_groups) > 0

    low_0, high_0, any_0 = extremes(0)
    low_1, high_1, any_1 = extremes(1)
    both = any_0 & any_1
    return both & (low_1 < high_0) & (low_0 < high_1), both


def _fit(rows: BinaryTable, num_groups: int, exists, *, free_slope: bool) -> _Fit:
    dtype = rows.scores.dtype
    epsilon = jnp.finfo(dtype).eps

    row = jnp.maximum(rows.groups, 0)

    def totals(intercept, slope):
        predictor = intercept[row] + slope[row] * rows.scores
        risk = jax.nn.sigmoid(predictor)
        residual = rows.mass * (rows.labels - risk)
        weight = rows.mass * risk * (1 - risk)
        gain = rows.mass * (rows.labels * predictor - jax.nn.softplus(predictor))
        return [
            group_sums(column, rows.groups, num_groups)
            for column in (
                gain,
                residual,
                residual * rows.scores,
                weight,
                weight * rows.scores,
                weight * rows.scores**2,
            )
        ]

    def advance(fit: _Fit) -> _Fit:
        intercept, slope = fit.intercept + fit.step[0], fit.slope + fit.step[1]
        value, g0, g1, s0, s1, s2 = totals(intercept, slope)
        # A step that lowers the likelihood by more than rounding errors is halved.
        noise = 8 * epsilon * jnp.abs(value)
        better = fit.near | (value >= fit.log_likelihood - noise)
        better &= fit.active
        if free_slope:
            step = jnp.stack([s2 * g0 - s1 * g1, s0 * g1 - s1 * g0])
            step = step / (s0 * s2 - s1**2)
        else:
            step = jnp.stack([g0 / s0, jnp.zeros_like(g0)])
        # Newton's decrement is the squared remaining distance, in standard errors. If
        # the decrement is small, one further step is enough: it squares the distance.
        left = step[0] * g0 + step[1] * g1
        return _Fit(
            jnp.where(better, intercept, fit.intercept),
            jnp.where(better, slope, fit.slope),
            jnp.where(better, value, fit.log_likelihood),
            jnp.where(better, step, fit.step / 2),
            jnp.where(better, jnp.stack([s0, s1, s2]), fit.information),
            fit.near | (better & (left <= 32 * epsilon)),
            fit.active & ~fit.near,
            fit.iteration + 1,
        )

    prevalence = mean_by(rows.mass, rows.labels.astype(dtype), rows.groups, num_groups)
    zero = jnp.zeros(num_groups, dtype)
    start = _Fit(
        jnp.where(exists, jnp.log(prevalence) - jnp.log1p(-prevalence), 0),
        zero if free_slope else zero + 1,
        zero - jnp.inf,
        jnp.zeros((2, num_groups), dtype),
        jnp.zeros((3, num_groups), dtype),
        jnp.zeros(num_groups, bool),
        exists,
        jnp.zeros((), jnp.int32),
    )
    return jax.lax.while_loop(
        lambda fit: jnp.any(fit.active) & (fit.iteration < _MAX_ITERATIONS),
        advance,
        start,
    )
