"""The document's gaps from arrays: who is compared, and p-values for all tests."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fairjax import metrics
from fairjax.audit._comparisons import ODDS_GAPS, Gap, Support
from fairjax.audit._entries import BY_PATIENT, Entry, enough_for, number
from fairjax.audit._families import Family
from fairjax.audit._measures import Measured
from fairjax.metrics.definitions import GAPS

_SIMULTANEOUS = "simultaneous interval over pairs"
_SAME_TEST = {"demographic_parity_ratio": "demographic_parity_difference"}


def gaps(
    model: str,
    family: Family,
    measured: Measured,
    found: Mapping[str, Gap],
    supported: Support,
    *,
    by_patient: bool,
    hidden: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Entry]:
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
        rates = GAPS[metric].rates
        gone = np.zeros(len(family.levels), bool)
        if hidden is not None:
            gone = np.any([hidden[rate] for rate in rates], axis=0)
        compared, left_out = _who(family, rates, enough, present & ~gone)
        withheld = [one for one, away in zip(family.levels, gone, strict=True) if away]
        estimate = number(gap.interval.estimate)
        test = _SIMULTANEOUS + (BY_PATIENT if by_patient else "")
        highest, lowest = _extremes(family, metric, found)
        yield {
            "model": model,
            "attribute": family.name,
            "metric": metric,
            "estimate": estimate,
            "lower": number(gap.interval.lower),
            "upper": number(gap.interval.upper),
            "corrected": number(gap.noise.corrected),
            "noise_floor": number(gap.noise.floor),
            "p": number(gap.interval.p_value),
            "p_adjusted": None,
            "test": None if estimate is None else test,
            "highest": highest,
            "lowest": lowest,
            "compared": compared,
            "left_out": left_out,
            "withheld": withheld,
            "status": (
                "ok"
                if estimate is not None
                else "suppressed"
                if withheld
                else "insufficient"
            ),
        }


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


def _extremes(
    family: Family, metric: str, found: Mapping[str, Gap]
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


def _or_less(gap: Gap) -> float:
    estimate = float(gap.interval.estimate)
    return estimate if math.isfinite(estimate) else -1.0


def adjust(entries: Sequence[Entry], correction: str) -> None:
    """Fills in ``p_adjusted``, over all tests of all models.

    The ratio of selection rates asks what their difference asks, and is no second test.
    """
    corrections = {
        "holm": metrics.holm,
        "benjamini-hochberg": metrics.benjamini_hochberg,
    }

    def of(entry: Entry) -> tuple[Any, ...]:
        metric = _SAME_TEST.get(entry["metric"], entry["metric"])
        return entry["model"], entry["attribute"], metric

    tests = {of(e): e["p"] for e in entries if e["p"] is not None}
    if not tests:
        return
    adjusted = np.asarray(corrections[correction](np.array(list(tests.values()))))
    by_test = dict(zip(tests, adjusted, strict=True))
    for entry in entries:
        if entry["p"] is not None:
            entry["p_adjusted"] = number(by_test[of(entry)])
