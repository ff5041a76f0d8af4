"""Curves by group, and gaps at every threshold, of one model in one family."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from fairjax import metrics
from fairjax.audit._comparisons import Odds, odds_interval
from fairjax.audit._measures import CALIBRATION_BINS, Rows
from fairjax.metrics import Interval

THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)
# Where a gap's interval is simulated, so that a coarser grid is enough.
SENSITIVITY_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
_ROC_POINTS = 101


class Curves(NamedTuple):
    """ROC, calibration and decision curves of all groups.

    Attributes:
      roc: On an even grid of false positive rates.
      calibration: In bins of equal size, by group.
      observed: ``[G, B]``, intervals of the bins' outcome.
      decision: At `THRESHOLDS`.
    """

    roc: metrics.RocCurve
    calibration: metrics.CalibrationCurve
    observed: Interval
    decision: metrics.NetBenefit


@functools.partial(jax.jit, static_argnames=("num_groups", "confidence"))
def curves(
    rows: Rows, codes: Int[Array, " n"], *, num_groups: int, confidence: float
) -> Curves:
    """All curves of all groups."""
    table = (rows.labels, rows.scores, codes)
    bins = metrics.calibration_curve(
        *table, num_groups=num_groups, num_bins=CALIBRATION_BINS
    )
    return Curves(
        metrics.roc_curve_at(*table, num_groups=num_groups, num_points=_ROC_POINTS),
        bins,
        metrics.wilson_interval(bins.events, bins.rows, confidence=confidence),
        metrics.net_benefit(*table, jnp.asarray(THRESHOLDS), num_groups=num_groups),
    )


def sensitivity(
    key: PRNGKeyArray, rows: Rows, codes: np.ndarray, odds: Odds, *, confidence: float
) -> dict[str, np.ndarray]:
    """Equalized odds at each of `SENSITIVITY_THRESHOLDS`, had it been the threshold.

    Where patients have several rows, the effective numbers of trials are those at the
    audited threshold.

    Args:
      key: A random key.
      rows: The model's.
      codes: ``[n]``, each row's group.
      odds: At the audited threshold.
      confidence: Of the intervals.

    Returns:
      The ``estimate``, and its ``lower`` and ``upper`` limit, at each threshold.
    """
    steps, num_groups = len(SENSITIVITY_THRESHOLDS), odds.rates.shape[1]
    # Rows by the number of thresholds that their score reaches, counted once.
    reached = np.searchsorted(SENSITIVITY_THRESHOLDS, rows.scores, side="right")
    cell = (codes * 2 + np.asarray(rows.labels)) * (steps + 1) + reached
    table = np.bincount(cell, minlength=num_groups * 2 * (steps + 1))
    table = table.reshape(num_groups, 2, steps + 1)
    selected = table[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
    rates = selected / np.maximum(table.sum(axis=-1), 1)[..., None]
    found = [
        odds_interval(
            jax.random.fold_in(key, step),
            odds._replace(rates=jnp.asarray(rates[..., step].T)),
            confidence=confidence,
        )
        for step in range(steps)
    ]
    return {
        name: np.array([getattr(interval, name) for interval in found])
        for name in ("estimate", "lower", "upper")
    }
