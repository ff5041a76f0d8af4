"""A metric is one row of the table, which everything else is made from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fairjax import metrics
from fairjax.metrics import definitions
from fairjax.metrics.definitions import COMPLEMENTS, GAPS, METRICS, RATES

ROWS = """
    "false_omission_rate": Metric(
        "False omission rate",
        "FOR",
        "The fraction of patients not selected who have the outcome.",
        "FN / (FN + TN)",
        perfect=0.0,
        gaps=("false_omission_rate_difference", "false_omission_rate_ratio"),
    ),
    "critical_success_index": Metric(
        "Critical success index",
        "CSI",
        "The fraction with both among patients selected or with the outcome.",
        "TP / (TP + FN + FP)",
        perfect=1.0,
        gaps=("critical_success_index_difference",),
    ),
"""
END = '}\n"""Metrics of one group, by name'
# The table with these rows takes the place of ours, before anything reads it.
SCRIPT = """
import importlib.util, json, sys

name = "fairjax.metrics.definitions"
spec = importlib.util.spec_from_file_location(name, sys.argv[1])
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])

import jax.numpy as jnp
import numpy as np
import pandas as pd
from fairjax import audit, metrics
from fairjax.audit import glossary, page, rules
from fairjax.audit.measure import _analysis, _pointwise

# Nothing is compiled ahead, and few other thresholds are simulated.
_analysis._Analysis._compile = lambda analysis: None
_pointwise.SENSITIVITY_THRESHOLDS = np.array([0.5])

# TN, FP, FN and TP of two groups.
cells = np.array([[60, 20, 20, 100], [80, 40, 20, 60]])
rows = np.repeat(np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (2, 1)), cells.ravel(), 0)
frame = pd.DataFrame({"died": rows[:, 0], "risk": 0.2 + 0.6 * rows[:, 1]})
frame["risk"] += np.arange(len(frame)) % 7 / 100
frame["sex"] = np.repeat(["F", "M"], cells.sum(1))
names = ["false_omission_rate", "critical_success_index"]
gaps = [f"{name}_difference" for name in names]
table = metrics.by_group(frame.died, rows[:, 1], frame[["sex"]], metrics=names)
spread = metrics.gap_table(frame.died, rows[:, 1], frame[["sex"]], gaps=gaps)
counts = metrics.GroupCounts(jnp.array(cells.reshape(2, 2, 2)))
bounds = [f"{name}(sex) > 0.9" for name in names] + [f"{gaps[1]}(sex) > 0.9"]
document = audit.audit(
    audit.Options(
        outcome="died", scores="risk", attributes="sex", thresholds=[0.5],
        replicates=100, fail_on=bounds,
    ),
    frame,
)
entries = [e for e in document["groups"] if e["metric"] in names]
print(json.dumps({
    "table": table[names].T.values.tolist(),
    "rates": [metrics.rate_difference(counts, name).item() for name in names],
    "gaps": spread["value"].tolist(),
    "rules": [rules.parse(bound).metric for bound in bounds],
    "titles": [glossary.METRICS[name].title for name in [*names, gaps[1]]],
    "groups": [[e["metric"], e["group"], e["estimate"], e["status"]] for e in entries],
    "compared": [e["metric"] for e in document["gaps"] if e["metric"] in gaps],
    "page": page.page(document, ()),
    "gate": [e["status"] for e in document["gate"]],
}))
"""


def test_a_title_within_a_sentence():
    assert METRICS["false_positive_rate"].phrase == "false positive rate"


@pytest.mark.slow
def test_one_row_makes_a_rate(tmp_path):
    source = Path(definitions.__file__).read_text(encoding="utf-8")
    assert source.count(END) == 1
    table = tmp_path / "definitions.py"
    table.write_text(source.replace(END, ROWS + END), encoding="utf-8")
    command = [sys.executable, "-c", SCRIPT, str(table)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    by_hand = [[20 / 80, 20 / 100], [100 / 140, 60 / 120]]
    differences = [abs(first - second) for first, second in by_hand]
    assert found["table"] == [pytest.approx(values) for values in by_hand]
    assert found["rates"] == pytest.approx(differences, rel=1e-5)
    assert found["gaps"] == pytest.approx(differences)
    names = ["false_omission_rate", "critical_success_index"]
    # The gap of a complement, here of the negative predictive value, is that rate's.
    assert found["rules"] == [*names, "critical_success_index_difference"]
    assert found["compared"] == ["critical_success_index_difference"]
    assert found["gate"] == ["passed"] * 3
    titles = ["False omission rate", "Critical success index"]
    assert found["titles"] == [*titles, "Critical-success-index difference"]
    assert all(title in found["page"] for title in found["titles"])
    expected = {
        (name, group): value
        for name, values in zip(names, by_hand, strict=True)
        for group, value in zip("FM", values, strict=True)
    }
    assert len(found["groups"]) == 4
    for name, group, estimate, status in found["groups"]:
        assert estimate == pytest.approx(expected[name, group], rel=1e-5)
        assert status == "ok"


def test_formulas_are_of_cells():
    cells = {
        "selection_rate": (("TP", "FP"), ("TN", "FN")),
        "true_positive_rate": (("TP",), ("FN",)),
        "negative_predictive_value": (("TN",), ("FN",)),
        "balanced_accuracy": None,
        "f1_score": None,
        "treatment_ratio": None,
        "auroc": None,
    }
    assert {name: METRICS[name].cells for name in cells} == cells
    known = [METRICS[name].cells for name in RATES if METRICS[name].cells]
    assert len(set(known)) == len(known) == 10


def test_every_rate_is_a_function():
    assert [name for name in RATES if not callable(getattr(metrics, name, None))] == []


def test_complements():
    assert COMPLEMENTS == {
        "true_negative_rate": "false_positive_rate",
        "false_negative_rate": "true_positive_rate",
        "error_rate": "accuracy",
    }


@pytest.mark.parametrize(
    ("better", "names"),
    [
        (True, {"auroc", "true_positive_rate", "negative_predictive_value"}),
        (False, {"brier_score", "false_positive_rate", "error_rate"}),
        (None, {"selection_rate", "prevalence", "calibration_slope"}),
    ],
)
def test_directions(better, names):
    assert {METRICS[name].higher_is_better for name in names} == {better}


def test_gaps_are_named_after_what_they_are_of():
    assert GAPS["demographic_parity_ratio"][:3] == ("ratio", ("selection_rate",), "")
    gap = GAPS["predictive_parity_difference"]
    assert gap[:3] == ("difference", ("positive_predictive_value",), "")
    assert gap.title == "Predictive-parity difference"
    assert gap.short == "PPV gap"
    assert gap.words.startswith(
        "The highest positive predictive value minus the lowest"
    )
