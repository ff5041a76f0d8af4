"""The benchmark of the engine counts what it says, and compares it with goals."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import engine, problems, timing


@pytest.mark.slow
def test_costs_are_measured_saved_and_published(tmp_path, monkeypatch):
    document = tmp_path / "performance.md"
    name = "engine-cpu-returned"
    begin, end = timing.BEGIN.format(name), timing.END.format(name)
    document.write_text(f"before\n{begin}\n{end}\nafter\n")
    (tmp_path / "performance").mkdir()
    monkeypatch.setattr(timing, "DOCUMENT", document)
    work = dataclasses.replace(engine.WORKS[0], batch=16)
    monkeypatch.setattr(engine, "WORKS", (work,))
    monkeypatch.setattr(engine, "COMPILATIONS", 1)
    options = engine.Options(
        tmp_path / "out", docs=True, quick=True, keep_freed_memory=False, pytorch=False
    )
    rows, (curve,) = engine.main(options)
    assert [row.measure for row in rows] == [*work.goals, "seconds"]
    assert all(row.measured > 0 for row in rows)
    assert curve.time > 0
    assert curve.torchjd_ratio is None
    saved = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert [row["measured"] for row in saved["rows"]] == [row.measured for row in rows]
    assert document.read_text().count("| MLP 256, equal groups |") == len(work.goals)
    assert (tmp_path / "performance" / "engine-cpu.png").stat().st_size > 0


def test_flops_are_of_products_that_are_used():
    def product(x):
        (x @ x.T).sum()
        return x.T @ x

    assert engine.flops(product, jnp.ones((3, 5))) == 2 * 5 * 3 * 5


@pytest.mark.parametrize(
    ("sign", "measured", "reached"),
    [("≤", 2, "yes"), ("≤", 2.1, "no"), ("≥", 2, "yes"), ("≥", 1.9, "no")],
)
def test_a_goal_is_reached(sign, measured, reached):
    row = engine.Row("step", 8, 64, "FLOPs", sign, 2.0, measured)
    assert row.cells() == [
        "step",
        "8",
        "64",
        "FLOPs",
        f"{sign} 2",
        f"{measured}",
        reached,
        "",
    ]
    assert dataclasses.replace(row, goal=None).cells()[4:7:2] == ["-", "-"]


def test_goals_of_a_timed_step():
    curve = engine.Curve(8, 64, 1.2, 5.0, 2.0, 1.5, 1.0, 8.0, 4.0, 1.75, "autogram")
    faster, loop = engine.goals_of(curve)
    assert (faster.goal, faster.measured, faster.reached) == (3.0, 4.0, "yes")
    assert (
        faster.note == "autogram; each over its own plain step: ours 1.5, TorchJD's 8.0"
    )
    assert (loop.goal, loop.measured) == (None, 1.75)
    assert list(engine.goals_of(dataclasses.replace(curve, groups=4))) == []


def test_the_picture_shows_each_side_and_batch():
    curves = [
        engine.Curve(k, b, 1.2, 1.0 * k, 1.0, 1.5, 1.0, 2.0 * k, 4.0, 2.0, "autojac")
        for b in (64, 1024)
        for k in (2, 8)
    ]
    counts, times = engine.draw(curves).axes
    assert [line.get_label() for line in times.lines] == [
        "TorchJD, B 64",
        "fairjax, B 64",
        "TorchJD, B 1,024",
        "fairjax, B 1,024",
    ]
    np.testing.assert_allclose(counts.lines[0].get_ydata(), [2.0, 8.0])
    alone = [dataclasses.replace(curve, torchjd_time=None) for curve in curves]
    assert len(engine.draw(alone).axes[1].lines) == 2


@pytest.mark.parametrize("unequal", [False, True])
def test_sizes_of_groups(unequal):
    problem = problems.multilayer(4, 64, [2], unequal=unequal)
    sizes = np.bincount(problem.batch["cells"])
    assert sizes.tolist() == ([8, 13, 19, 24] if unequal else [16] * 4)
    losses = problems.cross_entropy(
        problems.mlp(problem.params, problem.batch["x"]), problem.batch["y"]
    )
    cells = np.asarray(problem.batch["cells"])
    expected = [np.mean(np.asarray(losses)[cells == c]) for c in range(4)]
    values = problem.objectives(problem.params, problem.batch)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (1,)}, "--groups must be 2 or more"),
        ({"batches": (0,)}, "--batches must be 1 or more"),
        ({"rounds": 0}, "--rounds must be 1 or more"),
    ],
)
def test_options_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        engine.main(engine.Options(output=tmp_path, **changes))


def test_a_folder_that_cannot_be_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("as it was")
    with pytest.raises(ValueError, match="cannot be written to"):
        engine.main(engine.Options(output=tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "as it was"
