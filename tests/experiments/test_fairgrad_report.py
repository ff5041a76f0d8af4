"""The report of a small run on real patients: schema, rows, words and figures."""

import csv
import dataclasses
import io
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments.core import runner
from experiments.core.evaluation import Predictions
from experiments.fairgrad import findings as fairgrad_findings
from experiments.fairgrad import report as fairgrad_report
from experiments.fairgrad.findings import PLAIN
from experiments.fairgrad.report import SYSTEM
from experiments.reporting import docs, markdown, report, training_figures
from fairjax.evaluation import Evaluation
from fairjax.evaluation.names import GAP
from tests.experiments.conftest import ATTRIBUTES, REPLICATES, small_run

MAIN = (
    "logistic_regression",
    "gradient_boosting",
    "erm",
    "penalty",
    "fairgrad_limited",
)


@pytest.fixture(scope="module")
def summary(finished):
    text = (finished.folder / "summary.json").read_text(encoding="utf-8")

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def table_rows(text):
    """The cells of a Markdown document's first table, split at bars that end one."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for row in cells]


def test_files(finished):
    assert finished.folder.name == "support2"
    assert {path.name for path in finished.folder.iterdir()} == {
        "summary.json",
        "summary.md",
        "results.csv",
        *("tradeoff.png", "gaps.png", "training.png"),
    }


def test_the_bar_spans_the_run(finished):
    """It says what is being done, and is full then, but for the audit, not made here.

    The command's test has the audit's part.
    """
    left = runner.audit_units(num_models=2, num_attributes=len(ATTRIBUTES))
    assert finished.bar.advanced == finished.bar.planned - left
    said = finished.bar.said
    assert said[0] == "training Logistic regression"
    assert "training FairGrad, limited" in said
    assert said[-2:] == ["writing the report", "done"]


def test_summary_has_the_keys_that_readers_rely_on(summary, splits):
    assert summary["dataset"] == "support2"
    assert summary["rows"] == 1200
    assert summary["prevalence"] == pytest.approx(splits.table.label.mean(), abs=1e-6)
    protocol = summary["protocol"]
    assert (protocol["repeats"], protocol["folds"], protocol["seed"]) == (2, 5, 0)
    assert protocol["attributes"] == [*ATTRIBUTES]
    assert protocol["excluded_rows"] == {"lost to follow-up before day 180": 0}
    assert "fac_sfdm2" in protocol["dropped_columns"]
    assert f"{REPLICATES} resamples" in protocol["intervals"]
    assert protocol["attributes_among_inputs"] == [*ATTRIBUTES]
    for name, reason in protocol["dropped_columns"].items():
        assert "never a model input" not in reason, name
    assert set(MAIN) <= set(summary["methods"])
    assert {"penalty[1]", "penalty_single[race]", "fairgrad_limited[5]"} <= set(
        summary["methods"]
    )


def test_every_number_is_finite_and_in_its_interval(summary):
    for name, method in summary["methods"].items():
        gaps = method[GAP]
        assert set(gaps) == {*ATTRIBUTES, "mean", "worst"}
        estimates = [method[metric] for metric in PLAIN]
        for estimate in (*estimates, *gaps.values()):
            assert 0 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1
        for gap in gaps.values():
            assert set(gap) == {"mean", "low", "high", "null", "p_null", "corrected"}
            assert 0 < gap["p_null"] <= 1
            assert 0 <= gap["corrected"] <= 1
            assert 0 < gap["null"] < 1
        mean = np.mean([gaps[a]["mean"] for a in ATTRIBUTES])
        assert gaps["mean"]["mean"] == pytest.approx(mean, abs=1e-6)
        test = method["test_vs_erm"]
        if name == "erm":
            assert test == {}
            continue
        assert set(test) == {*PLAIN, GAP}
        assert set(test[GAP]) == {*ATTRIBUTES, "mean", "worst"}
        erm = summary["methods"]["erm"]["auroc"]["mean"]
        found = test["auroc"]
        assert found["difference"] == pytest.approx(
            method["auroc"]["mean"] - erm, abs=1e-6
        )
        # Holm over the candidates; settings and references stand on their own.
        assert (found["p_holm"] is None) == (name not in MAIN[3:])
        if found["p_holm"] is not None:
            assert found["p"] <= found["p_holm"] <= 1


def test_selected_settings_are_counted_by_lane(summary):
    for name in ("penalty", "fairgrad_limited"):
        assert sum(summary["selected_settings"][name].values()) == 10
    assert set(summary["fronts"]) == {"fairgrad_limited - penalty"}
    assert set(summary["cross_effects"]) == {"penalty_single"}
    assert set(summary["cross_effects"]["penalty_single"]) == {
        f"{a} on {b}" for a in ATTRIBUTES for b in ATTRIBUTES
    }


def test_selected_settings_are_those_of_the_lanes(finished):
    """Each repeat's pooled scores come from the settings that its lanes chose."""
    results = finished.results
    chosen = results.predictions["penalty"]
    settings = [p for p in results.predictions.values() if p.name == "penalty"][:-1]
    assert chosen.setting == "selected"
    counts = dict.fromkeys(results.selected["penalty"], 0)
    for repeat, fold in enumerate(results.splits.folds):
        for k in range(5):
            rows = fold == k
            same = [
                p.setting
                for p in settings
                if (p.scores[repeat, rows] == chosen.scores[repeat, rows]).all()
            ]
            counts[same[0]] += 1
    assert counts == results.selected["penalty"]


def test_csv_has_a_row_for_each_method_repeat_metric_and_attribute(finished):
    path = finished.folder / "results.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    evaluations = finished.results.evaluations
    # Four plain metrics, two attributes' gaps, their mean and the worst.
    assert len(rows) == len(evaluations) * 2 * 8
    keys = {
        (r["method"], r["setting"], r["repeat"], r["metric"], r["attribute"])
        for r in rows
    }
    assert len(keys) == len(rows)
    for row in rows:
        title = row["method"]
        if row["setting"] not in ("", "selected"):
            title += f"[{row['setting']}]"
        metric = "/".join(filter(None, (row["metric"], row["attribute"])))
        expected = evaluations[title].repeats[metric][int(row["repeat"])]
        assert float(row["value"]) == pytest.approx(expected, abs=1e-6)


def test_csv_is_read_by_pandas(finished):
    frame = pd.read_csv(finished.folder / "results.csv", keep_default_na=False)
    assert [*frame.columns] == [
        *("method", "setting", "repeat", "metric", "attribute", "value"),
    ]
    assert frame["value"].dtype == float


def test_markdown_has_the_table_and_the_answers(finished, summary):
    text = (finished.folder / "summary.md").read_text(encoding="utf-8")
    header, rule, *rows = table_rows(text)
    assert header[:4] == ["Method", "AUROC", "Bal. acc.", "Brier"]
    assert header[4:6] == [*ATTRIBUTES]
    assert set(rule) == {"---"}
    assert {len(row) for row in (rule, *rows)} == {len(header)}
    titles = [summary["methods"][name]["title"] for name in MAIN]
    assert sorted(row[0] for row in rows) == sorted(
        [*titles, "Noise floor of the gaps"]
    )
    erm = next(row for row in rows if row[0] == "ERM")
    assert erm[1].startswith(f"{summary['methods']['erm']['auroc']['mean']:.4f} [")
    for question in (
        "Is ERM a strong baseline?",
        "Does FairGrad improve",
        "Does fixing one attribute worsen another",
        "Where does a tuned penalty do as well?",
    ):
        assert f"**{question}" in text
    assert "- FairGrad, limited: " in text
    assert "Penalty on one attribute at a time: " in text
    assert "nan" not in text
    for name in ("tradeoff", "gaps", "training"):
        assert f"({name}.png)" in text


def test_the_terminal_shows_the_main_methods(finished):
    console = Console(width=100, record=True, file=io.StringIO())
    report.show(SYSTEM, finished.results, console)
    shown = console.export_text()
    for title in (
        "ERM",
        "Fairness penalty",
        "FairGrad, limited",
        "Logistic regression",
    ):
        assert title in shown


def test_the_same_results_give_the_same_bytes(finished, tmp_path):
    report.write(SYSTEM, finished.results, tmp_path)
    for path in finished.folder.glob("*.*"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    png = (tmp_path / "gaps.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_report_that_cannot_be_written_leaves_the_old_one(finished, tmp_path):
    def fail(*args):
        raise ValueError("no words")

    (tmp_path / "summary.md").write_text("as it was")
    silent = dataclasses.replace(SYSTEM, answers=fail)
    with pytest.raises(ValueError, match="no words"):
        report.write(silent, finished.results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]
    assert (tmp_path / "summary.md").read_text() == "as it was"


def test_figures_that_fail_leave_the_old_report(finished, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("no figure")

    (tmp_path / "gaps.png").write_text("as it was")
    monkeypatch.setattr(fairgrad_report.training_figures, "conflicts", fail)
    with pytest.raises(ValueError, match="no figure"):
        report.write(SYSTEM, finished.results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gaps.png"]
    assert (tmp_path / "gaps.png").read_text() == "as it was"


def test_a_figure_that_is_no_longer_drawn_goes(finished, tmp_path):
    (tmp_path / "training.png").write_text("of an earlier run")
    (tmp_path / "notes.txt").write_text("mine")
    results = dataclasses.replace(finished.results, histories={})
    training = {"training": SYSTEM.pictures["training"]}
    system = dataclasses.replace(SYSTEM, pictures=training)
    report.write(system, results, tmp_path)
    assert not (tmp_path / "training.png").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


HOSTILE = "<script>alert(1)</script>|`x`"


@pytest.mark.slow
def test_one_attribute_of_a_hostile_name(table, tmp_path):
    """Nothing divides by a gap of 0 or looks for another attribute, and no markup."""
    own = dataclasses.replace(
        table,
        title="Own [bold]patients[/bold] | <b>",
        attributes=pd.DataFrame({HOSTILE: table.attributes["sex"]}),
        features=table.features.drop(columns="sex"),
    )
    done = small_run(
        own,
        tmp_path,
        attributes=(HOSTILE,),
        methods=("fairgrad_limited", "fairgrad_single"),
        repeats=1,
    )
    text = (done.folder / "summary.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b>" not in text
    header, rule, *rows = table_rows(text)
    assert {len(row) for row in (rule, *rows)} == {len(header)}
    assert markdown.escape(HOSTILE) in header
    assert "There is only one attribute." in text
    # One repeat: there are intervals over patients, but no tests.
    assert "not tested, because tests need two repeats" in text
    assert "One repeat does not show the variance over splits" in text
    console = Console(width=100, record=True, file=io.StringIO())
    report.show(SYSTEM, done.results, console)
    assert "Own [bold]patients[/bold] | <b>" in console.export_text()
    summary = json.loads((done.folder / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["methods"]["erm"][GAP]) == {HOSTILE, "mean", "worst"}
    tests = [
        m["test_vs_erm"] for name, m in summary["methods"].items() if name != "erm"
    ]
    assert all(test["auroc"]["p"] is None for test in tests)
    table = docs.results_table(summary, "fairgrad")
    assert "| - | - |" in table
    assert "<.001" not in table


def test_escaping():
    assert markdown.escape("a\nb | <i> [x](y) &lt; `c` *d*") == (
        r"a b \| &lt;i&gt; \[x\](y) &amp;lt; \`c\` \*d\*"
    )
    assert markdown.escape("fac_sfdm2: 25,000") == "fac_sfdm2: 25,000"


def made(auroc, gap, corrected):
    """An evaluation with one attribute and hardly any noise."""
    values = {"auroc": auroc, "balanced_accuracy": 0.7, "brier": 0.2}
    values["worst_group_auroc"] = 0.7
    values |= dict.fromkeys((f"{GAP}/sex", f"{GAP}/mean", f"{GAP}/worst"), gap)
    spread = np.array([-1e-4, 0.0, 1e-4])
    names = (f"{GAP}/sex", f"{GAP}/mean", f"{GAP}/worst")
    return Evaluation(
        {k: np.full(2, v) for k, v in values.items()},
        {k: v + spread for k, v in values.items()},
        dict.fromkeys(names, 0.01),
        dict.fromkeys(names, corrected),
        {f"{GAP}/sex": 0.01},
    )


def answered(erm, method):
    evaluations = {
        "logistic_regression": made(0.8, 0.1, 0.09),
        "gradient_boosting": made(0.79, 0.1, 0.09),
        "erm": erm,
        "fairgrad": method,
    }
    none = np.zeros((2, 1))
    results = SimpleNamespace(
        splits=SimpleNamespace(attributes=("sex",)),
        evaluations=evaluations,
        predictions={name: Predictions(name, "", none, none) for name in evaluations},
        titles={name: name.title() for name in evaluations},
        histories={},
    )
    tests = fairgrad_findings.tests_against_erm(results)
    lines = fairgrad_findings.answers(results, tests)
    return next(line for line in lines if line.startswith("- Fairgrad: "))


@pytest.mark.parametrize(
    ("erm", "method", "words"),
    [
        (
            made(0.80, 0.10, 0.08),
            made(0.7960, 0.04, 0.02),
            ("yes.", "60% of the raw gap", "75% of the bias-corrected gap"),
        ),
        (
            made(0.80, 0.10, 0.08),
            made(0.79, 0.04, 0.02),
            ("fairer, but at a cost in AUROC.",),
        ),
        (made(0.80, 0.10, 0.08), made(0.80, 0.12, 0.1), ("not shown.", "-20% of the")),
        (
            made(0.80, 0.02, 0.0),
            made(0.80, 0.01, 0.0),
            ("50% of", "none (ERM's gap is 0)"),
        ),
        (made(0.80, 0.0, 0.0), made(0.80, 0.0, 0.0), ("not shown.",)),
    ],
)
def test_verdicts(erm, method, words):
    line = answered(erm, method)
    for word in words:
        assert word in line


def test_undefined_numbers_are_null_not_nan():
    given = {"a": math.nan, "b": [0.123456789, 2], "c": {"d": math.inf, "e": "x"}}
    assert report._rounded(given) == {
        "a": None,
        "b": [0.1234568, 2],
        "c": {"d": None, "e": "x"},
    }


def test_smoothing_by_hand():
    found = training_figures._smooth(np.array([2.0, 4.0, 6.0, 8.0]), width=2)
    np.testing.assert_allclose(found, [2, 3, 5, 7])
