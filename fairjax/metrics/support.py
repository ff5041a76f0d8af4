"""Checks which groups have enough rows for reliable rates."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Real

from fairjax.metrics.counts import GroupCounts


def support_status(
    counts: GroupCounts,
    min_positives: float | int | Real[Array | np.ndarray, ""] = 10,
    min_negatives: float | int | Real[Array | np.ndarray, ""] = 10,
) -> Bool[Array, "*batch groups 2"]:
    """Returns which groups have enough negatives and enough positives.

    Differs from ``valid_groups`` in a separate minimum for each label, since events
    are often rare. A rate given the label needs rows of the label. AUROC and
    calibration need both labels: ``support_status(counts).all(axis=-1)``.

    Args:
      counts: ``[..., G, 2, 2]``.
      min_positives: Minimum rows (sum of weights, if weighted) with label 1. A group
        without positives is never sufficient.
      min_negatives: Minimum rows with label 0, likewise.

    Returns:
      ``[..., G, 2]``, indexed ``[group, label]``: ``[g, 1]`` is True where group ``g``
      has enough positives.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[40, 2], [2, 6]], [[9, 30], [10, 2]]]))
      >>> support_status(counts).tolist()
      [[True, False], [True, True]]
    """
    support = jnp.sum(jnp.asarray(counts.counts), axis=-1)
    least = jnp.stack([jnp.asarray(min_negatives), jnp.asarray(min_positives)])
    return (support > 0) & (support >= least)
