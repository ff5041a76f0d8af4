"""Curves by group, and rates at every threshold, of one model in one grouping."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fairjax import metrics
from fairjax.audit.measure._estimates import Rows

THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)
# A coarser grid, because the interval of a gap is simulated at each threshold.
SENSITIVITY_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
_ROC_POINTS = 101


class Curves(NamedTuple):
    """ROC and decision curves of all groups.

    Attributes:
      roc: ROC curves on an even grid of false positive rates.
      decision: Decision curves at `THRESHOLDS`.
    """

    roc: metrics.RocCurve
    decision: metrics.NetBenefit


@functools.partial(jax.jit, static_argnames="num_groups")
def curves(rows: Rows, codes: Int[Array, " n"], *, num_groups: int) -> Curves:
    """Computes the curves of all groups."""
    table = (rows.labels, rows.scores, codes)
    return Curves(
        metrics.roc_curve_at(*table, num_groups=num_groups, num_points=_ROC_POINTS),
        metrics.net_benefit(*table, jnp.asarray(THRESHOLDS), num_groups=num_groups),
    )


def rates_at_thresholds(
    rows: Rows, codes: np.ndarray, *, num_groups: int
) -> np.ndarray:
    """Computes the rates of all groups at each of `SENSITIVITY_THRESHOLDS`.

    Args:
      rows: Rows of the model.
      codes: ``[n]``, group of each row; -1 for none.
      num_groups: Number of groups, with padding.

    Returns:
      ``[thresholds, 2, G]``, false positive rates, then true positive rates.
    """
    steps = len(SENSITIVITY_THRESHOLDS)
    # Counts rows by the number of thresholds that their score reaches.
    reached = np.searchsorted(SENSITIVITY_THRESHOLDS, rows.scores, side="right")
    cell = (codes * 2 + np.asarray(rows.labels)) * (steps + 1) + reached
    table = np.bincount(cell[codes >= 0], minlength=num_groups * 2 * (steps + 1))
    table = table.reshape(num_groups, 2, steps + 1)
    selected = table[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
    rates = selected / np.maximum(table.sum(axis=-1), 1)[..., None]
    return rates.transpose(2, 1, 0)
