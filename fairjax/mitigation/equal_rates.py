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
from fairjax.mitigation._menus import Menu, Rows, curve, own_menu, shared_menu
from fairjax.mitigation._patients import (
    binary,
    check_lengths,
    check_patients,
    check_share,
    finite,
    group_ids,
    near_one,
    own_weights,
)
from fairjax.mitigation.costs import Objective, check_objective, wrong_costs
from fairjax.mitigation.decision_rules import (
    DecisionRules,
    expected_counts,
    selection_probability,
)

Constraint: TypeAlias = Literal[
    "equalized_odds",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
    "demographic_parity",
]

# What the solver leaves of a chance that is 0.
_NOTHING = 1e-9


class FittedRules(NamedTuple):
    """Rules, and what they are expected to do with the patients they were made of.

    Attributes:
      rules: The rules.
      counts: Expected confusion counts ``[G, 2, 2]``: every rate and gap of
        :mod:`fairjax.metrics` reads them.
      cost: The objective's value over the groups that took part.
      lacking: The groups without positives or without negatives, which took none.
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
      The rules and their expected counts. A group that lacks positives or negatives
      has no ROC curve: a warning names it, it takes no part in the programme, and its
      rule has the others' mean of the one rate that it has, false or true positive
      (of ``constraint="demographic_parity"`` their mean selection rate). A shared rule
      is everybody's.

    Raises:
      ValueError: Columns of other lengths; labels other than 0 and 1; scores that are
        not finite; groups or weights out of range; a group without patients, or whose
        patients all have a weight of 0; no group with both outcomes; a setting out of
        its range.

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
    _check_settings(constraint, objective, costs, tolerance)
    given = _rows(labels, scores, groups, weights, num_groups)
    rows = given._replace(weights=near_one(given.weights))
    masses = _masses(rows, num_groups)
    taking_part = _taking_part(masses, names or range(num_groups))
    make_menu = shared_menu if shared else own_menu
    menu = make_menu(rows, taking_part, masses, reverse)
    chances, cost = _solve(
        menu,
        masses[taking_part],
        constraint,
        _prices(masses[taking_part], objective, costs),
        tolerance,
    )
    owned = _compact(menu, chances)
    if shared:
        rules = DecisionRules(*(np.repeat(x, num_groups, axis=0) for x in owned))
    else:
        reached = menu.rates @ chances
        if constraint == "demographic_parity":
            share = masses[taking_part] / masses[taking_part].sum(axis=1, keepdims=True)
            reached = np.repeat(np.sum(share.T * reached, axis=0)[None], 2, axis=0)
        reached = reached.mean(axis=1)
        rules = _for_everyone(owned, reached, rows, taking_part, masses)
    probability = np.asarray(selection_probability(rows.scores, rows.groups, rules))
    counts = expected_counts(
        rows.labels,
        probability,
        rows.groups,
        num_groups=num_groups,
        weights=given.weights,
    )
    lacking = np.setdiff1d(np.arange(num_groups), taking_part)
    return FittedRules(rules, counts, cost, tuple(lacking.tolist()))


def _rows(labels, scores, groups, weights, num_groups: int) -> Rows:
    check_lengths(labels=labels, scores=scores, groups=groups, weights=weights)
    return Rows(
        binary(labels),
        finite("scores", scores),
        group_ids(groups, num_groups),
        own_weights(weights, len(labels)),
    )


def _check_settings(constraint, objective, costs, tolerance) -> None:
    if constraint not in get_args(Constraint):
        raise ValueError(
            f"constraint is one of {get_args(Constraint)}, not {constraint!r}."
        )
    check_objective(objective, costs)
    check_share("tolerance", tolerance)


def _masses(rows: Rows, num_groups: int) -> np.ndarray:
    """``[G, 2]``: the weight of negatives and of positives."""
    cell = rows.groups * 2 + rows.labels
    return np.bincount(cell, rows.weights, 2 * num_groups).reshape(num_groups, 2)


def _taking_part(masses: np.ndarray, names: Sequence) -> np.ndarray:
    """The groups that have both outcomes; the others are named in a warning."""
    check_patients(masses, names)
    there = masses > 0
    whole = there.all(axis=1)
    if not whole.any():
        raise ValueError(
            "no group has patients of both classes: there are no rates to compare."
        )
    for outcome, word in ((1, "positives"), (0, "negatives")):
        lacking = [names[int(g)] for g in np.flatnonzero(~there[:, outcome])]
        if lacking:
            warnings.warn(
                f"groups without {word}: {lacking}. They cannot be held to rates that "
                "they have not; they take no part and are given the others' mean rate.",
                stacklevel=3,
            )
    return np.flatnonzero(whole)


def _prices(masses: np.ndarray, objective: str, costs: tuple[float, float]):
    """``[G, 2]``: what a false, and what a missed true positive rate of 1 costs."""
    return masses * wrong_costs(objective, costs, masses.sum(axis=0))


def _solve(
    menu: Menu,
    masses: np.ndarray,
    constraint: str,
    prices: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, float]:
    """The chance of each choice, and the cost; a linear programme."""
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
    chances /= (sums @ chances)[menu.owner]
    return chances, float(price @ chances + prices[:, 1].sum())


def _compact(menu: Menu, chances: np.ndarray) -> DecisionRules:
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
    owned: DecisionRules,
    reached: np.ndarray,
    rows: Rows,
    taking_part: np.ndarray,
    masses: np.ndarray,
) -> DecisionRules:
    """Rules of all groups: those without a curve have the others' mean rate."""
    width = max(2, owned.thresholds.shape[1])
    extra = ((0, 0), (0, width - owned.thresholds.shape[1]))
    thresholds = np.full((len(masses), width), np.inf)
    chances = np.zeros((len(masses), width))
    turned = np.zeros((len(masses), width), bool)
    thresholds[taking_part] = np.pad(owned.thresholds, extra, constant_values=np.inf)
    chances[taking_part] = np.pad(owned.chances, extra)
    turned[taking_part] = np.pad(owned.reversed, extra)
    for group in np.setdiff1d(np.arange(len(masses)), taking_part):
        mine = (rows.groups == group) & (rows.weights > 0)
        outcome = int(masses[group, 1] > 0)
        marks, rates = curve(rows.labels[mine], rows.scores[mine], rows.weights[mine])
        rate = rates[outcome]
        above = min(int(np.searchsorted(rate, reached[outcome])), len(rate) - 1)
        below = max(above - 1, 0)
        part = rate[above] - rate[below]
        share = (reached[outcome] - rate[below]) / part if part > 0 else 1.0
        thresholds[group, :2] = marks[[below, above]]
        chances[group, :2] = 1 - share, share
    return DecisionRules(thresholds, chances, turned)
