"""The document's entries from arrays: names for indices, JSON numbers for floats."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fairjax import metrics
from fairjax.audit._comparisons import Support
from fairjax.audit._families import Family
from fairjax.audit._measures import SHARES, Measured
from fairjax.audit._pointwise import SENSITIVITY_THRESHOLDS, THRESHOLDS, Curves
from fairjax.audit.reading.data import Attribute
from fairjax.metrics.definitions import COMPLEMENTS

Entry = dict[str, Any]
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
BY_PATIENT = ", by patient"


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
    return f"{name}{BY_PATIENT}" if name and by_patient else name


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
    found = {"false_positive_rate": rates[:, 0], "true_positive_rate": rates[:, 1]}
    others = {name: of for name, of in COMPLEMENTS.items() if of in found}
    return found | {name: 1 - found[of] for name, of in others.items()}


def enough_for(supported: Support) -> dict[str, np.ndarray]:
    """Metric -> which groups have enough rows for it."""
    shares = dict(zip(SHARES, np.asarray(supported.shares), strict=True))
    shares |= {name: shares[of] for name, of in COMPLEMENTS.items()}
    # It is of what is found and what is missed, and needs someone to find.
    shares["f1_score"] = shares.pop("jaccard") & shares["true_positive_rate"]
    both = np.asarray(supported.both)
    rest = {name: both for name in METHODS if name not in shares}
    return shares | rest


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
    hidden: Sequence[bool],
    occurs: Sequence[bool],
    margin: float,
) -> Entry:
    """A model held against the baseline.

    Args:
      model: Its name.
      baseline: The other's.
      attribute: What the groups are of.
      found: The changes.
      levels: Names of the groups; None for those that pad.
      hidden: Which are withheld.
      occurs: Which have rows.
      margin: Loss that counts as no harm.
    """
    named = [(i, level) for i, level in enumerate(levels) if level is not None]
    compared = np.asarray(found.compared)
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
            for i, level in named
            if compared[i]
        ],
        "left_out": [
            level
            for i, level in named
            if occurs[i] and not compared[i] and not hidden[i]
        ],
        "withheld": [level for i, level in named if hidden[i]],
    }


def _change(estimate: Any, lower: Any, upper: Any) -> Entry:
    ends = {"estimate": estimate, "lower": lower, "upper": upper}
    return {name: number(value) for name, value in ends.items()}
