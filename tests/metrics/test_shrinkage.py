import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fairjax import metrics
from fairjax.metrics import (
    GroupCounts,
    posterior_rates,
    support_status,
)

beta_binomial_posterior = jax.jit(
    metrics.beta_binomial_posterior, static_argnames="confidence"
)


def moments(x, n):
    """The method of moments, as in the docstring, in float64."""
    m = x.sum() / n.sum()
    groups = len(x)
    excess = (n * (x / n - m) ** 2).sum() - (groups - 1) * m * (1 - m)
    scale = n.sum() - (n**2).sum() / n.sum() - (groups - 1)
    between = np.clip(excess / scale, 0, m * (1 - m))
    return m, (m * (1 - m) / between - 1 if between else n.sum())


def test_posterior_is_a_beta_of_the_estimated_prior():
    x, n = np.array([3.0, 40, 70, 9]), np.array([20.0, 100, 100, 12])
    m, size = moments(x, n)
    assert size < n.sum()
    found = beta_binomial_posterior(x, n, confidence=0.9)
    np.testing.assert_allclose(found.prior_mean, m, rtol=1e-5)
    np.testing.assert_allclose(found.prior_size, size, rtol=1e-4)
    a, b = size * m + x, size * (1 - m) + n - x
    np.testing.assert_allclose(found.mean, a / (a + b), rtol=1e-4)
    expected = stats.beta.interval(0.9, a, b)
    np.testing.assert_allclose((found.lower, found.upper), expected, atol=1e-3)


@pytest.mark.slow
def test_small_groups_are_shrunk_most():
    x, n = np.array([1, 100, 900]), np.array([10, 1000, 2000])
    found = beta_binomial_posterior(x, n)
    shift = np.abs(np.asarray(found.mean) - x / n)
    assert shift[0] > 10 * shift[1]
    assert shift[1] > shift[2]


@pytest.mark.slow
def test_groups_that_seem_alike_still_have_an_interval():
    found = beta_binomial_posterior(np.full(3, 10), np.full(3, 20))
    np.testing.assert_allclose(found.prior_size, 60)
    np.testing.assert_allclose(found.mean, 0.5, rtol=1e-5)
    assert (found.upper - found.lower > 0.18).all()


@pytest.mark.slow
def test_groups_without_trials_get_the_prior_and_no_trials_nothing():
    found = beta_binomial_posterior(np.array([0, 5, 9]), np.array([0, 10, 10]))
    np.testing.assert_allclose(found.mean[0], found.prior_mean, rtol=1e-6)
    nothing = beta_binomial_posterior(np.zeros(3, int), np.zeros(3, int))
    assert np.isnan(nothing.mean).all()
    for successes, end in ((0, 0.0), (10, 1.0)):
        flat = beta_binomial_posterior(np.full(3, successes), np.full(3, 10))
        assert (flat.mean == end).all()
        assert (flat.lower <= end).all()
        assert (flat.upper >= end).all()
        assert (flat.upper - flat.lower > 0.03).all()


@pytest.mark.slow
def test_rates_by_label():
    counts = GroupCounts(
        jnp.array([[[30, 10], [6, 14]], [[90, 10], [60, 40]], [[50, 50], [40, 10]]])
    )
    found = jax.jit(posterior_rates)(counts)
    for label in (0, 1):
        cells = np.asarray(counts.counts)[:, label]
        alone = beta_binomial_posterior(cells[:, 1], cells.sum(1))
        for one, other in zip(found[:3], alone[:3], strict=True):
            np.testing.assert_allclose(one[:, label], other, rtol=1e-5)
        np.testing.assert_allclose(found.prior_size[label], alone.prior_size, rtol=1e-5)


@pytest.mark.slow
def test_intervals_hold_where_the_prior_is_true():
    """Rates drawn from a beta distribution: 95 % of the intervals hold them."""
    rng = np.random.default_rng(0)
    theta = rng.beta(6, 4, (80, 20))
    n = rng.integers(5, 60, 20)
    x = rng.binomial(n, theta)
    found = jax.jit(jax.vmap(beta_binomial_posterior, (0, None)))(x, n)
    held = np.mean((found.lower <= theta) & (theta <= found.upper))
    assert 0.92 < held < 0.97
    error = np.mean((np.asarray(found.mean) - theta) ** 2)
    assert error < 0.8 * np.mean((x / n - theta) ** 2)


def test_confidence_is_checked():
    with pytest.raises(ValueError, match="confidence must lie in"):
        beta_binomial_posterior(np.ones(2), np.full(2, 3), confidence=1.5)


def test_support_has_a_minimum_of_its_own_for_each_label():
    counts = GroupCounts(
        jnp.array([[[8, 2], [2, 3]], [[8, 1], [4, 6]], [[0, 0], [5, 5]]])
    )
    expected = [[True, True], [False, True], [False, True]]
    np.testing.assert_array_equal(support_status(counts, 5, 10), expected)
    # A group without rows is never sufficient, even where none are asked for.
    np.testing.assert_array_equal(support_status(counts, 0, 0)[2], [False, True])
    np.testing.assert_array_equal(
        support_status(counts), [[True, False], [False, True], [False, True]]
    )
