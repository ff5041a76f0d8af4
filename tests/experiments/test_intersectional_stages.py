"""Configurations and their decisions, fits that go on after a kill, single splits."""

import dataclasses

import numpy as np
import pytest

from experiments.intersectional.fits import Fit, run_all
from experiments.intersectional.paper import over_splits
from experiments.intersectional.repair import in_words, measured_repair
from experiments.intersectional.stages import (
    CONFIGURATIONS,
    PAPER,
    choose,
    decide,
    repaired,
)
from fairjax.evaluation.names import AVERAGE_ODDS, IMPACT

ODDS = f"{AVERAGE_ODDS}/mean"
EIGHT = ["base", "eo", "dir", "egr", "dir_eo", "egr_eo", "dir_egr", "dir_egr_eo"]


def test_the_paper_has_eight_configurations():
    assert list(PAPER) == EIGHT
    assert [PAPER[name].title for name in ("dir_egr_eo", "eo")] == [
        "DIR + EGR + EO",
        "EO",
    ]
    assert {c.model for c in PAPER.values()} == {"base", "dir", "egr", "dir_egr"}
    assert len(CONFIGURATIONS) == 20


def test_base_is_always_among_the_chosen():
    assert [c.name for c in choose(("egr_eo",))] == ["base", "egr_eo"]
    assert len(choose(())) == 20
    with pytest.raises(ValueError, match="must name some of base, eo, .*; got magic"):
        choose(("base", "magic"))


@pytest.fixture
def rows():
    """600 patients of two subgroups; the first half is held out."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 600)
    label = (rng.random(600) < np.where(codes == 1, 0.5, 0.2)).astype(np.int8)
    scores = 1 / (1 + np.exp(-(2 * label + codes - 1.5 + rng.normal(size=600))))
    return scores, label, codes, np.arange(600) < 300


def decided(rows, name, **options):
    settings = {"by_group": True, "objective": "balanced_error", **options}
    return decide(CONFIGURATIONS[name], *rows, num_groups=2, **settings)


def f1(label, chosen):
    return 2 * (label & chosen).sum() / (label.sum() + chosen.sum())


@pytest.mark.parametrize("by_group", [True, False])
def test_thresholds_are_best_on_the_rows_held_out(rows, by_group):
    scores, label, codes, held = rows
    chance = decided(rows, "base", by_group=by_group)
    assert set(np.unique(chance)) == {0.0, 1.0}
    parts = [codes == 0, codes == 1] if by_group else [codes >= 0]
    for part in parts:
        mine = held & part
        own = f1(label[mine] == 1, chance[mine] == 1)
        best = max(
            f1(label[mine] == 1, scores[mine] >= t) for t in np.arange(10, 90) / 100
        )
        assert own == pytest.approx(best, abs=1e-6)


def test_equalized_odds_has_equal_rates_on_the_rows_held_out(rows):
    _, label, codes, held = rows
    chance = decided(rows, "egr_eo")
    for outcome in (0, 1):
        own = [chance[held & (codes == g) & (label == outcome)].mean() for g in (0, 1)]
        assert own[0] == pytest.approx(own[1], abs=1e-6)
    assert ((chance > 0) & (chance < 1)).any()


def test_the_reduction_decides_by_its_chances(rows):
    np.testing.assert_array_equal(decided(rows, "dir_egr"), rows[0])


def test_labels_of_other_rows_are_not_looked_at(rows):
    scores, label, codes, held = rows
    other = np.where(held, label, 1 - label).astype(np.int8)
    for name in ("base", "eo", "egr_eo"):
        changed = decided((scores, other, codes, held), name)
        np.testing.assert_array_equal(changed, decided(rows, name))


def test_rows_that_were_trained_on_have_no_score(rows):
    scores, label, codes, held = rows
    scores = np.where(np.arange(600) < 500, scores, np.nan)
    for name in ("base", "eo"):
        chance = decided((scores, label, codes, held), name)
        assert np.isfinite(chance[:500]).all()


def test_a_subgroup_without_positives_is_no_error(rows):
    scores, label, codes, held = rows
    label = np.where((codes == 1) & held, 0, label).astype(np.int8)
    chance = decided((scores, label, codes, held), "eo")
    assert ((chance >= 0) & (chance <= 1)).all()


@pytest.mark.slow
def test_repair_makes_training_groups_alike():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 400)
    inputs = (rng.normal(size=(400, 2)) + 2 * codes[:, None]).astype(np.float32)
    train = np.arange(300)
    told = repaired(inputs, train, codes, 1.0)
    gap = [told[train][codes[train] == g].mean() for g in (0, 1)]
    assert abs(gap[0] - gap[1]) < 0.05
    np.testing.assert_array_equal(repaired(inputs, train, codes, 0.0), inputs)


@pytest.mark.slow
def test_columns_of_two_values_are_hardly_repaired():
    """A tenth and two fifths have it: no value of all who have it makes these alike."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 2000)
    binary = rng.random(2000) < np.where(codes == 1, 0.4, 0.1)
    rare = (np.arange(2000) == 0) * 1.0
    many = rng.normal(size=2000) + 2 * codes
    inputs = np.stack([binary, rare, many, np.ones(2000)], 1).astype(np.float32)
    train = np.arange(1500)
    found = measured_repair(inputs, train, codes, 1.0)
    told = repaired(inputs, train, codes, 1.0)[train]
    own = [inputs[train][codes[train] == g] for g in (0, 1)]
    shares = [rows[:, :2].mean(axis=0) for rows in own]
    before = np.abs(shares[0] - shares[1]).mean()
    assert found.two.number == 2
    assert found.two.before == pytest.approx(before)
    assert found.two.constant == sum(len(np.unique(told[:, j])) == 1 for j in (0, 1))
    assert found.two.constant >= 1
    assert (found.more.number, found.more.constant, found.single) == (1, 0, 1)
    assert found.more.before > 0.5
    assert found.more.after < 0.05
    assert found.more.kept == found.more.after / found.more.before
    words = in_words(found)["repaired"]
    assert f"2 columns of two values: {found.two.before:.3f} before" in words
    assert "columns of one value: 1" in words


@pytest.mark.slow
def test_no_repair_moves_nothing():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 200)
    binary = (rng.random(200) < 0.2 + 0.4 * codes).astype(np.float32)[:, None]
    found = measured_repair(binary, np.arange(200), codes, 0.0)
    assert found.two.kept == 1
    assert found.two.constant == 0
    assert np.isnan(found.more.before)
    assert "more than two" not in in_words(found)["repaired"]
    assert in_words(None) == {}


@pytest.fixture
def fits(rows):
    scores, label, codes, held = rows
    inputs = np.stack([scores, codes + scores**2], axis=1).astype(np.float32)

    def maker(reduction):
        return lambda: Fit(
            reduction=reduction,
            learner="logistic",
            constraint="demographic_parity",
            objective="balanced_error",
            iterations=2,
            seed=0,
            inputs=inputs,
            label=label.astype(np.int64),
            codes=codes,
            train=np.flatnonzero(held),
            others=np.flatnonzero(~held),
        )

    return {"base-0": maker(False), "egr-0": maker(True), "base-1": maker(False)}


def test_fits_go_on_where_a_killed_run_stopped(fits, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    done = []
    wanted = run_all(fits, whole, processes=1, advance=lambda: done.append(1))
    assert len(done) == 3

    def dies():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all({**fits, "egr-0": dies}, killed, processes=1, advance=lambda: None)
    assert [p.name for p in killed.iterdir()] == ["base-0.npz"]
    # What is there is read, not fitted again.
    found = run_all({**fits, "base-0": dies}, killed, processes=1, advance=list)
    for name, scores in wanted.items():
        np.testing.assert_array_equal(found[name].scores, scores.scores)


@pytest.mark.slow
def test_processes_give_the_same_bits(fits, tmp_path):
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    alone.mkdir()
    beside.mkdir()
    one = run_all(fits, alone, processes=1, advance=list)
    two = run_all(fits, beside, processes=2, advance=list)
    assert sorted(one) == sorted(two)
    for name, scores in one.items():
        np.testing.assert_array_equal(two[name].scores, scores.scores)


def test_a_damaged_file(fits, tmp_path):
    (tmp_path / "egr-0.npz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"egr-0.npz cannot be read: it is damaged"):
        run_all(fits, tmp_path, processes=1, advance=list)


@pytest.mark.slow
def test_the_reduction_is_fairer_than_its_learner(fits, rows):
    _, _, codes, held = rows
    gaps = []
    for name in ("base-0", "egr-0"):
        fit = dataclasses.replace(
            fits[name](), iterations=5, others=np.flatnonzero(held)
        )
        chance = fit.run().scores
        chance = (chance >= 0.3) * 1.0 if name == "base-0" else chance
        own = [chance[codes[held] == g].mean() for g in (0, 1)]
        gaps.append(abs(own[0] - own[1]))
    assert gaps[1] < 0.03 < gaps[0]


def test_intervals_over_splits_that_share_patients():
    values = np.array([0.2, 0.4, 0.3, np.nan])
    found = over_splits(values, 0.25, ODDS)
    # t of 2 degrees of freedom; variance .01 times 1 / 3 + .25.
    reach = 4.302653 * np.sqrt(0.01 * (1 / 3 + 0.25))
    assert found.mean == pytest.approx(0.3)
    assert found.high - found.mean == pytest.approx(reach, rel=1e-5)
    assert found.splits == 3
    single = over_splits(np.array([0.2, np.inf]), 0.25, ODDS)
    assert np.isnan(single.low)
    assert single.splits == 1
    nothing = over_splits(np.array([np.nan]), 0.25, ODDS)
    assert np.isnan(nothing.mean)
    assert nothing.splits == 0


@pytest.mark.parametrize(
    ("metric", "ends"),
    [
        (ODDS, (0.0, 1.0)),
        (f"{AVERAGE_ODDS}/subgroup=a", (-1.0, 1.0)),
        ("group_recall/subgroup=a", (0.0, 1.0)),
    ],
)
def test_intervals_over_splits_end_where_the_metric_does(metric, ends):
    found = over_splits(np.array([0.0, 0.9]), 0.8, metric)
    assert (found.low, found.high) == ends
    ratio = over_splits(np.array([0.0, 0.9]), 0.8, f"{IMPACT}/subgroup=a")
    assert ratio.low == 0
    assert ratio.high > 1
