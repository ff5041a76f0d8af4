"""Classification rates by group, each a ratio of confusion counts.

Every function maps ``GroupCounts`` ``[..., G, 2, 2]`` to rates ``[..., G]``, in [0, 1]
unless its docstring gives another range. A rate with a zero denominator is NaN, never
0: a group without positives has no true positive rate.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.definitions import CELLS, METRICS, RATES, Cells, docstring

_Rates: TypeAlias = Float[Array, "*batch groups"]


def _total(counts: GroupCounts, cells: Cells) -> Array:
    # Integers are added before conversion to floats, so that sums stay exact.
    table = jnp.asarray(counts.counts)
    first, *rest = (table[..., *CELLS[cell]] for cell in cells)
    return sum(rest, first)


def _ratio(numerator: Array, denominator: Array) -> _Rates:
    # Divides in the default float type: under x64, int32 counts would give float32.
    dtype = jnp.result_type(numerator, float)
    defined = denominator > 0
    ratio = numerator.astype(dtype) / jnp.where(defined, denominator, 1).astype(dtype)
    return jnp.where(defined, ratio, jnp.nan)


def _rate(name: str, note: str = "") -> Callable[[GroupCounts], Array]:
    """Returns the function that computes a rate which is a fraction of rows."""
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
prevalence = _rate("prevalence", "The base rate, which predictions do not affect.")
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
    """Returns the mean of sensitivity and specificity, (TPR + TNR) / 2.

    The mean is NaN if either rate is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> balanced_accuracy(GroupCounts(jnp.array([[[6, 2], [4, 4]]]))).tolist()
      [0.625]
    """
    return (true_positive_rate(counts) + true_negative_rate(counts)) / 2


def f1_score(counts: GroupCounts) -> _Rates:
    """Returns the harmonic mean of precision and sensitivity, 2 TP / (2 TP + FP + FN).

    The score is NaN for a group in which nobody is positive or predicted positive.

    Example:
      >>> import jax.numpy as jnp
      >>> f1_score(GroupCounts(jnp.array([[[9, 3], [1, 6]]]))).tolist()
      [0.75]
    """
    hits = 2 * _total(counts, ("TP",))
    return _ratio(hits, hits + _total(counts, ("FP", "FN")))


def treatment_ratio(counts: GroupCounts) -> _Rates:
    """Returns the false negatives for each false positive, FN / FP (Berk et al. 2021).

    The ratio is at least 0 and has no upper bound. It is infinite for a group with
    false negatives but no false positives, and NaN for a group without errors.

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
        raise ValueError(f"name must be one of {', '.join(RATES)}; got {name!r}.")


class Trials(NamedTuple):
    """Numerator and denominator of a rate that is a fraction of rows.

    Attributes:
      hits: ``[..., G]``, in the type of the counts.
      trials: ``[..., G]``, at least ``hits``.
    """

    hits: Real[Array, "*batch groups"]
    trials: Real[Array, "*batch groups"]


def rate_trials(counts: GroupCounts, name: str) -> Trials:
    """Returns the hits and trials of a rate, for an interval of a proportion.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of a rate that is a fraction of rows, such as
        ``"true_positive_rate"``: true positives among positives.

    Returns:
      Hits and trials, ``[..., G]`` each.

    Raises:
      ValueError: If ``name`` is not a rate that is a fraction of rows.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]]]))
      >>> hits, positives = rate_trials(counts, "true_positive_rate")
      >>> hits.tolist(), positives.tolist()
      ([6], [8])
    """
    cells = METRICS[name].cells if name in METRICS else None
    if cells is None:
        names = ", ".join(rate for rate in RATES if METRICS[rate].cells)
        raise ValueError(f"name must be a fraction of rows: {names}; got {name!r}.")
    hits, others = (_total(counts, names) for names in cells)
    return Trials(hits, hits + others)


def group_rate(counts: GroupCounts, name: str) -> _Rates:
    """Returns the rate of a given name.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of one of this module's rates.

    Returns:
      The rate, ``[..., G]``.

    Raises:
      ValueError: If ``name`` is not a rate.

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
    """Returns the number of rows behind each group's rate, to check a minimum support.

    The support is the denominator, with three exceptions. The support of the balanced
    accuracy is the smaller number of positives and negatives. The support of the F1
    score is TP + FP + FN. The support of the treatment ratio is the errors, FP + FN.

    Args:
      counts: ``[..., G, 2, 2]``.
      name: Name of one of this module's rates.

    Returns:
      ``[..., G]``, in the type of the counts; 0 where the rate is NaN.

    Raises:
      ValueError: If ``name`` is not a rate.

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
