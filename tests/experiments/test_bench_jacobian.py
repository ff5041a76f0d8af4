"""The benchmark measures what it says, leaves out what it says, and saves it all."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from experiments.bench import jacobian

SMALL = {"groups": (3,), "widths": (8,), "batches": (32,), "rounds": 2}


def run(tmp_path, **changes):
    options = jacobian.Options(
        output=tmp_path, pytorch=False, keep_freed_memory=False, **(SMALL | changes)
    )
    return jacobian.main(options)


@pytest.mark.slow
def test_every_step_is_measured_and_saved(tmp_path):
    rows = run(tmp_path)
    assert [row.step for row in rows] == [
        "plain",
        *jacobian.STRATEGIES,
        "fairjax PCGrad",
    ]
    assert rows[0].ratio == 1.0
    assert all(row.ratio > 0 and row.compile_seconds > 0 for row in rows)
    assert sum(row.note == "auto" for row in rows) == 1
    saved = json.loads((tmp_path / "jacobian-cpu-returned.json").read_text())
    assert [row["ratio"] for row in saved["rows"]] == [row.ratio for row in rows]
    assert {"device", "cores", "jax"} <= saved["environment"].keys()
    table = (tmp_path / "jacobian-cpu-returned.md").read_text()
    assert table.count("| 3 | 8 | 32 |") == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"limit": 0.0}, "expected to take"), ({"memory": 0.0}, "would need about")],
)
def test_what_would_take_too_much_is_left_out_with_the_reason(
    tmp_path, changes, reason
):
    rows = run(tmp_path, **changes)
    assert [row.step for row in rows if row.ratio is not None] == ["plain"]
    assert all(reason in row.note for row in rows if row.step != "plain")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (1,)}, "--groups must be 2 or more"),
        ({"batches": ()}, "--batches must be 1 or more"),
        ({"rounds": 0}, "--rounds must be 1 or more"),
    ],
)
def test_options_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **changes)


def test_a_folder_that_cannot_be_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("as it was")
    with pytest.raises(ValueError, match="cannot be written to"):
        run(tmp_path / "file", groups=(10**9,))
    assert (tmp_path / "file").read_text() == "as it was"


@pytest.mark.slow
def test_rows_of_the_problem_are_its_groups():
    problem = jacobian.Problem.make(groups=4, width=8, batch=64)
    losses = jacobian.statistics(problem.params, problem.batch)["loss"]
    cells = np.asarray(problem.batch["cells"])
    expected = [np.mean(np.asarray(losses)[cells == c]) for c in range(4)]
    values = problem.objectives(problem.params, problem.batch)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert fairjax.jacobian.explain(problem.objectives)(problem.params, problem.batch)


def test_mean_of_rows():
    rows = {"a": jnp.array([[1.0, 2.0], [3.0, 6.0]]), "b": jnp.array([0.0, 1.0])}
    mean = jacobian.mean_of_rows(rows)
    np.testing.assert_allclose(mean["a"], [2.0, 4.0])
    np.testing.assert_allclose(mean["b"], 0.5)
