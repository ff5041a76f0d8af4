"""Classification rates by group, each a ratio of confusion counts.

Every function maps ``GroupCounts`` ``[..., G, 2, 2]`` to rates ``[..., G]``, in [0, 1]
unless it says otherwise. Where a denominator is zero the rate is NaN, never 0: a group
without positives has no true positive rate.
"""

from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from fairjax.metrics.counts import GroupCounts

_Rates: TypeAlias = Float[Array, "*batch groups"]
_Cells: TypeAlias = tuple[tuple[int, int], ...]

# Cells of a group's table, as (label, prediction).
_TN, _FP, _FN, _TP = (0, 0), (0, 1), (1, 0), (1, 1)
# The hits, and the trials that were none.
_SHARES: dict[str, tuple[_Cells, _Cells]] = {
    "selection_rate": ((_TP, _FP), (_TN, _FN)),
    "prevalence": ((_TP, _FN), (_TN, _FP)),
    "true_positive_rate": ((_TP,), (_FN,)),
    "false_positive_rate": ((_FP,), (_TN,)),
    "true_negative_rate": ((_TN,), (_FP,)),
    "false_negative_rate": ((_FN,), (_TP,)),
    "positive_predictive_value": ((_TP,), (_FP,)),
    "negative_predictive_value": ((_TN,), (_FN,)),
    "accuracy": ((_TP, _TN), (_FP, _FN)),
    "error_rate": ((_FP, _FN), (_TP, _TN)),
}


def _total(counts: GroupCounts, cells: _Cells) -> Array:
    # Integers are added before they become floats, so sums of counts stay exact.
    table = jnp.asarray(counts.counts)
    first, *rest = (table[..., label, prediction] for label, prediction in cells)
    return sum(rest, first)


def _ratio(numerator: Array, denominator: Array) -> _Rates:
    # Divided in the default float type: under x64, int32 counts would give float32.
    dtype = jnp.result_type(numerator, float)
    defined = denominator > 0
    ratio = numerator.astype(dtype) / jnp.where(defined, denominator, 1).astype(dtype)
    return jnp.where(defined, ratio, jnp.nan)


def _share(counts: GroupCounts, name: str) -> _Rates:
    return _ratio(*rate_trials(counts, name))


def selection_rate(counts: GroupCounts) -> _Rates:
    """Share predicted positive, (TP + FP) / n.

    Example:
      >>> import jax.numpy as jnp
      >>> selection_rate(GroupCounts(jnp.array([[[6, 2], [2, 6]]]))).tolist()
      [0.5]
    """
    return _share(counts, "selection_rate")


def prevalence(counts: GroupCounts) -> _Rates:
    """Share of positives, (TP + FN) / n: the base rate, whatever is predicted.

    Example:
      >>> import jax.numpy as jnp
      >>> prevalence(GroupCounts(jnp.array([[[9, 3], [2, 2]]]))).tolist()
      [0.25]
    """
    return _share(counts, "prevalence")


def true_positive_rate(counts: GroupCounts) -> _Rates:
    """Sensitivity or recall, TP / (TP + FN).

    Example:
      >>> import jax.numpy as jnp
      >>> true_positive_rate(GroupCounts(jnp.array([[[10, 2], [2, 6]]]))).tolist()
      [0.75]
    """
    return _share(counts, "true_positive_rate")


def false_positive_rate(counts: GroupCounts) -> _Rates:
    """Fall-out, FP / (FP + TN).

    Example:
      >>> import jax.numpy as jnp
      >>> false_positive_rate(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.25]
    """
    return _share(counts, "false_positive_rate")


def true_negative_rate(counts: GroupCounts) -> _Rates:
    """Specificity, TN / (TN + FP).

    Example:
      >>> import jax.numpy as jnp
      >>> true_negative_rate(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.75]
    """
    return _share(counts, "true_negative_rate")


def false_negative_rate(counts: GroupCounts) -> _Rates:
    """Miss rate, FN / (FN + TP); NaN, not 0, for a group without positives.

    Example:
      >>> import jax.numpy as jnp
      >>> false_negative_rate(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.25]
    """
    return _share(counts, "false_negative_rate")


def positive_predictive_value(counts: GroupCounts) -> _Rates:
    """Precision, TP / (TP + FP).

    Example:
      >>> import jax.numpy as jnp
      >>> positive_predictive_value(GroupCounts(jnp.array([[[9, 2], [2, 6]]]))).tolist()
      [0.75]
    """
    return _share(counts, "positive_predictive_value")


def negative_predictive_value(counts: GroupCounts) -> _Rates:
    """TN / (TN + FN).

    Example:
      >>> import jax.numpy as jnp
      >>> negative_predictive_value(GroupCounts(jnp.array([[[6, 2], [2, 6]]]))).tolist()
      [0.75]
    """
    return _share(counts, "negative_predictive_value")


def accuracy(counts: GroupCounts) -> _Rates:
    """Share predicted right, (TP + TN) / n.

    Example:
      >>> import jax.numpy as jnp
      >>> accuracy(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.75]
    """
    return _share(counts, "accuracy")


def error_rate(counts: GroupCounts) -> _Rates:
    """Share predicted wrong, (FP + FN) / n.

    Example:
      >>> import jax.numpy as jnp
      >>> error_rate(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.25]
    """
    return _share(counts, "error_rate")


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
    hits = 2 * _total(counts, (_TP,))
    return _ratio(hits, hits + _total(counts, (_FP, _FN)))


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
    misses = _total(counts, (_FN,))
    ratio = _ratio(misses, _total(counts, (_FP,)))
    return jnp.where(jnp.isnan(ratio) & (misses > 0), jnp.inf, ratio)


_COMPOSITES = {
    "balanced_accuracy": balanced_accuracy,
    "f1_score": f1_score,
    "treatment_ratio": treatment_ratio,
}

RATES = (*_SHARES, *_COMPOSITES)
"""Names of all rates."""


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
    if name not in _SHARES:
        shares = ", ".join(_SHARES)
        raise ValueError(f"The rates that are shares are {shares}; {name!r} is none.")
    hits, others = _SHARES[name]
    hit = _total(counts, hits)
    return Trials(hit, hit + _total(counts, others))


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
    if name in _SHARES:
        return _share(counts, name)
    _check_name(name)
    return _COMPOSITES[name](counts)


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
    if name in _SHARES:
        return rate_trials(counts, name).trials
    _check_name(name)
    if name == "balanced_accuracy":
        return jnp.minimum(_total(counts, (_TP, _FN)), _total(counts, (_TN, _FP)))
    errors = (_FP, _FN)
    return _total(counts, (_TP, *errors) if name == "f1_score" else errors)
