"""Decisions by chance: thresholds drawn for each group, and what to expect of them."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from fairjax.metrics import GroupCounts
from fairjax.mitigation import _patients

# By which a sum of chances may be beyond 1.
_ROUNDING = 1e-6


class DecisionRules(NamedTuple):
    """One rule for each group: which thresholds, and with what chance.

    A pytree of arrays.

    Attributes:
      thresholds: ``[G, V]``; a score of at least that is selected.
      chances: ``[G, V]``, the chance of each threshold; rows sum to 1. Groups of fewer
        thresholds are filled up with a chance of 0.
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
    r"""The chance with which a group's rule selects each patient.

    .. math:: \Pr(\hat Y_i = 1) = \sum_v q_{g_i,v} [s_i \ge t_{g_i,v}]

    It is a decision's expectation: what is linear in decisions (rates, error) is exact
    when computed from it, and no draw is needed.

    Args:
      scores: ``[n]``.
      groups: ``[n]``, in ``0 .. G − 1``.
      rules: From :func:`equal_rate_rules`.

    Returns:
      ``[n]``, in [0, 1], float64.

    Raises:
      ValueError: A score that is NaN: it is on no side of a threshold; a group that
        there is no rule of.

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
        raise ValueError(f"{np.isnan(scores).sum()} scores are NaN.")
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
    r"""Confusion counts in expectation over random decisions.

    .. math:: N_{g,y,1} = \sum_i w_i [g_i = g] [y_i = y] \Pr(\hat Y_i = 1)

    True and false positive rates, selection rates and accuracies of them are expected
    values; predictive values and F1 are ratios of expectations.

    Args:
      labels: ``[n]``, 0 or 1.
      probability: ``[n]``, of selection, in [0, 1].
      groups: ``[n]``, in ``0 .. G − 1``; -1 is counted nowhere.
      num_groups: G.
      weights: ``[n]``, at least 0; ones by default.

    Returns:
      Counts ``[G, 2, 2]``, float64, for every rate and gap of :mod:`fairjax.metrics`.

    Raises:
      ValueError: Columns of other lengths; of the rows that count, labels other than 0
        and 1 or probabilities outside [0, 1]; groups out of range; weights that are not
        finite numbers of at least 0.

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
    weights = _patients.own_weights(weights, len(groups))
    kept = groups >= 0
    probability, weights = np.asarray(probability)[kept], weights[kept]
    if not ((probability >= -_ROUNDING) & (probability <= 1 + _ROUNDING)).all():
        raise ValueError("probabilities lie in [0, 1]; some do not.")
    probability = np.clip(probability, 0, 1)
    cell = groups[kept] * 2 + _patients.binary(np.asarray(labels)[kept])
    selected, total = (
        np.bincount(cell, mass, 2 * num_groups).reshape(num_groups, 2)
        for mass in (weights * probability, weights)
    )
    counts: Any = np.stack([total - selected, selected], axis=-1)
    return GroupCounts(counts)
