"""Rules of equal rates: by hand, against the linear programme in full, and at edges."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from sklearn.metrics import roc_curve

from fairjax import metrics
from fairjax.mitigation import (
    DecisionRules,
    equal_rate_rules,
    expected_counts,
    selection_probability,
)
from fairjax.mitigation.equal_rates import _upper_hull


def cohort(seed=0, rows=600, num_groups=3, digits=1):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, rows)
    groups[: 2 * num_groups] = np.repeat(np.arange(num_groups), 2)
    labels = (rng.random(rows) < 0.25 + 0.1 * groups).astype(int)
    labels[: 2 * num_groups] = np.tile([0, 1], num_groups)
    scores = rng.normal(size=rows) + labels * (0.5 + 0.5 * groups)
    return labels, scores.round(digits), groups


def rates(counts):
    """False and true positive rates, ``[G, 2]``."""
    table = counts.counts
    return table[:, :, 1] / table.sum(axis=-1)


def spread(counts):
    return np.ptp(rates(counts), axis=0)


def error(counts):
    table = counts.counts
    return (table[:, 0, 1] + table[:, 1, 0]).sum() / table.sum()


def test_hard_decisions_by_hand():
    # Group 0: TPR .8, FPR .2. Group 1: TPR .5, FPR .5, no better than a coin. What
    # both can have lies on the diagonal, where with a prevalence of .5 all rules err
    # in half of their decisions.
    labels = np.tile(np.repeat([1, 0], 10), 2)
    decisions = np.concatenate(
        [np.repeat([1, 0], [8, 2]), np.repeat([1, 0], [2, 8]), np.tile([1, 0], 10)]
    )
    groups = np.repeat([0, 1], 20)
    fitted = equal_rate_rules(labels, decisions, groups, num_groups=2)
    assert fitted.cost == pytest.approx(0.5)
    found = rates(fitted.counts)
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-9)
    # With group 1 at TPR .6, FPR .4 the best that both have is that point: group 0
    # draws its own decision, everybody and nobody with chances p, q and 1 - p - q,
    # .8 p + q = .6 and .2 p + q = .4.
    decisions[20:] = np.concatenate(
        [np.repeat([1, 0], [6, 4]), np.repeat([1, 0], [4, 6])]
    )
    fitted = equal_rate_rules(labels, decisions, groups, num_groups=2)
    np.testing.assert_allclose(rates(fitted.counts), [[0.4, 0.6]] * 2, atol=1e-9)
    assert fitted.cost == pytest.approx(0.4)
    own = dict(zip(fitted.rules.thresholds[0], fitted.rules.chances[0], strict=True))
    assert own[1.0] == pytest.approx(1 / 3)
    assert own[-np.inf] == pytest.approx(1 / 3)


@pytest.mark.parametrize("constraint", ["equalized_odds", "true_positive_rate_parity"])
@pytest.mark.parametrize("tolerance", [0.0, 0.07])
@pytest.mark.parametrize("objective", ["error", "balanced_error"])
@pytest.mark.parametrize("costs", [(1.0, 1.0), (1.0, 4.0)])
def test_the_optimum_is_that_of_all_thresholds(constraint, tolerance, objective, costs):
    """The programme over every threshold of every group, written out pair by pair."""
    labels, scores, groups = cohort()
    curves = [
        roc_curve(labels[groups == g], scores[groups == g], drop_intermediate=False)[:2]
        for g in range(3)
    ]
    masses = np.array(
        [[np.sum((groups == g) & (labels == y)) for y in (0, 1)] for g in range(3)]
    )
    total = masses.sum() if objective == "error" else 2 * masses.sum(axis=0)
    price = masses * np.array(costs) / total
    sizes = [len(c[0]) for c in curves]
    starts = np.cumsum([0, *sizes])
    cost = np.concatenate(
        [p[0] * f - p[1] * t for p, (f, t) in zip(price, curves, strict=True)]
    )
    lines = []
    for a, b in itertools.permutations(range(3), 2):
        for which in (0, 1) if constraint == "equalized_odds" else (1,):
            line = np.zeros(starts[-1])
            line[starts[a] : starts[a + 1]] = curves[a][which]
            line[starts[b] : starts[b + 1]] -= curves[b][which]
            lines.append(line)
    sums = np.zeros((3, starts[-1]))
    for g in range(3):
        sums[g, starts[g] : starts[g + 1]] = 1
    best = optimize.linprog(
        cost, np.array(lines), np.full(len(lines), tolerance), sums, np.ones(3)
    )
    fitted = equal_rate_rules(
        labels,
        scores,
        groups,
        num_groups=3,
        constraint=constraint,
        tolerance=tolerance,
        objective=objective,
        costs=costs,
    )
    assert fitted.cost == pytest.approx(best.fun + price[:, 1].sum(), abs=1e-8)
    held = spread(fitted.counts)[
        {"equalized_odds": [0, 1], "true_positive_rate_parity": [1]}[constraint]
    ]
    assert (held <= tolerance + 1e-8).all()


@settings(max_examples=15)
@given(
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.02, 0.3]),
    st.sampled_from([0, 1]),
    st.booleans(),
    st.booleans(),
)
def test_rates_are_equal_to_tolerance(
    seed, num_groups, tolerance, digits, shared, reverse
):
    labels, scores, groups = cohort(seed, 120, num_groups, digits)
    fitted = equal_rate_rules(
        labels,
        scores,
        groups,
        num_groups=num_groups,
        tolerance=tolerance,
        shared=shared,
        reverse=reverse,
    )
    assert (spread(fitted.counts) <= tolerance + 1e-8).all()
    np.testing.assert_allclose(fitted.rules.chances.sum(axis=1), 1)
    # The cost is the expected error, and no rule that ignores scores does better.
    assert fitted.cost == pytest.approx(error(fitted.counts), abs=1e-8)
    assert fitted.cost <= min(labels.mean(), 1 - labels.mean()) + 1e-8
    if shared:
        assert (fitted.rules.thresholds == fitted.rules.thresholds[0]).all()


def test_more_freedom_never_costs_more():
    labels, scores, groups = cohort()

    def cost(**options):
        return equal_rate_rules(labels, scores, groups, num_groups=3, **options).cost

    strict = cost()
    assert cost(tolerance=0.1) < strict
    assert cost(constraint="true_positive_rate_parity") <= strict
    assert cost(tolerance=1.0) <= cost(tolerance=0.1)
    assert cost(shared=True) >= strict
    # Of no constraint every group's own best threshold is left.
    best = 0
    for g in range(3):
        mine = groups == g
        false, true, _ = roc_curve(labels[mine], scores[mine])
        lost = (1 - labels[mine]).sum() * false + labels[mine].sum() * (1 - true)
        best += lost.min() / len(labels)
    assert cost(tolerance=1.0) == pytest.approx(best)


def test_equal_selection_rates():
    labels, scores, groups = cohort()
    fitted = equal_rate_rules(
        labels, scores, groups, num_groups=3, constraint="demographic_parity"
    )
    gap = metrics.demographic_parity_difference(fitted.counts)
    assert float(gap) < 1e-6


@pytest.mark.parametrize("outcome", [0, 1])
def test_a_group_of_one_outcome_has_the_others_selection_rate(outcome):
    labels, scores, groups = cohort()
    fitted = equal_rate_rules(
        np.where(groups == 1, outcome, labels),
        scores,
        groups,
        num_groups=3,
        constraint="demographic_parity",
    )
    table = fitted.counts.counts
    selected = table[:, :, 1].sum(axis=1) / table.sum(axis=(1, 2))
    np.testing.assert_allclose(selected, selected[0], atol=1e-8)


def test_a_group_ranked_worse_than_chance_is_helped_by_reversal():
    labels, scores, groups = cohort(rows=2000)
    scores = np.where(groups == 1, -scores, scores)
    costs = [
        equal_rate_rules(labels, scores, groups, num_groups=3, reverse=reverse)
        for reverse in (False, True)
    ]
    assert costs[1].cost < costs[0].cost - 0.01
    assert costs[1].rules.reversed[1].any()
    assert (spread(costs[1].counts) < 1e-8).all()


def test_draws_have_the_expected_rates():
    labels, scores, groups = cohort(rows=3000)
    fitted = equal_rate_rules(labels, scores, groups, num_groups=3)
    chance = selection_probability(scores, groups, fitted.rules)
    rng = np.random.default_rng(1)
    drawn = np.mean(
        [
            rates(
                expected_counts(
                    labels, (rng.random(3000) < chance) * 1.0, groups, num_groups=3
                )
            )
            for _ in range(200)
        ],
        axis=0,
    )
    np.testing.assert_allclose(drawn, rates(fitted.counts), atol=0.01)


def test_weights_are_repetitions():
    labels, scores, groups = cohort(rows=90)
    times = np.random.default_rng(0).integers(1, 4, 90)
    weighted = equal_rate_rules(labels, scores, groups, num_groups=3, weights=times)
    repeated = equal_rate_rules(
        *(np.repeat(x, times) for x in (labels, scores, groups)), num_groups=3
    )
    assert weighted.cost == pytest.approx(repeated.cost)
    np.testing.assert_allclose(
        weighted.counts.counts, repeated.counts.counts, atol=1e-6
    )
    none = equal_rate_rules(
        labels, scores, groups, num_groups=3, weights=(np.arange(90) < 60).astype(float)
    )
    left = equal_rate_rules(labels[:60], scores[:60], groups[:60], num_groups=3)
    assert none.cost == pytest.approx(left.cost)


def test_a_group_without_positives_has_the_others_rate():
    labels, scores, groups = cohort()
    labels = np.where(groups == 1, 0, labels)
    with pytest.warns(UserWarning, match=r"groups without positives: \[1\]\. A rate"):
        fitted = equal_rate_rules(labels, scores, groups, num_groups=3)
    assert fitted.lacking == (1,)
    found = fitted.counts.counts[:, 0, 1] / fitted.counts.counts[:, 0].sum(axis=-1)
    np.testing.assert_allclose(found, found[0], atol=1e-8)
    rest = groups != 1
    with pytest.warns(UserWarning, match=r"groups without negatives: \['b'\]\. A rate"):
        fitted_two = equal_rate_rules(
            np.where(groups == 1, 1, labels),
            scores,
            groups,
            num_groups=3,
            names=["a", "b", "c"],
        )
    true = fitted_two.counts.counts[:, 1, 1] / fitted_two.counts.counts[:, 1].sum(-1)
    np.testing.assert_allclose(true, true[0], atol=1e-8)
    alone = equal_rate_rules(
        labels[rest], scores[rest], groups[rest] // 2, num_groups=2
    )
    assert error(metrics.GroupCounts(fitted.counts.counts[[0, 2]])) == pytest.approx(
        alone.cost
    )
    # The cost is of everybody who is counted.
    assert fitted.cost == pytest.approx(error(fitted.counts))


@pytest.mark.parametrize(
    ("constraint", "lone", "scores", "cost"),
    [
        # Group 0 errs least, in 0 of 4, where half are selected; but then 3 of the 6
        # positives of group 1 are missed. Where all are, 2 negatives of group 0 err.
        ("demographic_parity", 1, [0.1, 0.2, 0.8, 0.9], 0.2),
        ("demographic_parity", 0, [0.1, 0.2, 0.8, 0.9], 0.2),
        # A true positive rate of .5 costs group 0 one error and group 1 three; a rate
        # of 1 costs two false positives of group 0.
        ("true_positive_rate_parity", 1, [0.5, 0.8, 0.3, 0.9], 0.2),
        # Likewise the other way round.
        ("false_positive_rate_parity", 0, [0.1, 0.7, 0.2, 0.5], 0.2),
    ],
)
def test_a_group_of_one_outcome_takes_part_where_it_has_the_rate(
    constraint, lone, scores, cost
):
    labels = np.append([0, 0, 1, 1], np.full(6, lone))
    groups = np.repeat([0, 1], [4, 6])
    scores = np.append(scores, np.linspace(0.2, 0.7, 6))
    fitted = equal_rate_rules(
        labels, scores, groups, num_groups=2, constraint=constraint
    )
    assert fitted.lacking == ()
    assert fitted.cost == pytest.approx(cost)
    assert error(fitted.counts) == pytest.approx(cost)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_nothing_lies_above_the_hull(points):
    x, y = np.array([(0, 0), (9, 9), *points], float).T / 9
    hull = _upper_hull(x, y)
    assert (np.diff(x[hull]) >= 0).all()
    heights = np.interp(x, x[hull], y[hull])
    inside = (x > 0) & (x < 1)
    assert (y[inside] <= heights[inside] + 1e-12).all()


def shared_optimum(labels, scores, groups, tolerance):
    """The least error of one rule for three groups, over every threshold."""
    thresholds = np.append(np.unique(scores), np.inf)
    selected = scores[:, None] >= thresholds
    rate = {
        (g, y): selected[(groups == g) & (labels == y)].mean(axis=0)
        for g in range(3)
        for y in (0, 1)
    }
    lines = [
        rate[a, y] - rate[b, y]
        for y in (0, 1)
        for a, b in itertools.permutations(range(3), 2)
    ]
    error = (selected != (labels == 1)[:, None]).mean(axis=0)
    bounds = np.full(len(lines), tolerance)
    once = np.ones((1, len(thresholds)))
    return optimize.linprog(error, np.array(lines), bounds, once, [1.0]).fun


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
@pytest.mark.parametrize("share", [0.005, 0.5, 0.995])
def test_a_shared_rule_is_nearly_the_best_of_all_thresholds(seed, share):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 3, 6000)
    labels = (rng.random(6000) < share).astype(int)
    scores = rng.normal(size=6000) + labels * (2 + 0.5 * groups)
    fitted = equal_rate_rules(
        labels, scores, groups, num_groups=3, shared=True, tolerance=0.3
    )
    best = shared_optimum(labels, scores, groups, 0.3)
    assert best - 1e-9 <= fitted.cost <= 1.01 * best


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200])
@pytest.mark.parametrize("shared", [False, True])
def test_the_size_of_weights_does_not_matter(size, shared):
    labels, scores, groups = cohort()
    weights = np.random.default_rng(0).random(600)
    one, other = (
        equal_rate_rules(
            labels,
            scores,
            groups,
            num_groups=3,
            tolerance=0.02,
            shared=shared,
            weights=weights * scale,
        )
        for scale in (1.0, size)
    )
    assert other.cost == pytest.approx(one.cost)
    np.testing.assert_array_equal(other.rules.thresholds, one.rules.thresholds)
    np.testing.assert_allclose(other.rules.chances, one.rules.chances, atol=1e-6)
    np.testing.assert_allclose(other.counts.counts, one.counts.counts * size, rtol=1e-6)


RULES = DecisionRules(np.zeros((2, 1)), np.ones((2, 1)), np.zeros((2, 1), bool))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("group", [-1, 2, 0.5])
def test_a_rule_is_of_a_group_that_there_is(group):
    with pytest.raises(ValueError, match=r"in 0 \.\. 1"):
        selection_probability(np.ones(2), np.array([0, group]), RULES)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probability": np.array([0.5, 2.0])}, r"must lie in \[0, 1\]; got 2.0"),
        ({"probability": np.array([0.5, np.nan])}, r"must lie in \[0, 1\]; got nan"),
        ({"labels": np.array([0, 2])}, "labels must be 0 or 1; got 2"),
        ({"groups": np.array([0, 2])}, "or be -1 for a row in no group; got 0 to 2"),
        ({"groups": np.array([0, -2])}, "; got -2 to 0"),
        ({"weights": np.array([1e308, 1e308])}, "must have a finite sum; got inf"),
    ],
)
def test_what_is_no_expectation(change, words):
    given_ = {
        "labels": np.array([0, 1]),
        "probability": np.array([0.5, 0.5]),
        "groups": np.array([0, 1]),
        "num_groups": 2,
    }
    with pytest.raises(ValueError, match=words):
        expected_counts(**(given_ | change))


def test_a_sum_of_chances_may_be_rounded():
    found = expected_counts(
        np.array([1]), np.array([1.0000000000000002]), np.array([0]), num_groups=1
    )
    np.testing.assert_array_equal(found.counts, [[[0, 0], [0, 1]]])


def test_a_row_in_no_group_is_counted_nowhere():
    found = expected_counts(
        np.array([1, 0]), np.array([0.25, np.nan]), np.array([0, -1]), num_groups=1
    )
    np.testing.assert_array_equal(found.counts, [[[0, 0], [0.75, 0.25]]])


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"constraint": "parity"},
            "constraint must be '.* or '.*; got '(parity|fairness)'",
        ),
        ({"objective": "auc"}, "objective must be 'error' or 'balanced_error'; got"),
        ({"costs": (1.0, -1.0)}, "costs must be two finite numbers of at least 0"),
        ({"costs": 1}, "costs must be two finite numbers of at least 0"),
        ({"costs": ("a", "b")}, "costs must be two finite numbers of at least 0"),
        ({"tolerance": 2.0}, r"tolerance must lie in \[0, 1\]; got 2.0"),
        ({"tolerance": "a"}, r"tolerance must lie in \[0, 1\]; got 'a'"),
        ({"tolerance": None}, r"tolerance must lie in \[0, 1\]; got None"),
        (
            {"groups": np.arange(600) % 3 + 0.5},
            "groups must be integers in 0 .. 2; got",
        ),
        (
            {"weights": (cohort()[2] != 1) * 1.0},
            r"must have patients .*; got none in \[1\]",
        ),
        ({"num_groups": 2}, r"groups must lie in 0 .. 1; got 0 to 2"),
        ({"num_groups": 4}, r"must have patients .*; got none in \[3\]"),
        ({"weights": -np.ones(600)}, "weights must be finite and at least 0; got -1.0"),
        ({"weights": np.ones(5)}, "columns must have equal lengths; got"),
        ({"labels": np.full(600, 2)}, "labels must be 0 or 1; got 2"),
        (
            {"labels": np.zeros(600)},
            "equalized_odds needs groups with patients of both classes; got",
        ),
        ({"scores": np.full(600, np.nan)}, "scores must be finite; got nan"),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    labels, scores, groups = cohort()
    given_ = {"labels": labels, "scores": scores, "groups": groups, "num_groups": 3}
    with pytest.raises(ValueError, match=words):
        equal_rate_rules(**(given_ | change))
