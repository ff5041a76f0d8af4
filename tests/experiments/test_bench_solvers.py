"""The benchmark of the solvers measures every method, and says what it compared."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import solvers

SMALL = {
    "sizes": (3,),
    "draws": 2,
    "rounds": 2,
    "objectives": (2,),
    "width": 8,
    "batch": 32,
}
FEW = ("IMTLG", "Random")
NAMES = [method.name for method in solvers.METHODS]


def named(name):
    return next(one for one in solvers.METHODS if one.name == name)


def run(tmp_path, **changes):
    options = solvers.Options(
        output=tmp_path, keep_freed_memory=False, **({"pytorch": False} | changes)
    )
    return solvers.main(options)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(solvers, "METHODS", [named(name) for name in FEW])


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_without_torchjd_only_its_columns_are_empty(tmp_path):
    against, shares = run(tmp_path, **SMALL)
    assert [(row.method, row.size) for row in against] == [(name, 3) for name in FEW]
    for row in against:
        assert min(row.milliseconds, row.loop_milliseconds, row.compile_seconds) > 0
        assert row.ratio is row.loop_ratio is row.torchjd_milliseconds is None
        assert row.difference is None
        assert row.cells().count("-") == 4
    assert [(row.method, row.size) for row in shares] == [(name, 2) for name in FEW]
    for row in shares:
        assert row.share > 0
        assert row.over_mean > -1
    saved = json.loads((tmp_path / "solvers-cpu-returned.json").read_text())
    assert [row["milliseconds"] for row in saved["rows"]] == [
        row.milliseconds for row in against
    ]
    table = (tmp_path / "solvers-share-cpu-returned.md").read_text()
    assert [table.count(f"| {name} | 2 |") for name in FEW] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (1,)}, "--sizes must be 2 or more"),
        ({"objectives": ()}, "--objectives must be 2 or more"),
        ({"rounds": 0}, "--rounds must be 1 or more"),
        ({"draws": 0}, "--draws must be 1 or more"),
    ],
)
def test_options_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **changes)


def test_no_two_methods_have_one_name():
    assert len(set(NAMES)) == len(NAMES)


def test_rows_conflict_and_are_the_same_every_time():
    first, second = solvers.draw_rows(8, 2)
    assert first.shape == (8, 20)
    assert first.dtype == np.float32
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, solvers.draw_rows(8, 2)[0])
    gram = np.concatenate([one @ one.T for one in (first, second)])
    assert 0.3 < (gram < 0).mean() < 0.7


def test_the_compiled_part_is_the_method():
    gram = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
    # By hand, with PCGrad's sum: (1, .5) and (1, 1).
    ours = solvers.Ours(named("PCGrad").steps, jnp.stack([jnp.eye(2), gram]))
    np.testing.assert_allclose(ours(0), [1, 1])
    np.testing.assert_allclose(ours(1), [2, 1.5])
    assert ours.compile_seconds > 0


def test_gaps_are_zero_at_the_solution_alone():
    # The shortest point between (1, 0) and (0, 2) has weights of 1 / their squares.
    gram = np.diag([1.0, 4.0])
    assert solvers.common_descent_gap(gram, np.array([0.8, 0.2])) < 1e-12
    # There (G w) is (½, 2): ¼ + 1 less ½, over the mean square.
    gap = solvers.common_descent_gap(gram, np.array([0.5, 0.5]))
    np.testing.assert_allclose(gap, 0.75 / 2.5)
    # The bargain of unrelated rows is 1 / their lengths.
    assert solvers.bargain_gap(gram, np.array([1.0, 0.5])) < 1e-12
    # Shares of 1 and 4: 60 % off their mean.
    gap = solvers.bargain_gap(gram, np.array([1.0, 1.0]))
    np.testing.assert_allclose(gap, 0.6)


@pytest.mark.oracle
class TestAgainstTorchJD:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("torchjd")

    # The methods' own tests have other sizes.
    @pytest.mark.parametrize(
        ("name", "size"), [*((name, 8) for name in NAMES), ("UPGrad", 2)]
    )
    def test_the_updates_agree(self, name, size):
        options = solvers.Options(rounds=1, draws=2)
        row = solvers.measure(options, named(name), size)
        assert row.ratio > 0
        assert row.loop_ratio > 0
        assert "DIFFER" not in row.note
        if name == "Random":
            assert row.difference is None
        else:
            assert row.difference >= 0

    def test_what_differs_is_said(self):
        options = solvers.Options(rounds=1, draws=1)
        other = solvers.Method("UPGrad", named("MGDA").steps)
        assert "DIFFER" in solvers.measure(options, other, 8).note

    def test_what_takes_too_long_is_left_out(self):
        options = solvers.Options(rounds=1, draws=1, limit=0.0)
        row = solvers.measure(options, named("UPGrad"), 4)
        assert row.ratio is row.torchjd_milliseconds is None
        assert row.difference < 1e-3
        assert "TorchJD left out" in row.note
