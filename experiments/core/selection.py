"""Selection of settings by validation alone, separately in each lane."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core.protocol import LABEL, CrossValidation
from fairjax import losses
from fairjax.evaluation.cohorts import filled_up
from fairjax.groups import Partition
from fairjax.metrics import auroc


def select(
    logits: np.ndarray,
    baseline: np.ndarray,
    splits: CrossValidation,
    *,
    tolerance: float,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Chooses a setting for each lane on the lane's validation fold.

    The candidates are the settings that lose at most ``tolerance`` AUROC against the
    baseline. Among the candidates, the setting with the smallest soft equalized-odds
    gap (mean over the attributes) is chosen. If every setting loses more, the setting
    that loses least is chosen. Test folds are not used.

    Args:
      logits: ``[H, L, n]``, logits of the H settings.
      baseline: ``[L, n]``, logits of the baseline, such as ERM.
      splits: The lanes.
      tolerance: The AUROC that a setting may lose.
      weights: ``[n]``, weights of the patients; equal by default.

    Returns:
      The chosen setting of each lane, int ``[L]``.
    """
    label = splits.table.label
    # Integer weights by default, so that counts are exact.
    ones = np.ones(len(label), np.int32)
    mass = ones if weights is None else np.asarray(weights, np.float32)
    lane = np.arange(splits.num_lanes)[:, None]
    rows = filled_up([np.flatnonzero(splits.rows(k, "valid")) for (k,) in lane])
    real = rows >= 0
    columns = (
        np.where(real, label[rows], 0).astype(np.int32),
        np.where(real, splits.cells[rows], splits.partition.num_cells),
        np.where(real, mass[rows], 0),
    )

    def assessed(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Padding is NaN, which is sorted behind all scores, and has no weight.
        valid = np.where(real, scores[lane, rows], np.nan)
        return _auroc_and_gap(splits.partition, splits.attributes, valid, *columns)

    best, _ = assessed(baseline)
    found = [assessed(scores) for scores in logits]
    loss = np.stack([best - auroc for auroc, _ in found])
    gaps = np.stack([gap for _, gap in found])
    within = loss <= tolerance
    allowed = np.where(within, gaps, np.inf).argmin(axis=0)
    return np.where(within.any(axis=0), allowed, loss.argmin(axis=0))


def choose(
    logits: np.ndarray,
    baseline: np.ndarray,
    splits: CrossValidation,
    settings: Sequence[str],
    **how: Any,
) -> tuple[np.ndarray, dict[str, int]]:
    """Chooses settings by `select`, and counts how often each setting is chosen.

    Args:
      logits: ``[H, L, n]``.
      baseline: ``[L, n]``.
      splits: The lanes.
      settings: The H labels.
      **how: Further arguments of `select`.

    Returns:
      The logits ``[L, n]`` of the chosen settings, and setting -> number of lanes.
    """
    places = select(logits, baseline, splits, **how)
    count = np.bincount(places, minlength=len(settings)).tolist()
    chosen = logits[places, np.arange(splits.num_lanes)]
    return chosen, dict(zip(settings, count, strict=True))


# One compiled function for the settings of all methods.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _auroc_and_gap(
    partition: Partition,
    attributes: tuple[str, ...],
    logits: jax.Array,
    labels: jax.Array,
    cells: jax.Array,
    mass: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Computes AUROC and mean soft gap ``[L]`` of each lane from columns ``[L, m]``."""
    gaps = [losses.equalized_odds(partition, a, label=LABEL) for a in attributes]

    def in_lane(scores, labels, cells, mass):
        num_cells = partition.num_cells
        counts = jax.ops.segment_sum(mass, cells, num_cells).astype(jnp.float32)
        sums = jax.ops.segment_sum(mass * scores, cells, num_cells)
        means = {"score": sums / jnp.where(counts > 0, counts, 1)}
        gap = jnp.stack([g.value(means, counts) for g in gaps]).mean()
        return auroc(labels, scores, mass), gap

    return jax.vmap(in_lane)(jax.nn.sigmoid(logits), labels, cells, mass)
