"""Commands from arguments to files, with training and metrics that cost nothing."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments.core import lanes
from experiments.core.evaluation import Evaluator
from experiments.fairgrad import experiment as fairgrad
from experiments.multifair import experiment as multifair
from fairjax.evaluation import Evaluation
from tests.experiments.conftest import column, on_one_device, untrained

SMALL = ("--repeats", "1", "--bootstrap", "2", "--permutations", "2")


def with_monitors(program, splits, budget, **options):
    """Trains nothing, and records an AUROC of each modality for every call and fold."""
    logits, (history,) = untrained(program, splits, budget, **options)
    calls = budget.steps // budget.steps_per_call
    shape = (len(program.variants), calls, splits.num_lanes, 3)
    return lanes.Trained(logits, ({**history, "unimodal_auroc": np.full(shape, 0.7)},))


@pytest.fixture
def brief(monkeypatch, tmp_path):
    """Metrics are drawn under the names of the real ones, but for the AUROC."""
    named = []

    def evaluate(evaluator, scores, decisions):
        if not named:
            given = scores[0], decisions[0]
            # Traced, not compiled, for the names.
            named.extend(jax.eval_shape(evaluator._measure_repeat, *given))
        point, sample = named
        rng = np.random.default_rng(0)
        repeats = {name: rng.random(len(scores)) for name in point}
        label = evaluator.cohort.labels
        repeats["auroc"] = np.array([roc_auc_score(label, one) for one in scores])
        resamples = {name: rng.random(leaf.shape) for name, leaf in sample.items()}
        drawn = {name: rng.random() for name in point if "/" in name}
        return Evaluation(repeats, resamples, drawn, drawn, drawn)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    on_one_device(monkeypatch)

    def run(module, train, dataset, *arguments):
        write = module.runs.report.write
        monkeypatch.setattr(lanes, "train", train)
        # Other tests draw the figures and audit the predictions.
        monkeypatch.setattr(module.runs, "write_audit", lambda *_, **__: tmp_path)
        monkeypatch.setattr(
            module.runs.report,
            "write",
            lambda system, *rest: write(
                dataclasses.replace(system, pictures={}), *rest
            ),
        )
        code = module.main([*arguments, *SMALL, "--output", str(tmp_path)])
        folder = tmp_path / dataset
        assert code == 0
        assert {path.name for path in folder.iterdir()} == {
            *("summary.json", "summary.md", "results.csv"),
        }
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))

    return run


def areas_of(summary):
    return {name: row["auroc"]["mean"] for name, row in summary["methods"].items()}


@pytest.mark.slow
def test_fairgrad(brief, table, monkeypatch, capsys):
    monkeypatch.setattr(fairgrad, "load", lambda name: table)
    monkeypatch.setattr(
        fairgrad.references, "ALL", {"logistic_regression": ("Regression", column)}
    )
    summary = brief(
        *(fairgrad, untrained, "support2"),
        *("--methods", "erm", "--attributes", "sex"),
    )
    assert summary["rows"] == 1200
    found = areas_of(summary)
    assert set(found) == {"logistic_regression", "erm"}
    # Drawn around the label with a deviation of 1: Φ(1 / √2).
    assert found["erm"] == pytest.approx(0.76, abs=0.03)
    said = capsys.readouterr()
    assert said.err == ""
    assert f"{found['erm']:.4f}" in said.out


@pytest.mark.slow
def test_multifair(brief, small, monkeypatch, capsys):
    monkeypatch.setattr(multifair, "load_multimodal", lambda name: small.data)
    monkeypatch.setattr(multifair, "simulated_truth", lambda: small.truth)
    monkeypatch.setattr(multifair, "MultimodalBudget", lambda: small.budget)
    summary = brief(
        *(multifair, with_monitors, "simulated"),
        *("--dataset", "simulated", "--methods", "joint"),
    )
    assert summary["rows"] == 500
    found = areas_of(summary)
    assert set(found) == {"joint", multifair.BEST}
    best = roc_auc_score(small.data.table.label, small.truth.log_odds.sum(axis=1))
    assert found[multifair.BEST] == pytest.approx(best, abs=1e-4)
    said = capsys.readouterr()
    assert said.err == ""
    assert "Joint training" in said.out
