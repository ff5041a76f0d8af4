"""The values that fairlearn and AIF360 give to undefined rates and gaps.

Each rule reproduces the toolkit exactly, even where a result depends on the order of
two values. Arrays are NumPy, float64.
"""

from typing import Any, Literal, TypeAlias

import jax
import numpy as np

from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.definitions import METRICS
from fairjax.metrics.definitions import RATES as ALL_RATES
from fairjax.metrics.rates import group_rate

Compat: TypeAlias = Literal["fairlearn", "aif360"] | None
# One gap, or one gap for each group.
Values: TypeAlias = np.ndarray | float

# The rates of each toolkit; fairlearn has scikit-learn's rates in a MetricFrame.
RATES = {
    toolkit: tuple(name for name in ALL_RATES if toolkit in METRICS[name].toolkits)
    for toolkit in ("fairlearn", "aif360")
}


def fill(
    name: str, rates: dict[str, np.ndarray], empty: np.ndarray, compat: Compat
) -> np.ndarray:
    """Returns a rate with the toolkit's value where the denominator is zero, ``[G]``.

    Args:
      name: Name of the rate.
      rates: All rates, NaN where undefined, ``[G]``.
      empty: Whether a group has no rows, ``[G]``.
      compat: The toolkit, or None to leave NaN.
    """
    rate = rates[name]
    if compat == "fairlearn":
        if name == "balanced_accuracy":
            # scikit-learn averages over the labels that occur in the group.
            two = np.stack([rates["true_positive_rate"], rates["true_negative_rate"]])
            rate = np.nansum(two, axis=0) / np.maximum(1, (~np.isnan(two)).sum(axis=0))
        # A group without rows is absent from fairlearn's result.
        return np.where(empty, np.nan, np.nan_to_num(rate, nan=0.0))
    if compat == "aif360":
        if name in ("positive_predictive_value", "negative_predictive_value"):
            return np.nan_to_num(rate, nan=0.0)
        if name in ("accuracy", "error_rate"):
            accuracy = np.nan_to_num(rates["accuracy"], nan=0.0)
            return accuracy if name == "accuracy" else 1 - accuracy
    return rate


def rate_by_group(counts: np.ndarray, name: str, compat: Compat = None) -> np.ndarray:
    """Returns a rate by the toolkit's rule for zero denominators, float64 ``[G]``."""
    with jax.enable_x64(True):
        rates = {n: np.asarray(rate) for n, rate in _all_rates(counts).items()}
    return fill(name, rates, counts.sum((-2, -1)) == 0, compat)


@jax.jit
def _all_rates(counts: Any) -> dict[str, jax.Array]:
    # One function for all rates, so that a table compiles only once.
    return {name: group_rate(GroupCounts(counts), name) for name in ALL_RATES}


def of_two(
    positives: Values, negatives: Values, worse: np.ufunc, compat: Compat
) -> Values:
    """Returns the worse of the gaps in the true and the false positive rate.

    Args:
      positives: Gap of the true positive rate.
      negatives: Gap of the false positive rate.
      worse: ``numpy.maximum`` for differences, ``numpy.minimum`` for ratios.
      compat: The toolkit, or None for NaN if either is NaN.
    """
    if compat is None:
        return worse(positives, negatives)
    # Python's max and min return the first value unless the second beats it. So a NaN
    # is returned as the first value, and ignored as the second.
    first, second = positives, negatives
    if compat == "aif360":
        first, second = negatives, positives
    beats = np.greater if worse is np.maximum else np.less
    return np.where(beats(second, first), second, first)


def mean_of_two(positives: Values, negatives: Values, compat: Compat) -> Values:
    """Returns the mean of two gaps; fairlearn ignores a gap that is NaN."""
    both = np.array([positives, negatives])
    if compat != "fairlearn":
        return both.mean(axis=0)
    known = (~np.isnan(both)).sum(axis=0)
    total = np.nansum(both, axis=0)
    return np.where(known > 0, total / np.maximum(known, 1), np.nan)
