import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from fairjax import metrics
from fairjax.metrics import newcombe_interval, wilson_interval
from fairjax.metrics.intervals import normal_quantile

# Called one by one, their loops would be compiled anew each time.
auroc_interval = jax.jit(metrics.auroc_interval)
beta_quantile = jax.jit(metrics.beta_quantile, static_argnames="probability")
jeffreys_interval = jax.jit(metrics.jeffreys_interval, static_argnames="confidence")
logit_interval = jax.jit(metrics.logit_interval)
midp_interval = jax.jit(metrics.midp_interval, static_argnames="confidence")
compiled_wilson = jax.jit(wilson_interval)

LEVELS = pytest.mark.parametrize(
    "confidence",
    [0.95, *(pytest.param(level, marks=pytest.mark.slow) for level in (0.8, 0.999))],
)
RATES = [
    (x, n)
    for n in (1, 5, 10, 100, 1000, 10**5, 10**7)
    for x in sorted({0, 1, 2, n // 3, n // 2, n - 1, n})
    if x <= n
]


@pytest.mark.slow
@LEVELS
def test_wilson_is_that_of_statsmodels(confidence):
    x, n = np.array(RATES, float).T
    lower, upper = wilson_interval(x, n, confidence=confidence)
    expected = proportion_confint(x, n, alpha=1 - confidence, method="wilson")
    width = expected[1] - expected[0]
    assert (np.abs(lower - expected[0]) <= 1e-6 + 1e-3 * width).all()
    assert (np.abs(upper - expected[1]) <= 1e-6 + 1e-3 * width).all()


@LEVELS
def test_jeffreys_is_that_of_statsmodels_but_at_the_ends(confidence):
    x, n = np.array(RATES, float).T
    lower, upper = jeffreys_interval(x, n, confidence=confidence)
    low, high = proportion_confint(x, n, alpha=1 - confidence, method="jeffreys")
    width = high - low
    np.testing.assert_array_equal(np.asarray(lower)[x == 0], 0)
    np.testing.assert_array_equal(np.asarray(upper)[x == n], 1)
    # In float32, a rate of a hundred thousandth below 1 has three digits left.
    assert (np.abs(lower - low) <= 6e-8 + 5e-3 * width)[x > 0].all()
    assert (np.abs(upper - high) <= 6e-8 + 5e-3 * width)[x < n].all()


@pytest.mark.slow
def test_intervals_have_closed_ends_and_no_trials_no_interval():
    for interval in (wilson_interval, jeffreys_interval):
        lower, upper = interval(np.array([0, 7, 0]), np.array([7, 7, 0]))
        assert lower[0] == 0
        assert upper[1] == 1
        assert 0 < upper[0] < 0.5 < lower[1] < 1
        assert np.isnan([lower[2], upper[2]]).all()


def midp_score(x, n, end):
    """Standard errors of the mid-p tail below, at the rate of an upper end."""
    tail = (stats.binom.cdf(x - 1, n, end) + stats.binom.cdf(x, n, end)) / 2
    return -stats.norm.ppf(tail)


MIDP = [
    (float(x), float(n))
    for n in (2, 3, 5, 10, 25, 100, 10**4, 10**6)
    for x in sorted({0, 1, 2, n // 3, n // 2, n - 2, n - 1})
    if x < n
]


@pytest.mark.parametrize(("z", "near"), [(1.0, 0.02), (1.96, 0.02), (3.0, 0.06)])
def test_midp_ends_have_the_tails_of_scipys_binomial(z, near):
    x, n = np.array(MIDP).T
    with jax.enable_x64(True):
        lower, upper = (np.asarray(end) for end in midp_interval(x, n, z=z))
        # The lower end of successes is the upper one of failures.
        mirrored = np.asarray(midp_interval(n - x, n, z=z).upper)
    np.testing.assert_allclose(midp_score(x, n, upper), z, atol=near)
    few = (x >= 3) & (n - x >= 3)
    np.testing.assert_allclose(midp_score(x, n, upper)[few], z, atol=0.01)
    np.testing.assert_allclose(lower, 1 - mirrored, rtol=1e-9, atol=1e-15)


def test_midp_hand_values():
    # Nothing in n: half of (1 - p)^n is the tail.
    lower, upper = midp_interval(0, 10)
    assert lower == 0
    np.testing.assert_allclose(upper, 1 - 0.05**0.1, atol=3e-3)
    # In the middle it is within Clopper and Pearson's and near Wilson's.
    exact = proportion_confint(40, 100, method="beta")
    wilson = wilson_interval(40, 100)
    lower, upper = midp_interval(40, 100)
    assert exact[0] < lower < upper < exact[1]
    np.testing.assert_allclose((lower, upper), wilson, atol=3e-3)
    assert midp_interval(10, 10).upper == 1
    assert np.isnan(midp_interval(0, 0)).all()


@pytest.mark.slow
@given(st.floats(0, 1), st.floats(1, 1e6), st.floats(0.1, 5))
def test_midp_ends_enclose_the_rate_and_widen(rate, trials, z):
    lower, upper = midp_interval(rate * trials, trials, z=z)
    assert 0 <= lower <= rate + 1e-6
    assert rate - 1e-6 <= upper <= 1
    wider = midp_interval(rate * trials, trials, z=z + 0.1)
    assert wider.lower <= lower + 1e-6
    assert wider.upper >= upper - 1e-6


def test_wilson_hand_values():
    # (.8 + .19207 ± 1.96 sqrt(.016 + .009604)) / 1.38415 with 8 of 10.
    z = 1.959964
    reach = z * np.sqrt(0.16 / 10 + z**2 / 400)
    expected = (0.8 + z**2 / 20 + np.array([-reach, reach])) / (1 + z**2 / 10)
    np.testing.assert_allclose(wilson_interval(8, 10), expected, rtol=1e-5)
    np.testing.assert_allclose(wilson_interval(8, 10, z=z), expected, rtol=1e-5)


@pytest.mark.slow
@given(st.floats(0, 1), st.floats(0.5, 500))
def test_wilson_ends_are_where_the_score_test_just_rejects(rate, trials):
    """With real-valued trials too."""
    lower, upper = compiled_wilson(rate * trials, trials, z=2.0)
    for end in (float(lower), float(upper)):
        if 1e-5 < end < 1 - 1e-5:
            score = abs(rate - end) / np.sqrt(end * (1 - end) / trials)
            np.testing.assert_allclose(score, 2, rtol=2e-2)


@pytest.mark.parametrize(
    "probability",
    [0.025, *(pytest.param(p, marks=pytest.mark.slow) for p in (0.001, 0.5, 0.975))],
)
def test_beta_quantiles_are_those_of_scipy(probability):
    a = np.array([0.5, 0.5, 1.0, 3.5, 60.0, 300.0, 2000.0, 51.0])
    b = np.array([0.5, 9.5, 1.0, 1e6, 80.0, 90.0, 51.0, 2e6])
    for first, second in ((a, b), (b, a)):
        found = beta_quantile(probability, first, second)
        expected = stats.beta.ppf(probability, first, second)
        deviation = stats.beta.std(first, second)
        assert (np.abs(found - expected) <= 6e-8 + 4e-3 * deviation).all()


def test_logit_interval_hand_values_and_its_ends():
    z, logit, reach = 1.959964, np.log(9), 1.959964 * 0.05 / 0.09
    assert z * 0.05 / 0.09 == reach
    expected = 1 / (1 + np.exp(-(logit + np.array([-reach, reach]))))
    np.testing.assert_allclose(logit_interval(0.9, 0.05), expected, rtol=1e-5)
    estimate, error = np.array([0.0, 1.0, 0.5, np.nan]), np.array([0.1, 0.1, 0, 0.1])
    lower, upper = logit_interval(estimate, error)
    np.testing.assert_array_equal(lower, [0, 0, 0, np.nan])
    np.testing.assert_array_equal(upper, [1, 1, 1, np.nan])


def newcombe_oracle(area, m, n, z):
    def excess(theta):
        bends = (1 - theta) / (2 - theta) + theta / (1 + theta)
        mean = (m + n) / 2 - 1
        variance = theta * (1 - theta) * (1 + mean * bends) / (m * n)
        return (area - theta) ** 2 - z**2 * variance

    edge = 1e-12
    lower = optimize.brentq(excess, edge, area) if area > 0.0 else 0.0
    upper = optimize.brentq(excess, area, 1 - edge) if area < 1.0 else 1.0
    return lower, upper


@pytest.mark.parametrize("area", [0.5, 0.8, 0.99])
@pytest.mark.parametrize(("m", "n"), [(5, 40), (60, 30)])
def test_newcombe_solves_its_equation(area, m, n):
    expected = newcombe_oracle(area, m, n, normal_quantile(0.95))
    found = newcombe_interval(area, m, n)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    mirrored = newcombe_interval(1 - area, n, m)
    np.testing.assert_allclose(1 - np.asarray(mirrored)[::-1], expected, rtol=1e-4)


def test_auroc_of_one_has_an_interval():
    area, error = np.float32([1.0, 0.8, 0.0]), np.float32([0.0, 0.04, 0.0])
    lower, upper = auroc_interval(area, error, 12, 40)
    exact = newcombe_interval(area, 12, 40)
    smooth = logit_interval(area, error)
    np.testing.assert_allclose(lower, [exact.lower[0], smooth.lower[1], 0], rtol=1e-6)
    np.testing.assert_allclose(upper, [1, smooth.upper[1], exact.upper[2]], rtol=1e-6)
    assert 0.7 < lower[0] < 0.95
    assert np.isnan(auroc_interval(np.nan, 0.1, 12, 40)).all()
    assert np.isnan(auroc_interval(1.0, 0.0, 12, 0)).all()


@pytest.mark.slow
def test_intervals_can_be_compiled_mapped_and_doubled():
    x, n = np.array([0.0, 3, 8]), np.array([4.0, 5, 8])
    for interval in (wilson_interval, jeffreys_interval):
        whole = interval(x, n)
        compiled = jax.jit(jax.vmap(interval))(x, n)
        for one, other in zip(whole, compiled, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    with jax.enable_x64(True):
        lower, upper = wilson_interval(x, n)
        assert lower.dtype == np.float64
        low, high = proportion_confint(x, n, method="wilson")
        np.testing.assert_allclose((lower, upper), (low, high), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_lies_between_0_and_1(confidence):
    for interval in (wilson_interval, jeffreys_interval):
        with pytest.raises(ValueError, match="confidence must lie in"):
            interval(1, 2, confidence=confidence)


@pytest.mark.slow
def test_students_equivalent_is_scipys_but_for_a_few_degrees():
    degrees = jnp.array([10.0, 30.0, 400.0])
    for z in (0.5, 1.0, 1.96, 2.58):
        exact = stats.t.isf(stats.norm.sf(z), np.asarray(degrees))
        found = metrics.student_equivalent(z, degrees)
        np.testing.assert_allclose(found, exact, rtol=2e-3)
    few = metrics.student_equivalent(1.96, jnp.array([1.0, 2.0, 3.0]))
    assert np.all(few > stats.t.isf(stats.norm.sf(1.96), [1, 2, 3]))
    assert np.isnan(metrics.student_equivalent(1.96, jnp.array(0.0)))
    widest = metrics.student_equivalent(20.0, jnp.array([1.0, 4.0]))
    np.testing.assert_allclose(widest, np.exp(30) * np.array([1, 2]), rtol=1e-5)


def test_an_unknown_error_of_an_auroc_gives_no_interval():
    found = auroc_interval(0.8, np.float32([0.1, np.nan]), 20, 30)
    found = jax.tree.map(np.asarray, found)
    assert np.isfinite(found.lower[0])
    assert np.isnan([found.lower[1], found.upper[1]]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interval", "kind"),
    # Each meets one of the two kinds, which are widened in one way.
    [
        (wilson_interval, jnp.float16),
        (jeffreys_interval, jnp.bfloat16),
        (midp_interval, jnp.float16),
    ],
    ids=["wilson", "jeffreys", "midp"],
)
def test_sixteen_bits_are_widened(interval, kind):
    hits, rows = jnp.array(30, kind), jnp.array(50, kind)
    for end, same in zip(interval(hits, rows), interval(30, 50), strict=True):
        assert end.dtype == jnp.float32
        np.testing.assert_allclose(end, same, rtol=1e-6)


@pytest.mark.slow
def test_noise_of_sixteen_bits_is_known():
    kind = jnp.bfloat16
    gap = metrics.gap_noise(
        jax.random.key(0), jnp.array([1, 2], kind), jnp.ones(2, kind)
    )
    assert np.isfinite(gap.floor)
