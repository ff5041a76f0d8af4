"""Tests whether a good average hides a subgroup that is unstable or fares worse.

Every repeat draws the test folds anew. A subgroup is unstable if its average odds
difference varies more from fold to fold than under the base model.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from experiments.core.files import csv_text
from experiments.intersectional import verdicts
from experiments.intersectional.groups import SUBGROUP
from experiments.intersectional.results import Results
from experiments.intersectional.verdicts import Claim, Evaluations, Verdict
from experiments.reporting import markdown
from experiments.reporting.differences import LEVEL, untested
from fairjax.evaluation import Comparison, compare, holm
from fairjax.evaluation.names import AVERAGE_ODDS, DISTANCE

_MEAN = f"{AVERAGE_ODDS}/mean"
_OWN = f"{AVERAGE_ODDS}/{SUBGROUP}="
_APART = f"{AVERAGE_ODDS}/{DISTANCE} {SUBGROUP}="
# Number of tests to show, the most in favour of the claim.
_SHOWN = 5
# Fewest folds with which a swap can be significant, and number of swaps.
_FEWEST, _SWAPS = 6, 20_000


def unstable_subgroup(
    known: Evaluations,
    folds: Mapping[str, Mapping[str, np.ndarray]],
    titles: Mapping[str, str],
) -> Claim:
    """Tests whether a subgroup varies more from fold to fold if the average is better.

    Args:
      known: Name of a configuration -> its evaluation.
      folds: Name of a configuration -> metric -> values in single test folds, with the
        folds of a repeat next to each other.
      titles: Name -> its name for readers.
    """
    text = "A good average hides an unstable subgroup."
    measured = (
        "in each configuration with a smaller mean distance in average odds than the "
        "base model, the mean absolute deviation over test folds of each subgroup's "
        "average odds difference, from the median of the fold's repeat, against that "
        "under the base model, as the logarithm of their ratio; the claim holds if one "
        "is larger beyond noise, and does not hold if all are known and smaller beyond "
        "it; p is the share of random swaps of both models within folds that give a "
        "ratio as far from 1, so that its noise is that of the splits, for these "
        "patients"
    )
    if (
        verdicts.missing(known, ("base",))
        or len(known) < 2
        or verdicts.missing(folds, known)
    ):
        return Claim(text, measured, "not run", {})
    base = known["base"]
    good = [n for n in known if n != "base" and known[n].mean(_MEAN) < base.mean(_MEAN)]
    if not good:
        more = ("No configuration has a smaller mean than the base model.",)
        return Claim(text, measured, "not shown", {}, more)
    repeats = len(base.repeats[_MEAN])
    found = {
        f"{titles[name]}, {metric.removeprefix(_OWN)}": spread_ratio(
            folds[name][metric].reshape(repeats, -1),
            folds["base"][metric].reshape(repeats, -1),
        )
        for name in good
        for metric in folds[name]
        # The reference is left out, whose difference from itself is always 0.
        if metric.startswith(_OWN) and metric.replace(_OWN, _APART) in base.repeats
    }
    tests = holm({key: c for key, c in found.items() if not math.isnan(c.p)})
    verdict: Verdict = verdicts.one_of(tests.values()) if tests else "not tested"
    if verdict == "does not hold" and len(tests) < len(found):
        verdict = "not shown"
    signs = [verdicts.shows(c) for c in tests.values()]
    more = (
        f"Of {len(tests)} mean absolute deviations in {len(good)} such configurations "
        f"({', '.join(titles[n] for n in good)}), "
        f"{sum(c.difference > 0 for c in tests.values())} are larger than under the "
        f"base model, {signs.count(1)} beyond noise (Holm), and {signs.count(-1)} "
        "smaller beyond it."
        + (
            f" {len(found) - len(tests)} more are not known."
            if len(tests) < len(found)
            else ""
        ),
        _worse_subgroup(known, good),
    )
    return Claim(text, measured, verdict, _largest(tests), more)


def spread_ratio(one: np.ndarray, other: np.ndarray) -> Comparison:
    """Computes the logarithm of the ratio of two paired mean absolute deviations.

    Deviations are from the median of a repeat's folds. If both models varied equally,
    their deviations in a fold would be exchangeable. The p-value is the fraction of
    random swaps within folds that give a ratio at least as far from 1, which is valid
    for any distribution. The interval contains the ratios that this test does not
    refute at 5 %.

    Args:
      one: ``[R, F]``; NaN where undefined.
      other: ``[R, F]``, of the same folds; its deviation is the denominator.

    Returns:
      The comparison; NaN if fewer than six folds are known, or one of the two models
      does not vary.

    Example:
      >>> import numpy as np
      >>> other = np.array([[1.0, 2.0, 4.0, 3.0, 0.0], [0.0, 1.0, 5.0, 2.0, 2.0]])
      >>> found = spread_ratio(2 * other, other)
      >>> [round(x, 3) for x in (found.difference, found.low, found.high)]
      [0.693, 0.693, 0.693]
    """
    both = np.isfinite(one) & np.isfinite(other)
    apart = [_deviations(values, both) for values in (one, other)]
    totals = [float(each.sum()) for each in apart]
    if both.sum() < _FEWEST or min(totals) < 1e-10:
        return Comparison(*[math.nan] * 4)
    swapped = np.random.default_rng(0).random((_SWAPS, len(apart[0]))) < 0.5
    given, taken = (swapped @ each for each in apart)

    def refuted(shift: float) -> float:
        """Computes the p-value of a logarithm of the ratio."""
        factor = math.exp(-shift)
        first = factor * (totals[0] - given) + taken
        second = totals[1] - taken + factor * given
        found = abs(math.log(factor * totals[0] / totals[1]))
        with np.errstate(divide="ignore"):
            reached = np.abs(np.log(first / second)) >= found - 1e-9
        return (1 + int(reached.sum())) / (1 + _SWAPS)

    middle = math.log(totals[0] / totals[1])
    ends = [_end(refuted, middle, side) for side in (-1, 1)]
    return Comparison(middle, ends[0], ends[1], refuted(0.0))


def _end(refuted: Callable[[float], float], middle: float, side: int) -> float:
    """Finds where the p-value falls below 5 %, on one side of the estimate."""
    inner, outer = 0.0, 8.0
    for _ in range(30):
        half = (inner + outer) / 2
        if refuted(middle + side * half) < LEVEL:
            outer = half
        else:
            inner = half
    return middle + side * outer


def _deviations(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Computes the distances of the used values from the median of their repeat."""
    return np.concatenate(
        [
            np.abs(row[own] - np.median(row[own]))
            for row, own in zip(values, used, strict=True)
            if own.any()
        ]
        or [np.zeros(0)]
    )


def _worse_subgroup(known: Evaluations, good: list[str]) -> str:
    """Says whether a subgroup's mean over folds is worse than under the base model."""
    compared = {
        f"{name} {metric}": compare(known[name], known["base"], metric)
        for name in good
        for metric in known["base"].repeats
        if metric.startswith(_APART)
    }
    larger = sum(c.difference > 0 for c in compared.values())
    start = (
        "Whether one fares worse, in the mean of all folds, is another question: of "
        f"{len(compared)} distances there {larger} are larger than under the base model"
    )
    tests = holm(compared).values()
    if untested(tests):
        return f"{start}; one repeat tests none."
    signs = [verdicts.shows(c) for c in tests]
    return (
        f"{start}, {signs.count(1)} beyond noise (Holm), and {signs.count(-1)} smaller "
        "beyond it."
    )


def _largest(tests: Mapping[str, Comparison]) -> dict[str, Comparison]:
    order = sorted(tests, key=lambda key: -tests[key].difference)
    return {key: tests[key] for key in order[:_SHOWN]}


def as_csv(results: Results) -> str:
    """Makes CSV of the average odds difference of each subgroup in each test fold."""
    rows = []
    for title, metrics in results.folds.values.items():
        for metric, values in metrics.items():
            level = metric.removeprefix(_OWN)
            if level in (metric, results.subgroups.reference):
                continue
            for place, value in enumerate(values):
                where = divmod(place, results.splits.num_folds)
                text = "" if np.isnan(value) else f"{value:.6g}"
                rows.append([title, level, *where, text])
    return csv_text(["configuration", "subgroup", "repeat", "fold", "value"], rows)


def spreads(results: Results) -> str:
    """Lists standard deviations over the test folds of the clean protocol."""
    sentences = []
    for name in ("base", "egr_eo", "dir_egr_eo"):
        values = results.folds.values.get(name)
        if values is not None:
            sentences.append(f"{results.titles[name]}: {_spreads(results, values)}")
    return " ".join(sentences)


def _spreads(results: Results, values: Mapping[str, np.ndarray]) -> str:
    own = {
        metric.removeprefix(_OWN): values[metric]
        for metric in values
        if metric.startswith(_OWN)
    }
    own.pop(results.subgroups.reference, None)
    found = {level: spread(folds) for level, folds in own.items()}
    known = [level for level in own if np.isfinite(found[level])]
    total = len(values[_MEAN])
    if not known:
        return f"no subgroup is known in two of the {total} test folds."

    def of(level: str) -> str:
        number = int(np.isfinite(own[level]).sum())
        return f"{found[level]:.3f} over {number} of {total} test folds"

    worst = max(known, key=lambda level: found[level])
    calm = min(known, key=lambda level: found[level])
    unknown = [markdown.escape(level) for level in own if level not in known]
    mean = values[_MEAN]
    return (
        f"the average odds difference of {markdown.escape(worst)} has a standard "
        f"deviation of {of(worst)}, that of {markdown.escape(calm)} {of(calm)}, and "
        f"the mean distance of all subgroups {markdown.number(spread(mean), 3)} over "
        f"{int(np.isfinite(mean).sum())}."
        + (f" Known in fewer than two: {', '.join(unknown)}." if unknown else "")
    )


def spread(values: np.ndarray) -> float:
    """Computes the standard deviation of the known values; NaN of fewer than two.

    Example:
      >>> spread(np.array([0.1, 0.3, np.nan])), spread(np.array([np.nan, 0.3]))
      (0.1414213562373095, nan)
    """
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
