"""The document's entries from arrays: names for indices, JSON numbers for floats."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fairjax import metrics
from fairjax.audit._comparisons import ODDS_GAPS, SHARE_GAPS, Gap, Support
from fairjax.audit._families import Family
from fairjax.audit._measures import SHARES, Measured
from fairjax.audit._pointwise import SENSITIVITY_THRESHOLDS, THRESHOLDS, Curves
from fairjax.audit.reading.data import Attribute

Entry = dict[str, Any]
_WILSON, _MOVER = "Wilson", "limits recovered from Wilson's"
METHODS = {
    **dict.fromkeys(SHARES, _WILSON),
    "true_negative_rate": _WILSON,
    "false_negative_rate": _WILSON,
    "error_rate": _WILSON,
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
    """Seven significant digits, so that files stay readable; None if not finite."""
    value = float(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Each as `number`."""
    return [number(value) for value in np.asarray(values).ravel().tolist()]


def family(of: Family) -> Entry:
    """What the groups of a family are."""
    return {
        "name": of.name,
        "levels": list(of.levels),
        "binned": of.binned,
        "intersection": of.intersection,
    }


def cohort(
    family: Family,
    measured: Measured,
    patients: np.ndarray | None,
    enough: np.ndarray,
) -> Iterator[Entry]:
    """A group's size, outcome and whether it can be compared.

    Args:
      family: The groups.
      measured: For their counts and prevalence.
      patients: ``[G]`` patients of each; None without patients' ids.
      enough: ``[G]``, whether there are enough positives and negatives.
    """
    outcomes = np.asarray(measured.counts.counts).sum(axis=2)
    for i, level in enumerate(family.levels):
        negatives, positives = outcomes[i].tolist()
        total = negatives + positives
        status = "ok" if enough[i] else "insufficient"
        yield {
            "attribute": family.name,
            "group": level,
            "rows": total,
            "patients": None if patients is None else int(patients[i]),
            "positives": positives,
            "negatives": negatives,
            "prevalence": number(measured.prevalence.value[i]),
            "lower": number(measured.prevalence.lower[i]),
            "upper": number(measured.prevalence.upper[i]),
            "status": status if total else "empty",
        }


def method(metric: str, by_patient: bool) -> str | None:
    """How the interval of a metric is made."""
    name = METHODS[metric]
    return f"{name}{_BY_PATIENT}" if name and by_patient else name


def overall(model: str, measured: Measured) -> Iterator[Entry]:
    """Metrics over all rows, the first group of a family of one."""
    by_patient = measured.shares.covariance is not None
    for metric, found in measured.estimates.items():
        yield {
            "model": model,
            "metric": metric,
            "estimate": number(found.value[0]),
            "lower": number(found.lower[0]),
            "upper": number(found.upper[0]),
            "method": method(metric, by_patient),
        }


def groups(
    model: str,
    family: Family,
    measured: Measured,
    supported: Support,
) -> Iterator[Entry]:
    """Each metric of each group."""
    by_patient = measured.shares.covariance is not None
    shrunken = _shrunken(np.asarray(measured.shrunken))
    outcomes = np.asarray(measured.counts.counts).sum(axis=2)
    enough = enough_for(supported)
    for metric, found in measured.estimates.items():
        for i, level in enumerate(family.levels):
            total = int(outcomes[i].sum())
            known = bool(enough[metric][i])
            yield {
                "model": model,
                "attribute": family.name,
                "group": level,
                "metric": metric,
                # Of too few patients a number says more about chance than about them.
                "estimate": number(found.value[i]) if known else None,
                "lower": number(found.lower[i]) if known else None,
                "upper": number(found.upper[i]) if known else None,
                "method": method(metric, by_patient),
                "shrunken": (
                    number(shrunken[metric][i])
                    if known and metric in shrunken
                    else None
                ),
                "rows": total,
                "positives": int(outcomes[i, 1]),
                "denominator": number(found.rows[i]),
                "status": ("ok" if known else "insufficient") if total else "empty",
            }


def _shrunken(rates: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "false_positive_rate": rates[:, 0],
        "true_positive_rate": rates[:, 1],
        "true_negative_rate": 1 - rates[:, 0],
        "false_negative_rate": 1 - rates[:, 1],
    }


def enough_for(supported: Support) -> dict[str, np.ndarray]:
    """Metric -> which groups have enough rows for it."""
    shares = dict(zip(SHARES, np.asarray(supported.shares), strict=True))
    shares["true_negative_rate"] = shares["false_positive_rate"]
    shares["false_negative_rate"] = shares["true_positive_rate"]
    shares["error_rate"] = shares["accuracy"]
    # It is of what is found and what is missed, and needs someone to find.
    shares["f1_score"] = shares.pop("jaccard") & shares["true_positive_rate"]
    both = np.asarray(supported.both)
    rest = {name: both for name in METHODS if name not in shares}
    return shares | rest


def gaps(
    model: str,
    family: Family,
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
      found: The gaps.
      supported: Which groups have enough rows for them.
      by_patient: Whether patients have several rows.
      hidden: Metric of a group -> which groups are withheld; None for none.
    """
    enough = enough_for(supported)
    present = np.bincount(family.codes[family.codes >= 0], minlength=len(family.levels))
    for metric, gap in found.items():
        rates = gap_metrics(metric)
        gone = np.zeros(len(family.levels), bool)
        if hidden is not None:
            gone = np.any([hidden[rate] for rate in rates], axis=0)
        compared, left_out = _who(family, rates, enough, (present > 0) & ~gone)
        withheld = [one for one, away in zip(family.levels, gone, strict=True) if away]
        estimate = number(gap.interval.estimate)
        test = _SIMULTANEOUS + (_BY_PATIENT if by_patient else "")
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


def gap_metrics(metric: str) -> Sequence[str]:
    """The groups' metrics that a gap is of."""
    if metric == "equalized_odds_difference":
        return ("true_positive_rate", "false_positive_rate")
    if metric == "demographic_parity_ratio":
        return ("selection_rate",)
    return (SHARE_GAPS.get(metric, metric.removesuffix("_difference")),)


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


def curves(
    model: str,
    family: Family,
    measured: Measured,
    found: Curves,
    enough: np.ndarray,
) -> dict[str, list[Entry]]:
    """The three kinds of curves of every group with enough rows."""
    kinds: dict[str, list[Entry]] = {"roc": [], "calibration": [], "decision": []}
    for i, level in enumerate(family.levels):
        if not enough[i]:
            continue
        head = {"model": model, "attribute": family.name, "group": level}
        roc = found.roc
        kinds["roc"].append(
            head | {"fpr": numbers(roc.fpr), "tpr": numbers(roc.tpr[i])}
        )
        bins = measured.calibration
        filled = np.asarray(bins.rows[i]) > 0
        columns = {
            "predicted": bins.mean_score,
            "observed": bins.observed,
            "lower": measured.observed.lower,
            "upper": measured.observed.upper,
            "rows": bins.rows,
        }
        kinds["calibration"].append(
            head | {k: numbers(np.asarray(v[i])[filled]) for k, v in columns.items()}
        )
        decision = found.decision
        kinds["decision"].append(
            head
            | {
                "threshold": numbers(THRESHOLDS),
                "net_benefit": numbers(decision.model[i]),
                "treat_all": numbers(decision.treat_all[i]),
            }
        )
    return kinds


def sensitivity(model: str, family: Family, found: metrics.GapInterval) -> Entry:
    """Equalized odds against the threshold."""
    return {
        "model": model,
        "attribute": family.name,
        "metric": "equalized_odds_difference",
        "threshold": numbers(SENSITIVITY_THRESHOLDS),
        **{
            name: numbers(getattr(found, name))
            for name in ("estimate", "lower", "upper")
        },
    }


def discovery(
    model: str,
    metric: str,
    found: metrics.Intersections,
    attributes: Sequence[Attribute],
    labels: np.ndarray,
    searches: int,
) -> Iterator[Entry]:
    """The worst intersections, by name; corrected for all searches of the audit."""
    for i, row in enumerate(np.asarray(found.levels)):
        held = {a: a.levels[j] for a, j in zip(attributes, row, strict=True) if j >= 0}
        inside = np.ones(len(labels), bool)
        for attribute, level in held.items():
            inside &= attribute.codes == attribute.levels.index(level)
        yield {
            "model": model,
            "metric": metric,
            "group": ", ".join(f"{a.name} = {level}" for a, level in held.items()),
            "attributes": {a.name: level for a, level in held.items()},
            "rows": int(inside.sum()),
            "positives": int(labels[inside].sum()),
            "estimate": number(found.estimate[i]),
            "rest": number(found.rest[i]),
            "difference": number(found.difference[i]),
            "p": number(found.p_value[i]),
            "p_corrected": number(min(1, searches * float(found.corrected_p_value[i]))),
            "searched": found.searched,
        }


def comparison(
    model: str,
    baseline: str,
    attribute: str,
    found: metrics.PositiveSum,
    levels: Sequence[str | None],
    margin: float,
) -> Entry:
    """A model held against the baseline; padded groups have no name."""
    worst = int(found.worst_group)
    return {
        "model": model,
        "baseline": baseline,
        "attribute": attribute,
        "gain": _change(found.gain, found.gain_lower, found.gain_upper),
        "worst": _change(found.worst, found.worst_lower, found.worst_upper)
        | {"group": levels[worst] if worst >= 0 else None},
        "margin": margin,
        "verdict": metrics.VERDICTS[int(found.verdict)],
        "groups": [
            _change(found.group_gains[i], found.group_lower[i], found.group_upper[i])
            | {"group": level}
            for i, level in enumerate(levels)
            if level is not None and bool(found.compared[i])
        ],
    }


def _change(estimate: Any, lower: Any, upper: Any) -> Entry:
    ends = {"estimate": estimate, "lower": lower, "upper": upper}
    return {name: number(value) for name, value in ends.items()}
