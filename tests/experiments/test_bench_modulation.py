"""The benchmark of modulation measures every step, and saves what it measured."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import modulation, modulation_steps

TINY = modulation_steps.Size(
    "tiny", width=4, depth=1, num_heads=1, num_features=3, length=4
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(modulation_steps, "SMALL", TINY)
    monkeypatch.setattr(modulation, "TURN", 0.0)


def run(tmp_path, **changes):
    small = {"groups": 2, "small": (16,), "large": (), "rounds": 1}
    options = modulation.Options(
        output=tmp_path,
        keep_freed_memory=False,
        **(small | {"pytorch": False} | changes),
    )
    return modulation.main(options)


def compile_only(monkeypatch, names):
    """All steps are made; these are compiled."""
    make_steps = modulation_steps.make_steps

    def some(problem):
        made = make_steps(problem)
        assert len(made) == 6
        return {name: made[name] for name in names}

    monkeypatch.setattr(modulation_steps, "make_steps", some)


@pytest.mark.slow
def test_every_step_is_measured_and_saved(tmp_path, monkeypatch):
    compile_only(monkeypatch, ["plain"])
    rows, against = run(tmp_path)
    names = ["plain", "plain, again"]
    assert [(row.model, row.batch, row.step) for row in rows] == [
        ("tiny", 16, name) for name in names
    ]
    assert against == []
    assert rows[0].ratio == 1.0
    for row in rows:
        assert min(row.ratio, row.milliseconds, row.compile_seconds) > 0
        assert row.from_host == 0
    saved = json.loads((tmp_path / "modulation-cpu-returned.json").read_text())
    assert [row["ratio"] for row in saved["rows"]] == [row.ratio for row in rows]
    table = (tmp_path / "modulation-cpu-returned.md").read_text()
    assert [table.count(f"| tiny | 16 | {name} |") for name in names] == [1] * 2
    assert not (tmp_path / "modulation-torch-cpu-returned.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 1}, "--groups must be 2 or more; got 1"),
        ({"rounds": 0}, "--rounds must be 1 or more; got 0"),
        ({"small": (1,)}, "--small and --large must be 2 or more; got 1"),
        (
            {"small": (), "large": ()},
            "--small or --large must have a number .*; got none",
        ),
    ],
)
def test_options_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **changes)


def test_a_compiled_step_goes_on_and_leaves_the_first_state_alone():
    start = {"w": jnp.zeros(2)}

    def step(state, batch):
        return {"w": state["w"] + batch}, None

    compiled = modulation.Compiled(step, start, jnp.array([1.0, 2.0]))
    compiled(3)
    compiled()
    np.testing.assert_array_equal(compiled.state["w"], [4, 8])
    np.testing.assert_array_equal(start["w"], [0, 0])


def test_distance_by_hand():
    bias = "query_key_value"
    start = {"a": np.zeros(2), bias: {"bias": np.zeros(3)}}
    theirs = {"a": np.array([3.0, 0.0]), bias: {"bias": np.array([0.0, 9.0, 4.0])}}
    ours = {"a": np.array([3.0, 1.0]), bias: {"bias": np.array([0.0, -7.0, 4.0])}}
    # Moved by 5 without the key's bias, the middle third, and 1 apart.
    np.testing.assert_allclose(modulation.distance(start, ours, theirs), 0.2)
    assert modulation.distance(start, theirs, theirs) == 0


@pytest.mark.slow
def test_groups_and_outcomes_of_the_patients():
    problem = modulation_steps.Problem.make(TINY, 400, 4)
    counts = np.bincount(problem.batch["groups"], minlength=4)
    assert (counts > 20).all()
    assert counts.max() > 1.2 * counts.min()
    again = modulation_steps.Problem.make(TINY, 400, 4, seed=1)
    jax.tree.map(np.testing.assert_array_equal, problem.params, again.params)
    assert (problem.batch["labels"] != again.batch["labels"]).any()


@pytest.mark.oracle
def test_pytorch_takes_the_same_steps(tmp_path, monkeypatch):
    pytest.importorskip("torchjd")
    compile_only(monkeypatch, ["plain", "MultiFair, released"])
    rows, against = run(tmp_path, pytorch=True)
    assert all(row.ratio > 0 and row.from_host == 0 for row in rows)
    assert [row.step for row in against] == ["plain", "MultiFair, released"]
    for row in against:
        assert row.difference < 5e-3
        assert min(row.milliseconds, row.torch_milliseconds, row.ratio) > 0
    table = (tmp_path / "modulation-torch-cpu-returned.md").read_text()
    assert table.count("| tiny | 16 |") == 2
