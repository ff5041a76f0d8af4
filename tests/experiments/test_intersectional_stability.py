"""Whether a subgroup varies more from fold to fold, by cases whose answer is known."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.comparison import Evaluation
from experiments.intersectional_stability import spread_ratio, unstable_subgroup
from experiments.intersectional_stages import PAPER
from experiments.level_measures import AVERAGE_ODDS, DISTANCE

TITLES = {name: c.title for name, c in PAPER.items()}
NAN = float("nan")


def folds_of(seed, repeats=4, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(repeats, 5))


def test_one_repeat_is_the_test_of_pitman_and_morgan():
    rng = np.random.default_rng(0)
    other = rng.normal(size=(1, 20))
    one = 1.5 * rng.normal(size=(1, 20)) + 0.4 * other
    found = spread_ratio(one, other)
    oracle = stats.pearsonr((one + other)[0], (one - other)[0])
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9)
    ratio = one.std(ddof=1) / other.std(ddof=1)
    assert found.difference == pytest.approx(math.log(ratio))
    # At the ends of the interval the test is at its level.
    for end in (found.low, found.high):
        at_end = spread_ratio(one / math.exp(end), other)
        assert at_end.p == pytest.approx(0.05, abs=1e-9)


def test_it_errs_as_often_as_it_says():
    """Folds of a repeat depend on each other: their mean is that of all patients."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 2000, 4, 5))
    values[0] += 0.7 * values[1]
    values[1] *= math.sqrt(1.49)
    values -= values.mean(axis=-1, keepdims=True)
    # Repeats differ from each other in what all of their folds share.
    values += 3 * rng.normal(size=(2, 2000, 4, 1))
    rejected = np.mean(
        [spread_ratio(*pair).p < 0.05 for pair in zip(*values, strict=True)]
    )
    assert 0.035 < rejected < 0.065


def test_undefined_folds_and_repeats_are_left_out():
    one, other = folds_of(2), folds_of(3)
    one[0, 0] = other[1, 3] = NAN
    one[2] = NAN
    # One value of a repeat tells nothing of how it varies.
    other[3, 1:] = NAN
    found = spread_ratio(one, other)
    kept = spread_ratio(
        np.stack([np.r_[NAN, one[0, 1:]], np.r_[one[1, :3], NAN, one[1, 4]]]), other[:2]
    )
    assert found == kept
    assert math.isfinite(found.p)


def test_what_does_not_vary_is_not_compared():
    other = folds_of(0)
    assert math.isnan(spread_ratio(np.zeros((4, 5)), other).p)
    assert math.isnan(spread_ratio(np.full((4, 5), NAN), other).p)
    same = spread_ratio(other, other)
    assert (same.difference, same.p) == (0.0, 1.0)
    double = spread_ratio(2 * other, other)
    assert (double.low, double.p) == (pytest.approx(math.log(2)), pytest.approx(0))


def known(mean, seed=0):
    """An evaluation with this mean distance, of one subgroup and of all."""
    rng = np.random.default_rng([seed, round(1000 * mean)])
    names = (f"{AVERAGE_ODDS}/mean", f"{AVERAGE_ODDS}/{DISTANCE} subgroup=one")
    return Evaluation(
        {name: mean + 0.001 * rng.normal(size=4) for name in names},
        {name: mean + 0.004 * rng.normal(size=100) for name in names},
        *[{}] * 3,
    )


@pytest.mark.parametrize(
    ("scale", "mean", "verdict"),
    [
        (4.0, 0.1, "holds"),
        (0.25, 0.1, "does not hold"),
        (1.0, 0.1, "not shown"),
        # The mean is not better.
        (4.0, 0.3, "not shown"),
    ],
)
def test_an_unstable_subgroup(scale, mean, verdict):
    base, own = folds_of(4), folds_of(5, scale=scale)
    metric = f"{AVERAGE_ODDS}/subgroup=one"
    # The reference has no difference from itself, in any fold.
    reference = {f"{AVERAGE_ODDS}/subgroup=ref": np.zeros(20)}
    folds = {
        "base": {metric: base.ravel(), **reference},
        "egr": {metric: own.ravel(), **reference},
    }
    found = unstable_subgroup({"base": known(0.2), "egr": known(mean)}, folds, TITLES)
    assert found.verdict == verdict
    if mean < 0.2:
        (told,) = found.tests.values()
        assert told.difference == spread_ratio(own, base).difference
        assert list(found.tests) == ["EGR, one"]
        assert found.more[0].startswith("Of 1 standard deviations in 1 such")
        # It fares better, however unstable it is.
        assert "of 1 distances there 0 are larger" in found.more[1]
        assert "1 smaller beyond it" in found.more[1]


def test_without_the_base_models_folds_it_is_not_run():
    evaluations = {"base": known(0.2), "egr": known(0.1)}
    assert unstable_subgroup(evaluations, {}, TITLES).verdict == "not run"
    assert unstable_subgroup({"base": known(0.2)}, {}, TITLES).verdict == "not run"
