r"""Randomised thresholds under which groups have equal rates: a linear programme.

A decision rule of a group chooses one of several thresholds by chance and selects a
patient whose score is at least that. Its expected false and true positive rates are
means of the thresholds' own, so that the rates within reach are the convex hull of the
group's ROC curve, and the best rules that treat groups alike solve a linear programme.
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

# The outcomes of the patients that a constraint's rates are taken of.
_NEEDED = {
    "equalized_odds": [True, True],
    "true_positive_rate_parity": [False, True],
    "false_positive_rate_parity": [True, False],
    "demographic_parity": [False, False],
}
# What the solver leaves of a chance that is 0.
_NOTHING = 1e-9
# The most thresholds among which one rule for all groups is sought.
_SHARED = 1000


class _Rows(NamedTuple):
    """Checked columns of patients: outcome, score, group and weight, each ``[n]``."""

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    weights: np.ndarray

    def of(self, group: int | np.integer) -> "_Rows":
        """Those of a group that have a weight."""
        mine = (self.groups == group) & (self.weights > 0)
        return _Rows(*(column[mine] for column in self))


class _Menu(NamedTuple):
    """Thresholds to choose from, and what each does to the rates of G groups.

    ``owner``: ``[C]``, which rule a choice belongs to; ``rates``: ``[2, G, C]``, false
    and true positive rates that a chance of 1 adds to each group's.
    """

    thresholds: np.ndarray
    reversed: np.ndarray
    owner: np.ndarray
    rates: np.ndarray


class FittedRules(NamedTuple):
    """Rules, and what they are expected to do with the patients they were made of.

    Attributes:
      rules: The rules.
      counts: Expected confusion counts ``[G, 2, 2]``: every rate and gap of
        :mod:`fairjax.metrics` reads them.
      cost: The objective's value over the same patients.
      lacking: The groups without the patients that a constrained rate is taken of
        (positives, negatives), which took no part in the programme.
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
    r"""The rules of least expected cost under which groups have equal rates.

    With :math:`q_{g,v}` the chance of threshold v in group g,

    .. math:: \min_q \sum_{g,v} q_{g,v} \left( c_- \frac{N_g}{N} FPR_{g,v} +
       c_+ \frac{P_g}{P} (1 - TPR_{g,v}) \right), \quad
       \max_g r_g - \min_g r_g \le \epsilon, \quad
       r_g = \sum_v q_{g,v} r_{g,v}

    for each constrained rate r, :math:`P_g` and :math:`N_g` being the positives and
    negatives of a group. For ``"error"`` both denominators are the number of patients,
    for ``"balanced_error"`` twice that of all positives and of all negatives. The
    thresholds are the vertices of the upper hull of the group's ROC curve: no other can
    do better. It is a linear programme, solved by SciPy's HiGHS.

    Hard decisions are scores of 0 and 1; a group's region then is a triangle.

    Args:
      labels: ``[n]``, 0 or 1.
      scores: ``[n]``, higher for the positive class.
      groups: ``[n]``, in ``0 .. G − 1``.
      num_groups: G.
      constraint: Which rates are to be equal: true *and* false positive rates
        (``"equalized_odds"``), one of them (``"true_positive_rate_parity"``,
        ``"false_positive_rate_parity"``), or the share selected
        (``"demographic_parity"``).
      objective: ``"error"``, or ``"balanced_error"``, the mean of the false positive
        and the false negative rate of all patients.
      costs: :math:`(c_-, c_+)`, of a false positive and of a false negative, at
        least 0.
      tolerance: :math:`\epsilon`, the largest difference between groups allowed.
      shared: One rule for all groups, so that nobody's group need be known to decide.
        Its thresholds are chosen among 1000 at most, all scores or quantiles of those
        of each outcome, so that the cost is within a little of the least. With a
        tolerance of 0 it may be that only a coin that ignores the score is left.
      reverse: Whether a rule may select scores *below* a threshold, which helps only
        where scores rank a group worse than chance.
      weights: ``[n]``, of the patients, at least 0; ones by default.
      names: ``[G]``, what messages call the groups; their numbers by default.

    Returns:
      The rules and their expected counts. A group that lacks the patients of a
      constrained rate (of demographic parity: none does) takes no part in the
      programme: a warning names it, and its rule has the others' mean of the one rate
      that it has, false or true positive. A shared rule is everybody's.

    Raises:
      ValueError: Columns of other lengths; labels other than 0 and 1; scores that are
        not finite; groups or weights out of range; a group without patients, or whose
        patients all have a weight of 0; no group with the constrained rates; for the
        balanced error, no patients of one outcome; a setting out of its range.

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
    make_menu = _shared_menu if shared else _own_menu
    menu = make_menu(rows, taking_part, reverse)
    part = masses[taking_part]
    chances = _solve(menu, part, constraint, part * wrong, tolerance)
    owned = _compact(menu, chances)
    if shared:
        rules = DecisionRules(*(np.repeat(x, num_groups, axis=0) for x in owned))
    else:
        reached = np.full((2, num_groups), np.nan)
        # A rate of an outcome that a group lacks is none.
        reached[:, taking_part] = np.where(part.T > 0, menu.rates @ chances, np.nan)
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
    """The groups that have all constrained rates; the others are named in a warning."""
    needed = np.array(_NEEDED[constraint])
    lacks = needed & ~(masses > 0)
    if lacks.any(axis=1).all():
        words = ("negatives", "positives", "patients of both classes")
        word = words[2] if needed.all() else words[int(needed[1])]
        raise ValueError(f"no group has {word}: there are no rates to compare.")
    for outcome, word in ((1, "positives"), (0, "negatives")):
        lacking = [names[int(g)] for g in np.flatnonzero(lacks[:, outcome])]
        if lacking:
            warnings.warn(
                f"groups without {word}: {lacking}. They cannot be held to rates that "
                "they have not; they take no part and are given the others' mean rate.",
                stacklevel=3,
            )
    return np.flatnonzero(~lacks.any(axis=1))


def _solve(
    menu: _Menu,
    masses: np.ndarray,
    constraint: str,
    prices: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """The chance of each choice; a linear programme."""
    false, true = menu.rates
    share = masses / masses.sum(axis=1, keepdims=True)
    held = {
        "equalized_odds": [false, true],
        "true_positive_rate_parity": [true],
        "false_positive_rate_parity": [false],
        "demographic_parity": [share[:, :1] * false + share[:, 1:] * true],
    }[constraint]
    num_choices, num_held = len(menu.thresholds), len(held)
    # Beside the chances, the smallest of each held rate: no group is more above it
    # than the tolerance.
    least = np.repeat(np.eye(num_held), len(masses), axis=0)
    rates = np.concatenate(held)
    at_most = np.block([[rates, -least], [-rates, least]])
    bounds = np.repeat([tolerance, 0.0], len(rates))
    owners = menu.owner.max() + 1
    sums = (menu.owner == np.arange(owners)[:, None]).astype(float)
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
    return chances / (sums @ chances)[menu.owner]


def _compact(menu: _Menu, chances: np.ndarray) -> DecisionRules:
    """The choices with a chance, a row for each owner, filled up with chances of 0."""
    owners = menu.owner.max() + 1
    used = [np.flatnonzero((menu.owner == o) & (chances > 0)) for o in range(owners)]
    most = max(map(len, used))
    thresholds = np.full((owners, most), np.inf)
    shares, turned = np.zeros((owners, most)), np.zeros((owners, most), bool)
    for row, places in enumerate(used):
        places = places[np.argsort(-menu.thresholds[places], kind="stable")]
        thresholds[row, : len(places)] = menu.thresholds[places]
        shares[row, : len(places)] = chances[places]
        turned[row, : len(places)] = menu.reversed[places]
    return DecisionRules(thresholds, shares, turned)


def _for_everyone(
    owned: DecisionRules, reached: np.ndarray, rows: _Rows, taking_part: np.ndarray
) -> DecisionRules:
    """Rules of all groups.

    Those that lack an outcome have no ROC curve. They have thresholds between which the
    one rate that they have is reached: their own, or the others' mean where they took
    no part.
    """
    number = reached.shape[1]
    width = max(2, owned.thresholds.shape[1])
    thresholds = np.full((number, width), np.inf)
    chances, turned = np.zeros((number, width)), np.zeros((number, width), bool)
    for all_, own in zip((thresholds, chances, turned), owned, strict=True):
        all_[taking_part, : own.shape[1]] = own
    for group in range(number):
        own = rows.of(group)
        outcome = int(own.labels[0])
        if (own.labels != outcome).any():
            continue
        rate = reached[outcome, group]
        if np.isnan(rate):
            known = reached[outcome][~np.isnan(reached[outcome])]
            # Where nobody has that rate, no decision is the wrong one.
            rate = known.mean() if len(known) else float(outcome)
        marks, rates = _curve(own)
        passed = rates[outcome]
        above = min(int(np.searchsorted(passed, rate)), len(passed) - 1)
        below = max(above - 1, 0)
        part = passed[above] - passed[below]
        share = (rate - passed[below]) / part if part > 0 else 1.0
        thresholds[group], chances[group], turned[group] = np.inf, 0, False
        thresholds[group, :2] = marks[[below, above]]
        chances[group, :2] = 1 - share, share
    return DecisionRules(thresholds, chances, turned)


def _curve(rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds from the highest down and their rates, ``[T]`` and ``[2, T]``.

    The rates of an outcome that nobody has are 0 up to the last, which is 1.
    """
    order = np.argsort(-rows.scores, kind="stable")
    labels, scores, _, weights = (column[order] for column in rows)
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    passed = np.stack([np.cumsum(weights * (labels == y))[last] for y in (0, 1)])
    totals = passed[:, -1:]
    rates = np.minimum(passed / np.where(totals > 0, totals, 1.0), 1.0)
    thresholds = scores[last]
    # Whoever comes later with a lower score is selected where everybody was.
    thresholds[-1] = -np.inf
    rates[:, -1] = 1.0
    return np.append(np.inf, thresholds), np.pad(rates, ((0, 0), (1, 0)))


def _own_menu(rows: _Rows, chosen: np.ndarray, reverse: bool) -> _Menu:
    """For each group the vertices of its curve's upper hull."""
    parts = []
    for place, group in enumerate(chosen):
        thresholds, turned, rates = _both_ways(*_curve(rows.of(group)), reverse)
        kept = _upper_hull(*rates)
        own = np.zeros((2, len(chosen), len(kept)))
        own[:, place] = rates[:, kept]
        owner = np.full(len(kept), place)
        parts.append(_Menu(thresholds[kept], turned[kept], owner, own))
    return _Menu(*(np.concatenate(each, axis=-1) for each in zip(*parts, strict=True)))


def _upper_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Places of the vertices of the least concave curve above points, along x.

    The curve starts at (0, 0) and ends at (1, 1), which are among the points.
    """
    order = np.lexsort((y, x))
    steps = (np.diff(x[order]) > 0) | (np.diff(y[order]) > 0)
    order = order[np.append(True, steps)]
    while True:
        before, here, after = order[:-2], order[1:-1], order[2:]
        rise = (x[here] - x[before]) * (y[after] - y[before])
        run = (y[here] - y[before]) * (x[after] - x[before])
        # A vertex lies above the line through any two points on its sides, so that
        # all that lie below their neighbours' can go at once.
        above = np.append(np.insert(run - rise > 1e-15, 0, True), True)
        if above.all():
            return order
        order = order[above]


def _shared_menu(rows: _Rows, chosen: np.ndarray, reverse: bool) -> _Menu:
    """Some thresholds for everybody, and what each does to every group."""
    inner = _candidates(rows)
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
    return _Menu(thresholds, turned, np.zeros(len(thresholds), np.int64), rates)


def _both_ways(
    thresholds: np.ndarray, rates: np.ndarray, reverse: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choices, whether each is reversed, and its rates: reversed ones where allowed."""
    turned = np.zeros(len(thresholds), bool)
    if reverse:
        # Those at the ends, which select everybody or nobody, are there already.
        thresholds = np.concatenate([thresholds, thresholds[1:-1]])
        rates = np.concatenate([rates, 1 - rates[..., 1:-1]], axis=-1)
        turned = np.arange(len(thresholds)) >= len(turned)
    return thresholds, turned, rates


def _candidates(rows: _Rows) -> np.ndarray:
    """All scores but the lowest where they are few, else quantiles of each outcome's.

    Quantiles of all scores would pass by most patients of an outcome that is rare.
    """
    some = rows.weights > 0
    labels, scores = rows.labels[some], rows.scores[some]
    every = np.unique(scores)
    if len(every) <= _SHARED:
        return every[1:]
    own = [scores[labels == outcome] for outcome in (0, 1)]
    fewest = min(map(len, own))
    rarer = min(fewest, _SHARED // 2)
    negatives, positives = (
        np.quantile(
            each,
            np.linspace(0, 1, rarer if len(each) == fewest else _SHARED - rarer),
            method="nearest",
        )
        for each in own
    )
    # A threshold selects a positive just so, or just not a negative.
    above = np.append(every, np.inf)[np.searchsorted(every, negatives, side="right")]
    found = np.unique(np.concatenate([positives, above]))
    return found[(found > every[0]) & (found < np.inf)]
