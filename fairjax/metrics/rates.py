"""Classification rates by group, each a ratio of confusion counts.

Every function maps ``GroupCounts`` ``[..., G, 2, 2]`` to rates ``[..., G]`` in [0, 1].
Where a denominator is zero the rate is NaN, never 0: a group without positives has no
true positive rate.
"""

from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from fairjax.metrics.counts import GroupCounts

_Rates: TypeAlias = Float[Array, "*batch groups"]
_Cells: TypeAlias = tuple[tuple[int, int], ...]

# Cells of a group's table, as (label, prediction).
_TN, _FP, _FN, _TP = (0, 0), (0, 1), (1, 0), (1, 1)


def _rate(counts: GroupCounts, hits: _Cells, others: _Cells) -> _Rates:
    """Share of ``hits`` among ``hits`` and ``others``."""
    table = jnp.asarray(counts.counts)
    # Integers are added before they become floats, so sums of counts stay exact.
    hit = sum(table[..., label, prediction] for label, prediction in hits)
    base = sum((table[..., label, prediction] for label, prediction in others), hit)
    return jnp.where(base > 0, hit / jnp.where(base > 0, base, 1), jnp.nan)


def selection_rate(counts: GroupCounts) -> _Rates:
    """Share predicted positive, (TP + FP) / n.

    Example:
      >>> import jax.numpy as jnp
      >>> selection_rate(GroupCounts(jnp.array([[[6, 2], [2, 6]]]))).tolist()
      [0.5]
    """
    return _rate(counts, (_TP, _FP), (_TN, _FN))


def true_positive_rate(counts: GroupCounts) -> _Rates:
    """Sensitivity or recall, TP / (TP + FN).

    Example:
      >>> import jax.numpy as jnp
      >>> true_positive_rate(GroupCounts(jnp.array([[[10, 2], [2, 6]]]))).tolist()
      [0.75]
    """
    return _rate(counts, (_TP,), (_FN,))


def false_positive_rate(counts: GroupCounts) -> _Rates:
    """Fall-out, FP / (FP + TN).

    Example:
      >>> import jax.numpy as jnp
      >>> false_positive_rate(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.25]
    """
    return _rate(counts, (_FP,), (_TN,))


def true_negative_rate(counts: GroupCounts) -> _Rates:
    """Specificity, TN / (TN + FP).

    Example:
      >>> import jax.numpy as jnp
      >>> true_negative_rate(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.75]
    """
    return _rate(counts, (_TN,), (_FP,))


def false_negative_rate(counts: GroupCounts) -> _Rates:
    """Miss rate, FN / (FN + TP); NaN, not 0, for a group without positives.

    Example:
      >>> import jax.numpy as jnp
      >>> false_negative_rate(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.25]
    """
    return _rate(counts, (_FN,), (_TP,))


def positive_predictive_value(counts: GroupCounts) -> _Rates:
    """Precision, TP / (TP + FP).

    Example:
      >>> import jax.numpy as jnp
      >>> positive_predictive_value(GroupCounts(jnp.array([[[9, 2], [2, 6]]]))).tolist()
      [0.75]
    """
    return _rate(counts, (_TP,), (_FP,))


def negative_predictive_value(counts: GroupCounts) -> _Rates:
    """TN / (TN + FN).

    Example:
      >>> import jax.numpy as jnp
      >>> negative_predictive_value(GroupCounts(jnp.array([[[6, 2], [2, 6]]]))).tolist()
      [0.75]
    """
    return _rate(counts, (_TN,), (_FN,))


def accuracy(counts: GroupCounts) -> _Rates:
    """Share predicted right, (TP + TN) / n.

    Example:
      >>> import jax.numpy as jnp
      >>> accuracy(GroupCounts(jnp.array([[[9, 3], [2, 6]]]))).tolist()
      [0.75]
    """
    return _rate(counts, (_TP, _TN), (_FP, _FN))


def balanced_accuracy(counts: GroupCounts) -> _Rates:
    """Mean of sensitivity and specificity, (TPR + TNR) / 2; NaN if either is.

    Example:
      >>> import jax.numpy as jnp
      >>> balanced_accuracy(GroupCounts(jnp.array([[[6, 2], [4, 4]]]))).tolist()
      [0.625]
    """
    return (true_positive_rate(counts) + true_negative_rate(counts)) / 2
