"""Parity constraints: against fairlearn's moments, by hand, and in general."""

import warnings
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from fairlearn import reductions
from hypothesis import given
from hypothesis import strategies as st

from fairjax.mitigation.constraints import (
    cell_prices,
    expected_cost,
    parity_constraints,
    violations,
)

MOMENTS = {
    "demographic_parity": reductions.DemographicParity,
    "equalized_odds": reductions.EqualizedOdds,
    "true_positive_rate_parity": reductions.TruePositiveRateParity,
    "false_positive_rate_parity": reductions.FalsePositiveRateParity,
    "error_rate_parity": reductions.ErrorRateParity,
}


def patients(seed, groups=3, n=60):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    members = rng.integers(0, groups, n)
    # Every group has both outcomes.
    labels[: 2 * groups] = np.arange(2 * groups) % 2
    members[: 2 * groups] = np.arange(2 * groups) // 2
    return labels, members, rng.integers(0, 2, n)


def cell_means(labels, members, decisions, groups, weights=None):
    weights = np.ones(len(labels)) if weights is None else weights
    cells = 2 * members + labels
    mass = np.bincount(cells, weights, 2 * groups)
    return np.bincount(cells, weights * decisions, 2 * groups) / mass


# Newer releases of pandas warn of how fairlearn grows a series.
@pytest.mark.filterwarnings("ignore:Setting a:DeprecationWarning")
@pytest.mark.parametrize("ratio", [None, 0.8])
@pytest.mark.parametrize("constraint", MOMENTS)
def test_violations_and_prices_are_fairlearns(constraint, ratio):
    labels, members, decisions = patients(0)
    bounds = {"difference_bound": 0.03}
    if ratio is not None:
        bounds = {"ratio_bound": ratio, "ratio_bound_slack": 0.03}
    moment = MOMENTS[constraint](**bounds)
    table = pd.DataFrame({"x": decisions})
    moment.load_data(table, pd.Series(labels), sensitive_features=pd.Series(members))
    theirs = moment.gamma(lambda x: x["x"]) - moment.bound()
    bounds = {"ratio_slack" if k.endswith("slack") else k: v for k, v in bounds.items()}
    ours = parity_constraints(
        labels, members, num_groups=3, constraint=constraint, **bounds
    )
    found = violations(ours, cell_means(labels, members, decisions, 3))
    np.testing.assert_allclose(np.sort(found), np.sort(theirs), atol=1e-12)
    # The same multipliers, matched by their violations, price patients alike.
    for seed in range(3):
        chosen = np.random.default_rng(seed).integers(len(found))
        multipliers = np.zeros(len(found))
        multipliers[chosen] = 2.0
        same = np.flatnonzero(np.abs(theirs - found[chosen]) < 1e-9)
        prices = cell_prices(ours, multipliers)[2 * members + labels]
        candidates = []
        for row in same:
            vector = pd.Series(0.0, index=moment.index)
            vector.iloc[row] = 2.0
            weights = moment.signed_weights(vector).to_numpy()
            candidates.append(1 - 2 * labels - weights)
        assert any(np.allclose(prices, other, atol=1e-9) for other in candidates)


cases = st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(MOMENTS)))


@given(cases)
def test_prices_are_the_slope_of_the_lagrangian(case):
    seed, constraint = case
    labels, members, one = patients(seed)
    _, _, other = patients(seed + 1)
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=len(labels))
    held = parity_constraints(
        labels, members, num_groups=3, constraint=constraint, weights=weights
    )
    multipliers = rng.exponential(size=len(held.offset))

    def lagrangian(decisions):
        means = cell_means(labels, members, decisions, 3, weights)
        wrong = np.average(decisions != labels, weights=weights)
        assert expected_cost(held, means) == pytest.approx(wrong)
        return wrong + multipliers @ violations(held, means)

    prices = cell_prices(held, multipliers)[2 * members + labels]
    share = weights / weights.sum()
    difference = (share * prices) @ (one - other)
    assert lagrangian(one) - lagrangian(other) == pytest.approx(difference)


@given(cases)
def test_equal_rates_break_nothing_and_differences_are_bounded_by_twice(case):
    seed, constraint = case
    labels, members, decisions = patients(seed)
    held = parity_constraints(
        labels, members, num_groups=3, constraint=constraint, difference_bound=0.05
    )
    same = np.full(6, 0.3)
    if constraint == "error_rate_parity":
        same = np.tile([0.2, 0.8], 3)
    assert violations(held, same).max() == pytest.approx(-0.05)
    means = cell_means(labels, members, decisions, 3)
    worst = violations(held, means).max() + 0.05
    rates = {
        "true_positive_rate_parity": [means[1::2]],
        "false_positive_rate_parity": [means[::2]],
        "equalized_odds": [means[1::2], means[::2]],
    }.get(constraint)
    if rates is not None:
        gap = max(np.ptp(rate) for rate in rates)
        assert worst <= gap + 1e-12
        assert gap <= 2 * worst + 1e-12


def test_a_group_without_positives_is_not_bound_by_their_rate():
    labels, members = np.array([0, 1, 0, 1, 0, 0]), np.array([0, 0, 1, 1, 2, 2])
    with pytest.warns(UserWarning, match=r"groups \[2\] lack positives"):
        held = parity_constraints(
            labels, members, num_groups=3, constraint="equalized_odds"
        )
    assert held.lacking == (2,)
    # Two rows for each of three groups in the negatives, of two in the positives.
    assert held.matrix.shape == (10, 6)
    assert not held.matrix[:, 5].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parity_constraints(labels, members, num_groups=3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"constraint": "parity"},
            "constraint must be '.* or '.*; got '(parity|fairness)'",
        ),
        (
            {"difference_bound": -0.1},
            r"difference_bound must lie in \[0, 1\]; got -0.1",
        ),
        (
            {"difference_bound": 0.1, "ratio_bound": 0.8},
            "give difference_bound or ratio_bound; got both",
        ),
        ({"difference_bound": "a"}, r"difference_bound must lie in \[0, 1\]; got 'a'"),
        ({"ratio_bound": "a"}, r"ratio_bound must lie in \(0, 1\]; got 'a'"),
        ({"costs": 1}, "costs must be two finite numbers .*; got 1"),
        ({"num_groups": 3}, r"must have patients .*; got none in \[2\]"),
        (
            {"weights": np.array([1.0, 1, 0, 0])},
            r"must have patients .*; got none in \[1\]",
        ),
        (
            {"groups": np.array([0.5, 1, 0, 1])},
            "groups must be integers in 0 .. 1; got",
        ),
        ({"ratio_bound": 0.0}, r"ratio_bound must lie in \(0, 1\]; got 0.0"),
        (
            {"ratio_bound": 0.8, "ratio_slack": 2.0},
            r"ratio_slack must lie in \[0, 1\]; got 2.0",
        ),
        ({"labels": np.array([0, 2, 1, 1])}, "labels must be 0 or 1; got 2"),
        ({"labels": np.array([0, 1, 1])}, "columns must have equal lengths; got"),
        ({"groups": np.array([0, 1, 2, 1])}, "groups must lie in 0 .. 1; got 0 to 2"),
        ({"objective": "loss"}, "objective must be 'error' or 'balanced_error'; got"),
        ({"costs": (1.0, -1.0)}, r"finite numbers of at least 0.*; got \(1.0, -1.0\)"),
        (
            {"objective": "balanced_error", "labels": np.zeros(4, int)},
            "balanced_error needs patients of both outcomes; got one",
        ),
        ({"weights": np.zeros(4)}, "patients of positive weight are needed; got none"),
        ({"weights": np.array([1.0, -1, 1, 1])}, "finite and at least 0; got -1.0"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_input(change, words):
    given = {"labels": np.array([0, 1, 0, 1]), "groups": np.array([0, 0, 1, 1])}
    options = {"num_groups": 2, **given, **change}
    with pytest.raises(ValueError, match=words):
        parity_constraints(options.pop("labels"), options.pop("groups"), **options)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("number", [np.array, np.float32, jnp.float32, Fraction])
def test_settings_are_numbers_of_any_kind(number):
    labels, members = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    plain, other = (
        parity_constraints(
            labels,
            members,
            num_groups=2,
            difference_bound=kind(0.25),
            costs=(kind(1.0), kind(2.0)),
            weights=weights,
            names=np.array(["a", "b"]),
        )
        for kind, weights in (
            (float, np.ones(4)),
            (number, np.array([1, 1, 1, 1.0], object)),
        )
    )
    assert plain.bound == other.bound == 0.25
    np.testing.assert_array_equal(plain.wrong, np.asarray(other.wrong, float))
