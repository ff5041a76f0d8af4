"""MultiFair's experiment: its methods, its answers, and the command from end to end."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.multifair import experiment as multifair
from experiments.multifair import methods as multifair_methods
from experiments.multifair import names as multifair_names
from experiments.multifair.findings import BEST
from experiments.multifair.names import FACTORS
from experiments.multifair.results import Options
from experiments.reporting.prediction_audit import audited_table
from tests.experiments.conftest import on_one_device


@pytest.mark.slow
def test_every_method_has_a_title_and_is_trained_by_one_program(small):
    known = multifair_names.titles(small.task.names)
    programs = multifair_methods.build(tuple(known), small.task, small.splits)
    trained = [v.name for program in programs for v in program.variants]
    assert set(trained) == set(known) - {"late_fusion", "logistic_regression"}
    labels = [(v.name, v.setting) for program in programs for v in program.variants]
    assert len(set(labels)) == len(labels)
    some = multifair_methods.build(("ogm_ge",), small.task, small.splits)
    assert {v.name for program in some for v in program.variants} == {"ogm_ge"}
    with pytest.raises(
        ValueError, match="some of logistic_regression, joint, only_static.*; got magic"
    ):
        multifair_methods.build(("magic",), small.task, small.splits)


@pytest.fixture(scope="module")
def batch(small):
    """64 patients as the first lane reads them."""
    inputs = jax.tree.map(lambda x: jnp.asarray(x)[0], small.task.learner.inputs)
    shared = jax.tree.map(jnp.asarray, small.task.learner.shared)
    batch = small.task.learner.batch(inputs, shared, jnp.arange(64))
    return {**batch, "weights": jnp.ones(64), "modalities": jnp.ones(3, bool)}


@pytest.fixture(scope="module")
def forward(small):
    """Logits, statistics and losses of a batch."""
    task = small.task

    @jax.jit
    def compute(params, batch):
        outputs = task.outputs(params, batch)
        losses = task.losses(outputs, batch, attached=True)
        return outputs.logits[:, 0], task.statistics(params, batch), losses

    return functools.partial(compute, small.params)


@pytest.mark.slow
def test_the_parts_of_the_grid_add_up_to_the_joint_loss(small, batch, forward):
    """With nothing switched on the objectives' sum is the loss with unimodal losses."""
    (program,) = multifair_methods.build(("dual_level",), small.task, small.splits)
    functions = program.phases[0].functions
    assert len(functions) == 4 * small.task.num_groups
    _, statistics, (fused, each) = forward(batch)
    cells = np.asarray(batch["cells"])
    counts = np.bincount(cells, minlength=small.splits.partition.num_cells)
    means = {
        name: jnp.asarray(
            np.bincount(cells, np.asarray(v), len(counts)) / np.maximum(counts, 1)
        )
        for name, v in statistics.items()
    }
    total = sum(
        float(f.value(means, jnp.asarray(counts, jnp.float32)))
        for f in functions.values()
    )
    expected = sum(
        float(jnp.mean(statistics[name])) for name in ("fused", *small.task.names)
    )
    assert total == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(float(jnp.mean(fused + each.sum(1))), rel=1e-5)


@pytest.mark.slow
def test_one_modality_alone_does_not_see_the_others(small, batch, forward):
    seen = {"modalities": jnp.array([True, False, False])}
    batch = batch | seen
    other = {**batch, "inputs": dict(batch["inputs"])}
    other["inputs"]["hard"] = jax.tree.map(lambda x: x + 7, batch["inputs"]["hard"])
    (first, *_), (second, *_) = map(forward, (batch, other))
    np.testing.assert_array_equal(first, second)
    inputs = jax.tree.map(lambda x: jnp.asarray(x)[0], small.task.learner.inputs)
    shared = jax.tree.map(jnp.asarray, small.task.learner.shared)
    predict = jax.jit(small.task.learner.predict)
    predicted = predict(small.params, inputs, shared, seen)
    np.testing.assert_allclose(predicted[:64], first, atol=1e-5)


def test_late_fusion_is_the_mean_of_what_a_patient_has(small):
    shape = (5, len(small.data.weights))
    logits = {
        n: np.full(shape, v) for n, v in zip(small.data.names, (1, 4, 7), strict=True)
    }
    fused = multifair._late_fusion(logits, small.data)
    present = small.data.present
    expected = (present @ np.array([1, 4, 7])) / present.sum(1)
    np.testing.assert_allclose(fused, np.broadcast_to(expected, shape), rtol=1e-6)


def test_weighted_thresholds_select_the_weighted_prevalence(small):
    rng = np.random.default_rng(0)
    number = len(small.data.weights)
    scores = rng.normal(size=(2, 5, number)).astype(np.float32)
    weights = rng.uniform(0.5, 2, number).astype(np.float32)
    found = small.splits.thresholds(scores, weights)
    label = small.data.table.label
    for lane in range(5):
        rows = small.splits.rows(lane, "valid")
        wanted = weights[rows] @ label[rows]
        for variant in range(2):
            own = scores[variant, lane, rows]
            least = found[variant, lane]
            assert weights[rows] @ (own >= least) >= wanted - 1e-3
            assert weights[rows] @ (own > least) < wanted
    equal = small.splits.thresholds(scores, np.ones(number, np.float32))
    plain = small.splits.thresholds(scores)
    # Both select the prevalence, or the next possible share.
    for lane in range(5):
        rows = small.splits.rows(lane, "valid")
        own = scores[:, lane, rows]
        one = (own >= equal[:, lane, None]).sum(1)
        two = (own >= plain[:, lane, None]).sum(1)
        assert (np.abs(one - two) <= 1).all()


@pytest.mark.slow
def test_the_command_on_patients_of_a_known_law(small, tmp_path, monkeypatch):
    monkeypatch.setattr(multifair, "load_multimodal", lambda name: small.data)
    on_one_device(monkeypatch)
    monkeypatch.setattr(multifair, "simulated_truth", lambda: small.truth)
    # Another experiment's test writes the page; here its table is looked at.
    audited = []
    monkeypatch.setattr(
        multifair.runs,
        "write_audit",
        lambda results, folder, *, advance, **how: (
            audited.append(audited_table(results, **how)) or folder
        ),
    )
    # Not all of the single modalities: late fusion trains the others, too.
    methods = ("logistic_regression", "late_fusion", "only_easy", "multifair")
    methods += ("fairgrad",)
    options = Options(
        dataset="simulated",
        methods=(*methods, "multifair_levels"),
        repeats=2,
        bootstrap=20,
        permutations=20,
        output=tmp_path,
    )
    folder = multifair.run(options, small.budget, Console(quiet=True))
    names = {path.name for path in folder.iterdir()}
    drawn = ("tradeoff", "gaps", "modalities", "gap_over_training", "levels_multifair")
    assert names == {
        *("summary.json", "summary.md", "results.csv"),
        *(f"{name}.png" for name in drawn),
    }
    ((_, described),) = audited
    assert described.names == ("Joint training", "MultiFair, paper")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows = [title for title in summary["methods"] if "[" not in title]
    assert rows[:2] == ["logistic_regression", "joint"]
    assert set(rows) == {"joint", *methods, BEST}
    best = summary["methods"][BEST]["auroc"]["mean"]
    assert all(summary["methods"][r]["auroc"]["mean"] <= best + 1e-6 for r in rows)
    assert best == pytest.approx(small.truth.best_auc("A", *small.data.names), abs=0.06)
    assert set(summary["levels"]["multifair"]["auroc"]) == {
        "modality",
        "group",
        "together",
        *FACTORS,
    }
    assert summary["levels"]["dual_level"] == {}
    assert summary["protocol"]["seeds"].startswith("10 models of each method")
    text = (folder / "summary.md").read_text(encoding="utf-8")
    assert "Is the best possible AUROC reached?" in text
    assert "Dual-level reconciliation: the grid was not run." in text
    # What could be reached is no method that might differ from another.
    assert "- Best possible, by the known distribution: no difference" not in text
    assert f"- easy: A {small.truth.best_auc('A', 'easy'):.3f}, " in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repeats": 0}, "--repeats must be 1 to 1,000; got 0"),
        ({"tolerance": -1.0}, "--tolerance must be 0 or more; got -1.0"),
        # What is built of the methods' names is tested above, too.
        pytest.param(
            {"methods": ("magic",)},
            "--methods must name some of logistic_regression, joint.*; got magic",
            marks=pytest.mark.slow,
        ),
        (
            {"attributes": ("height",)},
            "--attributes must name some of group.*; got height",
        ),
    ],
)
def test_options_that_cannot_be(small, tmp_path, monkeypatch, change, words):
    monkeypatch.setattr(multifair, "load_multimodal", lambda name: small.data)
    options = Options(dataset="simulated", output=tmp_path / "out")
    with pytest.raises(ValueError, match=words.replace("(", "\\(")):
        multifair.run(
            dataclasses.replace(options, **change), small.budget, Console(quiet=True)
        )
    assert not (tmp_path / "out").exists()
