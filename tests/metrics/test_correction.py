import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairjax import metrics
from fairjax.metrics import (
    GroupCounts,
    bias_corrected_gap,
    equal_opportunity_difference,
    equalized_odds_difference,
)

shrunken_rates = jax.jit(metrics.shrunken_rates)


def numpy_rates(positives, support):
    """The formulas of the module for one label, in float64 with loops."""
    total, groups = sum(support), len(support)
    m = sum(positives) / total
    excess = sum(n * (x / n - m) ** 2 for x, n in zip(positives, support, strict=True))
    excess -= (groups - 1) * m * (1 - m)
    scale = total - sum(n**2 for n in support) / total - (groups - 1)
    tau2 = min(max(excess / scale, 0), m * (1 - m))
    rates = []
    for x, n in zip(positives, support, strict=True):
        sigma2 = (m * (1 - m) - tau2) / n
        factor = np.sqrt(tau2 / (tau2 + sigma2)) if tau2 > 0 else 0
        rates.append(m + factor * (x / n - m))
    return np.array(rates), tau2


@pytest.mark.slow
@given(
    hnp.arrays(np.int32, (4, 2, 2), elements=st.integers(1, 60)),
)
def test_shrunken_rates_equal_the_formulas(table):
    result = np.asarray(shrunken_rates(GroupCounts(jnp.array(table))))
    for label in (0, 1):
        expected, _ = numpy_rates(
            table[:, label, 1].tolist(), table[:, label].sum(1).tolist()
        )
        # Near τ² = 0 the square root magnifies rounding.
        np.testing.assert_allclose(result[:, label], expected, atol=2e-3)


def test_rates_of_equal_groups_spread_as_much_as_estimated():
    positives, support = [10, 30, 45, 20], [60] * 4
    table = np.stack([60 - np.array(positives), np.array(positives)], axis=-1)
    counts = GroupCounts(jnp.array(np.stack([table, table], axis=1)))
    _, tau2 = numpy_rates(positives, support)
    assert tau2 > 0
    rates = np.asarray(shrunken_rates(counts))
    np.testing.assert_allclose(rates.var(axis=0, ddof=1), tau2, rtol=1e-5)
    assert np.ptp(rates[:, 0]) < np.ptp(positives) / 60


NUM_GROUPS, RUNS = 6, 250
compiled_gap = jax.jit(lambda key, counts: bias_corrected_gap(key, counts))


@jax.jit
def simulated_gaps(true_rates, support):
    def run(key):
        data_key, boot_key = jax.random.split(key)
        hits = jax.random.binomial(data_key, support, true_rates)
        row = jnp.stack([support - hits, hits], axis=-1)
        counts = GroupCounts(jnp.stack([row, row], axis=1).astype(int))
        return bias_corrected_gap(
            boot_key,
            counts,
            num_replicates=20,
            statistic=equal_opportunity_difference,
        )

    # Batches of one size, of which one program is made.
    return jax.lax.map(run, jax.random.split(jax.random.key(0), RUNS), batch_size=125)


def simulate(true_rates, positives):
    """Mean raw and corrected equal-opportunity gap over simulated data sets."""
    # Empty groups make one shape, and one compilation, of all cases.
    empty = NUM_GROUPS - len(positives)
    support = jnp.array([*positives, *[0] * empty], float)
    rates = jnp.array([*true_rates, *[0.5] * empty])
    gaps = simulated_gaps(rates, support)
    return np.asarray(gaps.raw).mean(), np.asarray(gaps.corrected).mean()


SIZES = pytest.mark.parametrize(
    "positives", [[200] * 3, [100] * 6, [1500, 300, 80, 40]], ids=str
)


@pytest.mark.slow
@SIZES
def test_at_parity_most_of_the_bias_is_gone(positives):
    raw, corrected = simulate([0.6] * len(positives), positives)
    assert raw > 0.05
    assert corrected < 0.5 * raw


@pytest.mark.slow
@SIZES
def test_a_large_gap_is_nearly_unbiased(positives):
    rates = np.linspace(0.35, 0.85, len(positives))
    _, corrected = simulate(rates, positives)
    assert abs(corrected - 0.5) < 0.015


@pytest.mark.slow
@SIZES
@pytest.mark.parametrize("gap", [0.03, 0.06])
def test_in_between_it_is_closer_to_the_truth_on_average(positives, gap):
    rates = np.linspace(0.6 - gap / 2, 0.6 + gap / 2, len(positives))
    raw, corrected = simulate(rates, positives)
    assert abs(corrected - gap) < 0.75 * abs(raw - gap)


@pytest.mark.slow
def test_equalized_odds_takes_both_labels_and_min_support():
    rng = np.random.default_rng(0)
    table = rng.integers(50, 100, (3, 2, 2))
    table[2] = [[1, 0], [0, 1]]
    statistic = functools.partial(equalized_odds_difference, min_support=10)
    gap = jax.jit(
        lambda key, counts: bias_corrected_gap(key, counts, statistic=statistic)
    )(jax.random.key(0), GroupCounts(jnp.array(table)))
    assert gap.raw == statistic(GroupCounts(jnp.array(table)))
    assert 0 <= gap.corrected < gap.raw
    np.testing.assert_allclose(gap.corrected, max(gap.raw - gap.bias, 0))


def test_rates_of_zero_and_one_need_no_correction():
    table = jnp.array([[[50, 0], [0, 40]], [[30, 0], [0, 20]], [[9, 0], [0, 9]]])
    gap = compiled_gap(jax.random.key(0), GroupCounts(table))
    assert (gap.raw, gap.bias, gap.corrected) == (0, 0, 0)


def test_an_empty_group_is_left_out_and_one_group_has_no_gap():
    group = [[40, 10], [6, 14]]
    empty = [[0, 0], [0, 0]]
    key = jax.random.key(0)
    alone = compiled_gap(key, GroupCounts(jnp.array([group, empty, empty])))
    assert np.isnan([alone.raw, alone.bias, alone.corrected]).all()
    two = compiled_gap(key, GroupCounts(jnp.array([group, [[25, 25], [9, 11]], empty])))
    assert np.isfinite(two.corrected)
