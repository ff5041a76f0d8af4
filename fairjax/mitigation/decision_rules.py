"""Randomised decisions: thresholds drawn for each group, and their expected counts."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from fairjax.metrics import GroupCounts
from fairjax.mitigation import _patients

# A sum of probabilities may exceed 1 by as much.
_ROUNDING = 1e-6


class DecisionRules(NamedTuple):
    """One rule for each group, its thresholds and their probabilities; a pytree.

    Attributes:
      thresholds: ``[G, V]``; a rule selects scores at or above its threshold.
      chances: ``[G, V]``, the probability of each threshold; rows sum to 1. Groups of
        fewer thresholds are padded with a probability of 0.
      reversed: ``[G, V]``, whether a score *below* the threshold is selected instead.
    """

    thresholds: Float[Array | np.ndarray, "groups choices"]
    chances: Float[Array | np.ndarray, "groups choices"]
    reversed: Bool[Array | np.ndarray, "groups choices"]


def selection_probability(
    scores: Real[Array | np.ndarray, " n"],
    groups: Int[Array | np.ndarray, " n"],
    rules: DecisionRules,
) -> Float[np.ndarray, " n"]:
    r"""Computes the probability with which a group's rule selects each patient.

    .. math:: \Pr(\hat Y_i = 1) = \sum_v q_{g_i,v} [s_i \ge t_{g_i,v}]

    This probability is a decision's expectation. Rates and errors are linear in
    decisions, so they are exact when computed from the probability, without a draw.

    Args:
      scores: ``[n]``.
      groups: ``[n]``, in ``0 .. G − 1``.
      rules: From :func:`equal_rate_rules`.

    Returns:
      ``[n]``, in [0, 1], float64.

    Raises:
      ValueError: If a score is NaN, which lies on no side of a threshold, or a group
        has no rule.

    Example:
      >>> import numpy as np
      >>> rules = DecisionRules(
      ...     np.array([[0.5, 0.2]]), np.array([[0.75, 0.25]]), np.zeros((1, 2), bool)
      ... )
      >>> selection_probability(np.array([0.9, 0.3, 0.1]), np.zeros(3, int), rules)
      array([1.  , 0.25, 0.  ])
    """
    _patients.check_lengths(scores=scores, groups=groups)
    scores = np.asarray(scores)
    if np.isnan(scores).any():
        raise ValueError(f"scores must not be NaN; got {np.isnan(scores).sum()} NaN.")
    thresholds, chances, reverse = map(np.asarray, rules)
    groups = _patients.group_ids(groups, len(thresholds))
    probability = np.zeros(len(scores))
    for choice in range(thresholds.shape[1]):
        at_least = scores >= thresholds[groups, choice]
        selected = at_least != reverse[groups, choice]
        probability += selected * chances[groups, choice]
    return np.clip(probability, 0.0, 1.0)


def expected_counts(
    labels: Real[np.ndarray, " n"],
    probability: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    *,
    num_groups: int,
    weights: Real[np.ndarray, " n"] | None = None,
) -> GroupCounts:
    r"""Computes confusion counts in expectation over random decisions.

    .. math:: N_{g,y,1} = \sum_i w_i [g_i = g] [y_i = y] \Pr(\hat Y_i = 1)

    True and false positive rates, selection rates and accuracies of these counts are
    expected values; predictive values and F1 are ratios of expectations.

    Args:
      labels: ``[n]``, 0 or 1.
      probability: ``[n]``, the probability of selection, in [0, 1].
      groups: ``[n]``, in ``0 .. G − 1``; rows of -1 are not counted.
      num_groups: G.
      weights: ``[n]``, at least 0; ones by default.

    Returns:
      Counts ``[G, 2, 2]``, float64, for every rate and gap of :mod:`fairjax.metrics`.

    Raises:
      ValueError: If columns differ in length; if groups are out of range; if weights
        are not finite numbers of at least 0; if a counted row has a label other than 0
        and 1, or a probability outside [0, 1].

    Example:
      >>> import numpy as np
      >>> labels, groups = np.array([1, 1, 0]), np.zeros(3, int)
      >>> chance = np.array([1.0, 0.5, 0.25])
      >>> expected_counts(labels, chance, groups, num_groups=1).counts
      array([[[0.75, 0.25],
              [0.5 , 1.5 ]]])
    """
    _patients.check_lengths(
        labels=labels, probability=probability, groups=groups, weights=weights
    )
    groups = _patients.group_ids(groups, num_groups, least=-1)
    weights = _patients.as_weights(weights, len(groups))
    kept = groups >= 0
    probability, weights = np.asarray(probability)[kept], weights[kept]
    within = (probability >= -_ROUNDING) & (probability <= 1 + _ROUNDING)
    _patients.check_each(probability, within, "probability must lie in [0, 1]")
    probability = np.clip(probability, 0, 1)
    cell = groups[kept] * 2 + _patients.binary(np.asarray(labels)[kept])
    selected, total = (
        np.bincount(cell, mass, 2 * num_groups).reshape(num_groups, 2)
        for mass in (weights * probability, weights)
    )
    counts: Any = np.stack([total - selected, selected], axis=-1)
    return GroupCounts(counts)
