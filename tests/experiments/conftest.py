"""One small cross-validation of real patients, and one small run, for all tests."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import fairgrad, lanes, methods, protocol
from experiments.datasets import load
from experiments.datasets.simulated_modalities import simulate
from experiments.evaluation import Evaluator, Predictions
from experiments.fairgrad_results import Options
from experiments.multimodal import MultimodalBudget, MultimodalTask
from experiments.programs import Budget

BUDGET = Budget(steps=20, steps_per_call=10, batch_size=128, hidden=(8,))
ATTRIBUTES = ("sex", "race")
REPLICATES = 20


def some_of(table, rows):
    """The table with some of its rows, by number."""
    return dataclasses.replace(
        table,
        features=table.features.iloc[rows].reset_index(drop=True),
        label=table.label[rows],
        attributes=table.attributes.iloc[rows].reset_index(drop=True),
        patient_ids=table.patient_ids[rows],
    )


@pytest.fixture(scope="session")
def table():
    """1,200 of the SUPPORT2 patients."""
    whole = load("support2")
    rows = np.random.default_rng(0).choice(len(whole.label), 1200, replace=False)
    return some_of(whole, np.sort(rows))


@pytest.fixture(scope="session")
def splits(table):
    return protocol.cross_validation(
        table, ATTRIBUTES, num_repeats=2, min_level_count=20, seed=0
    )


@pytest.fixture(scope="session")
def penalty(splits, tmp_path_factory):
    """The penalty's variants, trained together."""
    (program,) = methods.build(["penalty"], splits)
    work = tmp_path_factory.mktemp("penalty")
    steps = []
    trained = lanes.train(
        program, splits, BUDGET, seed=3, work=work, advance=steps.append
    )
    return SimpleNamespace(program=program, trained=trained, work=work, steps=steps)


@pytest.fixture(scope="session")
def evaluator(splits):
    return Evaluator(splits, num_bootstrap=REPLICATES, num_permutations=50, seed=0)


@pytest.fixture(scope="session")
def predictions(splits, penalty):
    """The out-of-fold predictions of the strongest and of the weakest penalty."""

    def pooled(logits):
        decisions = logits >= splits.thresholds(logits)[..., None]
        scores = splits.pool(logits, "test")
        scores = np.asarray(1 / (1 + jnp.exp(-scores)), np.float32)
        return Predictions("penalty", "1", scores, splits.pool(decisions, "test"))

    return pooled(penalty.trained.logits[0]), pooled(penalty.trained.logits[-1])


@pytest.fixture(scope="session")
def evaluations(evaluator, predictions):
    return tuple(evaluator(one) for one in predictions)


def small_run(table, folder, **options):
    """A run of the experiment on a table of one's own: its folder and its results."""
    kept, bars = [], []
    write = fairgrad.report.write

    class Bar(fairgrad.runner.Bar):
        """Notes what was planned, told and done."""

        def __init__(self, progress):
            super().__init__(progress)
            self.planned, self.advanced, self.said = 0, 0, []
            bars.append(self)

        def plan(self, units):
            self.planned = units
            super().plan(units)

        def doing(self, what):
            self.said.append(what)
            super().doing(what)

        def advance(self, units=1):
            self.advanced += units
            super().advance(units)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fairgrad.runner, "Bar", Bar)
        patch.setattr(fairgrad, "load", lambda name: table)
        patch.setattr(
            fairgrad.report,
            "write",
            lambda system, results, folder: (
                kept.append(results) or write(system, results, folder)
            ),
        )
        done = fairgrad.run(
            Options(output=folder, bootstrap=REPLICATES, permutations=50, **options),
            BUDGET,
            Console(quiet=True),
        )
    return SimpleNamespace(folder=done, results=kept[0], bar=bars[0])


@pytest.fixture(scope="session")
def finished(table, tmp_path_factory):
    """A run of several methods and two attributes."""
    return small_run(
        table,
        tmp_path_factory.mktemp("finished"),
        attributes=ATTRIBUTES,
        methods=("fairgrad", "penalty", "penalty_single", "fairgrad_limited"),
    )


@pytest.fixture(scope="session")
def small():
    """Patients of a known law, split, and a small model for their modalities."""
    budget = MultimodalBudget(
        steps=4, steps_per_call=2, batch_size=32, hidden=(4,), width=4, num_heads=1
    )
    data, truth = simulate(500, seed=3)
    splits = protocol.cross_validation(data.table, ("group",), num_repeats=1, seed=0)
    task = MultimodalTask(data, splits, budget)
    return SimpleNamespace(
        data=data, truth=truth, splits=splits, task=task, budget=budget
    )
