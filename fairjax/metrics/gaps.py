"""Fairness gaps: how far the groups' rates lie apart.

A gap is the largest rate minus the smallest one over the groups that are valid, so it
is never negative, and it does not say which group is worse off. A group without the
rows that a rate needs is skipped, never counted as a rate of zero; with fewer than two
valid groups there is nothing to compare and the gap is NaN. ``valid_groups`` says who
was compared.

An observed gap is biased upwards: sampling noise alone separates the groups.
``fairjax.metrics.permutation_null`` gives the size of that noise, and
``fairjax.metrics.bias_corrected_gap`` takes it off.
"""

from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from fairjax.metrics import rates
from fairjax.metrics.counts import GroupCounts

_Gap: TypeAlias = Float[Array, "*batch"]
_Support: TypeAlias = float | int | Real[Array | np.ndarray, ""]


def difference(
    group_rates: Float[Array | np.ndarray, "*batch groups"],
    valid: Bool[Array | np.ndarray, "*#batch groups"] | None = None,
) -> _Gap:
    """Largest minus smallest rate over the valid groups.

    Args:
      group_rates: ``[..., G]``; NaN entries are skipped.
      valid: ``[..., G]``, False to leave a group out; all by default.

    Returns:
      ``[...]``, at least 0; NaN where fewer than two groups are left.

    Example:
      >>> import jax.numpy as jnp
      >>> difference(jnp.array([0.25, 0.75, jnp.nan])).item()
      0.5
    """
    group_rates = jnp.asarray(group_rates)
    kept = ~jnp.isnan(group_rates)
    if valid is not None:
        kept &= jnp.asarray(valid)
    highest = jnp.max(jnp.where(kept, group_rates, -jnp.inf), axis=-1)
    lowest = jnp.min(jnp.where(kept, group_rates, jnp.inf), axis=-1)
    return jnp.where(jnp.sum(kept, axis=-1) >= 2, highest - lowest, jnp.nan)


def _supported(
    support: Real[Array, "*shape"], min_support: _Support
) -> Bool[Array, "*shape"]:
    return (support > 0) & (support >= min_support)


def valid_groups(
    counts: GroupCounts, min_support: _Support = 0
) -> Bool[Array, "*batch groups 2"]:
    """Says which groups have enough negatives and enough positives.

    Args:
      counts: ``[..., G, 2, 2]``.
      min_support: Fewest rows (sum of weights, if weighted) with the label. A group
        with none is never valid.

    Returns:
      ``[..., G, 2]``, indexed ``[group, label]``: ``[g, 0]`` where group ``g`` has
      enough negatives for its false positive rate to be compared, ``[g, 1]`` enough
      positives for its true positive rate.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [0, 0]]]))
      >>> valid_groups(counts, min_support=10).tolist()
      [[True, False], [True, False]]
    """
    return _supported(jnp.sum(jnp.asarray(counts.counts), axis=-1), min_support)


def demographic_parity_difference(
    counts: GroupCounts, min_support: _Support = 0
) -> _Gap:
    """Largest minus smallest selection rate.

    Args:
      counts: ``[..., G, 2, 2]``.
      min_support: Fewest rows of either label for a group to be compared.

    Returns:
      ``[...]`` in [0, 1]; NaN with fewer than two valid groups.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> round(demographic_parity_difference(counts).item(), 4)
      0.0667
    """
    valid = _supported(jnp.sum(jnp.asarray(counts.counts), axis=(-2, -1)), min_support)
    return difference(rates.selection_rate(counts), valid)


def equal_opportunity_difference(
    counts: GroupCounts, min_support: _Support = 0
) -> _Gap:
    """Largest minus smallest true positive rate (Hardt, Price and Srebro 2016).

    Args:
      counts: ``[..., G, 2, 2]``.
      min_support: Fewest positives for a group to be compared.

    Returns:
      ``[...]`` in [0, 1]; NaN with fewer than two valid groups.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> equal_opportunity_difference(counts).item()
      0.25
    """
    valid = valid_groups(counts, min_support)[..., 1]
    return difference(rates.true_positive_rate(counts), valid)


def false_positive_rate_difference(
    counts: GroupCounts, min_support: _Support = 0
) -> _Gap:
    """Largest minus smallest false positive rate, also called predictive equality.

    Args:
      counts: ``[..., G, 2, 2]``.
      min_support: Fewest negatives for a group to be compared.

    Returns:
      ``[...]`` in [0, 1]; NaN with fewer than two valid groups.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> round(false_positive_rate_difference(counts).item(), 4)
      0.0833
    """
    valid = valid_groups(counts, min_support)[..., 0]
    return difference(rates.false_positive_rate(counts), valid)


def equalized_odds_difference(
    counts: GroupCounts,
    agg: Literal["max", "mean"] = "max",
    min_support: _Support = 0,
) -> _Gap:
    r"""The true and the false positive rates' gaps in one (Hardt et al. 2016).

    .. math:: \Delta_y = \max_g r_{y,g} - \min_g r_{y,g}, \qquad
              \text{max: } \max(\Delta_0, \Delta_1), \quad
              \text{mean: } (\Delta_0 + \Delta_1) / 2

    with :math:`r_{y,g}` the share predicted positive among the rows of group :math:`g`
    with label :math:`y`. Either is zero exactly where predictions are independent of
    the group given the label. Signed averages of the two, which cancel, are another
    metric.

    Args:
      counts: ``[..., G, 2, 2]``.
      agg: ``"max"``, the worse of the two gaps, or ``"mean"``.
      min_support: Fewest positives (negatives) for a group's true (false) positive
        rate to be compared; a group may be valid for one alone.

    Returns:
      ``[...]`` in [0, 1]; NaN if either gap has fewer than two valid groups.

    Raises:
      ValueError: If ``agg`` is neither.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> equalized_odds_difference(counts).item()
      0.25
      >>> round(equalized_odds_difference(counts, agg="mean").item(), 4)
      0.1667
    """
    if agg not in ("max", "mean"):
        raise ValueError(f"agg must be 'max' or 'mean', got {agg!r}.")
    positives = equal_opportunity_difference(counts, min_support)
    negatives = false_positive_rate_difference(counts, min_support)
    if agg == "mean":
        return (positives + negatives) / 2
    return jnp.maximum(positives, negatives)
