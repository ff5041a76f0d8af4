"""The command itself: on real patients from end to end, and on bad input."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import datasets
from experiments.core import compiling, protocol
from experiments.core.files import locked
from experiments.core.recording import beside
from experiments.datasets import files, survset, validate
from experiments.fairgrad import experiment as fairgrad

ROOT = Path(__file__).parents[2]


# ``python -m experiments.fairgrad`` with a smaller budget, which is no option. It says
# how full its bar is before that is filled up, and after which part.
COMMAND = """
import functools, runpy
from experiments.core import programs, references, runner
finish = runner.Bar.finish
def told(bar):
    (task,) = bar._progress.tasks
    print("bar:", task.completed / task.total, task.description)
    finish(bar)
runner.Bar.finish = told
programs.Budget = functools.partial(programs.Budget, steps=60, batch_size=256)
boosting = references.HistGradientBoostingClassifier
references.HistGradientBoostingClassifier = lambda **how: boosting(
    **{**how, "max_iter": 20}
)
runpy.run_module("experiments.fairgrad", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_the_command_on_support2(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-c", COMMAND),
            *("--methods", "erm", "fairgrad_limited", "--attributes", "sex", "age"),
            *("--repeats", "1", "--bootstrap", "20", "--permutations", "20"),
            *("--output", str(tmp_path)),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "9,105 patients" in done.stdout
    assert "summary.md" in done.stdout
    # The bar is full when all is done, and not before.
    assert "bar: 1.0 auditing the comparison of models" in done.stdout
    folder = tmp_path / "support2"
    # No checkpoint is left, no temporary file, and no conflicts are drawn but one.
    assert {path.name for path in folder.iterdir()} == {
        *("summary.json", "summary.md", "results.csv", "audit"),
        *("tradeoff.png", "gaps.png", "training.png"),
    }
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    methods = summary["methods"]
    assert summary["rows"] == 9105
    assert methods["erm"]["auroc"]["mean"] > 0.75
    assert (folder / "audit" / "report.html").stat().st_size > 100_000
    audit = json.loads((folder / "audit" / "audit.json").read_text(encoding="utf-8"))
    assert audit["data"]["rows_used"] == 9105
    assert [m["name"] for m in audit["data"]["models"]] == ["ERM", "FairGrad, limited"]
    auroc = next(e for e in audit["overall"] if e["metric"] == "auroc")
    # The same predictions; the table is of one repeat, as is the audit.
    assert abs(auroc["estimate"] - methods["erm"]["auroc"]["mean"]) < 1e-5
    gap = "equalized_odds_difference"
    assert methods["fairgrad_limited"][gap]["mean"]["mean"] < (
        0.75 * methods["erm"][gap]["mean"]["mean"]
    )


@pytest.fixture
def output(tmp_path):
    """A folder with an earlier report."""
    folder = tmp_path / "results" / "support2"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("earlier")
    return tmp_path / "results"


def refused(capsys, output, *arguments):
    """The one line that a command which cannot run says; nothing is touched."""
    before = {p: p.is_file() and p.read_bytes() for p in output.rglob("*")}
    capsys.readouterr()
    code = fairgrad.main([*arguments, "--output", str(output)])
    said = capsys.readouterr().err
    assert code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert said.endswith("\n")
    assert before == {p: p.is_file() and p.read_bytes() for p in output.rglob("*")}
    return said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--attributes", "sex", "height"],
            "race, income, age, each once; got sex, height",
        ),
        (["--attributes", "sex", "sex"], "each once; got sex, sex"),
        pytest.param(
            ["--methods", "erm", "magic"],
            "fairgrad_limited, fairgrad_single; got magic.",
            marks=pytest.mark.slow,
        ),
        (["--repeats", "0"], "--repeats must be 1 to 1,000; got 0"),
        (["--bootstrap", "1"], "--bootstrap must be 2 to 10,000; got 1"),
        (["--bootstrap", "100000000"], "must be 2 to 10,000; got 100000000"),
        (["--permutations", "-3"], "--permutations must be 2 to 10,000; got -3"),
        (["--tolerance", "-0.1"], "--tolerance must be 0 or more; got -0.1"),
        (["--tolerance", "nan"], "--tolerance must be 0 or more; got nan"),
        (["--seed", "-1"], "--seed must be 0 to 2147483647; got -1"),
    ],
)
def test_options_that_cannot_be(capsys, output, arguments, words):
    assert words in refused(capsys, output, *arguments)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--dataset", "mimic"], "mimic"),
        (["--repeat", "3"], "--repeat"),
        (["--repeats", "many"], "--repeats"),
    ],
)
def test_options_that_there_are_not(capsys, output, arguments, word):
    """The parser's own message: what was wrong, and what was perhaps meant."""
    with pytest.raises(SystemExit) as stop:
        fairgrad.main([*arguments, "--output", str(output)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert word in said
    assert "Traceback" not in said
    assert [p.name for p in output.rglob("*")] == ["support2", "summary.json"]


@pytest.mark.slow
def test_a_file_where_the_output_folder_should_be(capsys, tmp_path, monkeypatch, table):
    own(monkeypatch, table)
    # Nothing is evaluated.
    monkeypatch.setattr(fairgrad, "Evaluator", lambda *_, **__: None)
    blocked = tmp_path / "results"
    blocked.write_text("a file")
    for output in (blocked, blocked / "deeper"):
        code = fairgrad.main(["--methods", "erm", "--output", str(output)])
        said = capsys.readouterr().err
        assert code == 1
        assert f"the output folder {output}/support2 cannot be written to" in said
        assert said.count("\n") == 1
    assert blocked.read_text() == "a file"


def test_a_missing_package(capsys, output, monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    said = refused(capsys, output)
    assert "'SurvSet'" in said
    assert "pip install" in said


def test_a_file_that_is_not_the_pinned_one(capsys, output, monkeypatch):
    name = "SurvSet/resources/pickles/support2.pickle"
    monkeypatch.setitem(files.SHA256, name, "0" * 64)
    said = refused(capsys, output)
    assert "support2.pickle is not the file" in said
    assert "nothing was loaded" in said


def test_a_package_without_the_file(capsys, output, monkeypatch):
    def gone(path):
        raise FileNotFoundError(f"the installed package has no {path}")

    monkeypatch.setattr(files, "package_file", gone)
    assert "support2.pickle" in refused(capsys, output)


def everyone_died(frame):
    return frame.assign(event=1, time=1)


def never_measured(frame):
    return frame.assign(num_temp=np.nan)


def infinite(frame):
    frame = frame.copy()
    frame.loc[[3, 5], "num_temp"] = [np.inf, -np.inf]
    return frame


def one_sex(frame):
    return frame.assign(fac_sex="male")


def unknown_sex(frame):
    return frame.assign(fac_sex=frame["fac_sex"].astype(object).where(frame.index > 4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (everyone_died, ["label (death within 180 days)", "single class, [1]"]),
        (never_measured, ["feature 'temp'", "missing in every row"]),
        (infinite, ["feature 'temp'", "infinite in 2 rows"]),
        (one_sex, ["attribute 'sex'", "single category, 'male'"]),
        (unknown_sex, ["attribute 'sex'", "NaN in 5 rows"]),
    ],
)
def test_a_source_that_cannot_be_used(capsys, output, monkeypatch, change, words):
    read = survset.read_pickled_frame
    monkeypatch.setattr(survset, "read_pickled_frame", lambda path: change(read(path)))
    said = refused(capsys, output)
    assert all(word in said for word in words), said


def own(monkeypatch, table):
    """Let the command read a table of one's own."""
    monkeypatch.setattr(datasets, "DATASETS", {"support2": lambda: table})


def test_a_label_with_nan(capsys, output, monkeypatch, table):
    label = table.label.astype(float)
    label[:3] = np.nan
    own(monkeypatch, dataclasses.replace(table, label=label))
    said = refused(capsys, output)
    assert "the label (death within 180 days) is NaN in 3 of 1200 rows" in said


def test_a_label_too_rare_for_the_folds(capsys, output, monkeypatch, table):
    label = np.zeros_like(table.label)
    label[:3] = 1
    own(monkeypatch, dataclasses.replace(table, label=label))
    assert "label 1 has 3 rows, too few for 5 folds" in refused(capsys, output)


def test_a_patient_on_both_sides_of_a_split(capsys, output, monkeypatch, table):
    ids = table.patient_ids.copy()
    ids[:3] = ids[0]
    own(monkeypatch, dataclasses.replace(table, patient_ids=ids))
    monkeypatch.setattr(
        protocol, "patient_folds", lambda *args, **kwargs: np.arange(len(ids)) % 5
    )
    said = refused(capsys, output)
    assert "1 patients have rows in both" in said
    assert str(ids[0]) in said


def test_missing_features_are_filled_and_marked(table):
    """NaN in a feature is no error: the training median, and a column that says so."""
    assert table.features["glucose"].isna().any()
    splits = protocol.cross_validation(table, ("sex",), num_repeats=1, seed=0)
    assert np.isfinite(splits.inputs).all()
    marks = {tuple(np.unique(splits.inputs[0, :, c])) for c in range(20, 60)}
    assert (0.0, 1.0) in marks


def test_a_table_that_is_not_valid_is_refused_by_the_protocol(table):
    features = table.features.assign(temp=np.inf)
    with pytest.raises(ValueError, match="feature 'temp' is infinite in 1200 rows"):
        protocol.cross_validation(
            dataclasses.replace(table, features=features),
            ("sex",),
            num_repeats=1,
            seed=0,
        )
    assert validate(table) is table


@pytest.mark.slow
def test_a_run_that_diverges_is_one_line(capsys, output, monkeypatch, table):
    own(monkeypatch, table)
    # They do not diverge.
    monkeypatch.setattr(fairgrad.references, "ALL", {})
    budget = fairgrad.Budget(
        steps=10, steps_per_call=10, batch_size=64, hidden=(2,), learning_rate=1e38
    )
    monkeypatch.setattr(fairgrad, "Budget", lambda: budget)
    code = fairgrad.main(
        [
            *("--methods", "erm", "--repeats", "1", "--attributes", "sex"),
            *("--bootstrap", "2", "--permutations", "2", "--output", str(output)),
        ]
    )
    said = capsys.readouterr().err
    assert code == 1
    assert said.startswith("error: erm diverged")
    assert said.count("\n") == 1
    assert (output / "support2" / "summary.json").read_text() == "earlier"


def test_methods_and_attributes_have_defaults():
    options = fairgrad._checked(fairgrad.Options(dataset="rhc"))
    assert options.attributes == ("sex", "race", "income", "insurance", "age")
    assert options.methods[0] == "erm"
    left_out = {*fairgrad.methods.TITLES} - {*options.methods}
    assert left_out == {"penalty_absolute", "fairgrad_always", "fairgrad_always_mean"}
    assert options.repeats == 2
    full = fairgrad._checked(fairgrad.Options(full=True))
    assert full.methods == tuple(fairgrad.methods.TITLES)
    named = fairgrad._checked(fairgrad.Options(methods=("fairgrad_always",)))
    assert named.methods == ("erm", "fairgrad_always")
    options = fairgrad._checked(
        fairgrad.Options(methods=("penalty", "erm", "penalty"), full=True)
    )
    assert options.methods == ("erm", "penalty")
    assert options.repeats == 20


def test_full_is_a_least_number_of_repeats():
    for given, wanted in ((2, 20), (40, 40)):
        options = fairgrad._checked(fairgrad.Options(full=True, repeats=given))
        assert options.repeats == wanted


def test_calls_beside_run_in_order_and_their_errors_are_raised():
    done, gate = [], threading.Event()
    with beside() as submit:
        submit(gate.wait, 60)
        for number in range(3):
            submit(done.append, number)
        assert done == []
        gate.set()
    assert done == [0, 1, 2]
    with pytest.raises(ZeroDivisionError), beside() as submit:
        submit(lambda: 1 / 0)


def test_calls_beside_a_block_that_fails_are_dropped():
    done, waiting = [], []

    def until_the_next_is_dropped():
        for _ in range(60_000):
            if waiting and waiting[0].cancelled():
                return
            time.sleep(0.001)

    def fail():
        with beside() as submit:
            submit(until_the_next_is_dropped)
            waiting.append(submit(done.append, 0))
            raise OSError("of the block")

    with pytest.raises(OSError, match="of the block"):
        fail()
    assert done == []


def test_quick_compilation_leaves_the_users_flags_alone(monkeypatch):
    monkeypatch.setattr(compiling, "_is_quick", False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    compiling.quickly()
    assert os.environ["XLA_FLAGS"] == "--xla_backend_optimization_level=0"
    assert compiling.in_full() is None
    monkeypatch.delenv("XLA_FLAGS")
    compiling.quickly()
    assert "--xla_backend_optimization_level=1" in os.environ["XLA_FLAGS"]
    # The compiler knows the options, which name what the flags changed.
    full = compiling.in_full()
    assert {f"--{name}" for name in full} == {
        flag.split("=")[0] for flag in os.environ["XLA_FLAGS"].split()
    }
    assert jax.jit(lambda x: x + 1, compiler_options=full)(1) == 2


def test_two_runs_with_the_same_options_are_kept_apart(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(ValueError, match="another run .* is at work"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.slow
def test_every_data_set_has_default_attributes():
    for name, attributes in fairgrad.DEFAULT_ATTRIBUTES.items():
        columns = datasets.load(name).attributes.columns
        assert set(attributes) == set(columns)
    assert set(fairgrad.DEFAULT_ATTRIBUTES) == set(datasets.DATASETS)
