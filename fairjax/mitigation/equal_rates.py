r"""Randomised thresholds under which groups have equal rates: a linear programme.

A group's decision rule draws one of several thresholds and selects patients with
scores at or above it. The rule's expected false and true positive rates are means of
the thresholds' rates, so attainable rates are the convex hull of the group's ROC curve.
The best rules with equal rates therefore solve a linear programme.
"""

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from jaxtyping import Int, Real
from scipy import optimize

from fairjax.metrics import GroupCounts
from fairjax.mitigation import _patients
from fairjax.mitigation.costs import Objective, wrong_costs
from fairjax.mitigation.decision_rules import (
    DecisionRules,
    expected_counts,
    selection_probability,
)
from fairjax.types import check_choice

Constraint: TypeAlias = Literal[
    "equalized_odds",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
    "demographic_parity",
]

# Whether a constraint's rates need negatives, and positives.
_NEEDED = {
    "equalized_odds": [True, True],
    "true_positive_rate_parity": [False, True],
    "false_positive_rate_parity": [True, False],
    "demographic_parity": [False, False],
}
# The solver may return as much for a probability of 0.
_NOTHING = 1e-9
# The most candidate thresholds of one rule for all groups.
_SHARED = 1000


class _Rows(NamedTuple):
    """Checked columns of patients: outcome, score, group and weight, each ``[n]``."""

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    weights: np.ndarray

    def of(self, group: int | np.integer) -> "_Rows":
        """Returns the rows of a group that have a positive weight."""
        mine = (self.groups == group) & (self.weights > 0)
        return _Rows(*(column[mine] for column in self))


class _Candidates(NamedTuple):
    """Candidate thresholds, and the rates of G groups at each.

    ``owner``: ``[C]``, the rule that a candidate belongs to; ``rates``: ``[2, G, C]``,
    the false and true positive rates that a candidate of probability 1 adds to each
    group's rates.
    """

    thresholds: np.ndarray
    reversed: np.ndarray
    owner: np.ndarray
    rates: np.ndarray


class FittedRules(NamedTuple):
    """Rules, and their expected counts and cost in the patients they were fitted to.

    Attributes:
      rules: The rules.
      counts: Expected confusion counts ``[G, 2, 2]``, for every rate and gap of
        :mod:`fairjax.metrics`.
      cost: The objective's value over the same patients.
      lacking: The groups without the positives or negatives of a constrained rate,
        which the programme left out.
    """

    rules: DecisionRules
    counts: GroupCounts
    cost: float
    lacking: tuple[int, ...]


def equal_rate_rules(
    labels: Real[np.ndarray, " n"],
    scores: Real[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    *,
    num_groups: int,
    constraint: Constraint = "equalized_odds",
    objective: Objective = "error",
    costs: tuple[float, float] = (1.0, 1.0),
    tolerance: float = 0.0,
    shared: bool = False,
    reverse: bool = False,
    weights: Real[np.ndarray, " n"] | None = None,
    names: Sequence[str] | None = None,
) -> FittedRules:
    r"""Finds the rules of least expected cost under which groups have equal rates.

    With :math:`q_{g,v}` the probability of threshold v in group g,

    .. math:: \min_q \sum_{g,v} q_{g,v} \left( c_- \frac{N_g}{N} FPR_{g,v} +
       c_+ \frac{P_g}{P} (1 - TPR_{g,v}) \right), \quad
       \max_g r_g - \min_g r_g \le \epsilon, \quad
       r_g = \sum_v q_{g,v} r_{g,v}

    for each constrained rate r, :math:`P_g` and :math:`N_g` being the positives and
    negatives of a group. For ``"error"`` both denominators are the number of patients;
    for ``"balanced_error"`` they are twice the number of all positives and twice the
    number of all negatives. The thresholds are the vertices of the upper hull of the
    group's ROC curve, because no other threshold can do better. SciPy's HiGHS solves
    the linear programme.

    Hard decisions are scores of 0 and 1; a group's attainable region is then a
    triangle.

    Args:
      labels: ``[n]``, 0 or 1.
      scores: ``[n]``, higher for the positive class.
      groups: ``[n]``, in ``0 .. G − 1``.
      num_groups: G.
      constraint: Which rates must be equal: true *and* false positive rates
        (``"equalized_odds"``), one of them (``"true_positive_rate_parity"``,
        ``"false_positive_rate_parity"``), or selection rates
        (``"demographic_parity"``).
      objective: ``"error"``, or ``"balanced_error"``, the mean of the false positive
        and the false negative rate of all patients.
      costs: :math:`(c_-, c_+)`, the costs of a false positive and of a false negative,
        at least 0.
      tolerance: :math:`\epsilon`, the largest difference between groups allowed.
      shared: One rule for all groups, so that decisions do not need a patient's group.
        At most 1000 candidate thresholds are tried, all scores or quantiles of the
        scores of each outcome, so the cost is only close to the least. With a tolerance
        of 0, a coin that ignores the score may be the only rule.
      reverse: Whether a rule may select scores *below* a threshold, which helps only
        where scores rank a group worse than chance.
      weights: ``[n]``, weights of the patients, at least 0; ones by default.
      names: ``[G]``, names of the groups for messages; numbers by default.

    Returns:
      The rules and their expected counts. The programme leaves out a group that lacks
      the patients of a constrained rate, and a warning names the group; demographic
      parity leaves out no group. The group's rule has the other groups' mean of its one
      defined rate, false or true positive. A shared rule serves all groups.

    Raises:
      ValueError: If columns differ in length; if labels are not 0 or 1; if scores are
        not finite; if groups, weights or a setting are out of range; if a group has no
        patients of positive weight; if no group has the constrained rates; for the
        balanced error, if an outcome has no patients.

    References:
      Hardt, Price and Srebro, *Equality of Opportunity in Supervised Learning*,
      NeurIPS 2016.

    Example:
      >>> import numpy as np
      >>> labels = np.array([0, 0, 1, 1, 0, 0, 1, 1])
      >>> scores = np.array([0.1, 0.2, 0.8, 0.9, 0.3, 0.6, 0.5, 0.7])
      >>> groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
      >>> fitted = equal_rate_rules(labels, scores, groups, num_groups=2)
      >>> round(fitted.cost, 6)
      0.25
    """
    check_choice("constraint", constraint, *get_args(Constraint))
    _patients.check_fraction("tolerance", tolerance)
    _patients.check_lengths(
        labels=labels, scores=scores, groups=groups, weights=weights
    )
    weights = _patients.as_weights(weights, len(labels))
    rows = _Rows(
        _patients.binary(labels),
        _patients.finite("scores", scores),
        _patients.group_ids(groups, num_groups),
        _patients.near_one(weights),
    )
    cell = rows.groups * 2 + rows.labels
    masses = np.bincount(cell, rows.weights, 2 * num_groups).reshape(num_groups, 2)
    _patients.check_patients(masses, names or range(num_groups))
    taking_part = _taking_part(masses, constraint, names or range(num_groups))
    wrong = wrong_costs(objective, costs, masses.sum(axis=0))
    propose = _shared_candidates if shared else _candidates_by_group
    candidates = propose(rows, taking_part, reverse)
    part = masses[taking_part]
    chances = _solve(candidates, part, constraint, part * wrong, tolerance)
    owned = _compact(candidates, chances)
    if shared:
        rules = DecisionRules(*(np.repeat(x, num_groups, axis=0) for x in owned))
    else:
        reached = np.full((2, num_groups), np.nan)
        # A rate is not defined in a group without its outcome.
        rates = candidates.rates @ chances
        reached[:, taking_part] = np.where(part.T > 0, rates, np.nan)
        rules = _for_everyone(owned, reached, rows, taking_part)
    probability = np.asarray(selection_probability(rows.scores, rows.groups, rules))
    counts = expected_counts(
        rows.labels, probability, rows.groups, num_groups=num_groups, weights=weights
    )
    mistaken = _patients.near_one(np.asarray(counts.counts).sum(axis=0))
    each = wrong_costs(objective, costs, mistaken.sum(axis=1))
    cost = each @ mistaken[[0, 1], [1, 0]]
    lacking = np.setdiff1d(np.arange(num_groups), taking_part)
    return FittedRules(rules, counts, float(cost), tuple(lacking.tolist()))


def _taking_part(masses: np.ndarray, constraint: str, names: Sequence) -> np.ndarray:
    """Returns the groups that have all constrained rates; warns of the others."""
    needed = np.array(_NEEDED[constraint])
    lacks = needed & ~(masses > 0)
    if lacks.any(axis=1).all():
        words = ("negatives", "positives", "patients of both classes")
        word = words[2] if needed.all() else words[int(needed[1])]
        raise ValueError(f"{constraint} needs groups with {word}; got none.")
    for outcome, word in ((1, "positives"), (0, "negatives")):
        lacking = [names[int(g)] for g in np.flatnonzero(lacks[:, outcome])]
        if lacking:
            warnings.warn(
                f"groups without {word}: {lacking}. A rate of these groups is not "
                "defined; their rules have the other groups' mean rate instead.",
                stacklevel=3,
            )
    return np.flatnonzero(~lacks.any(axis=1))


def _solve(
    candidates: _Candidates,
    masses: np.ndarray,
    constraint: str,
    prices: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """Returns the probability of each candidate, by a linear programme."""
    false, true = candidates.rates
    fraction = masses / masses.sum(axis=1, keepdims=True)
    held = {
        "equalized_odds": [false, true],
        "true_positive_rate_parity": [true],
        "false_positive_rate_parity": [false],
        "demographic_parity": [fraction[:, :1] * false + fraction[:, 1:] * true],
    }[constraint]
    num_choices, num_held = len(candidates.thresholds), len(held)
    # The variables are the probabilities and each held rate's least value, which no
    # group exceeds by more than the tolerance.
    least = np.repeat(np.eye(num_held), len(masses), axis=0)
    rates = np.concatenate(held)
    at_most = np.block([[rates, -least], [-rates, least]])
    bounds = np.repeat([tolerance, 0.0], len(rates))
    owners = candidates.owner.max() + 1
    sums = (candidates.owner == np.arange(owners)[:, None]).astype(float)
    price = prices[:, 0] @ false - prices[:, 1] @ true
    found = optimize.linprog(
        np.append(price, np.zeros(num_held)),
        A_ub=at_most,
        b_ub=bounds,
        A_eq=np.pad(sums, ((0, 0), (0, num_held))),
        b_eq=np.ones(owners),
        bounds=(0, 1),
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"the linear programme was not solved: {found.message}")
    chances = np.where(found.x[:num_choices] > _NOTHING, found.x[:num_choices], 0.0)
    return chances / (sums @ chances)[candidates.owner]


def _compact(candidates: _Candidates, chances: np.ndarray) -> DecisionRules:
    """Returns the candidates of positive probability, a row per owner, padded."""
    owner, of = candidates.owner, range(candidates.owner.max() + 1)
    used = [np.flatnonzero((owner == o) & (chances > 0)) for o in of]
    shape = len(used), max(map(len, used))
    thresholds, turned = np.full(shape, np.inf), np.zeros(shape, bool)
    probabilities = np.zeros(shape)
    for row, which in enumerate(used):
        which = which[np.argsort(-candidates.thresholds[which], kind="stable")]
        thresholds[row, : len(which)] = candidates.thresholds[which]
        probabilities[row, : len(which)] = chances[which]
        turned[row, : len(which)] = candidates.reversed[which]
    return DecisionRules(thresholds, probabilities, turned)


def _for_everyone(
    owned: DecisionRules, reached: np.ndarray, rows: _Rows, taking_part: np.ndarray
) -> DecisionRules:
    """Returns the rules of all groups.

    A group without an outcome has no ROC curve. The group's rule mixes two thresholds
    that reach its one defined rate: the programme's rate, or the other groups' mean if
    the programme left the group out.
    """
    number = reached.shape[1]
    width = max(2, owned.thresholds.shape[1])
    thresholds = np.full((number, width), np.inf)
    chances, turned = np.zeros((number, width)), np.zeros((number, width), bool)
    for all_, part in zip((thresholds, chances, turned), owned, strict=True):
        all_[taking_part, : part.shape[1]] = part
    for group in range(number):
        members = rows.of(group)
        outcome = int(members.labels[0])
        if (members.labels != outcome).any():
            continue
        rate = reached[outcome, group]
        if np.isnan(rate):
            known = reached[outcome][~np.isnan(reached[outcome])]
            # Where no group has that rate, no decision is wrong.
            rate = known.mean() if len(known) else float(outcome)
        marks, rates = _curve(members)
        passed = rates[outcome]
        above = min(int(np.searchsorted(passed, rate)), len(passed) - 1)
        below = max(above - 1, 0)
        part = passed[above] - passed[below]
        upper = (rate - passed[below]) / part if part > 0 else 1.0
        thresholds[group], chances[group], turned[group] = np.inf, 0, False
        thresholds[group, :2] = marks[[below, above]]
        chances[group, :2] = 1 - upper, upper
    return DecisionRules(thresholds, chances, turned)


def _curve(rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Returns descending thresholds ``[T]`` and their rates ``[2, T]``.

    The rates of an outcome without patients are 0, and 1 at the last threshold.
    """
    order = np.argsort(-rows.scores, kind="stable")
    labels, scores, _, weights = (column[order] for column in rows)
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    passed = np.stack([np.cumsum(weights * (labels == y))[last] for y in (0, 1)])
    totals = passed[:, -1:]
    rates = np.minimum(passed / np.where(totals > 0, totals, 1.0), 1.0)
    thresholds = scores[last]
    # New patients of lower scores are selected where all fitted patients are.
    thresholds[-1] = -np.inf
    rates[:, -1] = 1.0
    return np.append(np.inf, thresholds), np.pad(rates, ((0, 0), (1, 0)))


def _candidates_by_group(rows: _Rows, chosen: np.ndarray, reverse: bool) -> _Candidates:
    """Returns the vertices of the upper hull of each group's ROC curve."""
    parts = []
    for row, group in enumerate(chosen):
        thresholds, turned, rates = _both_ways(*_curve(rows.of(group)), reverse)
        hull = _upper_hull(*rates)
        added = np.zeros((2, len(chosen), len(hull)))
        added[:, row] = rates[:, hull]
        parts.append((thresholds[hull], turned[hull], np.full(len(hull), row), added))
    return _Candidates(*(np.concatenate(x, axis=-1) for x in zip(*parts, strict=True)))


def _upper_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns indices of the vertices of the least concave curve above points, by x.

    The curve starts at (0, 0) and ends at (1, 1), which are among the points.
    """
    order = np.lexsort((y, x))
    steps = (np.diff(x[order]) > 0) | (np.diff(y[order]) > 0)
    order = order[np.append(True, steps)]
    while True:
        before, here, after = order[:-2], order[1:-1], order[2:]
        rise = (x[here] - x[before]) * (y[after] - y[before])
        run = (y[here] - y[before]) * (x[after] - x[before])
        # A vertex lies above the line through any two points on its sides, so all
        # points below the line through their neighbours can be dropped at once.
        above = np.append(np.insert(run - rise > 1e-15, 0, True), True)
        if above.all():
            return order
        order = order[above]


def _shared_candidates(rows: _Rows, chosen: np.ndarray, reverse: bool) -> _Candidates:
    """Returns thresholds for all patients together, and every group's rates."""
    inner = _inner_thresholds(rows)
    thresholds = np.concatenate([[-np.inf], inner, [np.inf]])
    passed = np.searchsorted(thresholds, rows.scores, side="right")
    cell = (rows.groups * 2 + rows.labels) * (len(thresholds) + 1) + passed
    shape = (rows.groups.max() + 1, 2, len(thresholds) + 1)
    mass = np.bincount(cell, rows.weights, np.prod(shape)).reshape(shape)
    at_least = np.cumsum(mass[..., ::-1], axis=-1)[chosen, :, -2::-1]
    totals = at_least[..., :1]
    rates = np.minimum(at_least / np.where(totals > 0, totals, 1.0), 1.0)
    thresholds, turned, rates = _both_ways(
        thresholds, rates.transpose(1, 0, 2), reverse
    )
    return _Candidates(thresholds, turned, np.zeros(len(thresholds), np.int64), rates)


def _both_ways(
    thresholds: np.ndarray, rates: np.ndarray, reverse: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns thresholds, whether each is reversed, and its rates.

    Reversed thresholds are added where allowed.
    """
    turned = np.zeros(len(thresholds), bool)
    if reverse:
        # The end thresholds already select all patients, and none.
        thresholds = np.concatenate([thresholds, thresholds[1:-1]])
        rates = np.concatenate([rates, 1 - rates[..., 1:-1]], axis=-1)
        turned = np.arange(len(thresholds)) >= len(turned)
    return thresholds, turned, rates


def _inner_thresholds(rows: _Rows) -> np.ndarray:
    """Returns the scores above the lowest if few, else quantiles by outcome.

    Quantiles of all scores would miss most patients of a rare outcome.
    """
    some = rows.weights > 0
    labels, scores = rows.labels[some], rows.scores[some]
    every = np.unique(scores)
    if len(every) <= _SHARED:
        return every[1:]
    both = [scores[labels == outcome] for outcome in (0, 1)]
    fewest = min(map(len, both))
    rarer = min(fewest, _SHARED // 2)
    negatives, positives = (
        np.quantile(
            each,
            np.linspace(0, 1, rarer if len(each) == fewest else _SHARED - rarer),
            method="nearest",
        )
        for each in both
    )
    # A threshold equals a positive's score, or lies just above a negative's.
    above = np.append(every, np.inf)[np.searchsorted(every, negatives, side="right")]
    found = np.unique(np.concatenate([positives, above]))
    return found[(found > every[0]) & (found < np.inf)]
