import jax
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from fairjax.metrics import logistic_recalibration


def case(seed, rows=600):
    """Risks too low in group 1, too extreme in group 2, all of them rare in group 0."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(-1, 3, rows)
    logit = rng.normal(np.where(groups == 0, -3, 0), 1, rows)
    true = np.where(groups == 1, logit + 0.7, np.where(groups == 2, logit / 2, logit))
    labels = (rng.random(rows) < 1 / (1 + np.exp(-true))).astype(int)
    return labels, 1 / (1 + np.exp(-logit)), groups, rng


def by_statsmodels(labels, scores, weights):
    logit = np.log(scores) - np.log1p(-scores)
    family = sm.families.Binomial()
    ones = np.ones_like(scores)
    options = {"family": family, "freq_weights": weights}
    large = sm.GLM(labels, ones, offset=logit, **options).fit(tol=1e-14)
    line = sm.GLM(labels, np.column_stack([ones, logit]), **options).fit(tol=1e-14)
    return (large.params[0], large.bse[0], line.params[1], line.bse[1], line.params[0])


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_statsmodels(weighted):
    labels, scores, groups, rng = case(0)
    weights = rng.integers(1, 4, 600) if weighted else None
    with jax.enable_x64(True):
        double = logistic_recalibration(
            labels, scores, groups, num_groups=3, weights=weights
        )
    single = logistic_recalibration(
        labels, scores.astype(np.float32), groups, num_groups=3, weights=weights
    )
    assert double.slope.dtype == np.float64
    assert double.converged.all()
    assert single.converged.all()
    for group in range(3):
        at = groups == group
        mass = np.ones(at.sum()) if weights is None else weights[at]
        expected = by_statsmodels(labels[at], scores[at], mass)
        np.testing.assert_allclose([c[group] for c in double[:5]], expected, rtol=1e-8)
        np.testing.assert_allclose(
            [c[group] for c in single[:5]], expected, rtol=1e-4, atol=1e-5
        )


def test_a_table_by_hand():
    """Two scores: the line goes through both groups' log odds, ln 3 and -ln 3."""
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    scores = np.repeat([0.1, 0.9], 4).astype(np.float32)
    fit = logistic_recalibration(labels, scores, np.zeros(8, int), num_groups=1)
    np.testing.assert_allclose(fit.slope, np.log(3) / np.log(9), rtol=1e-5)
    np.testing.assert_allclose(fit.slope_intercept, 0, atol=1e-5)
    # Each score informs by 4 · 3/16 at its log odds, ± ln 9.
    np.testing.assert_allclose(fit.slope_se, (1.5 * np.log(9) ** 2) ** -0.5, rtol=1e-4)
    np.testing.assert_allclose(fit.intercept_se, (8 * 0.09) ** -0.5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]),  # separated
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]),  # the wrong way round
        ([0, 0, 1, 1], [0.1, 0.3, 0.3, 0.4]),  # separated but for a tie
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3]),  # one score
    ],
)
def test_no_finite_slope(labels, scores):
    scores = np.array(scores, np.float32)
    fit = logistic_recalibration(
        np.array(labels), scores, np.zeros(4, int), num_groups=1
    )
    assert not fit.converged[0]
    assert np.isnan([fit.slope[0], fit.slope_se[0], fit.slope_intercept[0]]).all()
    # Calibration in the large is known all the same: expected events equal the two.
    logit = np.log(scores) - np.log1p(-scores)
    risks = 1 / (1 + np.exp(-(logit + fit.intercept[0])))
    np.testing.assert_allclose(risks.sum(), 2, rtol=1e-5)


@pytest.mark.slow
def test_one_class_no_rows_and_a_missing_score():
    labels, scores, groups, _ = case(1)
    scores = scores.astype(np.float32)
    labels[groups == 1] = 1
    scores[np.flatnonzero(groups == 2)[0]] = np.nan
    fit = logistic_recalibration(labels, scores, groups, num_groups=4)
    assert fit.converged.tolist() == [True, False, False, False]
    for column in fit[:5]:
        assert np.isnan(column).tolist() == [False, True, True, True]


@pytest.mark.slow
def test_scores_of_0_and_1_are_clipped():
    labels = np.array([0, 1, 0, 1, 1, 0])
    scores = np.array([0, 0, 0.5, 0.5, 1, 1], np.float32)
    groups = np.zeros(6, int)
    found = logistic_recalibration(labels, scores, groups, num_groups=1, clip=0.01)
    inside = np.clip(scores, 0.01, 0.99)
    same = logistic_recalibration(labels, inside, groups, num_groups=1)
    np.testing.assert_allclose(found.slope, same.slope, atol=1e-5)
    default = logistic_recalibration(labels, scores, groups, num_groups=1)
    assert default.converged[0]
    assert np.isfinite(default.slope_se[0])


@pytest.mark.slow
@given(st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_any_order_and_shifts(seed, random):
    """Odds raised to a power and multiplied: the fit follows, exactly."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], 20)
    logit = rng.normal(0, 2, 40) + labels
    groups = np.repeat([0, 1], 20)
    order = np.array(random.sample(range(40), 40))

    def fit(logit, labels, groups):
        with jax.enable_x64(True):
            scores = 1 / (1 + np.exp(-logit))
            found = logistic_recalibration(
                labels, scores, groups, num_groups=2, clip=1e-12
            )
        return found._replace(intercept=np.asarray(found.intercept))

    plain = fit(logit, labels, groups)
    again = fit(logit[order], labels[order], groups[order])
    np.testing.assert_allclose(again.slope, plain.slope, rtol=1e-6)
    shifted = fit(logit + 0.5, labels, groups)
    np.testing.assert_allclose(shifted.intercept, plain.intercept - 0.5, atol=1e-6)
    np.testing.assert_allclose(shifted.slope, plain.slope, rtol=1e-6)
    halved = fit(logit / 2, labels, groups)
    np.testing.assert_allclose(halved.slope, 2 * np.asarray(plain.slope), rtol=1e-6)


@pytest.mark.slow
def test_extreme_scores_do_not_send_newton_astray():
    """Overconfident risks: undamped steps from the identity would overshoot."""
    rng = np.random.default_rng(2)
    logit = rng.normal(0, 12, 600)
    labels = (rng.random(600) < 1 / (1 + np.exp(-logit / 10))).astype(int)
    scores = 1 / (1 + np.exp(-logit))
    with jax.enable_x64(True):
        fit = logistic_recalibration(labels, scores, np.zeros(600, int), num_groups=1)
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    expected = by_statsmodels(labels, clipped, np.ones(600))
    np.testing.assert_allclose([c[0] for c in fit[:5]], expected, rtol=1e-6)


@pytest.mark.slow
def test_mapped_equals_a_loop():
    labels, scores, groups, rng = case(3)
    weights = rng.integers(0, 3, (3, 600))

    def fit(mass):
        return logistic_recalibration(
            labels, scores.astype(np.float32), groups, num_groups=3, weights=mass
        )

    mapped = jax.vmap(fit)(weights)
    for i, mass in enumerate(weights):
        np.testing.assert_allclose(mapped.slope[i], fit(mass).slope, rtol=1e-4)
