"""Curves by group, and rates at every threshold, of one model in one family."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fairjax import metrics
from fairjax.audit.measure._estimates import Rows

THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)
# Where a gap's interval is simulated, so that a coarser grid is enough.
SENSITIVITY_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
_ROC_POINTS = 101


class Curves(NamedTuple):
    """ROC and decision curves of all groups.

    Attributes:
      roc: On an even grid of false positive rates.
      decision: At `THRESHOLDS`.
    """

    roc: metrics.RocCurve
    decision: metrics.NetBenefit


@functools.partial(jax.jit, static_argnames="num_groups")
def curves(rows: Rows, codes: Int[Array, " n"], *, num_groups: int) -> Curves:
    """Curves of all groups."""
    table = (rows.labels, rows.scores, codes)
    return Curves(
        metrics.roc_curve_at(*table, num_groups=num_groups, num_points=_ROC_POINTS),
        metrics.net_benefit(*table, jnp.asarray(THRESHOLDS), num_groups=num_groups),
    )


def rates_at_thresholds(
    rows: Rows, codes: np.ndarray, *, num_groups: int
) -> np.ndarray:
    """The groups' rates at each of `SENSITIVITY_THRESHOLDS`, had it been the threshold.

    Args:
      rows: The model's.
      codes: ``[n]``, each row's group; -1 for none.
      num_groups: Number of groups, padded.

    Returns:
      ``[thresholds, 2, G]``, false positive rates, then true positive rates.
    """
    steps = len(SENSITIVITY_THRESHOLDS)
    # Rows by the number of thresholds that their score reaches, counted once.
    reached = np.searchsorted(SENSITIVITY_THRESHOLDS, rows.scores, side="right")
    cell = (codes * 2 + np.asarray(rows.labels)) * (steps + 1) + reached
    table = np.bincount(cell[codes >= 0], minlength=num_groups * 2 * (steps + 1))
    table = table.reshape(num_groups, 2, steps + 1)
    selected = table[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
    rates = selected / np.maximum(table.sum(axis=-1), 1)[..., None]
    return rates.transpose(2, 1, 0)
