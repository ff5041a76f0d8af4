"""Whether a subgroup varies more from fold to fold, by cases whose answer is known."""

import itertools
import math

import numpy as np
import pytest

from experiments.intersectional.stability import spread_ratio, unstable_subgroup
from experiments.intersectional.stages import PAPER
from fairjax.evaluation import Evaluation
from fairjax.evaluation.names import AVERAGE_ODDS, DISTANCE

TITLES = {name: c.title for name, c in PAPER.items()}
NAN = float("nan")


def folds_of(seed, repeats=4, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(repeats, 5))


def test_the_ratio_is_that_of_mean_absolute_deviations():
    one, other = folds_of(0), folds_of(1)
    apart = [
        np.abs(v - np.median(v, axis=1, keepdims=True)).mean() for v in (one, other)
    ]
    found = spread_ratio(one, other)
    assert found.difference == pytest.approx(math.log(apart[0] / apart[1]))
    # At the ends of the interval the test is at its level.
    for end, side in ((found.low, -1), (found.high, 1)):
        assert spread_ratio(one / math.exp(end + side * 0.01), other).p < 0.05
        assert spread_ratio(one / math.exp(end - side * 0.01), other).p >= 0.05
    # Which of both is named first is all the same, and so is where they lie.
    back = spread_ratio(other + 7, one - 3)
    assert back.difference == pytest.approx(-found.difference)
    assert back.p == pytest.approx(found.p, abs=0.02)


def test_all_swaps_of_few_folds():
    """The share of swaps, against all of them."""
    one, other = folds_of(2, repeats=2), folds_of(3, repeats=2, scale=0.3)
    first, second = (
        np.abs(v - np.median(v, axis=1, keepdims=True)).ravel() for v in (one, other)
    )
    found = abs(math.log(first.sum() / second.sum()))
    swaps = np.array(list(itertools.product((False, True), repeat=10)))
    ratios = [
        np.where(swap, second, first).sum() / np.where(swap, first, second).sum()
        for swap in swaps
    ]
    share = np.mean(np.abs(np.log(ratios)) >= found - 1e-9)
    assert spread_ratio(one, other).p == pytest.approx(share, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("freedom", [3, 1000])
def test_it_errs_no_more_often_than_it_says(freedom):
    """Folds that share all patients balance each other; tails may be heavy."""
    rng = np.random.default_rng(1)
    values = rng.standard_t(freedom, size=(2, 150, 4, 5))
    values -= 0.9 * values.mean(axis=-1, keepdims=True)
    rejected = [spread_ratio(*pair).p < 0.05 for pair in zip(*values, strict=True)]
    # .05, and two standard errors.
    assert np.mean(rejected) < 0.05 + 2 * (0.05 * 0.95 / 150) ** 0.5


def test_undefined_folds_and_repeats_are_left_out():
    one, other = folds_of(2), folds_of(3)
    one[0, 0] = other[1, 3] = NAN
    one[2] = NAN
    found = spread_ratio(one, other)
    kept = [
        spread_ratio(
            np.stack([np.r_[a[0, 1:]], np.r_[a[1, :3], a[1, 4]], np.r_[a[3, :4]]]),
            np.stack([np.r_[b[0, 1:]], np.r_[b[1, :3], b[1, 4]], np.r_[b[3, :4]]]),
        )
        for a, b in ((one, other),)
    ]
    assert math.isfinite(found.p)
    other[3, 4] = NAN
    again = spread_ratio(one, other)
    assert (again.difference, again.p) == (kept[0].difference, kept[0].p)


def test_what_does_not_vary_is_not_compared():
    other = folds_of(0)
    assert math.isnan(spread_ratio(np.zeros((4, 5)), other).p)
    assert math.isnan(spread_ratio(np.full((4, 5), NAN), other).p)
    # Fewer than six folds.
    assert math.isnan(spread_ratio(folds_of(1, repeats=1), other[:1]).p)
    same = spread_ratio(other, other)
    assert (same.difference, same.p) == (0.0, 1.0)
    double = spread_ratio(2 * other, other)
    assert double.difference == pytest.approx(math.log(2))
    assert double.low < math.log(2) < double.high


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
        assert found.more[0].startswith("Among 1 mean absolute deviations in 1 such")
        # It fares better, however unstable it is.
        assert "Among 1 distances, 0 are larger" in found.more[1]
        assert "(Holm), and 1 significantly smaller" in found.more[1]


def test_without_the_base_models_folds_it_is_not_run():
    evaluations = {"base": known(0.2), "egr": known(0.1)}
    assert unstable_subgroup(evaluations, {}, TITLES).verdict == "not run"
    assert unstable_subgroup({"base": known(0.2)}, {}, TITLES).verdict == "not run"
