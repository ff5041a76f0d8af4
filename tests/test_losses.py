"""Fairness surrogates against tables worked out by hand."""

import functools
import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import fairjax
from fairjax import losses

# Cells in order: died=0 (a, b, c), died=1 (a, b, c).
CELLS = fairjax.partition({"died": [0] * 3 + [1] * 3, "site": ["a", "b", "c"] * 2})
COUNTS = jnp.array([1.0, 2.0, 1.0, 2.0, 1.0, 1.0])
SCORES = jnp.array([0.1, 0.4, 0.3, 0.9, 0.5, 0.7])
# Negatives: overall (.1 + .8 + .3)/4 = .3, deviations (−.2, .1, 0).
# Positives: overall (1.8 + .5 + .7)/4 = .75, deviations (.15, −.25, −.05).
# Everyone: (1.2 + 3)/8 = .525; sites (.1 + 1.8)/3, (.8 + .5)/3, (.3 + .7)/2.
SITES = np.array([1.9 / 3, 1.3 / 3, 0.5])
ALL = SITES - 0.525

TAU = 0.01


def smooth(sizes):
    sizes = np.asarray(sizes)
    return TAU * np.log(np.mean(np.exp(sizes / TAU)))


def value(function, scores=SCORES, counts=COUNTS):
    means = {name: jnp.asarray(scores) for name in function.statistics}
    return function.value(means, jnp.asarray(counts))


ODDS = functools.partial(losses.equalized_odds, label="died")
TPR = functools.partial(losses.tpr_parity, label="died")
FNR = functools.partial(losses.tpr_parity, label="died", positive=0)
NEGATIVE, POSITIVE = np.array([0.2, 0.1, 0]), np.array([0.15, 0.25, 0.05])

TABLE = [
    (ODDS, "absolute", "mean", 0.3 / 3 + 0.45 / 3),
    (ODDS, "absolute", "max", 0.2 + 0.25),
    (ODDS, "absolute", "smooth_max", smooth(NEGATIVE) + smooth(POSITIVE)),
    (ODDS, "squared", "mean", 0.05 / 3 + 0.0875 / 3),
    (ODDS, "squared", "max", 0.04 + 0.0625),
    (ODDS, "squared", "smooth_max", smooth(NEGATIVE**2) + smooth(POSITIVE**2)),
    (TPR, "absolute", "mean", 0.15),
    (TPR, "absolute", "max", 0.25),
    (TPR, "absolute", "smooth_max", smooth(POSITIVE)),
    (TPR, "squared", "max", 0.0625),
    (FNR, "absolute", "mean", 0.1),
    (FNR, "absolute", "max", 0.2),
    (losses.demographic_parity, "absolute", "mean", np.abs(ALL).mean()),
    (losses.demographic_parity, "absolute", "max", np.abs(ALL).max()),
    (losses.demographic_parity, "absolute", "smooth_max", smooth(np.abs(ALL))),
    (losses.demographic_parity, "squared", "mean", (ALL**2).mean()),
    (losses.risk_parity, "absolute", "mean", np.abs(ALL).mean()),
    (losses.risk_parity, "squared", "max", (ALL**2).max()),
]


@pytest.mark.parametrize(("make", "penalty", "reduction", "expected"), TABLE)
def test_gap_by_hand(make, penalty, reduction, expected):
    function = make(
        CELLS, "site", penalty=penalty, reduction=reduction, temperature=TAU
    )
    np.testing.assert_allclose(value(function), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (losses.task(CELLS), 4.2 / 8),
        (losses.group_risk(CELLS, "site", "a"), 1.9 / 3),
        (losses.group_risk(CELLS, "died", 1), 0.75),
        (losses.group_risk(CELLS, "died", "1"), 0.75),
        (losses.group_risk(CELLS, ("site", "died"), ("b", 0)), 0.4),
        (losses.group_risk(CELLS, ["died", "site"], ["0", "b"]), 0.4),
    ],
)
def test_risk_by_hand(function, expected):
    assert function.statistics == ("loss",)
    np.testing.assert_allclose(value(function), expected, rtol=1e-6)


def test_group_risks_are_each_groups_risk():
    risks = losses.group_risks(CELLS, "site", statistic="score")
    assert list(risks) == ["site=a", "site=b", "site=c"]
    found = [value(risk) for risk in risks.values()]
    np.testing.assert_allclose(found, SITES, rtol=1e-6)
    assert {risk.statistics for risk in risks.values()} == {("score",)}
    both = losses.group_risks(CELLS, ("died", "site"))
    assert list(both) == list(CELLS.names)
    np.testing.assert_allclose([value(r) for r in both.values()], SCORES)


@pytest.mark.parametrize(
    ("function", "cells"),
    [
        (losses.task(CELLS), [0, 1, 2, 3, 4, 5]),
        (losses.group_risk(CELLS, "site", "b"), [1, 4]),
        (losses.group_risk(CELLS, ("died", "site"), (1, "c")), [5]),
        (TPR(CELLS, "site"), [3, 4, 5]),
        (FNR(CELLS, "site"), [0, 1, 2]),
        (ODDS(CELLS, "site"), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_cells_are_those_that_the_value_reads(function, cells):
    """A cell that is not named must have no gradient."""
    np.testing.assert_array_equal(np.flatnonzero(function.cells), cells)
    gradient = jax.grad(lambda scores: value(function, scores))(SCORES)
    assert not np.any(np.asarray(gradient)[~function.cells])


# sex × age × died, in this order, one example in each of the 8 cells.
CROSSED = fairjax.partition(
    {
        "sex": ["f"] * 4 + ["m"] * 4,
        "age": ["<65", "<65", ">=65", ">=65"] * 2,
        "died": [0, 1] * 4,
    }
)


def test_intersections_show_what_single_attributes_hide():
    # Positives' scores by sex, age: f .2 .8, m .8 .2: each margin is .5.
    scores = jnp.array([0.5, 0.2, 0.5, 0.8, 0.5, 0.8, 0.5, 0.2])
    counts = jnp.ones(8)
    make = functools.partial(losses.equalized_odds, CROSSED, label="died")
    for attribute in ("sex", "age"):
        np.testing.assert_allclose(value(make(attribute), scores, counts), 0, atol=1e-7)
    both = make(("sex", "age"))
    np.testing.assert_allclose(value(both, scores, counts), 0.3, rtol=1e-6)


class TestEmptyGroups:
    # Site c has no negative, nobody lies in (died=1, b).
    COUNTS = jnp.array([1.0, 3.0, 0.0, 1.0, 0.0, 1.0])
    # Negatives: overall (.1 + 1.2)/4 = .325: .225, .075. Positives: .8: .1, .1.
    SCORES = jnp.array([0.1, 0.4, 0.0, 0.9, 0.0, 0.7])

    @pytest.mark.parametrize(
        ("make", "reduction", "expected"),
        [
            (ODDS, "mean", 0.15 + 0.1),
            (ODDS, "max", 0.225 + 0.1),
            (ODDS, "smooth_max", smooth([0.225, 0.075]) + 0.1),
            (TPR, "mean", 0.1),
            (FNR, "max", 0.225),
        ],
    )
    def test_are_left_out(self, make, reduction, expected):
        function = make(CELLS, "site", reduction=reduction, temperature=TAU)
        gap = functools.partial(value, function, counts=self.COUNTS)
        np.testing.assert_allclose(gap(self.SCORES), expected, rtol=1e-5)
        # What an empty cell holds has no influence, and gets no gradient.
        other = self.SCORES.at[jnp.array([2, 4])].set(0.7)
        np.testing.assert_array_equal(gap(other), gap(self.SCORES))
        gradient = jax.grad(lambda scores: gap(scores))(self.SCORES)
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[jnp.array([2, 4])], [0, 0])

    @pytest.mark.parametrize("reduction", ["mean", "max", "smooth_max"])
    @pytest.mark.parametrize("penalty", ["absolute", "squared"])
    def test_nobody_at_all(self, penalty, reduction):
        function = ODDS(CELLS, "site", penalty=penalty, reduction=reduction)
        found, gradient = jax.value_and_grad(
            lambda scores: value(function, scores, jnp.zeros(6))
        )(jnp.zeros(6))
        assert float(found) == 0
        np.testing.assert_array_equal(gradient, np.zeros(6))

    def test_risk_of_nobody(self):
        risk = losses.group_risk(CELLS, "site", "b")
        counts = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
        found, gradient = jax.value_and_grad(
            lambda scores: value(risk, scores, counts)
        )(jnp.zeros(6))
        assert float(found) == 0
        np.testing.assert_array_equal(gradient, np.zeros(6))


def test_gradient_by_hand():
    """TPR: sizes .15, .25, .05 of deviations r_g − Σ n r/4, signs +, −, −."""
    gradient = jax.grad(lambda scores: value(TPR(CELLS, "site"), scores))(SCORES)
    signs = np.array([1, -1, -1])
    own, overall = signs / 3, signs.sum() / 3 * np.array([2, 1, 1]) / 4
    np.testing.assert_allclose(gradient, [0, 0, 0, *(own - overall)], atol=1e-6)


GAPS = {
    f"{name} {penalty} {reduction}": jax.jit(
        functools.partial(
            lambda function, scores, counts: value(function, scores, counts),
            make(CELLS, "site", penalty=penalty, reduction=reduction),
        )
    )
    for name, make in (("odds", ODDS), ("parity", losses.demographic_parity))
    for penalty in ("absolute", "squared")
    for reduction in ("mean", "max", "smooth_max")
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GAPS)
@hypothesis.settings(max_examples=15)
@hypothesis.given(
    st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6),
    st.lists(st.integers(0, 5), min_size=6, max_size=6),
    st.floats(0, 1, width=32),
)
def test_gap_is_nonnegative_and_zero_at_parity(name, scores, counts, level):
    counts = np.array(counts, np.float32)
    scores = np.array(scores, np.float32)
    assert float(GAPS[name](scores, counts)) >= -1e-6
    same = np.full(6, level, np.float32)
    np.testing.assert_allclose(GAPS[name](same, counts), 0, atol=1e-6)


def test_smooth_maximum_lies_between_mean_and_maximum():
    found = [
        value(ODDS(CELLS, "site", reduction="smooth_max", temperature=temperature))
        for temperature in (100.0, 0.1, 0.01, 1e-4)
    ]
    assert all(a < b for a, b in itertools.pairwise(found))
    np.testing.assert_allclose(found[0], 0.25, atol=1e-3)
    np.testing.assert_allclose(found[-1], 0.45, atol=1e-3)


def test_missing_labels_take_no_part():
    """Neither as a class of their own, nor as the positive one."""
    table = {"died": [0, 0, 1, 1, None, None], "site": ["a", "b"] * 3}
    cells = fairjax.partition(table)
    whole = fairjax.partition({name: column[:4] for name, column in table.items()})
    score, counts = np.array([0.1, 0.4, 0.2, 0.8, 0.0, 1.0]), np.ones(6)
    for make in (ODDS, TPR):
        found = make(cells, "site")
        assert found.cells.tolist() == [*make(whole, "site").cells, False, False]
        value = found.value({"score": jnp.asarray(score)}, jnp.asarray(counts))
        expected = make(whole, "site").value(
            {"score": jnp.asarray(score[:4])}, jnp.asarray(counts[:4])
        )
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("level", [1, 1.0, np.int64(1), np.float32(1), "1"])
def test_a_level_may_be_any_kind_of_number(level):
    cells = fairjax.partition({"died": [0, 1], "site": ["a", "b"]})
    for attribute, wanted in (("died", level), (("site", "died"), ("a", level))):
        group = losses.group_risk(cells, attribute, wanted).cells
        assert group.sum() == (2 if attribute == "died" else 1)


class TestErrors:
    @pytest.mark.parametrize(
        ("attribute", "level"),
        [("site", "z"), ("site", ("a", "b")), (("died", "site"), "a")],
    )
    def test_unknown_group(self, attribute, level):
        with pytest.raises(ValueError, match="has no group .*; its groups are"):
            losses.group_risk(CELLS, attribute, level)

    def test_unknown_positive_level(self):
        with pytest.raises(ValueError, match="'died' has no group 2; .*'died=1'"):
            losses.tpr_parity(CELLS, "site", label="died", positive=2)

    def test_unknown_attribute(self):
        for make in (losses.demographic_parity, losses.risk_parity, ODDS, TPR):
            with pytest.raises(ValueError, match="no attribute 'sex'"):
                make(CELLS, "sex")
        with pytest.raises(ValueError, match="no attribute 'outcome'"):
            losses.equalized_odds(CELLS, "site", label="outcome")

    @pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
    def test_temperature(self, temperature):
        with pytest.raises(ValueError, match="temperature must be positive"):
            losses.risk_parity(CELLS, "site", temperature=temperature)

    def test_positive_level_that_is_not_clear(self):
        cells = fairjax.partition({"stage": [0, 1, 2], "site": ["a", "b", "b"]})
        with pytest.raises(
            ValueError, match="must have two levels, .*; got .*'stage=2'"
        ):
            losses.tpr_parity(cells, "site", label="stage")

    def test_unknown_options(self, untyped):
        with pytest.raises(
            ValueError, match="penalty must be 'absolute' or 'squared'; got 'cubed'"
        ):
            losses.risk_parity(CELLS, "site", penalty="cubed")
        with pytest.raises(ValueError, match="'max' or 'smooth_max'; got 'median'"):
            losses.risk_parity(CELLS, "site", reduction="median")

    def test_a_measurement_in_place_of_a_label(self):
        risk = np.arange(12) / 4
        cells = fairjax.partition({"risk": risk, "site": ["a", "b"] * 6})
        message = "must hold classes; got 12 .* such as 0.25"
        with pytest.raises(ValueError, match=message):
            losses.equalized_odds(cells, "site", label="risk")
        for few in (risk[:10], np.arange(10)):
            cells = fairjax.partition({"stage": few, "site": ["a", "b"] * 5})
            assert losses.equalized_odds(cells, "site", label="stage").cells.all()


class TestCox:
    def draw(self, size=40):
        """Features, times with ties, events, and a group; scores of .5 and −1."""
        rng = np.random.default_rng(0)
        features = rng.normal(size=(size, 2)).astype(np.float32)
        times, events = rng.integers(1, 12, size), rng.random(size) < 0.6
        return features, times, events, rng.random(size) < 0.5

    @pytest.mark.oracle
    def test_equals_statsmodels_in_each_group(self):
        """The values and gradients of its likelihoods of the groups' rows alone."""
        duration = pytest.importorskip("statsmodels.duration.hazard_regression")
        features, times, events, group = self.draw()
        weights = np.array([0.5, -1.0])

        def loss(weights, mask):
            return losses.cox_loss(features @ weights, times, events, mask=mask)

        objectives = fairjax.stack_objectives(
            {
                "all": lambda w: losses.cox_loss(features @ w, times, events),
                "a": lambda w: loss(w, group),
                "b": lambda w: loss(w, ~group),
            }
        )
        differentiate = jax.jit(fairjax.value_and_jacobian(objectives))
        values, rows = differentiate(jnp.asarray(weights))
        for k, rows_of in enumerate((np.ones_like(group), group, ~group)):
            model = duration.PHReg(
                times[rows_of],
                features[rows_of].astype(np.float64),
                status=events[rows_of],
                ties="breslow",
            )
            number = events[rows_of].sum()
            expected = -model.loglike(weights) / number
            np.testing.assert_allclose(values[k], expected, rtol=1e-5)
            expected = -model.score(weights) / number
            np.testing.assert_allclose(rows[k], expected, rtol=1e-4, atol=1e-6)

    def test_by_hand(self):
        # At time 1 all three are at risk, at the tied time 2 the last two, twice.
        scores, times = jnp.log(jnp.array([1.0, 2.0, 3.0])), jnp.array([1, 2, 2])
        found = losses.cox_loss(scores, times, jnp.ones(3))
        terms = np.log(6 / 1), np.log(5 / 2), np.log(5 / 3)
        np.testing.assert_allclose(found, np.mean(terms), rtol=1e-6)

    def test_times_as_large_as_dates(self):
        """Neighbours that are equal in float32."""
        times = np.array([20_000_001, 20_000_000])
        found = losses.cox_loss(jnp.zeros(2), times, np.ones(2))
        np.testing.assert_allclose(found, np.log(2) / 2, rtol=1e-6)

    def test_wrong_input(self):
        times = np.array([1.0, np.nan, 2.0])
        assert jnp.isnan(losses.cox_loss(jnp.zeros(3), times, np.ones(3)))
        left_out = np.array([True, False, True])
        found = losses.cox_loss(jnp.zeros(3), times, np.ones(3), mask=left_out)
        np.testing.assert_allclose(found, np.log(2) / 2, rtol=1e-6)
        for scores, events in ((jnp.zeros((3, 1)), np.ones(3)), (jnp.zeros(3), [1.0])):
            with pytest.raises(ValueError, match=r"must all have shape \[N\]"):
                losses.cox_loss(scores, times, np.asarray(events))

    def test_without_events(self):
        def loss(scores, mask):
            events = jnp.array([0, 0, 1])
            return losses.cox_loss(scores, jnp.arange(3), events, mask=mask)

        scores, mask = jnp.array([1.0, 2.0, jnp.nan]), jnp.array([True, True, False])
        found, gradient = jax.value_and_grad(loss)(scores, mask)
        assert found == 0
        np.testing.assert_array_equal(gradient, [0, 0, 0])

    def test_only_the_order_of_times_counts(self):
        features, times, events, group = self.draw()
        scores = jnp.asarray(features[:, 0])
        one = losses.cox_loss(scores, times, events, mask=group)
        other = losses.cox_loss(scores + 3, times**2, events, mask=group)
        np.testing.assert_allclose(one, other, rtol=1e-5)
