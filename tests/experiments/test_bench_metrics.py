"""The benchmark of the metrics measures every task, and compares what it times."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import metrics as bench
from experiments.bench import timing
from fairjax.metrics import GroupCounts

SMALL = bench.Options(
    sizes=(400,),
    groups=2,
    replicates=40,
    fairlearn_replicates=4,
    auroc_rows=400,
    auroc_replicates=3,
    sklearn_replicates=1,
    delong_rows=400,
    count_rows=400,
    rounds=2,
    keep_freed_memory=False,
    fairlearn=False,
)
TASKS = [
    *("rates with bootstrap intervals", "AUROC bootstrap"),
    *("DeLong covariance of 2 models", "counts", "counts"),
]


@pytest.mark.slow
def test_every_task_is_measured_and_written(tmp_path, monkeypatch):
    document = tmp_path / "performance.md"
    before, after = (
        mark.format("metrics-cpu-returned") for mark in (timing.BEGIN, timing.END)
    )
    document.write_text(f"Above.\n{before}\nold\n{after}\nBelow.\n", encoding="utf-8")
    monkeypatch.setattr(timing, "DOCUMENT", document)
    rows = bench.main(dataclasses.replace(SMALL, output=tmp_path, docs=True))
    assert [row.task for row in rows] == TASKS
    for row in rows:
        assert min(row.milliseconds, row.compile_seconds) > 0
    rates, auroc, *others = rows
    assert rates.ratio is rates.their_seconds is None
    assert auroc.ratio > 0
    assert auroc.difference < 1e-6
    assert [row.groups for row in others] == [2, 2, 20]
    saved = json.loads((tmp_path / "metrics-cpu-returned.json").read_text())
    assert [row["milliseconds"] for row in saved["rows"]] == [
        row.milliseconds for row in rows
    ]
    text = document.read_text(encoding="utf-8")
    assert text.startswith("Above.\n")
    assert text.endswith("\nBelow.\n")
    assert "| AUROC bootstrap | 400 | 2 | 3 |" in text
    assert "old" not in text


def test_the_document_has_a_place_for_the_table():
    text = timing.DOCUMENT.read_text(encoding="utf-8")
    assert timing.BEGIN.format("metrics-cpu") in text
    assert timing.END.format("metrics-cpu") in text


def test_summaries_by_hand():
    # Selected 2 of 10, 6 of 10 and none of 20: 8 of 40 overall.
    counts = np.zeros((3, 2, 2), int)
    counts[:, 0] = [[8, 2], [4, 6], [20, 0]]
    found = jax.jit(bench.all_summaries)(GroupCounts(jnp.array(counts)))
    found = found["selection_rate"]
    expected = {
        "overall": 0.2,
        "by_group": [0.2, 0.6, 0.0],
        "group_min": 0.0,
        "group_max": 0.6,
        "difference": 0.6,
        "difference_to_overall": 0.4,
        "ratio": 0.0,
        "ratio_to_overall": 0.0,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)


@pytest.mark.slow
def test_intervals_are_the_replicates_quantiles():
    cohort = bench.Cohort.make(400, 2)
    estimates, ends, replicates = bench.rates_with_intervals(
        jax.random.key(0),
        cohort.labels,
        cohort.predictions,
        cohort.groups,
        num_groups=2,
        num_replicates=40,
    )
    for group in range(2):
        here = (cohort.groups == group) & (cohort.labels == 1)
        np.testing.assert_allclose(
            estimates["true_positive_rate"]["by_group"][group],
            cohort.predictions[here].mean(),
            rtol=1e-6,
        )
    values = np.asarray(replicates["true_positive_rate"]["difference"])
    np.testing.assert_allclose(
        ends["true_positive_rate"]["difference"],
        np.quantile(values, [bench.TAIL, 1 - bench.TAIL]),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sizes": ()}, "sizes"), ({"rounds": 0}, "rounds"), ({"sizes": (0,)}, "sizes")],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=f"--{message}"):
        bench.main(dataclasses.replace(SMALL, output=tmp_path, **options))


@pytest.mark.oracle
class TestAgainstFairlearn:
    options = dataclasses.replace(SMALL, fairlearn=True, replicates=400)

    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("fairlearn")

    def test_estimates_and_intervals_agree(self):
        row = bench.measure_rates(self.options, 2000)
        assert row.ratio > 0
        assert row.difference < 1e-6
        assert "DIFFER" not in row.note

    def test_what_differs_is_said(self, monkeypatch):
        other = bench.Cohort.make(2000, 2, seed=1)
        frame = bench.metric_frame(other, 4)
        monkeypatch.setattr(bench, "metric_frame", lambda *_: frame)
        assert "THE ESTIMATES DIFFER" in bench.measure_rates(self.options, 2000).note

    def test_shifted_intervals_are_noticed(self, monkeypatch):
        cohort = bench.Cohort.make(2000, 2)
        seconds, frame = bench.metric_frame(cohort, 4)

        def shifted(name):
            return lambda **options: [
                end + 0.2 for end in getattr(frame, name)(**options)
            ]

        moved = SimpleNamespace(
            **{name: getattr(frame, name) for name in ("overall", "by_group")},
            **{
                name: [end + 0.2 for end in getattr(frame, name)]
                for name in ("overall_ci", "by_group_ci")
            },
            **{
                name: getattr(frame, name)
                for name in ("group_min", "group_max", "difference", "ratio")
            },
            **{
                name: shifted(name)
                for name in (
                    "group_min_ci",
                    "group_max_ci",
                    "difference_ci",
                    "ratio_ci",
                )
            },
        )
        monkeypatch.setattr(bench, "metric_frame", lambda *_: (seconds, moved))
        note = bench.measure_rates(self.options, 2000).note
        assert "THE INTERVALS DIFFER" in note
        assert "ESTIMATES" not in note
