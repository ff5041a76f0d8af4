"""Whether a good average hides a subgroup that is unstable, or one that fares worse.

Which patients are in which test fold is drawn anew in every repeat. A subgroup is
unstable where its average odds difference varies from fold to fold more than it does
under the base model.
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from experiments import markdown
from experiments.comparison import Comparison, compare, holm
from experiments.intersectional_groups import SUBGROUP
from experiments.intersectional_results import Results
from experiments.intersectional_verdicts import (
    Claim,
    Evaluations,
    Verdict,
    missing,
    one_of,
    shows,
)
from experiments.level_measures import AVERAGE_ODDS, DISTANCE

_MEAN = f"{AVERAGE_ODDS}/mean"
_OWN = f"{AVERAGE_ODDS}/{SUBGROUP}="
_APART = f"{AVERAGE_ODDS}/{DISTANCE} {SUBGROUP}="
# Of so many tests those that speak for the claim most.
_SHOWN = 5


def unstable_subgroup(
    known: Evaluations,
    folds: Mapping[str, Mapping[str, np.ndarray]],
    titles: Mapping[str, str],
) -> Claim:
    """Whether a subgroup varies more from fold to fold where the average is better.

    Args:
      known: Name of a configuration -> its evaluation.
      folds: Likewise -> metric -> its values in single test folds, those of a repeat
        side by side.
      titles: Name -> its name for readers.
    """
    text = "A good average hides an unstable subgroup."
    measured = (
        "in each configuration with a smaller mean distance in average odds than the "
        "base model, the standard deviation over test folds of each subgroup's average "
        "odds difference against that under the base model, as the logarithm of their "
        "ratio; the claim holds if one is larger beyond noise, and does not hold if "
        "all are smaller beyond it; the noise is that of the splits, for these patients"
    )
    if missing(known, ("base",)) or len(known) < 2 or missing(folds, known):
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
        # The reference has no difference from itself.
        if metric.startswith(_OWN) and metric.replace(_OWN, _APART) in base.repeats
    }
    tests = holm({key: c for key, c in found.items() if not math.isnan(c.p)})
    verdict: Verdict = one_of(tests.values()) if tests else "not tested"
    signs = [shows(c) for c in tests.values()]
    more = (
        f"Of {len(tests)} standard deviations in {len(good)} such configurations "
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
    r"""The logarithm of the ratio of two paired standard deviations.

    Both are of deviations from the mean of their repeat. By Pitman (1939) and Morgan
    (1939) the sum and the difference of paired values are uncorrelated where their
    variances are equal; the interval is Pitman's.

    Args:
      one: ``[R, F]``; NaN where undefined.
      other: ``[R, F]``, of the same folds; its deviation is the denominator.

    Returns:
      NaN where fewer than four deviations are free, or one of them does not vary.

    Example:
      >>> import numpy as np
      >>> other = np.array([[1.0, 2.0, 4.0, 3.0, 0.0], [0.0, 1.0, 5.0, 2.0, 2.0]])
      >>> found = spread_ratio(2 * other + [0.1, 0, 0.2, 0, 0], other)
      >>> round(found.difference, 2), bool(found.p < 0.001)
      (0.71, True)
    """
    both = np.isfinite(one) & np.isfinite(other)
    pair = [_within(values, both) for values in (one, other)]
    # A repeat of one value tells nothing, and takes nothing.
    free = int(np.maximum(both.sum(axis=1) - 1, 0).sum()) - 1
    squares = [float(x @ x) for x in pair]
    if free < 3 or min(squares) < 1e-20:
        return Comparison(*[math.nan] * 4)
    difference = 0.5 * math.log(squares[0] / squares[1])
    summed, apart = pair[0] + pair[1], pair[0] - pair[1]
    r = float(np.clip(pair[0] @ pair[1] / math.sqrt(squares[0] * squares[1]), -1, 1))
    scale = math.sqrt(float(summed @ summed) * float(apart @ apart))
    if scale < 1e-20:
        return Comparison(difference, difference, difference, 1.0 - (difference != 0))
    of_both = float(np.clip(summed @ apart / scale, -1, 1))
    t = of_both * math.sqrt(free / max(1 - of_both**2, 1e-300))
    reach = 1 + 2 * (1 - r**2) * float(stats.t.ppf(0.975, free)) ** 2 / free
    half = 0.5 * math.log(reach + math.sqrt(reach**2 - 1))
    p = 2 * float(stats.t.sf(abs(t), free))
    return Comparison(difference, difference - half, difference + half, p)


def _within(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The values that are used, less the mean of those of their repeat."""
    counts = np.maximum(used.sum(axis=1, keepdims=True), 1)
    means = np.where(used, values, 0).sum(axis=1, keepdims=True) / counts
    return (values - means)[used]


def _worse_subgroup(known: Evaluations, good: list[str]) -> str:
    """Whether one is further off than under the base model: of means, not of folds."""
    adjusted = holm(
        {
            f"{name} {metric}": compare(known[name], known["base"], metric)
            for name in good
            for metric in known["base"].repeats
            if metric.startswith(_APART)
        }
    )
    signs = [shows(c) for c in adjusted.values()]
    return (
        "Whether one fares worse, in the mean of all folds, is another question: of "
        f"{len(adjusted)} distances there "
        f"{sum(c.difference > 0 for c in adjusted.values())} are larger than under the "
        f"base model, {signs.count(1)} beyond noise (Holm), and {signs.count(-1)} "
        "smaller beyond it."
    )


def _largest(tests: Mapping[str, Comparison]) -> dict[str, Comparison]:
    order = sorted(tests, key=lambda key: -tests[key].difference)
    return {key: tests[key] for key in order[:_SHOWN]}


def spreads(results: Results) -> str:
    """Standard deviations over the test folds of the clean protocol."""
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
    """The standard deviation of the values that are known; NaN of fewer than two.

    Example:
      >>> spread(np.array([0.1, 0.3, np.nan])), spread(np.array([np.nan, 0.3]))
      (0.1414213562373095, nan)
    """
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
