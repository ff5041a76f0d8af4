"""Tests whether a good average hides a subgroup that is unstable or fares worse.

Every repeat draws the test folds anew. A subgroup is unstable if its average odds
difference varies more from fold to fold than under the base model.
"""

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np

from experiments.core.files import csv_text
from experiments.intersectional import verdicts
from experiments.intersectional.groups import SUBGROUP
from experiments.intersectional.results import SAID, Results
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
    text, measured = SAID["unstable.text"], SAID["unstable.measured"]
    if (
        verdicts.missing(known, ("base",))
        or len(known) < 2
        or verdicts.missing(folds, known)
    ):
        return Claim(text, measured, "not run", {})
    base = known["base"]
    good = [n for n in known if n != "base" and known[n].mean(_MEAN) < base.mean(_MEAN)]
    if not good:
        return Claim(text, measured, "not shown", {}, (SAID["unstable.none"],))
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
    left, undefined = len(found) - len(tests), ""
    if left:
        undefined = " " + SAID["unstable.undefined"].format(number=left)
    more = SAID["unstable.counts"].format(
        tests=len(tests),
        good=len(good),
        names=", ".join(titles[name] for name in good),
        **_counts(tests.values()),
        undefined=undefined,
    )
    worse = _worse_subgroup(known, good)
    return Claim(text, measured, verdict, _largest(tests), (more, worse))


def _counts(tests: Collection[Comparison]) -> dict[str, int]:
    """Counts differences above 0, and significant differences of either sign."""
    signs = [verdicts.shows(c) for c in tests]
    larger = sum(c.difference > 0 for c in tests)
    return {"larger": larger, "higher": signs.count(1), "lower": signs.count(-1)}


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
    tests = holm(compared).values()
    once = ".once" if untested(tests) else ""
    return SAID[f"worse{once}"].format(number=len(compared), **_counts(tests))


def _largest(tests: Mapping[str, Comparison]) -> dict[str, Comparison]:
    order = sorted(tests, key=lambda key: -tests[key].difference)
    return {key: tests[key] for key in order[:_SHOWN]}


def as_csv(results: Results) -> str:
    """Makes CSV of the average odds difference of each subgroup in each test fold."""
    rows = []
    for title, metrics in results.folds.values.items():
        for level, values in _by_subgroup(results, metrics).items():
            for place, value in enumerate(values):
                where = divmod(place, results.splits.num_folds)
                text = "" if np.isnan(value) else f"{value:.6g}"
                rows.append([title, level, *where, text])
    return csv_text(["configuration", "subgroup", "repeat", "fold", "value"], rows)


def spreads(results: Results) -> str:
    """Lists standard deviations over the test folds of the clean protocol."""
    return " ".join(
        _spreads(results, results.titles[name], results.folds.values[name])
        for name in ("base", "egr_eo", "dir_egr_eo")
        if name in results.folds.values
    )


def _by_subgroup(
    results: Results, values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the average odds differences of each subgroup but the reference."""
    own = {m.removeprefix(_OWN): v for m, v in values.items() if m.startswith(_OWN)}
    own.pop(results.subgroups.reference, None)
    return own


def _spreads(results: Results, title: str, values: Mapping[str, np.ndarray]) -> str:
    own = _by_subgroup(results, values)
    found = {level: spread(folds) for level, folds in own.items()}
    known = [level for level in own if np.isfinite(found[level])]
    mean = values[_MEAN]
    if not known:
        return SAID["spread.none"].format(title=title, total=len(mean))

    def of(level: str) -> str:
        number = int(np.isfinite(own[level]).sum())
        said = SAID["spread.of"]
        return said.format(value=found[level], number=number, total=len(mean))

    worst, calm = (end(known, key=found.__getitem__) for end in (max, min))
    unknown = ", ".join(markdown.escape(level) for level in own if level not in known)
    return SAID["spread"].format(
        title=title,
        worst=markdown.escape(worst),
        most=of(worst),
        calm=markdown.escape(calm),
        fewest=of(calm),
        mean=markdown.number(spread(mean), 3),
        folds=int(np.isfinite(mean).sum()),
        unknown=" " + SAID["spread.unknown"].format(names=unknown) if unknown else "",
    )


def spread(values: np.ndarray) -> float:
    """Computes the standard deviation of the known values; NaN of fewer than two.

    Example:
      >>> spread(np.array([0.1, 0.3, np.nan])), spread(np.array([np.nan, 0.3]))
      (0.1414213562373095, nan)
    """
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
