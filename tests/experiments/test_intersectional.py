"""The command from end to end on made-up members, killed and resumed, and bad input."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments.core import runner
from experiments.core.programs import Budget
from experiments.core.results import main_methods
from experiments.datasets import ClinicalTable
from experiments.intersectional import experiment as intersectional
from experiments.intersectional import fits as intersectional_fits
from experiments.intersectional import learners as intersectional_learners
from experiments.intersectional.findings import preliminary
from experiments.intersectional.results import Options
from experiments.reporting.prediction_audit import audited_table
from fairjax.evaluation.names import F1, GROUP_AUROC, IMPACT
from tests.experiments.conftest import noted_bars, on_one_device

BUDGET = Budget(steps=10, steps_per_call=5, batch_size=64, hidden=(4,))
SMALL = {
    "dataset": "nhanes",
    "learner": "logistic",
    "iterations": 3,
    "repeats": 2,
    "splits": 2,
    "bootstrap": 20,
    "permutations": 20,
    "min_patients": 50,
    "min_outcomes": 8,
}
# Other subgroups' figures are drawn by the same function.
DRAWN = (
    *("tradeoff", "stability"),
    *(f"subgroups_{metric}" for metric in (GROUP_AUROC, IMPACT)),
)
FITTED = ("base", "eo", "dir", "egr", "egr_eo")


@pytest.fixture(scope="module")
def table():
    """500 patients in whom age is told by a feature, and a rare race."""
    rng = np.random.default_rng(0)
    number = 500
    race = rng.choice(["white", "black", "other"], number, p=[0.6, 0.37, 0.03])
    sex = rng.choice(["female", "male"], number)
    age = rng.integers(30, 90, number).astype(float)
    risk = 0.05 * (age - 60) + 0.5 * (race == "black")
    label = (rng.random(number) < 1 / (1 + np.exp(-risk))).astype(np.int8)
    return ClinicalTable(
        name="made",
        title="Made-up patients | <b>",
        features=pd.DataFrame(
            {
                "age": age,
                "stiffness": age + 10 * rng.normal(size=number),
                "lab": risk + rng.normal(size=number),
            }
        ),
        label=label,
        outcome="death",
        attributes=pd.DataFrame(
            {
                "race": pd.Categorical(race),
                "sex": pd.Categorical(sex),
                "age": pd.Categorical(np.where(age >= 65, ">=65", "<65")),
            }
        ),
        patient_ids=np.arange(number),
        dropped={},
        excluded={},
        citation="made up",
        licence="none",
    )


def run(table, folder, *, written=True, **options):
    """A run on a table of one's own: its folder, and what was told."""
    kept = []
    write = intersectional.runs.report.write

    def keep(system, results, folder):
        kept.append(results)
        if written:
            some = {p: d for p, d in system.pictures.items() if p in DRAWN}
            assert len(some) == len(DRAWN) < len(system.pictures)
            write(dataclasses.replace(system, pictures=some), results, folder)

    with pytest.MonkeyPatch.context() as patch:
        bars = noted_bars(patch)
        on_one_device(patch)
        patch.setattr(intersectional, "load", lambda name: table)
        patch.setattr(intersectional.lanes, "num_cores", lambda: 1)
        patch.setattr(intersectional.runs.report, "write", keep)
        # Other experiments' tests write the page; here its table is looked at.
        patch.setattr(
            intersectional.runs,
            "write_audit",
            lambda results, folder, *, advance, **how: kept.append(
                audited_table(results, **how)
            ),
        )
        (done,) = intersectional.run(
            Options(output=folder, **{**SMALL, **options}), BUDGET, Console(quiet=True)
        )
    results, audited = kept
    return SimpleNamespace(folder=done, results=results, audited=audited, bar=bars[0])


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    """Some of the paper's configurations, and positive-sum gradients."""
    folder = tmp_path_factory.mktemp("finished")
    return run(table, folder, configurations=(*FITTED, "mlp_eo", "positive_sum_eo"))


def test_files(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert {
        *("summary.json", "summary.md", "results.csv", "subgroups.md", "subgroups.csv"),
        *("tradeoff.png", "stability.png", f"subgroups_{GROUP_AUROC}.png"),
    } <= names
    # Nothing unfinished is left.
    assert not [name for name in names if name.startswith(".")]


def test_every_configuration_has_the_same_patients(finished):
    results = finished.results
    wanted = [*FITTED, "mlp_eo", "positive_sum_eo"]
    # Where thresholds decide, the other kind is evaluated too, but is no row.
    assert set(results.predictions) == {*wanted, "base[common]", "dir[common]"}
    assert main_methods(results) == wanted
    for found in results.predictions.values():
        assert found.scores.shape == found.decisions.shape == (2, 500)
        assert np.isfinite(found.scores).all()
        assert found.decisions.min() >= 0
        assert found.decisions.max() <= 1
    assert set(np.unique(results.predictions["base"].decisions)) == {0, 1}
    assert len(np.unique(results.predictions["egr_eo"].decisions)) > 2


def test_the_table_is_that_of_the_metrics(finished):
    summary = json.loads((finished.folder / "summary.json").read_text())
    written = pd.read_csv(finished.folder / "subgroups.csv")
    levels = finished.results.subgroups.levels
    assert levels[0] == "white male 65+"
    assert levels[-1] == "all others"
    assert set(written["subgroup"]) == set(levels)
    assert set(written["protocol"]) == {"clean", "paper"}
    paper = written["protocol"] == "paper"
    assert written["splits"][paper].isin([0, 1, 2]).all()
    assert written["splits"][~paper].isna().all()
    bounded = written[written["metric"] != "disparate_impact"]
    # Both kinds of threshold.
    assert {"base", "base[common]"} <= set(written["configuration"])
    assert bounded["low"].min() >= -1
    assert bounded["high"].max() <= 1
    row = written.query(
        "protocol == 'clean' and configuration == 'egr' and "
        "metric == 'statistical_parity_difference' and subgroup == 'black female <65'"
    )
    told = summary["methods"]["egr"]["statistical_parity_difference"]
    entry = told["subgroup=black female <65"]
    np.testing.assert_allclose(row["value"], entry["mean"], rtol=1e-5)
    # By the decisions themselves.
    codes = finished.results.subgroups.codes
    chance = finished.results.predictions["egr"].decisions
    own = chance[:, codes == levels.index("black female <65")].mean()
    np.testing.assert_allclose(
        own - chance[:, codes == 0].mean(), entry["mean"], atol=1e-6
    )


def test_the_report(finished):
    text = (finished.folder / "summary.md").read_text(encoding="utf-8")
    assert "Made-up patients \\| &lt;b&gt;" in text
    for number in range(1, 6):
        assert f"**{number}. " in text
    assert "white male 65+: the published reference" in text
    assert "**A first look: 2 repeats" in text
    rows = [line for line in text.splitlines() if line.startswith("| Base, common")]
    assert len(rows) == 1
    common = finished.results.evaluations["base[common]"].mean(F1)
    assert f"| {common:.3f} |" in rows[0]
    assert "do not include race, sex and age" in text
    summary = json.loads((finished.folder / "summary.json").read_text())
    claims = summary["claims"]
    assert [c["verdict"] == "not run" for c in claims] == [
        True,
        True,
        False,
        True,
        False,
    ]
    other = summary["claims_under_other_thresholds"]
    assert other["thresholds"] == "common"
    assert [c["claim"] for c in other["claims"]] == [c["claim"] for c in claims]
    worse, again = (
        found[2]["tests"]["Average odds difference: EO less half of Base"]["difference"]
        for found in (claims, other["claims"])
    )
    assert worse != again
    assert "age" in summary["protocol"]["dropped_columns"]
    # All columns have many values, so that they can be repaired.
    columns, more = finished.results.splits.inputs.shape[-1], summary["repair"]["more"]
    assert more["number"] == columns
    assert f"{columns} columns of more than two" in summary["protocol"]["repaired"]
    assert more["after"] < more["before"] / 2
    inputs = finished.results.splits.table.features
    assert list(inputs) == ["stiffness", "lab"]


def test_the_audit_is_of_decisions_that_were_taken(finished):
    frame, options = finished.audited
    assert options.names == ("Base", "EGR + EO, one draw")
    chance = finished.results.predictions["egr_eo"].decisions[0]
    taken = frame[options.decisions[1]].to_numpy()
    assert set(np.unique(taken)) == {0, 1}
    assert (taken[chance == 1] == 1).all()
    assert (taken[chance == 0] == 0).all()
    # One draw of 500, whose expectation the metrics have.
    assert abs(taken.mean() - chance.mean()) < 0.1
    base = finished.results.predictions["base"].decisions[0]
    np.testing.assert_array_equal(frame[options.decisions[0]], base)


def test_the_bar_spans_the_run(finished):
    # But for the audit, which was not made.
    left = runner.audit_units(num_models=2, num_attributes=1)
    assert finished.bar.advanced == finished.bar.planned - left
    assert finished.bar.said == [
        *("clean protocol", "paper protocol", "reconciled gradients", "metrics"),
        *("writing the report", "done"),
    ]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(table, finished, tmp_path, monkeypatch):
    options = {"configurations": ("base", "egr_eo"), "repeats": 1, "written": False}
    fit, done, kill_at = intersectional_fits.Fit.run, [], []

    def counted(self):
        if len(done) in kill_at:
            raise KeyboardInterrupt
        done.append(1)
        return fit(self)

    monkeypatch.setattr(intersectional_fits.Fit, "run", counted)
    for number in (4, 7):
        kill_at[:] = [number]
        with pytest.raises(KeyboardInterrupt):
            run(table, tmp_path, **options)
        # A report is written whole or not at all.
        assert [p.name[:12] for p in (tmp_path / "nhanes").iterdir()] == [
            ".unfinished-"
        ]
    kill_at.clear()
    again = run(table, tmp_path, **options)
    # Base and EGR, in five lanes and two splits: none was fitted twice.
    assert len(done) == 2 * (5 + 2)
    for name in ("base", "egr_eo"):
        one, two = (r.results.predictions[name] for r in (finished, again))
        np.testing.assert_array_equal(one.scores[:1], two.scores)
        np.testing.assert_array_equal(one.decisions[:1], two.decisions)


def refused(capsys, folder, *arguments):
    """The one line that a command which cannot run says; nothing is written."""
    code = intersectional.main([*arguments, "--output", str(folder / "results")])
    said = capsys.readouterr().err
    assert code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list(folder.iterdir())
    return said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--configurations", "eo", "magic"], "must name some of base, eo, dir"),
        (["--repeats", "0"], "--repeats must be 1 to 1,000; got 0"),
        (["--splits", "1"], "--splits must be 2 to 1,000; got 1"),
        (["--iterations", "0"], "--iterations must be 1 to 1,000; got 0"),
        (["--repair-level", "1.5"], "--repair-level must be 0 to 1; got 1.5"),
        (["--repair-level", "nan"], "--repair-level must be 0 to 1; got nan"),
        (["--min-patients", "0"], "--min-patients must be 1 to 1,000,000,000; got 0"),
        (["--min-patients", "4000"], "fewer than two subgroups of race, sex, age"),
        (["--seed", "-1"], "--seed must be 0 to 2147483647; got -1"),
    ],
)
def test_options_that_cannot_be(capsys, tmp_path, arguments, words):
    arguments = [*arguments, "--dataset", "nhanes", "--learner", "logistic"]
    assert words in refused(capsys, tmp_path, *arguments)


def test_xgboost_is_missing(capsys, tmp_path, monkeypatch):
    find = intersectional_learners.importlib.util.find_spec
    monkeypatch.setattr(
        intersectional_learners.importlib.util,
        "find_spec",
        lambda name: None if name == "xgboost" else find(name),
    )
    said = refused(capsys, tmp_path)
    assert "pip install xgboost-cpu" in said
    assert "--learner boosting" in said


def test_a_table_without_subgroups(capsys, tmp_path, monkeypatch, table):
    income = table.attributes[["sex"]].rename(columns={"sex": "income"})
    other = dataclasses.replace(table, attributes=income)
    monkeypatch.setattr(intersectional, "load", lambda name: other)
    said = refused(capsys, tmp_path, "--dataset", "nhanes", "--learner", "logistic")
    assert "one of the attributes race, sex, age; made has none" in said


def test_the_default_makes_20_splits_by_each_protocol():
    told = intersectional._checked(Options(dataset="nhanes", learner="logistic"))
    assert (5 * told.repeats, told.splits, told.bootstrap) == (20, 20, 500)
    assert not preliminary(told)
    assert told.min_patients == 100
    large = Options(dataset="simulated_subgroups", learner="logistic")
    assert intersectional._checked(large).min_patients == 9_000


@pytest.mark.parametrize(
    ("options", "repeats", "splits"),
    [({}, 2, 5), ({"repeats": 1, "splits": 30}, 1, 5)],
)
def test_a_quick_run_says_that_it_is_a_first_look(options, repeats, splits):
    quick = Options(dataset="nhanes", learner="logistic", quick=True, **options)
    told = intersectional._checked(quick)
    assert (told.repeats, told.splits, told.bootstrap) == (repeats, splits, 200)
    said = preliminary(told)
    assert said.startswith(f"A first look: {repeats} repeats of ")
    assert "p-values are often too small" in said


def test_all_runs_the_three_one_after_another(monkeypatch):
    run_one = []
    monkeypatch.setattr(
        intersectional,
        "_run_one",
        lambda options, *rest: run_one.append(options.dataset),
    )
    intersectional.run(Options(), BUDGET, Console(quiet=True))
    assert run_one == ["nhanes", "support2", "rhc"]
