"""The benchmark of mitigation measures every task, and says what both sides reach."""

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from experiments.bench import (
    aif360_mitigation,
    mitigation_tasks,
    pipeline_at_scale,
    timing,
)
from experiments.bench import mitigation as bench

SMALL = bench.Options(
    sizes=(300,),
    features=2,
    groups=3,
    odds_sizes=(300,),
    rounds=2,
    repair_rounds=1,
    keep_freed_memory=False,
    reduction_sizes=(400,),
    reduction_features=3,
    reduction_rounds=1,
    members=0,
    aif360=False,
)
TASKS = [
    "disparate impact remover",
    "equalized odds of decisions",
    "equalized odds of scores",
    "reduction, logistic regression",
]


@pytest.mark.slow
def test_every_task_is_measured_and_written(tmp_path, monkeypatch):
    document = tmp_path / "performance.md"
    name = "mitigation-cpu-returned"
    before, after = (mark.format(name) for mark in (timing.BEGIN, timing.END))
    document.write_text(f"Above.\n{before}\nold\n{after}\nBelow.\n", encoding="utf-8")
    monkeypatch.setattr(timing, "DOCUMENT", document)
    rows = bench.main(dataclasses.replace(SMALL, output=tmp_path, docs=True))
    assert [row.task for row in rows] == TASKS
    *alone, reduction = rows
    for row in alone:
        assert min(row.milliseconds, row.first_seconds) > 0
        assert row.ratio is row.their_seconds is row.their_reached is None
    repair, decisions, scores = alone
    # fairlearn is always there.
    assert reduction.against == "fairlearn"
    assert min(reduction.ratio, reduction.their_seconds) > 0
    assert abs(reduction.reached - reduction.their_reached) < 0.05
    gaps, missed = re.findall(r"(\d+\.\d{4}), (\d+\.\d{4})", reduction.of)
    assert max(map(float, gaps)) < 0.05
    assert max(map(float, missed)) < 0.05
    assert 0 < repair.reached < 0.1
    assert 0 < decisions.reached < 0.5
    assert 0 < scores.reached < 0.5
    assert [row.groups for row in rows] == [3, 2, 3, 3]
    saved = json.loads((tmp_path / f"{name}.json").read_text())
    assert saved["rows"] == [dataclasses.asdict(row) for row in rows]
    text = document.read_text(encoding="utf-8")
    assert "old" not in text
    for row in rows:
        assert f"| {' | '.join(row.cells())} |" in text


@pytest.mark.slow
def test_both_sides_are_compared(monkeypatch):
    """Stand-ins for AIF360: one that repairs nothing, and one without a rule."""
    monkeypatch.setattr(aif360_mitigation, "repair", lambda values, _: lambda: values)
    monkeypatch.setattr(aif360_mitigation, "equal_odds", lambda *_: lambda: 0.5)
    repair = mitigation_tasks.measure_repair(300, 2, 3, rounds=1, aif360=True)
    assert repair.reached < 0.1 < 0.25 < repair.their_reached
    odds = mitigation_tasks.measure_odds(300, rounds=2, aif360=True)
    assert odds.reached < odds.their_reached == 0.5
    for row in (repair, odds):
        assert row.against == "AIF360"
        assert min(row.their_seconds, row.ratio) > 0


def test_clocked_calls_in_turns():
    calls = []
    found, last = timing.clocked(
        lambda: calls.append("ours") or len(calls),
        lambda: calls.append("theirs") or -len(calls),
        2,
    )
    assert calls == ["ours", "ours", "theirs", "ours", "theirs"]
    assert last == {"ours": 4, "theirs": -5}
    assert found["ratio"] > 0


def test_groups_lie_apart_before_repair():
    values, groups = mitigation_tasks.table_of(2000, 4, 3)
    means = [values[groups == group].mean(axis=0) for group in range(3)]
    assert np.ptp(means, axis=0).max() > 0.3
    labels, scores, groups = mitigation_tasks.outcomes_of(20_000, 2)
    gaps = [
        scores[(groups == g) & (labels == 1)].mean()
        - scores[(groups == g) & (labels == 0)].mean()
        for g in (0, 1)
    ]
    np.testing.assert_allclose(gaps, [1.5, 1.0], atol=0.08)


@pytest.mark.slow
def test_all_configurations_at_scale(monkeypatch):
    """In this process, where the benchmark has one of its own."""
    monkeypatch.setattr(pipeline_at_scale, "num_cores", lambda: 1)

    def most_held(command):
        _, *module, rows, learner, iterations, target = command
        assert module == ["-m", "experiments.bench.pipeline_at_scale"]
        with tempfile.TemporaryDirectory() as work:
            taken = pipeline_at_scale.eight_configurations(
                int(rows), learner, int(iterations), Path(work)
            )
        Path(target).write_text(json.dumps(taken), encoding="utf-8")
        return 0.5

    monkeypatch.setattr(pipeline_at_scale, "_most_held", most_held)
    row = pipeline_at_scale.measure_pipeline(2000, learner="logistic", iterations=1)
    assert row.task == "eight configurations, logistic"
    assert (row.rows, row.features, row.groups) == (2000, 177, 10)
    assert row.reached == 0.5


def test_the_memory_of_a_process_is_measured():
    command = [sys.executable, "-c", "import time; x = b'1' * 10**8; time.sleep(1)"]
    assert 0.1 < pipeline_at_scale._most_held(command) < 1
    with pytest.raises(subprocess.CalledProcessError):
        pipeline_at_scale._most_held([sys.executable, "-c", "raise SystemExit(2)"])


def test_a_row_by_hand():
    row = mitigation_tasks.Row(
        *("task", 1000, 0, 2, 2.04, 1.26, 0.25, "it"),
        *("AIF360", 0.1234, 61.25, 0.5),
    )
    assert row.cells() == [
        *("task", "1,000", "-", "2", "2.0", "1.3"),
        *("AIF360", "0.123", "61.2", "0.2500", "0.5000", "it"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "--rounds must be 1"),
        ({"sizes": (0,)}, "--sizes must be 1"),
        ({"groups": 1}, "--groups must be 2"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        bench.main(dataclasses.replace(SMALL, output=tmp_path, **options))


@pytest.mark.oracle
class TestAgainstAif360:
    @pytest.fixture(autouse=True)
    def there(self):
        if not aif360_mitigation.installed():
            pytest.skip("aif360 and BlackBoxAuditing are not installed")

    def test_the_same_optimum_of_odds(self):
        row = mitigation_tasks.measure_odds(3000, rounds=1, aif360=True)
        assert row.reached == pytest.approx(row.their_reached, abs=1e-7)

    def test_both_repair(self):
        row = mitigation_tasks.measure_repair(2000, 2, 3, rounds=1, aif360=True)
        assert max(row.reached, row.their_reached) < 0.02
