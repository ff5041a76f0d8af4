"""One small cross-validation of real patients, and one small run, for all tests."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.core import lanes, protocol, runner
from experiments.core.evaluation import Evaluator, Predictions
from experiments.core.programs import Budget
from experiments.datasets import load
from experiments.datasets.simulated_modalities import simulate
from experiments.fairgrad import experiment as fairgrad
from experiments.fairgrad.results import Options
from experiments.multifair.task import MultimodalBudget, MultimodalTask
from fairjax import sweep

BUDGET = Budget(steps=20, steps_per_call=10, batch_size=128, hidden=(8,))
ATTRIBUTES = ("sex", "race")
REPLICATES = 20


def pytest_collection_modifyitems(items):
    """Whole runs are slow."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


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
def logits(splits):
    """Float32 ``[4, L, n]``: ridge regressions of ever larger penalties, in each lane.

    They are fitted on the lane's training rows and scaled to one spread, so that no
    setting is fair because it says nothing.
    """
    label = 2.0 * splits.table.label - 1
    found = []
    for lane, inputs in enumerate(splits.inputs.astype(np.float64)):
        rows = splits.rows(lane, "train")
        gram, moment = inputs[rows].T @ inputs[rows], inputs[rows].T @ label[rows]
        weights = [
            np.linalg.solve(gram + size * np.eye(len(gram)), moment)
            for size in (1, 100, 1000, 10_000)
        ]
        scores = np.array(weights) @ inputs.T
        found.append(1.5 * scores / scores.std(axis=1, keepdims=True))
    return np.stack(found, axis=1).astype(np.float32)


@pytest.fixture(scope="session")
def evaluator(splits):
    return Evaluator(splits, num_bootstrap=REPLICATES, num_permutations=50, seed=0)


@pytest.fixture(scope="session")
def predictions(splits, logits):
    """The out-of-fold predictions of the weakest and of the strongest penalty."""

    def pooled(logits):
        decisions = logits >= splits.thresholds(logits)[..., None]
        scores = splits.pool(logits, "test")
        scores = np.asarray(1 / (1 + jnp.exp(-scores)), np.float32)
        return Predictions("penalty", "1", scores, splits.pool(decisions, "test"))

    return pooled(logits[0]), pooled(logits[-1])


def column(splits, advance):
    """Logits that cost nothing: the first input."""
    for _ in range(splits.num_lanes):
        advance()
    return splits.inputs[..., 0]


def noted_bars(patch):
    """The bars of the runs from now on, which note what was planned, told and done."""
    bars = []

    class Bar(runner.Bar):
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

    patch.setattr(runner, "Bar", Bar)
    return bars


def on_one_device(patch):
    """Lanes are not spread over devices, which takes a third of compiling them.

    The lanes' own tests spread them.
    """
    mesh = sweep.lane_mesh(1)
    patch.setattr(sweep, "lane_mesh", lambda lanes: mesh)


def untrained(program, splits, budget, *, advance, **_):
    """What training gives, but drawn: the label, and a noise for every variant."""
    rng = np.random.default_rng([*program.name.encode()])
    shape = (len(program.variants), budget.steps)
    objectives = 1 + len(splits.attributes)
    drawn = {
        "values": rng.random((*shape, objectives)),
        "norms": rng.random((*shape, objectives)),
        "cosines": rng.uniform(-1, 1, (*shape, objectives, objectives)),
        "conflict_share": rng.random(shape),
    }
    logits = rng.normal(splits.table.label, 1.0, (shape[0], *splits.inputs.shape[:2]))
    advance(budget.steps)
    return lanes.Trained(logits.astype(np.float32), (drawn,))


def small_run(table, folder, **options):
    """A run of the experiment on a table of one's own: its folder, results and bar.

    Its references are a column, nothing is trained, and it is not audited; the
    command's test has all of them.
    """
    kept = []
    write = fairgrad.runs.report.write
    with pytest.MonkeyPatch.context() as patch:
        bars = noted_bars(patch)
        patch.setattr(lanes, "train", untrained)
        patch.setattr(fairgrad, "load", lambda name: table)
        cheap = {
            name: (title, column)
            for name, (title, _) in fairgrad.references.ALL.items()
        }
        patch.setattr(fairgrad.references, "ALL", cheap)
        patch.setattr(fairgrad.runs, "write_audit", lambda *_, **__: folder)
        patch.setattr(
            fairgrad.runs.report,
            "write",
            lambda system, results, folder: (
                kept.append(results) or write(system, results, folder)
            ),
        )
        done = fairgrad.run(
            Options(output=folder, bootstrap=REPLICATES, permutations=10, **options),
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
        methods=("penalty", "penalty_single", "fairgrad_limited"),
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
    # Drawn here, since compiling the model's own initialisation takes longer.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32),
        jax.eval_shape(task.learner.begin, jax.random.key(0)),
    )
    return SimpleNamespace(
        data=data,
        truth=truth,
        splits=splits,
        task=task,
        budget=budget,
        params=params,
    )
