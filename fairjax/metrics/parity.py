"""Gaps of the literature by name, each the difference or ratio of one rate.

All functions take counts ``[..., G, 2, 2]`` and two options. ``min_support`` is the
minimum number of rows behind a group's rate (its denominator, see ``rate_support``) for
the group to be compared. ``reference`` is the position of the group that every group is
compared with. With a reference the functions return signed differences, or unclipped
ratios, ``[..., G]`` instead of one gap ``[...]``.
``fairjax.metrics.difference`` and ``ratio`` describe how groups without rows are
treated. ``rate_difference(counts, name)`` and ``rate_ratio`` give the gap of any other
rate.

docs/conventions.md compares the names with the names in other toolkits.
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.definitions import GAPS, METRICS, ODDS, docstring
from fairjax.metrics.gaps import Gap, Reference, Support, rate_difference, rate_ratio


@runtime_checkable
class _Compare(Protocol):
    def __call__(
        self,
        counts: GroupCounts,
        min_support: Support = 0,
        *,
        reference: Reference | None = None,
    ) -> Gap: ...


def _gap(name: str, note: str = "") -> _Compare:
    """Returns the function that computes a gap in one rate."""
    row = GAPS[name]
    (rate,) = row.rates
    by_name = {"difference": rate_difference, "ratio": rate_ratio}[row.kind]

    def gap(
        counts: GroupCounts,
        min_support: Support = 0,
        *,
        reference: Reference | None = None,
    ) -> Gap:
        return by_name(counts, rate, min_support, reference=reference)

    low, high = sorted(METRICS[rate].example)
    gap.__name__ = gap.__qualname__ = name
    gap.__doc__ = docstring(
        f"Returns the {row.kind} between groups in {METRICS[rate].phrase}.",
        note,
        f"round({name}(counts).item(), 4)",
        round(high - low if row.kind == "difference" else low / high, 4),
    )
    return gap


demographic_parity_difference = _gap("demographic_parity_difference")
demographic_parity_ratio = _gap(
    "demographic_parity_ratio", 'A ratio below .8 fails the "four-fifths rule".'
)
equal_opportunity_difference = _gap(
    "equal_opportunity_difference", "Hardt, Price and Srebro (2016)."
)
equal_opportunity_ratio = _gap("equal_opportunity_ratio")
false_positive_rate_difference = _gap(
    "false_positive_rate_difference", "Also called predictive equality."
)
false_negative_rate_difference = _gap(
    "false_negative_rate_difference",
    "Equals the true positive rate difference, up to the sign.",
)
predictive_parity_difference = _gap(
    "predictive_parity_difference", "Chouldechova (2017)."
)
negative_predictive_value_difference = _gap(
    "negative_predictive_value_difference", "Completes predictive parity, with PPV."
)
accuracy_difference = _gap(
    "accuracy_difference", "Also called overall accuracy equality."
)
error_rate_difference = _gap(
    "error_rate_difference", "Equals the accuracy difference, up to the sign."
)
error_rate_ratio = _gap("error_rate_ratio", "Differs from the ratio of accuracies.")
treatment_equality_difference = _gap(
    "treatment_equality_difference",
    "Berk et al. (2021). At least 0, with no upper bound: infinite if one group has\n"
    "false negatives but no false positives, NaN if this holds for all groups.",
)


def statistical_parity_difference(
    counts: GroupCounts, min_support: Support = 0, *, reference: Reference
) -> Gap:
    """Returns each group's selection rate minus the reference's, ``[..., G]``, signed.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> statistical_parity_difference(counts, reference=0).round(4).tolist()
      [0.0, -0.066...]
    """
    return demographic_parity_difference(counts, min_support, reference=reference)


def disparate_impact(
    counts: GroupCounts, min_support: Support = 0, *, reference: Reference
) -> Gap:
    """Returns each group's selection rate over the reference's, ``[..., G]``.

    Ratios are not clipped. A ratio is infinite where only the reference has nobody
    selected, and NaN where neither group has anybody selected (Feldman et al. 2015).

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[6, 2], [6, 2]], [[4, 4], [4, 4]]]))
      >>> disparate_impact(counts, reference=0).tolist()
      [1.0, 2.0]
    """
    return demographic_parity_ratio(counts, min_support, reference=reference)


def average_odds_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference,
    absolute: bool = False,
) -> Gap:
    r"""Returns the mean of a group's differences from the reference in TPR and FPR.

    .. math:: \tfrac12 \left[ (\mathrm{TPR}_g - \mathrm{TPR}_{\text{ref}}) +
              (\mathrm{FPR}_g - \mathrm{FPR}_{\text{ref}}) \right]

    Signed differences can cancel, so a mean of 0 does not imply equal odds. With
    ``absolute`` the result is the equalized odds difference with ``agg="mean"``.

    Args:
      counts: ``[..., G, 2, 2]``.
      min_support: As in ``equalized_odds_difference``.
      reference: Position of the group that every group is compared with.
      absolute: Whether to average absolute differences.

    Returns:
      ``[..., G]``, in [-1, 1]; NaN where either difference is NaN.

    Raises:
      ValueError: If ``reference`` is not the position of a group.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[9, 3], [2, 6]], [[6, 6], [4, 4]]]))
      >>> average_odds_difference(counts, reference=0).tolist()
      [0.0, 0.0]
      >>> average_odds_difference(counts, reference=0, absolute=True).tolist()
      [0.0, 0.25]
    """
    positives, negatives = (
        rate_difference(counts, name, min_support, reference=reference) for name in ODDS
    )
    if absolute:
        positives, negatives = jnp.abs(positives), jnp.abs(negatives)
    return (positives + negatives) / 2
