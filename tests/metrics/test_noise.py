import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fairjax import metrics
from fairjax.metrics import GroupCounts, bias_corrected_gap
from fairjax.metrics import equal_opportunity_difference as tpr_gap

KEY = jax.random.key(0)
gap_noise = jax.jit(metrics.gap_noise, static_argnames=("agg", "num_draws"))
RANGES = {2: 1.1284, 3: 1.6926, 5: 2.3259}  # of normal samples: d2 of control charts


@pytest.mark.parametrize(
    "groups", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 5))]
)
def test_the_floor_is_the_mean_range_of_noise(groups):
    noise = gap_noise(KEY, jnp.full(groups, 0.4), jnp.full(groups, 0.1))
    np.testing.assert_allclose(noise.floor, 0.1 * RANGES[groups], rtol=0.03)
    # Equal groups have no spread, so all of the gap is bias, and there is no gap.
    np.testing.assert_allclose(noise.bias, noise.floor, rtol=0.05)
    assert noise.corrected == 0


def test_a_large_gap_has_little_bias():
    noise = gap_noise(KEY, jnp.array([0.1, 0.5, 0.9]), jnp.full(3, 0.02))
    np.testing.assert_allclose(noise.bias, 0, atol=2e-3)
    np.testing.assert_allclose(noise.corrected, 0.8, atol=2e-3)


@pytest.mark.slow
def test_correlated_estimates_have_less_noise_between_them():
    # Of two estimates with correlation r the difference has variance 2 s^2 (1 - r).
    values, errors = jnp.array([0.4, 0.5]), jnp.full(2, 0.1)
    covariance = 0.01 * jnp.array([[1, 0.75], [0.75, 1]])
    apart = gap_noise(KEY, values, errors)
    together = gap_noise(KEY, values, errors, covariance=covariance)
    np.testing.assert_allclose(together.floor / apart.floor, 0.5, rtol=0.05)


@pytest.mark.slow
def test_families_are_put_together_draw_by_draw():
    values, errors = jnp.full((2, 3), 0.4), jnp.array([[0.1] * 3, [0.001] * 3])
    worst = gap_noise(KEY, values, errors)
    mean = gap_noise(KEY, values, errors, agg="mean")
    np.testing.assert_allclose(worst.floor, 0.1 * RANGES[3], rtol=0.03)
    np.testing.assert_allclose(mean.floor, 0.1005 * RANGES[3] / 2 / 0.995, rtol=0.04)
    # Two families of equal noise: the larger of two ranges.
    both = gap_noise(KEY, values, jnp.full((2, 3), 0.1))
    drawn = np.random.default_rng(0).normal(scale=0.1, size=(100_000, 2, 3))
    expected = np.ptp(drawn, axis=2).max(axis=1).mean()
    np.testing.assert_allclose(both.floor, expected, rtol=0.02)


@pytest.mark.slow
def test_it_agrees_with_redrawn_counts():
    hits, rows = np.array([60, 75, 66, 72]), np.array([100, 100, 80, 120])
    table = np.stack([rows - hits, hits], axis=1)
    counts = GroupCounts(jnp.asarray(np.stack([table, table], axis=1)))
    redrawn = bias_corrected_gap(KEY, counts, num_replicates=4000, statistic=tpr_gap)
    pooled = hits.sum() / rows.sum()
    noise = gap_noise(
        KEY, jnp.asarray(hits / rows), jnp.sqrt(pooled * (1 - pooled) / rows)
    )
    np.testing.assert_allclose(noise.bias, redrawn.bias, atol=6e-3)
    np.testing.assert_allclose(noise.corrected, redrawn.corrected, atol=6e-3)


def test_between_is_dersimonian_and_lairds():
    """By the bias: at the estimate of the spread, known here, the gap is simulated."""
    values, errors = np.array([0.2, 0.3, 0.6]), np.array([0.05, 0.1, 0.08])
    weights = errors**-2.0
    mean = weights @ values / weights.sum()
    excess = weights @ (values - mean) ** 2 - 2
    between = excess / (weights.sum() - (weights**2).sum() / weights.sum())
    at = mean + np.sqrt(between / (between + errors**2)) * (values - mean)
    drawn = np.random.default_rng(1).normal(at, errors, size=(200_000, 3))
    expected = np.ptp(drawn, axis=1).mean() - np.ptp(at)
    noise = gap_noise(KEY, jnp.asarray(values), jnp.asarray(errors), num_draws=20_000)
    np.testing.assert_allclose(noise.bias, expected, atol=3e-3)


@pytest.mark.slow
def test_corrected_gaps_are_nearer_to_none_where_there_is_none():
    drawn = stats.norm.rvs(0.5, 0.05, size=(400, 6), random_state=2)

    @jax.jit
    @jax.vmap
    def corrected(values):
        return gap_noise(KEY, values, jnp.full(6, 0.05), num_draws=500).corrected

    raw = np.ptp(drawn, axis=1).mean()
    assert 0 < np.mean(corrected(jnp.asarray(drawn))) < 0.4 * raw


@pytest.mark.slow
@given(st.permutations(range(4)))
def test_the_order_of_groups_does_not_matter_but_for_the_draws(order):
    values, errors = jnp.array([0.2, 0.3, 0.6, 0.5]), jnp.array([0.05, 0.1, 0.08, 0.03])
    order = jnp.array(order)
    one = gap_noise(KEY, values, errors)
    other = gap_noise(KEY, values[order], errors[order])
    np.testing.assert_allclose(one, other, atol=0.01)


@pytest.mark.slow
def test_groups_without_an_error_are_left_out():
    values, errors = jnp.array([0.2, 0.9, 0.6, 0.1]), jnp.array([0.05, 0, 0.08, 0.1])
    valid = jnp.array([True, True, True, False])
    kept = gap_noise(KEY, jnp.array([0.2, 0.6]), jnp.array([0.05, 0.08]))
    found = gap_noise(KEY, values, errors, valid=valid)
    np.testing.assert_allclose(found, kept, atol=0.01)
    alone = gap_noise(KEY, values, jnp.array([0.05, 0, jnp.nan, jnp.inf]))
    assert np.isnan(alone).all()


def test_agg_is_checked():
    with pytest.raises((ValueError, TypeError), match="agg"):
        gap_noise(KEY, jnp.ones(2), jnp.ones(2), agg="min")
