"""Gaps between groups: differences and ratios of their rates.

A gap is the largest rate minus the smallest rate of the valid groups. The gap is never
negative and does not tell which group is disadvantaged. With a reference group there is
one signed gap for each group. A group without the rows that a rate needs is skipped,
never counted as a rate of zero. With fewer than two valid groups the gap is NaN.
``compared_groups`` tells which groups were compared. ``fairjax.metrics.parity`` has the
other gaps of the literature by name.

An observed gap is biased upwards, because sampling noise alone separates the groups.
``fairjax.metrics.permutation_null`` estimates the size of that noise.
``fairjax.metrics.bias_corrected_gap`` subtracts the bias.
"""

from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from fairjax.metrics._numbers import extremes
from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.definitions import ODDS
from fairjax.metrics.rates import group_rate, rate_support
from fairjax.metrics.support import support_status
from fairjax.types import check_choice

# [...], or [..., G] against a reference group.
Gap: TypeAlias = Float[Array, "..."]
Support: TypeAlias = float | int | Real[Array | np.ndarray, ""]
Reference: TypeAlias = int | np.integer
_Rates: TypeAlias = Float[Array | np.ndarray, "*batch groups"]
_Valid: TypeAlias = Bool[Array | np.ndarray, "*#batch groups"]


def difference(
    group_rates: _Rates,
    valid: _Valid | None = None,
    *,
    reference: Reference | None = None,
) -> Gap:
    r"""Returns the largest minus the smallest rate, or each minus a reference's rate.

    .. math:: \max_g r_g - \min_g r_g, \qquad \text{reference: } r_g - r_{\text{ref}}

    Args:
      group_rates: ``[..., G]``; NaN entries are skipped.
      valid: ``[..., G]``, False to omit a group; all True by default.
      reference: Position of the group that every group is compared with. Each
        difference is then signed: negative where the group's rate is lower.

    Returns:
      ``[...]``, at least 0; NaN where fewer than two groups remain. With a reference
      ``[..., G]``; NaN for an omitted group, and for all if the reference is omitted.

    Raises:
      ValueError: If ``reference`` is not the position of a group.

    Example:
      >>> import jax.numpy as jnp
      >>> difference(jnp.array([0.25, 0.75, jnp.nan])).item()
      0.5
      >>> difference(jnp.array([0.25, 0.75, jnp.nan]), reference=1).tolist()
      [-0.5, 0.0, nan]
    """
    known, kept = _known(group_rates, valid)
    if reference is not None:
        return known - _of_reference(known, reference)
    highest, lowest = extremes(known, kept)
    return jnp.where(jnp.sum(kept, axis=-1) >= 2, highest - lowest, jnp.nan)


def ratio(
    group_rates: _Rates,
    valid: _Valid | None = None,
    *,
    reference: Reference | None = None,
) -> Gap:
    r"""Returns the smallest over the largest rate, or each over a reference's rate.

    .. math:: \min_g r_g / \max_g r_g, \qquad \text{reference: } r_g / r_{\text{ref}}

    Args:
      group_rates: ``[..., G]``, at least 0; NaN entries are skipped.
      valid: ``[..., G]``, False to omit a group; all True by default.
      reference: Position of the group that every group is compared with. The ratios
        are then not clipped: above 1 where the group's rate is higher.

    Returns:
      ``[...]`` in [0, 1], 1 at parity; NaN where fewer than two groups remain, or
      where all rates are 0 (0/0). With a reference ``[..., G]``: a positive rate over
      0 is infinite and 0/0 is NaN, both flagged by ``zero_reference``.

    Raises:
      ValueError: If ``reference`` is not the position of a group.

    Example:
      >>> import jax.numpy as jnp
      >>> ratio(jnp.array([0.25, 0.5, jnp.nan])).item()
      0.5
      >>> ratio(jnp.array([0.25, 0.5, 0.0]), reference=0).tolist()
      [1.0, 2.0, 0.0]
      >>> ratio(jnp.array([0.25, 0.5, 0.0]), reference=2).tolist()
      [inf, inf, nan]
    """
    known, kept = _known(group_rates, valid)
    if reference is not None:
        return known / _of_reference(known, reference)
    highest, lowest = extremes(known, kept)
    return jnp.where(jnp.sum(kept, axis=-1) >= 2, lowest / highest, jnp.nan)


def zero_reference(
    group_rates: _Rates, valid: _Valid | None = None, *, reference: Reference
) -> Bool[Array, "*batch"]:
    """Flags a reference group with a rate of 0, to which no ratio is finite.

    Args:
      group_rates: ``[..., G]``.
      valid: ``[..., G]``, False to omit a group; all True by default.
      reference: Position of the reference group.

    Returns:
      ``[...]``, True where every ratio to the reference is infinite or 0/0. False where
      the reference is omitted: the ratios are then NaN because rows are missing.

    Raises:
      ValueError: If ``reference`` is not the position of a group.

    Example:
      >>> import jax.numpy as jnp
      >>> zero_reference(jnp.array([[0.5, 0.0], [0.5, 0.5]]), reference=1).tolist()
      [True, False]
    """
    known, _ = _known(group_rates, valid)
    return jnp.squeeze(_of_reference(known, reference), -1) == 0


def rate_difference(
    counts: GroupCounts,
    name: str,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Returns the difference between groups in any rate, by the rate's name.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of a rate, such as ``"f1_score"``.
      min_support: Minimum rows behind a group's rate (``rate_support``) for the group
        to be compared. A group without such rows is never compared.
      reference: As in ``difference``.

    Returns:
      As ``difference``.

    Raises:
      ValueError: If ``name`` is not a rate, or ``reference`` not a group's position.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> rate_difference(counts, "true_positive_rate").item()
      0.25
    """
    valid = compared_groups(counts, name, min_support)
    return difference(group_rate(counts, name), valid, reference=reference)


def rate_ratio(
    counts: GroupCounts,
    name: str,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Returns the ratio between groups in any rate, by the rate's name.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of a rate, such as ``"error_rate"``.
      min_support: As in ``rate_difference``.
      reference: As in ``ratio``.

    Returns:
      As ``ratio``.

    Raises:
      ValueError: If ``name`` is not a rate, or ``reference`` not a group's position.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [0, 8]], [[9, 3], [4, 4]]]))
      >>> rate_ratio(counts, "true_positive_rate").item()
      0.5
    """
    valid = compared_groups(counts, name, min_support)
    return ratio(group_rate(counts, name), valid, reference=reference)


def equalized_odds_difference(
    counts: GroupCounts,
    agg: Literal["max", "mean"] = "max",
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    r"""Returns the equalized odds difference, of TPR and FPR (Hardt et al. 2016).

    .. math:: \Delta_y = \max_g r_{y,g} - \min_g r_{y,g}, \qquad
              \text{max: } \max(\Delta_0, \Delta_1), \quad
              \text{mean: } (\Delta_0 + \Delta_1) / 2

    with :math:`r_{y,g}` the fraction predicted positive among the rows of group
    :math:`g` with label :math:`y`. With a reference,
    :math:`\Delta_y = |r_{y,g} - r_{y,\text{ref}}|` for each group. The difference is
    zero exactly where predictions are independent of the group given the label.
    ``fairjax.metrics.average_odds_difference`` averages the signed gaps, which can
    cancel.

    Args:
      counts: ``[..., G, 2, 2]``.
      agg: ``"max"``, the worse of the two gaps, or ``"mean"``.
      min_support: Minimum positives (negatives) for a group's true (false) positive
        rate to be compared. A group may be valid for only one of the rates.
      reference: Position of the group that every group is compared with.

    Returns:
      ``[...]`` in [0, 1]; NaN if either gap has fewer than two valid groups. With a
      reference ``[..., G]``, not signed.

    Raises:
      ValueError: If ``agg`` is not one of these, or ``reference`` not a group's
        position.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> equalized_odds_difference(counts).item()
      0.25
      >>> round(equalized_odds_difference(counts, agg="mean").item(), 4)
      0.1667
    """
    check_choice("agg", agg, "max", "mean")
    positives, negatives = (
        jnp.abs(rate_difference(counts, name, min_support, reference=reference))
        for name in ODDS
    )
    if agg == "mean":
        return (positives + negatives) / 2
    return jnp.maximum(positives, negatives)


def equalized_odds_ratio(
    counts: GroupCounts, agg: Literal["min", "mean"] = "min", min_support: Support = 0
) -> Gap:
    """Returns the equalized odds ratio, of the ratios of TPR and FPR between groups.

    Each ratio is the smallest over the largest rate of the groups.

    Args:
      counts: ``[..., G, 2, 2]``.
      agg: ``"min"``, the worse of the two ratios, or ``"mean"``.
      min_support: As in ``equalized_odds_difference``.

    Returns:
      ``[...]`` in [0, 1], 1 at parity; NaN if either ratio is NaN, for example because
      all false positive rates are 0.

    Raises:
      ValueError: If ``agg`` is not one of these.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> round(equalized_odds_ratio(counts).item(), 4)
      0.6667
    """
    check_choice("agg", agg, "min", "mean")
    positives, negatives = (rate_ratio(counts, name, min_support) for name in ODDS)
    if agg == "mean":
        return (positives + negatives) / 2
    return jnp.minimum(positives, negatives)


def compared_groups(
    counts: GroupCounts, name: str, min_support: Support = 0
) -> Bool[Array, "*batch groups"]:
    """Returns which groups have enough rows to enter the gap of a rate.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of the rate.
      min_support: As in ``rate_difference``.

    Returns:
      ``[..., G]``, True for the groups that the gap compares.

    Raises:
      ValueError: If ``name`` is not a rate.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [0, 0]]]))
      >>> compared_groups(counts, "true_positive_rate").tolist()
      [True, False]
    """
    support = rate_support(counts, name)
    return (support > 0) & (support >= min_support)


def valid_groups(
    counts: GroupCounts, min_support: Support = 0
) -> Bool[Array, "*batch groups 2"]:
    """Returns which groups have enough negatives and enough positives.

    Args:
      counts: ``[..., G, 2, 2]``.
      min_support: Minimum rows (sum of weights, if weighted) with the label. A group
        without rows of the label is never valid.

    Returns:
      ``[..., G, 2]``, indexed ``[group, label]``. ``[g, 0]`` is True where group ``g``
      has enough negatives to compare false positive rates. ``[g, 1]`` is True where the
      group has enough positives to compare true positive rates.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [0, 0]]]))
      >>> valid_groups(counts, min_support=10).tolist()
      [[True, False], [True, False]]
    """
    return support_status(counts, min_support, min_support)


def _known(group_rates: _Rates, valid: _Valid | None) -> tuple[Array, Array]:
    """Returns the rates, NaN for omitted groups, and which groups are kept."""
    group_rates = jnp.asarray(group_rates)
    kept = ~jnp.isnan(group_rates)
    if valid is not None:
        kept &= jnp.asarray(valid)
    return jnp.where(kept, group_rates, jnp.nan), kept


def _of_reference(known: Array, reference: Reference) -> Array:
    groups = known.shape[-1]
    if not 0 <= reference < groups:
        raise ValueError(
            f"reference must be the position of one of {groups} groups; got "
            f"{reference}."
        )
    return known[..., reference, None]
