"""The document's gaps from arrays: who is compared, and p-values for all tests."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fairjax import metrics
from fairjax.audit.measure import _comparisons
from fairjax.audit.measure._comparisons import ODDS_GAPS, SHARE_GAPS, Support
from fairjax.audit.measure._entries import BY_PATIENT, enough_for, number
from fairjax.audit.measure._estimates import Measured
from fairjax.audit.measure._families import Family
from fairjax.audit.schema import Gap

_SIMULTANEOUS = "simultaneous interval over pairs"
_SAME_TEST = {"demographic_parity_ratio": "demographic_parity_difference"}


def gaps(
    model: str,
    family: Family,
    measured: Measured,
    found: Mapping[str, _comparisons.Gap],
    supported: Support,
    *,
    by_patient: bool,
    hidden: Callable[[str], np.ndarray] | None = None,
) -> Iterator[Gap]:
    """Each gap of the family; the p-values are adjusted later.

    Args:
      model: Name of the model.
      family: The groups.
      measured: For who has rows.
      found: The gaps.
      supported: Which groups have enough rows for them.
      by_patient: Whether patients have several rows.
      hidden: Metric of a group -> which groups are withheld; None for none.
    """
    enough = enough_for(supported)
    rows = np.asarray(measured.counts.counts).sum(axis=(1, 2))
    present = rows[: len(family.levels)] > 0
    for metric, gap in found.items():
        rates = gap_metrics(metric)
        gone = np.zeros(len(family.levels), bool)
        if hidden is not None:
            gone = np.any([hidden(rate) for rate in rates], axis=0)
        compared, left_out = _who(family, rates, enough, present & ~gone)
        withheld = [one for one, away in zip(family.levels, gone, strict=True) if away]
        estimate = number(gap.interval.estimate)
        test = _SIMULTANEOUS + (BY_PATIENT if by_patient else "")
        highest, lowest = _extremes(family, metric, found)
        lacking = "suppressed" if withheld else "insufficient"
        yield Gap(
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
    family: Family,
    rates: Sequence[str],
    enough: Mapping[str, np.ndarray],
    present: np.ndarray,
) -> tuple[list[str], list[str]]:
    """Who is compared, and who is too few: of several rates, by which one.

    Nobody is left out with a group that has no rows, nor with one that is withheld,
    which is told elsewhere.
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


def gap_metrics(metric: str) -> Sequence[str]:
    """The groups' metrics that a gap is of."""
    if metric == "equalized_odds_difference":
        return ("true_positive_rate", "false_positive_rate")
    if metric == "demographic_parity_ratio":
        return ("selection_rate",)
    return (SHARE_GAPS.get(metric, metric.removesuffix("_difference")),)


def _extremes(
    family: Family, metric: str, found: Mapping[str, _comparisons.Gap]
) -> tuple[str | None, str | None]:
    """Whose the largest and the smallest value are."""
    if metric == "equalized_odds_difference":
        # Those of the rate whose gap it is.
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


def adjusted(gaps: Sequence[Gap], correction: str) -> list[Gap]:
    """The gaps with ``p_adjusted``, over all tests of all models.

    The ratio of selection rates asks what their difference asks, and is no second test.
    """
    corrections = {
        "holm": metrics.holm,
        "benjamini-hochberg": metrics.benjamini_hochberg,
    }

    def test(gap: Gap) -> tuple[str, ...]:
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
