import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from fairjax.metrics import influence_variance, logistic_recalibration


def test_variance_of_a_mean_by_hand():
    # Group 0: 1, 2, 3 (variance 1, of the mean 1/3). Group 1: one row, unknown.
    shares = np.array([-1 / 3, 0, 1 / 3, 0])
    found = influence_variance(shares, np.array([0, 0, 0, 1]), num_groups=3)
    np.testing.assert_allclose(found, [1 / 3, np.nan, np.nan], rtol=1e-6)


@pytest.mark.slow
def test_copies_of_a_patients_row_bring_no_news():
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    shares, groups = (values - values.mean()) / 40, np.zeros(40, int)
    once = influence_variance(shares, groups, num_groups=1)
    twice = influence_variance(
        np.repeat(shares, 2) / 2,
        np.repeat(groups, 2),
        num_groups=1,
        patients=np.repeat(np.arange(40), 2),
        num_patients=40,
    )
    np.testing.assert_allclose(twice, once, rtol=1e-5)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
def test_patients_of_one_row_are_rows_and_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    shares = rng.normal(size=30).astype(np.float32)
    groups, order = rng.integers(-1, 3, 30), rng.permutation(30)
    plain = influence_variance(shares, groups, num_groups=3)
    single = influence_variance(
        shares[order],
        groups[order],
        num_groups=3,
        patients=np.arange(30),
        num_patients=30,
    )
    np.testing.assert_allclose(single, plain, rtol=1e-4)


def test_patients_need_their_number():
    with pytest.raises(ValueError, match="patients and num_patients together"):
        influence_variance(
            jnp.zeros(2), jnp.zeros(2, int), num_groups=1, patients=jnp.zeros(2, int)
        )


@pytest.mark.slow
def test_recalibration_by_patient_is_the_sandwich():
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(150), 4)
    shared = rng.normal(size=150)[patients]
    logit = 0.8 * shared + rng.normal(size=600)
    labels = (rng.random(600) < 1 / (1 + np.exp(-logit - shared))).astype(int)
    scores = (1 / (1 + np.exp(-logit))).astype(np.float32)
    found = logistic_recalibration(
        labels,
        scores,
        np.zeros(600, int),
        num_groups=1,
        patients=patients,
        num_patients=150,
    )
    design = sm.add_constant(logit)
    fit = sm.GLM(labels, design, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": patients, "use_correction": False}
    )
    np.testing.assert_allclose(found.slope, fit.params[1], rtol=1e-4)
    factor = np.sqrt(150 / 149)
    np.testing.assert_allclose(found.slope_se, fit.bse[1] * factor, rtol=1e-3)
    large = sm.GLM(
        labels, np.ones(600), family=sm.families.Binomial(), offset=logit
    ).fit(cov_type="cluster", cov_kwds={"groups": patients, "use_correction": False})
    np.testing.assert_allclose(found.intercept_se, large.bse[0] * factor, rtol=1e-3)
    plain = logistic_recalibration(labels, scores, np.zeros(600, int), num_groups=1)
    assert found.intercept_se > 1.05 * plain.intercept_se
