"""The methods' objectives and numbers, and the published baselines by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.core import methods
from experiments.core.programs import Budget, allot


@pytest.fixture(scope="module")
def programs(splits):
    return {
        program.name: program for program in methods.build([*methods.TITLES], splits)
    }


def labels(program, name):
    return [v.setting for v in program.variants if v.name == name]


def test_every_method_is_trained_once(programs):
    names = [v.name for program in programs.values() for v in program.variants]
    assert set(names) == set(methods.TITLES)
    pairs = [(v.name, v.setting) for p in programs.values() for v in p.variants]
    assert len(set(pairs)) == len(pairs)
    for program in programs.values():
        for settings in (program.settings, *(p.settings for p in program.phases)):
            for values in settings.values():
                assert len(values) == len(program.variants)
    assert next(iter(programs)) == "erm"
    tuned = {name for name in names if names.count(name) > 1}
    assert tuned == {*methods.TUNED, "penalty_single", "fairgrad_single"}


def test_only_the_named_methods_are_built(splits):
    built = methods.build(["fairgrad_single", "erm", "two_phase_sequential"], splits)
    assert [program.name for program in built] == [
        "erm",
        "two_phase",
        "fairgrad_balanced",
    ]
    assert [[v.name for v in program.variants] for program in built] == [
        ["erm"],
        ["two_phase_sequential"],
        ["fairgrad_single"] * 2,
    ]
    assert methods.build([], splits) == []


def test_an_unknown_method_is_named(splits):
    with pytest.raises(
        ValueError, match="must name some of erm, rew.*; got magic, wand"
    ):
        methods.build(["erm", "magic", "wand"], splits)


def test_objectives(splits, programs):
    assert [*programs["erm"].phases[0].functions] == ["task"]
    assert [*programs["reweighting"].phases[0].functions] == ["task"]
    groups = [
        name for a in splits.attributes for name in splits.partition.membership(a)[0]
    ]
    assert [*programs["group_dro"].phases[0].functions] == groups
    for name in ("penalty", "penalty_absolute", "fairgrad", "fairgrad_balanced"):
        (phase,) = programs[name].phases
        assert [*phase.functions] == ["task", *splits.attributes]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("penalty", 0.01 / 2),
        ("penalty_absolute", 0.1),
        ("fairgrad", 0.1),
        ("fairgrad_balanced", 0.01 / 2),
    ],
)
def test_fairness_objectives_by_hand(splits, programs, name, expected):
    """Everybody scores .5, but for .6 among the men who died; equally many women.

    The deviations among those who died are .05 on either side: squared or absolute.
    """
    cells = splits.partition
    levels = dict(zip(cells.attributes, cells.codes.T, strict=True))
    men = (levels["outcome"] == 1) & (levels["sex"] == 1)
    score = jnp.where(men, 0.6, 0.5)
    function = programs[name].phases[0].functions["sex"]
    value = function.value({"score": score}, jnp.ones(cells.num_cells))
    by_hand = 0.05 if expected == 0.1 else 0.05**2
    assert float(value) == pytest.approx(by_hand, rel=1e-4)


def test_weights_of_the_penalties(splits, programs):
    program = programs["penalty"]
    weights = program.settings["weights"]
    assert labels(program, "penalty") == [f"{w:g}" for w in methods.PENALTY_WEIGHTS]
    assert labels(program, "penalty_single") == ["sex", "race"]
    number = len(methods.PENALTY_WEIGHTS)
    for row, weight in zip(weights, methods.PENALTY_WEIGHTS, strict=False):
        np.testing.assert_allclose(row, [1, weight, weight])
    single = methods.SINGLE_WEIGHT
    np.testing.assert_allclose(weights[number:], [[1, single, 0], [1, 0, single]])
    absolute = programs["penalty_absolute"].settings["weights"]
    np.testing.assert_allclose(absolute[:, 1], methods.ABSOLUTE_PENALTY_WEIGHTS)
    np.testing.assert_allclose(absolute[:, 0], 1)


def test_numbers_of_fairgrad(programs):
    weights = programs["fairgrad"].settings["weights"]
    np.testing.assert_allclose(weights, [[1, 1, 1], [1 / 3] * 3])
    program = programs["fairgrad_balanced"]
    rows = {
        (v.name, v.setting): {k: x[i] for k, x in program.settings.items()}
        for i, v in enumerate(program.variants)
    }
    for strength in methods.STRENGTHS:
        row = rows["fairgrad_balanced", f"{strength:g}"]
        assert row["strength"] == np.float32(strength)
        assert row["limit"] == np.inf
        assert row["epsilon"] == 0
        assert row["objective_mask"].all()
    for limit in methods.LIMITS:
        row = rows["fairgrad_limited", f"{limit:g}"]
        assert (row["strength"], row["limit"]) == (1, np.float32(limit))
        assert row["epsilon"] == np.float32(methods.EPSILON)
        assert row["objective_mask"].all()
    row = rows["fairgrad_single", "race"]
    assert row["objective_mask"].tolist() == [True, False, True]


def test_the_two_phases(programs):
    """First the task; then the attributes, one by one or together, more slowly."""
    program = programs["two_phase"]
    assert [v.name for v in program.variants] == [
        "two_phase_sequential",
        "two_phase_simultaneous",
    ]
    assert [phase.share for phase in program.phases] == [0.5, 0.25, 0.25]
    assert [phase.rate for phase in program.phases] == [1.0, 0.1, 0.1]
    rows = np.stack([phase.settings["weights"] for phase in program.phases])
    np.testing.assert_array_equal(rows[:, 0], np.eye(3))
    np.testing.assert_array_equal(rows[:, 1], [[1, 0, 0], [0, 1, 1], [0, 1, 1]])


@pytest.mark.parametrize("attributes", range(1, 14))
@pytest.mark.parametrize("budget", [Budget(), Budget(steps=30, steps_per_call=7)])
def test_phases_use_up_the_budget_exactly(attributes, budget):
    size, calls = allot([0.5] + [0.5 / attributes] * attributes, budget)
    assert 1 <= size <= budget.steps_per_call
    assert size * sum(calls) == budget.steps
    # Half for the task, and the same for each attribute, or to within a step.
    assert max(calls[1:]) - min(calls[1:]) <= (size == 1)
    assert abs(calls[0] * size - budget.steps / 2) <= max(
        size, budget.steps / 2 / attributes
    )
    assert min(calls) >= 1


def test_more_phases_than_steps():
    with pytest.raises(ValueError, match="a step for each of 3 phases; got steps="):
        allot([0.5, 0.25, 0.25], Budget(steps=2))


def test_reweighting_is_fitted_on_the_training_rows(splits, programs):
    weights = programs["reweighting"].example_weights
    for lane in (0, 8):
        train = splits.rows(lane, "train")
        assert not weights[lane, ~train].any()
        assert weights[lane, train].mean() == pytest.approx(1, abs=1e-4)
        people = splits.table.attributes[train][["sex", "race"]].astype(str)
        label, mine = splits.table.label[train], weights[lane, train]
        shares = [
            np.average(label[rows], weights=mine[rows])
            for rows in people.groupby(["sex", "race"]).indices.values()
            if 0 < label[rows].mean() < 1
        ]
        # Every intersection with both outcomes has the prevalence of all.
        assert len(shares) >= 6
        np.testing.assert_allclose(shares, label.mean(), atol=1e-5)
