"""Settings chosen by validation alone, fold by fold."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.protocol import LABEL, CrossValidation
from fairjax import losses
from fairjax.metrics import auroc


def select(
    logits: np.ndarray,
    baseline: np.ndarray,
    splits: CrossValidation,
    *,
    tolerance: float,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """The chosen setting of each lane, int ``[L]``.

    In each lane, among the settings that lose at most ``tolerance`` AUROC against the
    baseline on the validation fold, the one with the smallest soft equalized-odds gap
    there (mean over the attributes); where every setting loses more, the one that loses
    least. No test fold is looked at.

    Args:
      logits: ``[H, L, n]``, the family's.
      baseline: ``[L, n]``, such as ERM's.
      splits: The lanes.
      tolerance: See above.
      weights: ``[n]``, how many patients each stands for; equal ones by default.
    """
    gaps = [
        losses.equalized_odds(splits.partition, attribute, label=LABEL)
        for attribute in splits.attributes
    ]

    @jax.jit
    @jax.vmap
    def judge(scores, labels, cells, mass):
        num_cells = splits.partition.num_cells
        counts = jax.ops.segment_sum(mass, cells, num_cells).astype(jnp.float32)
        sums = jax.ops.segment_sum(mass * scores, cells, num_cells)
        means = {"score": sums / jnp.where(counts > 0, counts, 1)}
        gap = jnp.stack([g.value(means, counts) for g in gaps]).mean()
        return auroc(labels, scores, mass), gap

    label = splits.table.label
    # Whole numbers, which are counted exactly.
    mass = np.ones(len(label), np.int32)
    if weights is not None:
        mass = np.asarray(weights, np.float32)
    chosen = np.empty(splits.num_lanes, int)
    for lane in range(splits.num_lanes):
        rows = splits.rows(lane, "valid")
        scores = np.concatenate([baseline[None, lane, rows], logits[:, lane, rows]])
        shape = (len(scores), rows.sum())
        aurocs, soft_gaps = judge(
            jax.nn.sigmoid(jnp.asarray(scores)),
            jnp.broadcast_to(jnp.asarray(label[rows], jnp.int32), shape),
            jnp.broadcast_to(jnp.asarray(splits.cells[rows]), shape),
            jnp.broadcast_to(jnp.asarray(mass[rows]), shape),
        )
        loss = np.asarray(aurocs[0] - aurocs[1:])
        within = loss <= tolerance
        gap = np.where(within, np.asarray(soft_gaps[1:]), np.inf)
        chosen[lane] = gap.argmin() if within.any() else loss.argmin()
    return chosen
