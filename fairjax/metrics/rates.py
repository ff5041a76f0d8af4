"""Classification rates by group, each a ratio of confusion counts.

Every function maps ``GroupCounts`` ``[..., G, 2, 2]`` to rates ``[..., G]``, in [0, 1]
unless it says otherwise. Where a denominator is zero the rate is NaN, never 0: a group
without positives has no true positive rate.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.definitions import CELLS, METRICS, RATES, Cells, docstring

_Rates: TypeAlias = Float[Array, "*batch groups"]


def _total(counts: GroupCounts, cells: Cells) -> Array:
    # Integers are added before they become floats, so sums of counts stay exact.
    table = jnp.asarray(counts.counts)
    first, *rest = (table[..., *CELLS[cell]] for cell in cells)
    return sum(rest, first)


def _ratio(numerator: Array, denominator: Array) -> _Rates:
    # Divided in the default float type: under x64, int32 counts would give float32.
    dtype = jnp.result_type(numerator, float)
    defined = denominator > 0
    ratio = numerator.astype(dtype) / jnp.where(defined, denominator, 1).astype(dtype)
    return jnp.where(defined, ratio, jnp.nan)


def _rate(name: str, note: str = "") -> Callable[[GroupCounts], Array]:
    """Makes the function of a rate that is a fraction of some rows."""
    metric = METRICS[name]

    def rate(counts: GroupCounts) -> _Rates:
        return _ratio(*rate_trials(counts, name))

    rate.__name__ = rate.__qualname__ = name
    rate.__doc__ = docstring(
        f"Returns the {metric.title[0].lower()}{metric.title[1:]}, {metric.formula}.",
        note,
        f"[round(rate, 4) for rate in {name}(counts).tolist()]",
        list(metric.example),
    )
    return rate


selection_rate = _rate("selection_rate")
prevalence = _rate("prevalence", "The base rate, whatever is predicted.")
true_positive_rate = _rate("true_positive_rate", "Also called recall.")
false_positive_rate = _rate("false_positive_rate", "Also called fall-out.")
true_negative_rate = _rate("true_negative_rate")
false_negative_rate = _rate(
    "false_negative_rate",
    "Also called miss rate; NaN, not 0, for a group without positives.",
)
positive_predictive_value = _rate("positive_predictive_value")
negative_predictive_value = _rate("negative_predictive_value")
accuracy = _rate("accuracy")
error_rate = _rate("error_rate")


def balanced_accuracy(counts: GroupCounts) -> _Rates:
    """Mean of sensitivity and specificity, (TPR + TNR) / 2; NaN if either is.

    Example:
      >>> import jax.numpy as jnp
      >>> balanced_accuracy(GroupCounts(jnp.array([[[6, 2], [4, 4]]]))).tolist()
      [0.625]
    """
    return (true_positive_rate(counts) + true_negative_rate(counts)) / 2


def f1_score(counts: GroupCounts) -> _Rates:
    """Harmonic mean of precision and sensitivity, 2 TP / (2 TP + FP + FN).

    NaN for a group in which nobody is positive or predicted positive.

    Example:
      >>> import jax.numpy as jnp
      >>> f1_score(GroupCounts(jnp.array([[[9, 3], [1, 6]]]))).tolist()
      [0.75]
    """
    hits = 2 * _total(counts, ("TP",))
    return _ratio(hits, hits + _total(counts, ("FP", "FN")))


def treatment_ratio(counts: GroupCounts) -> _Rates:
    """False negatives for each false positive, FN / FP (Berk et al. 2021).

    At least 0, and not bounded: infinite for a group with false negatives and no false
    positive, NaN for one without errors.

    Example:
      >>> import jax.numpy as jnp
      >>> treatment_ratio(
      ...     GroupCounts(jnp.array([[[9, 4], [2, 6]], [[9, 0], [2, 6]]]))
      ... ).tolist()
      [0.5, inf]
    """
    misses = _total(counts, ("FN",))
    ratio = _ratio(misses, _total(counts, ("FP",)))
    return jnp.where(jnp.isnan(ratio) & (misses > 0), jnp.inf, ratio)


_COMPOSITES = {
    "balanced_accuracy": balanced_accuracy,
    "f1_score": f1_score,
    "treatment_ratio": treatment_ratio,
}


def _check_name(name: str) -> None:
    if name not in RATES:
        raise ValueError(f"The rates are {', '.join(RATES)}; there is no {name!r}.")


class Trials(NamedTuple):
    """The numerator and the denominator of a rate that is a share of some rows.

    Attributes:
      hits: ``[..., G]``, in the counts' type.
      trials: ``[..., G]``, at least as many.
    """

    hits: Real[Array, "*batch groups"]
    trials: Real[Array, "*batch groups"]


def rate_trials(counts: GroupCounts, name: str) -> Trials:
    """Hits and trials of a rate, as intervals for a proportion ask for them.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of a rate that is a share, such as ``"true_positive_rate"``: true
        positives among positives.

    Returns:
      Hits and trials, ``[..., G]`` each.

    Raises:
      ValueError: If there is no such rate, or it is no share of rows.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]]]))
      >>> hits, positives = rate_trials(counts, "true_positive_rate")
      >>> hits.tolist(), positives.tolist()
      ([6], [8])
    """
    cells = METRICS[name].cells if name in METRICS else None
    if cells is None:
        shares = ", ".join(rate for rate in RATES if METRICS[rate].cells)
        raise ValueError(f"The rates that are shares are {shares}; {name!r} is none.")
    hits, others = (_total(counts, names) for names in cells)
    return Trials(hits, hits + others)


def group_rate(counts: GroupCounts, name: str) -> _Rates:
    """The rate of this name, for whoever takes the name as an option.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of one of this module's rates.

    Returns:
      The rate, ``[..., G]``.

    Raises:
      ValueError: If there is no such rate.

    Example:
      >>> import jax.numpy as jnp
      >>> group_rate(GroupCounts(jnp.array([[[9, 3], [2, 6]]])), "accuracy").tolist()
      [0.75]
    """
    _check_name(name)
    if name in _COMPOSITES:
        return _COMPOSITES[name](counts)
    return _ratio(*rate_trials(counts, name))


def rate_support(counts: GroupCounts, name: str) -> Real[Array, "*batch groups"]:
    """Rows that a group's rate rests on, as the smallest support is asked of them.

    The denominator, with three exceptions: for the balanced accuracy the fewer of
    positives and negatives; for the F1 score TP + FP + FN; for the treatment ratio the
    errors, FP + FN.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of one of this module's rates.

    Returns:
      ``[..., G]``, in the counts' type; 0 where the rate is NaN.

    Raises:
      ValueError: If there is no such rate.

    Example:
      >>> import jax.numpy as jnp
      >>> rate_support(GroupCounts(jnp.array([[[9, 3], [2, 6]]])), "accuracy").tolist()
      [20]
    """
    _check_name(name)
    if name not in _COMPOSITES:
        return rate_trials(counts, name).trials
    if name == "balanced_accuracy":
        return jnp.minimum(_total(counts, ("TP", "FN")), _total(counts, ("TN", "FP")))
    errors = ("FP", "FN")
    return _total(counts, ("TP", *errors) if name == "f1_score" else errors)
