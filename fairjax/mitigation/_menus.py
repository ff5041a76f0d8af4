"""The thresholds that a linear programme chooses from, and the rates of each."""

from typing import NamedTuple

import numpy as np

# The most thresholds among which one rule for all groups is sought.
_SHARED = 1000


class Rows(NamedTuple):
    """Checked columns of patients: outcome, score, group and weight, each ``[n]``."""

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    weights: np.ndarray


class Menu(NamedTuple):
    """Thresholds to choose from, and what each does to the rates of G groups.

    ``owner``: ``[C]``, which rule a choice belongs to; ``rates``: ``[2, G, C]``, false
    and true positive rates that a chance of 1 adds to each group's.
    """

    thresholds: np.ndarray
    reversed: np.ndarray
    owner: np.ndarray
    rates: np.ndarray


def curve(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray):
    """Thresholds from the highest down and their rates, ``[T]`` and ``[2, T]``.

    The rates of an outcome that nobody has are 0 up to the last, which is 1.
    """
    order = np.argsort(-scores, kind="stable")
    scores, labels, weights = scores[order], labels[order], weights[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    passed = np.stack([np.cumsum(weights * (labels == y))[last] for y in (0, 1)])
    totals = passed[:, -1:]
    rates = np.minimum(passed / np.where(totals > 0, totals, 1.0), 1.0)
    thresholds = scores[last]
    # Whoever comes later with a lower score is selected where everybody was.
    thresholds[-1] = -np.inf
    rates[:, -1] = 1.0
    return np.append(np.inf, thresholds), np.pad(rates, ((0, 0), (1, 0)))


def own_menu(rows: Rows, chosen: np.ndarray, masses, reverse: bool) -> Menu:
    """For each group the vertices of its curve's upper hull."""
    del masses
    parts = []
    for place, group in enumerate(chosen):
        mine = (rows.groups == group) & (rows.weights > 0)
        thresholds, rates = curve(
            rows.labels[mine], rows.scores[mine], rows.weights[mine]
        )
        turned = np.zeros(len(thresholds), bool)
        if reverse:
            thresholds = np.concatenate([thresholds, thresholds[1:-1]])
            rates = np.concatenate([rates, 1 - rates[:, 1:-1]], axis=1)
            turned = np.arange(len(thresholds)) >= len(turned)
        kept = _upper_hull(*rates)
        own = np.zeros((2, len(chosen), len(kept)))
        own[:, place] = rates[:, kept]
        owner = np.full(len(kept), place)
        parts.append(Menu(thresholds[kept], turned[kept], owner, own))
    return Menu(*(np.concatenate(each, axis=-1) for each in zip(*parts, strict=True)))


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


def shared_menu(rows: Rows, chosen: np.ndarray, masses, reverse: bool) -> Menu:
    """Some thresholds for everybody, and what each does to every group."""
    inner = _candidates(rows)
    thresholds = np.concatenate([[-np.inf], inner, [np.inf]])
    turned = np.zeros(len(thresholds), bool)
    passed = np.searchsorted(thresholds, rows.scores, side="right")
    cell = (rows.groups * 2 + rows.labels) * (len(thresholds) + 1) + passed
    shape = (*masses.shape, len(thresholds) + 1)
    mass = np.bincount(cell, rows.weights, np.prod(shape)).reshape(shape)
    at_least = np.cumsum(mass[..., ::-1], axis=-1)[..., -2::-1]
    rates = np.minimum(at_least[chosen] / masses[chosen][..., None], 1.0)
    rates = rates.transpose(1, 0, 2)
    if reverse:
        thresholds = np.concatenate([thresholds, inner])
        rates = np.concatenate([rates, 1 - rates[..., 1:-1]], axis=-1)
        turned = np.arange(len(thresholds)) >= len(turned)
    return Menu(thresholds, turned, np.zeros(len(thresholds), np.int64), rates)


def _candidates(rows: Rows) -> np.ndarray:
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
