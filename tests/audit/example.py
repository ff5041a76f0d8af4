"""A made-up audit document: two models, awkward names, empty and small groups.

The numbers come from simulated patients by plain NumPy, not by fairjax.metrics, so
that the report's tests stand alone; they look like an audit's, no more.
"""

import functools
import itertools
from unittest import mock

import jsonschema
import numpy as np

from fairjax.audit import figures, schema
from fairjax.audit.figures import draw
from fairjax.audit.page import page
from fairjax.audit.render import _curves as curve_figures
from fairjax.audit.wording import words

VALIDATOR = jsonschema.Draft202012Validator(schema.schema())
HOSTILE = "<script>alert(1)</script>"
FORMULA = "=cmd()"
SEX = ("F", "M")
RACE = ("white", "black", "Asian", HOSTILE, FORMULA)
INSURANCE = ("Medicare", "Medicaid", "Private", "No insurance", "missing")
RATES = {
    "true_positive_rate": (lambda y, d: d[y == 1], "Wilson"),
    "false_positive_rate": (lambda y, d: d[y == 0], "Wilson"),
    "positive_predictive_value": (lambda y, d: y[d == 1], "Wilson"),
    "negative_predictive_value": (lambda y, d: 1 - y[d == 0], "Wilson"),
    "selection_rate": (lambda y, d: d, "Wilson"),
}
GAPS = {
    "equal_opportunity_difference": "true_positive_rate",
    "false_positive_rate_difference": "false_positive_rate",
    "predictive_parity_difference": "positive_predictive_value",
    "demographic_parity_difference": "selection_rate",
    "auroc_difference": "auroc",
}
SUPPRESSED, INSUFFICIENT, EMPTY = "suppressed", "insufficient", "empty"


@functools.cache
def example():
    """The document that most tests share; they must not change it."""
    document = build()
    return document | words(document)


@functools.cache
def small():
    """One model on few rows, for tests that draw it more than once."""
    document = build(rows=900, models=1, only=("race",))
    return document | words(document)


def selected(document, model, attribute):
    """The document with one model's groups, curves and gaps over one attribute."""

    def chosen(entries, **wanted):
        return [e for e in entries if all(e[key] == wanted[key] for key in wanted)]

    groups = {"model": model, "attribute": attribute}
    curves = document["curves"].items()
    return document | {
        "groups": chosen(document["groups"], **groups),
        "gaps": chosen(document["gaps"], model=model),
        "sensitivity": chosen(document["sensitivity"], attribute=attribute),
        "curves": {kind: chosen(found, **groups) for kind, found in curves},
    }


@functools.cache
def drawings():
    """Figures of every kind, of the first model's groups by race."""
    return draw(selected(example(), "risk", "race"))


def sketched(document):
    """What the document's figures are of, in words; their pictures are empty."""
    numbers = itertools.count()

    def picture(*args, **kwargs):
        size = 'width="300pt" height="200pt" viewBox="0 0 300 200"'
        return f'<svg {size} id="{next(numbers)}"/>'.encode()

    kinds = ("roc", "calibration", "decision", "sensitivity", "quadrant")
    with (
        mock.patch.object(figures, "forest", picture),
        mock.patch.multiple(curve_figures, **dict.fromkeys(kinds, picture)),
    ):
        return draw(document)


@functools.cache
def sketches():
    """What all the figures of `example` are of, in words."""
    return sketched(example())


@functools.cache
def report():
    """The text of the report of `example`."""
    return page(example(), sketches())


def empty(**changes):
    """A document of a table in which nothing could be audited."""
    document = {
        "schema": "fairjax-audit",
        "schema_version": "1.0",
        "fairjax_version": "0.1.0",
        "settings": {
            "confidence": 0.95,
            "seed": 0,
            "replicates": 100,
            "min_positives": 10,
            "min_negatives": 10,
            "suppress_below": 0,
            "margin": 0.0,
            "correction": "holm",
            "intersections": False,
        },
        "data": {
            "source": "DataFrame",
            "sha256": None,
            "rows_read": 3,
            "rows_used": 3,
            "rows_left_out": {},
            "missing": {},
            "patients": None,
            "outcome": {"column": "died", "positive": "1"},
            "positives": 1,
            "prevalence": 0.3333333,
            "models": [],
            "attributes": [],
        },
        **{name: [] for name in ("quality", "overall", "cohort", "groups", "gaps")},
        **{name: [] for name in ("sensitivity", "discovery", "comparison", "gate")},
        "curves": {"roc": [], "calibration": [], "decision": []},
        "summary": [],
        "limits": [],
        "tripod_ai": [],
    } | changes
    return document | words(document)


def rounded(value):
    """The value as the document keeps numbers."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(v) for v in value]
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    return value


def wilson(hits, trials, z=1.959964):
    if not trials:
        return np.nan, np.nan, np.nan
    p = hits / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = np.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    reach *= z / (1 + z * z / trials)
    return p, max(middle - reach, 0.0), min(middle + reach, 1.0)


def auroc(labels, scores):
    positives, negatives = int(labels.sum()), int((1 - labels).sum())
    if not positives or not negatives:
        return np.nan, np.nan, np.nan
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    a = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    a /= positives * negatives
    reach = 1.96 * np.sqrt(a * (1 - a) * (1 / positives + 1 / negatives) / 2)
    return a, max(a - reach, 0.0), min(a + reach, 1.0)


def metrics_of(labels, scores, decisions):
    """(metric, estimate, lower, upper, method, denominator) of some rows."""
    yield "auroc", *auroc(labels, scores), "DeLong, logit", len(labels)
    brier = float(np.mean((scores - labels) ** 2)) if len(labels) else np.nan
    yield "brier_score", brier, brier * 0.9, brier * 1.1, "bootstrap", len(labels)
    slope = 1.0 + (0.0 if not len(labels) else float(np.mean(scores - labels)))
    yield "calibration_slope", slope, slope - 0.2, slope + 0.2, "Wald", len(labels)
    for metric, (select, method) in RATES.items():
        chosen = select(labels, decisions.astype(int))
        yield metric, *wilson(chosen.sum(), len(chosen)), method, len(chosen)


def status_of(level, labels):
    if level == FORMULA:
        return SUPPRESSED
    if not len(labels):
        return EMPTY
    few = labels.sum() < 10 or (1 - labels).sum() < 10
    return INSUFFICIENT if few else "ok"


def build(rows=4000, levels=0, models=2, seed=0, only=()):
    """The document.

    Args:
      rows: Simulated patients.
      levels: Adds an attribute "site" of as many levels, for tall figures.
      models: 1 or 2; the second is compared with the first.
      seed: Of the simulation.
      only: Attributes to keep; none keeps all.
    """
    rng = np.random.default_rng(seed)
    families = {
        "sex": (SEX, rng.integers(0, 2, rows)),
        "race": (RACE, rng.choice(5, rows, p=[0.7, 0.25, 0.044, 0.004, 0.002])),
        "insurance": (INSURANCE, rng.choice(5, rows, p=[0.5, 0.2, 0.29, 0.01, 0])),
    }
    if levels:
        names = tuple(f"Hospital site number {n:02d}" for n in range(levels))
        families["site"] = names, rng.integers(0, levels, rows)
    crossed = tuple(f"{a}, {b}" for a, b in itertools.product(SEX, RACE))
    families["sex × race"] = (
        crossed,
        families["sex"][1] * len(RACE) + families["race"][1],
    )
    if only:
        families = {name: families[name] for name in only}
    race = rng.choice(5, rows) if "race" not in families else families["race"][1]
    risk = rng.normal(-1.3, 1.2, rows) + 0.3 * (race == 1)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-risk))).astype(int)
    noise = 1.0 + 1.6 * (race == 1)
    names = ("risk", "new_risk")[:models]
    scores = {
        name: 1 / (1 + np.exp(-(risk + 0.1 + s * noise * rng.normal(0, 1, rows))))
        for name, s in zip(names, (1.0, 0.7), strict=False)
    }
    decisions = {name: score >= 0.3 for name, score in scores.items()}
    document = {
        "schema": "fairjax-audit",
        "schema_version": "1.0",
        "fairjax_version": "0.1.0",
        "title": "Sixty-day mortality score, general wards",
        "command": (
            "fairjax audit predictions.csv --outcome died --score "
            f"{' '.join(names)} --attributes sex race insurance --output audit"
        ),
        "versions": {"jax": "0.10.2", "numpy": "2.3.5", "pandas": "3.1.0"},
        "settings": {
            "confidence": 0.95,
            "seed": 0,
            "replicates": 2000,
            "min_positives": 10,
            "min_negatives": 10,
            "suppress_below": 11,
            "margin": 0.01,
            "correction": "holm",
            "intersections": True,
        },
        "data": {
            "source": "predictions.csv",
            "sha256": "0" * 63 + "1",
            "rows_read": rows + 12,
            "rows_used": rows,
            "rows_left_out": {"score missing": 12},
            "missing": {"died": 0, names[0]: 12, "race": None},
            "patients": rows - 200,
            "outcome": {"column": "died", "positive": "1"},
            "positives": int(labels.sum()),
            "prevalence": float(labels.mean()),
            "models": [
                {
                    "name": name,
                    "column": name,
                    "threshold": 0.3,
                    "threshold_source": "given",
                }
                for name in names
            ],
            "attributes": [
                {
                    "name": name,
                    "levels": list(levels_),
                    "binned": None,
                    "intersection": "×" in name,
                }
                for name, (levels_, _) in families.items()
            ],
        },
        "quality": [
            {
                "severity": "warning",
                "code": "missing_scores",
                "message": "12 rows have no score in column 'risk'; they are left out.",
                "rows": 12,
            },
            {
                "severity": "info",
                "code": "empty_level",
                "message": "attribute 'insurance': level 'missing' has no rows.",
                "rows": 0,
            },
        ],
        "overall": [],
        "cohort": [],
        "groups": [],
        "gaps": [],
        "curves": {"roc": [], "calibration": [], "decision": []},
        "sensitivity": [],
        "discovery": [],
        "comparison": [],
        "gate": [
            {
                "rule": "risk: equalized_odds_difference(race) > 0.02",
                "estimate": 0.21,
                "lower": 0.12,
                "upper": 0.3,
                "status": "failed",
                "reason": "the whole interval lies above 0.02",
            },
            {
                "rule": "auroc() < 0.6",
                "estimate": 0.78,
                "lower": 0.76,
                "upper": 0.8,
                "status": "passed",
                "reason": "the interval does not lie below 0.6",
            },
            {
                "rule": f"true_positive_rate(race={HOSTILE}) < 0.6",
                "estimate": None,
                "lower": None,
                "upper": None,
                "status": "undecided",
                "reason": "too few patients to estimate",
            },
        ],
        "summary": [],
        "limits": [],
        "tripod_ai": [],
    }
    for attribute, (levels_, codes) in families.items():
        for g, level in enumerate(levels_):
            mine = codes == g
            document["cohort"].append(_cohort(attribute, level, labels[mine]))
    for name in names:
        document["overall"] += [
            {
                "model": name,
                "metric": metric,
                "estimate": estimate,
                "lower": lower,
                "upper": upper,
                "method": method,
            }
            for metric, estimate, lower, upper, method, _ in metrics_of(
                labels, scores[name], decisions[name]
            )
        ]
        for attribute, (levels_, codes) in families.items():
            _family(
                document,
                name,
                attribute,
                levels_,
                codes,
                labels,
                scores[name],
                decisions[name],
                rng,
            )
        document["discovery"] += _discovery(name)
    for name in names[1:]:
        document["comparison"] += [
            _comparison(document, name, names[0], a) for a in families
        ]
    return rounded(document)


def _cohort(attribute, level, labels):
    status = status_of(level.rsplit(", ", 1)[-1], labels)
    p, lower, upper = wilson(labels.sum(), len(labels))
    hidden = status == SUPPRESSED
    return {
        "attribute": attribute,
        "group": level,
        "rows": None if hidden else len(labels),
        "patients": None if hidden else len(labels),
        "positives": None if hidden else labels.sum(),
        "negatives": None if hidden else (1 - labels).sum(),
        "prevalence": None if hidden else p,
        "lower": None if hidden else lower,
        "upper": None if hidden else upper,
        "status": status,
    }


def _family(document, name, attribute, levels, codes, labels, scores, decisions, rng):
    """Adds one attribute's groups, gaps, curves and sensitivity for one model."""
    found, left_out = {}, []
    for g, level in enumerate(levels):
        mine = codes == g
        y, s, d = labels[mine], scores[mine], decisions[mine]
        status = status_of(level.rsplit(", ", 1)[-1], y)
        if status != "ok":
            left_out.append(level)
        hidden = status == SUPPRESSED
        for metric, estimate, lower, upper, method, base in metrics_of(y, s, d):
            if status == "ok":
                found.setdefault(metric, {})[level] = estimate, (upper - lower) / 3.92
            shown = status == "ok"
            document["groups"].append(
                {
                    "model": name,
                    "attribute": attribute,
                    "group": level,
                    "metric": metric,
                    "estimate": estimate if shown else None,
                    "lower": lower if shown else None,
                    "upper": upper if shown else None,
                    "method": method,
                    "shrunken": (
                        0.8 * estimate + 0.1 if shown and metric in RATES else None
                    ),
                    "rows": None if hidden else len(y),
                    "positives": None if hidden else y.sum(),
                    "denominator": None if hidden else base,
                    "status": status,
                }
            )
        if status == "ok":
            _curves(document["curves"], name, attribute, level, y, s)
    document["gaps"] += _gaps(name, attribute, found, left_out, rng)
    if "×" not in attribute:
        document["sensitivity"] += _sensitivity(
            name, attribute, levels, codes, labels, scores, left_out
        )


def _gaps(name, attribute, found, left_out, rng):
    entries = []
    for metric, rate in GAPS.items():
        values = found.get(rate, {})
        highest = max(values, key=lambda g: values[g][0], default=None)
        lowest = min(values, key=lambda g: values[g][0], default=None)
        gap = values[highest][0] - values[lowest][0] if values else np.nan
        spread = max((s for _, s in values.values()), default=np.nan)
        floor = 1.1 * spread
        p = float(np.exp(-((gap / floor) ** 2) * 0.7)) if values else np.nan
        entries.append(
            {
                "model": name,
                "attribute": attribute,
                "metric": metric,
                "estimate": gap,
                "lower": max(gap - 2.2 * spread, 0.0),
                "upper": gap + 2.2 * spread,
                "corrected": max(gap - floor, 0.0),
                "noise_floor": floor,
                "p": p,
                "p_adjusted": min(6 * p, 1.0),
                "test": "permutation",
                "highest": highest,
                "lowest": lowest,
                "compared": list(values),
                "left_out": left_out,
                "withheld": [],
                "status": "ok" if len(values) > 1 else INSUFFICIENT,
            }
        )
    worst = max(entries[:2], key=lambda e: e["estimate"])
    return [{**worst, "metric": "equalized_odds_difference"}, *entries]


def _curves(curves, name, attribute, level, labels, scores):
    who = {"model": name, "attribute": attribute, "group": level}
    cuts = np.quantile(scores, np.linspace(1, 0, 41))
    curves["roc"].append(
        {
            **who,
            "fpr": [0.0, *((scores[labels == 0] >= c).mean() for c in cuts), 1.0],
            "tpr": [0.0, *((scores[labels == 1] >= c).mean() for c in cuts), 1.0],
        }
    )
    order = np.array_split(np.argsort(scores), 8)
    rates = [wilson(labels[b].sum(), len(b)) for b in order]
    curves["calibration"].append(
        {
            **who,
            "predicted": [scores[b].mean() for b in order],
            "observed": [r[0] for r in rates],
            "lower": [r[1] for r in rates],
            "upper": [r[2] for r in rates],
            "rows": [len(b) for b in order],
        }
    )
    thresholds = np.linspace(0.02, 0.6, 30)
    odds = thresholds / (1 - thresholds)
    model = [
        np.mean((scores >= t) & (labels == 1))
        - o * np.mean((scores >= t) & (labels == 0))
        for t, o in zip(thresholds, odds, strict=True)
    ]
    curves["decision"].append(
        {
            **who,
            "threshold": thresholds,
            "net_benefit": model,
            "treat_all": labels.mean() - odds * (1 - labels.mean()),
        }
    )


def _sensitivity(name, attribute, levels, codes, labels, scores, left_out):
    thresholds = np.linspace(0.05, 0.95, 19)
    kept = [g for g, level in enumerate(levels) if level not in left_out]
    for metric, label in (
        ("equal_opportunity_difference", 1),
        ("false_positive_rate_difference", 0),
    ):
        rates = np.array(
            [
                [
                    (scores[(codes == g) & (labels == label)] >= t).mean()
                    for t in thresholds
                ]
                for g in kept
            ]
        )
        gap = rates.max(0) - rates.min(0)
        yield {
            "model": name,
            "attribute": attribute,
            "metric": metric,
            "threshold": thresholds,
            "estimate": gap,
            "lower": np.maximum(gap - 0.05, 0),
            "upper": np.where(thresholds > 0.93, np.nan, gap + 0.05),
        }


def _discovery(name):
    return [
        {
            "model": name,
            "metric": metric,
            "group": group,
            "attributes": attributes,
            "rows": 310,
            "positives": 81,
            "estimate": 0.52,
            "rest": 0.66,
            "difference": -0.14,
            "p": 0.0004,
            "p_corrected": p,
            "searched": 43,
        }
        for metric, group, attributes, p in (
            (
                "true_positive_rate",
                "race = black, insurance = Medicaid",
                {"race": "black", "insurance": "Medicaid"},
                0.004,
            ),
            (
                "false_positive_rate",
                f"race = {HOSTILE}",
                {"race": HOSTILE},
                0.41,
            ),
        )
    ]


def _comparison(document, name, baseline, attribute):
    def of(model):
        return {
            e["group"]: e["estimate"]
            for e in document["groups"]
            if (e["model"], e["attribute"], e["metric"]) == (model, attribute, "auroc")
            and e["estimate"] is not None
        }

    old, new = of(baseline), of(name)
    gains = {group: new[group] - old[group] for group in new}
    worst = min(gains, key=gains.get)

    def reach(estimate, half, **more):
        return {
            "estimate": estimate,
            "lower": estimate - half,
            "upper": estimate + half,
            **more,
        }

    return {
        "model": name,
        "baseline": baseline,
        "attribute": attribute,
        "gain": reach(float(np.mean(list(gains.values()))), 0.012),
        "worst": reach(gains[worst], 0.025, group=worst),
        "margin": 0.01,
        "verdict": "positive-sum" if gains[worst] > 0.015 else "inconclusive",
        "groups": [{"group": g, **reach(v, 0.02)} for g, v in gains.items()],
        "left_out": [],
        "withheld": [],
    }
