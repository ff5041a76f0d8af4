"""Conversion of arrays to the document's entries: names and JSON numbers."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from fairjax import metrics
from fairjax.audit import schema
from fairjax.audit.measure import _comparisons, _pointwise
from fairjax.audit.measure._comparisons import ODDS_GAPS, Support
from fairjax.audit.measure._estimates import SHARES, Estimate, Measured
from fairjax.groups import Grouping
from fairjax.metrics.definitions import COMPLEMENTS, GAPS

_WILSON, _MOVER = "Wilson", "limits recovered from Wilson's"
METHODS = {
    **dict.fromkeys((*SHARES, *COMPLEMENTS), _WILSON),
    "f1_score": "Wilson, transformed",
    "balanced_accuracy": _MOVER,
    "auroc": "DeLong, logit",
    "auprc": "logit, of the positives",
    "brier_score": "normal",
    "calibration_intercept": "Wald",
    "calibration_slope": "Wald",
    "expected_calibration_error": None,
}
_BY_PATIENT = ", by patient"
_SIMULTANEOUS = "simultaneous interval over pairs"
_SAME_TEST = {"demographic_parity_ratio": "demographic_parity_difference"}


def number(value: Any) -> float | None:
    """Rounds to seven significant digits, for readable files; None if not finite."""
    value = float(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Applies `number` to each value."""
    return [number(value) for value in np.asarray(values).ravel().tolist()]


def ends(
    found: Estimate, group: int
) -> tuple[schema.Number, schema.Number, schema.Number]:
    """Returns the value of a group, and its interval."""
    return (
        number(found.value[group]),
        number(found.lower[group]),
        number(found.upper[group]),
    )


def cohort(
    family: Grouping,
    measured: Measured,
    patients: np.ndarray | None,
    enough: np.ndarray,
) -> Iterator[schema.Cohort]:
    """Yields size, prevalence and status of each group.

    Args:
      family: The grouping.
      measured: Metrics of the grouping, for counts and prevalence.
      patients: ``[G]``, number of patients of each group; None without identifiers.
      enough: ``[G]``, whether there are enough positives and negatives.
    """
    outcomes = np.asarray(measured.counts.counts).sum(axis=2)
    for i, level in enumerate(family.levels):
        negatives, positives = outcomes[i].tolist()
        total = negatives + positives
        yield schema.Cohort(
            family.name,
            level,
            total,
            None if patients is None else int(patients[i]),
            positives,
            negatives,
            *ends(measured.prevalence, i),
            _status(bool(enough[i]), total),
        )


def _status(enough: bool, rows: int) -> Literal["ok", "insufficient", "empty"]:
    if not rows:
        return "empty"
    return "ok" if enough else "insufficient"


def method(metric: str, by_patient: bool) -> str | None:
    """Returns the method of the interval of a metric."""
    name = METHODS[metric]
    return f"{name}{_BY_PATIENT}" if name and by_patient else name


def overall(model: str, measured: Measured) -> Iterator[schema.Overall]:
    """Yields metrics over all rows, the only group of their grouping."""
    by_patient = measured.shares.covariance is not None
    for metric, found in measured.estimates.items():
        yield schema.Overall(model, metric, *ends(found, 0), method(metric, by_patient))


def groups(
    model: str,
    family: Grouping,
    measured: Measured,
    supported: Support,
) -> Iterator[schema.Group]:
    """Yields each metric of each group."""
    by_patient = measured.shares.covariance is not None
    shrunken = _shrunken(np.asarray(measured.shrunken))
    outcomes = np.asarray(measured.counts.counts).sum(axis=2)
    enough = enough_for(supported)
    for metric, found in measured.estimates.items():
        for i, level in enumerate(family.levels):
            # A number from too few patients is mostly noise.
            known = bool(enough[metric][i])
            drawn = known and metric in shrunken
            total = int(outcomes[i].sum())
            interval = ends(found, i) if known else (None, None, None)
            yield schema.Group(
                model,
                family.name,
                level,
                metric,
                *interval,
                method(metric, by_patient),
                number(shrunken[metric][i]) if drawn else None,
                total,
                int(outcomes[i, 1]),
                number(found.rows[i]),
                _status(known, total),
            )


def _shrunken(rates: np.ndarray) -> dict[str, np.ndarray]:
    found = {"false_positive_rate": rates[:, 0], "true_positive_rate": rates[:, 1]}
    others = {name: of for name, of in COMPLEMENTS.items() if of in found}
    return found | {name: 1 - found[of] for name, of in others.items()}


def enough_for(supported: Support) -> dict[str, np.ndarray]:
    """Returns metric -> groups with enough rows for the metric."""
    shares = dict(zip(SHARES, np.asarray(supported.shares), strict=True))
    shares |= {name: shares[of] for name, of in COMPLEMENTS.items()}
    # F1 needs positives too, because without them there is nothing to find.
    shares["f1_score"] = shares.pop("jaccard") & shares["true_positive_rate"]
    both = np.asarray(supported.both)
    rest = {name: both for name in METHODS if name not in shares}
    return shares | rest


def gaps(
    model: str,
    family: Grouping,
    measured: Measured,
    found: Mapping[str, _comparisons.Gap],
    supported: Support,
    *,
    by_patient: bool,
    hidden: Callable[[str], np.ndarray] | None = None,
) -> Iterator[schema.Gap]:
    """Yields each gap of the grouping; the p-values are adjusted later.

    Args:
      model: Name of the model.
      family: The grouping.
      measured: Metrics of the grouping, for the numbers of rows.
      found: Name -> gap.
      supported: Groups with enough rows.
      by_patient: Whether patients have several rows.
      hidden: Metric -> suppressed groups; None for no suppression.
    """
    enough = enough_for(supported)
    rows = np.asarray(measured.counts.counts).sum(axis=(1, 2))
    present = rows[: len(family.levels)] > 0
    for metric, gap in found.items():
        rates = GAPS[metric].rates
        gone = np.zeros(len(family.levels), bool)
        if hidden is not None:
            gone = np.any([hidden(rate) for rate in rates], axis=0)
        compared, left_out = _who(family, rates, enough, present & ~gone)
        withheld = [one for one, away in zip(family.levels, gone, strict=True) if away]
        estimate = number(gap.interval.estimate)
        test = _SIMULTANEOUS + (_BY_PATIENT if by_patient else "")
        highest, lowest = _extremes(family, metric, found)
        lacking = "suppressed" if withheld else "insufficient"
        yield schema.Gap(
            model,
            family.name,
            metric,
            estimate,
            number(gap.interval.lower),
            number(gap.interval.upper),
            number(gap.noise.corrected),
            number(gap.noise.floor),
            number(gap.interval.p_value),
            None,
            None if estimate is None else test,
            highest,
            lowest,
            compared,
            left_out,
            withheld,
            lacking if estimate is None else "ok",
        )


def _who(
    family: Grouping,
    rates: Sequence[str],
    enough: Mapping[str, np.ndarray],
    present: np.ndarray,
) -> tuple[list[str], list[str]]:
    """Returns groups that are compared, and groups with too few rows.

    A group that only some of several rates leave out is named with these rates. Groups
    without rows and suppressed groups are in neither list.
    """
    compared, left_out = [], []
    for i in np.flatnonzero(present):
        level = family.levels[i]
        lacking = [rate for rate in rates if not enough[rate][i]]
        if len(lacking) < len(rates):
            compared.append(level)
            left_out += [f"{level} ({rate.replace('_', ' ')})" for rate in lacking]
        else:
            left_out.append(level)
    return compared, left_out


def _extremes(
    family: Grouping, metric: str, found: Mapping[str, _comparisons.Gap]
) -> tuple[str | None, str | None]:
    """Returns the groups with the largest and the smallest value."""
    if metric == "equalized_odds_difference":
        # The groups of the rate with the larger gap.
        metric = max(ODDS_GAPS, key=lambda name: _or_less(found[name]))
    gap = found[metric].interval
    ends = int(gap.highest[0]), int(gap.lowest[0])
    if min(ends) < 0:
        return None, None
    highest, lowest = (family.levels[end] for end in ends)
    return highest, lowest


def _or_less(gap: _comparisons.Gap) -> float:
    estimate = float(gap.interval.estimate)
    return estimate if math.isfinite(estimate) else -1.0


def adjusted(gaps: Sequence[schema.Gap], correction: str) -> list[schema.Gap]:
    """Returns the gaps with ``p_adjusted``, corrected over all tests of all models.

    The ratio of selection rates tests the same question as their difference, so the
    ratio is not a second test.
    """
    corrections = {
        "holm": metrics.holm,
        "benjamini-hochberg": metrics.benjamini_hochberg,
    }

    def test(gap: schema.Gap) -> tuple[str, ...]:
        return gap.model, gap.attribute, _SAME_TEST.get(gap.metric, gap.metric)

    tests = {test(gap): gap.p for gap in gaps if gap.p is not None}
    if not tests:
        return list(gaps)
    found = corrections[correction](np.array(list(tests.values())))
    by_test = dict(zip(tests, np.asarray(found), strict=True))
    return [
        gap if gap.p is None else replace(gap, p_adjusted=number(by_test[test(gap)]))
        for gap in gaps
    ]


def curves(
    model: str,
    family: Grouping,
    measured: Measured,
    found: _pointwise.Curves,
    enough: np.ndarray,
) -> schema.Curves:
    """Returns the three kinds of curves of every group with enough rows."""
    drawn = schema.Curves([], [], [])
    roc, bins, decision = found.roc, measured.calibration, found.decision
    series = (
        *(bins.mean_score, bins.observed),
        *(measured.observed.lower, measured.observed.upper, bins.rows),
    )
    for i, level in enumerate(family.levels):
        if not enough[i]:
            continue
        who = model, family.name, level
        drawn.roc.append(schema.Roc(*who, numbers(roc.fpr), numbers(roc.tpr[i])))
        filled = np.asarray(bins.rows[i]) > 0
        points = (numbers(np.asarray(values[i])[filled]) for values in series)
        drawn.calibration.append(schema.Calibration(*who, *points))
        lines = (_pointwise.THRESHOLDS, decision.model[i], decision.treat_all[i])
        drawn.decision.append(schema.Decision(*who, *map(numbers, lines)))
    return drawn


def sensitivity(
    model: str, family: Grouping, found: metrics.GapInterval
) -> schema.Sensitivity:
    """Returns equalized odds as a function of the threshold."""
    thresholds = _pointwise.SENSITIVITY_THRESHOLDS
    series = thresholds, found.estimate, found.lower, found.upper
    return schema.Sensitivity(
        model, family.name, "equalized_odds_difference", *map(numbers, series)
    )


def discovery(
    model: str,
    metric: str,
    found: metrics.Intersections,
    attributes: Sequence[Grouping],
    labels: np.ndarray,
    searches: int,
) -> Iterator[schema.Discovery]:
    """Yields the worst intersections by name, corrected for all searches."""
    for i, row in enumerate(np.asarray(found.levels)):
        held = {a: a.levels[j] for a, j in zip(attributes, row, strict=True) if j >= 0}
        inside = np.ones(len(labels), bool)
        for attribute, level in held.items():
            inside &= attribute.codes == attribute.levels.index(level)
        yield schema.Discovery(
            model,
            metric,
            ", ".join(f"{a.name} = {level}" for a, level in held.items()),
            {a.name: level for a, level in held.items()},
            int(inside.sum()),
            int(labels[inside].sum()),
            number(found.estimate[i]),
            number(found.rest[i]),
            number(found.difference[i]),
            number(found.p_value[i]),
            number(min(1, searches * float(found.corrected_p_value[i]))),
            found.searched,
        )
