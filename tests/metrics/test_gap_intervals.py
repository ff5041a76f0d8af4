import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.proportion import confint_proportions_2indep

from fairjax.metrics import (
    GroupCounts,
    Interval,
    auroc_gap_interval,
    auroc_interval,
    cluster_label_rates,
    difference_and_ratio_intervals,
    equalized_odds_difference,
    equalized_odds_interval,
    gap_interval,
    group_counts,
    midp_interval,
    rate_gap_interval,
    rate_ratio_interval,
    ratio_interval,
    wilson_interval,
)

KEY = jax.random.key(0)


@jax.jit
def normal_gap(values, errors, covariance=None, valid=None):
    """Symmetric limits, for which everything has a closed form."""
    return gap_interval(
        KEY,
        values,
        lambda z: Interval(values - z * errors, values + z * errors),
        covariance=covariance,
        valid=valid,
    )


def padded_gap(values, errors, covariance=None):
    """The same with groups left out to make six, and one program of all."""
    more = 6 - len(values)
    if covariance is not None:
        covariance = np.pad(covariance, (0, more))
    return normal_gap(
        np.pad(values, (0, more)),
        np.pad(errors, (0, more)),
        covariance,
        np.arange(6) < len(values),
    )


@functools.partial(jax.jit, static_argnames="confidence")
def newcombes_gap(x, n, confidence=0.95):
    limits = functools.partial(wilson_interval, x, n)
    return gap_interval(KEY, x / n, lambda z: limits(z=z), confidence=confidence)


@pytest.mark.slow
def test_two_rates_have_newcombes_interval():
    # Newcombe 1998, table II: 56 of 70 against 48 of 80, method 10.
    gap = newcombes_gap(np.array([56, 48]), np.array([70, 80]))
    np.testing.assert_allclose(gap.estimate, 0.2, rtol=1e-5)
    np.testing.assert_allclose((gap.lower, gap.upper), (0.0524, 0.3339), atol=5e-5)
    assert (gap.highest, gap.lowest) == (0, 1)
    np.testing.assert_allclose(gap.critical, stats.norm.ppf(0.975), rtol=1e-5)


@pytest.mark.slow
@given(st.integers(0, 30), st.integers(0, 50), st.sampled_from([0.8, 0.95]))
def test_two_rates_are_those_of_statsmodels(first, second, confidence):
    gap = newcombes_gap(
        np.array([first, second]), np.array([30, 50]), confidence=confidence
    )
    low, high = confint_proportions_2indep(
        first, 30, second, 50, method="newcomb", compare="diff", alpha=1 - confidence
    )
    np.testing.assert_allclose(gap.lower, max(low, -high, 0), atol=2e-5)
    np.testing.assert_allclose(gap.upper, max(high, -low), atol=2e-5)
    assert bool(gap.lower > 0) == bool(gap.p_value < 1 - confidence)


def exact_midp(x, n, z):
    """Mid-p limits from SciPy's binomial tails."""
    tail = stats.norm.sf(z)

    def excess(p, successes):
        below = stats.binom.cdf(successes - 1, n, p)
        return (below + stats.binom.cdf(successes, n, p)) / 2 - tail

    upper = 1.0 if x == n else optimize.brentq(excess, x / n, 1, (x,))
    lower = 0.0 if x == 0 else 1 - optimize.brentq(excess, 1 - x / n, 1, (n - x,))
    return lower, upper


@pytest.mark.parametrize("first", [0, 2, 10, 27, 30])
@pytest.mark.parametrize("second", [0, 25, 49])
def test_two_rates_have_movers_interval_from_exact_midp_limits(first, second):
    gap = rate_gap_interval(KEY, np.array([first, second]), np.array([30, 50]))
    p = first / 30, second / 50
    limits = exact_midp(first, 30, 1.959964), exact_midp(second, 50, 1.959964)
    high, low = (0, 1) if p[0] >= p[1] else (1, 0)
    below = p[high] - limits[high][0], limits[low][1] - p[low]
    above = limits[high][1] - p[high], p[low] - limits[low][0]
    lower = max(p[high] - p[low] - np.hypot(*below), 0)
    np.testing.assert_allclose(gap.lower, lower, atol=2e-3)
    # Of equal rates either may be the larger one.
    if first or second:
        upper = p[high] - p[low] + np.hypot(*above)
        np.testing.assert_allclose(gap.upper, upper, atol=2e-3)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def rate_gaps(x, n):
    return rate_gap_interval(KEY, x, n, num_draws=100)


def rejections(sizes, rate):
    """The chance of a false claim at 95 %, over all tables of two groups."""
    tables = np.meshgrid(*(np.arange(n + 1) for n in sizes), indexing="ij")
    chances = [stats.binom.pmf(x, n, rate) for x, n in zip(tables, sizes, strict=True)]
    x, chance = np.stack(tables, axis=-1).reshape(-1, 2), np.prod(chances, 0).ravel()
    likeliest = np.argsort(-chance)
    # All but one table in 10,000; the others are taken for false claims.
    kept = likeliest[: np.searchsorted(np.cumsum(chance[likeliest]), 0.9999) + 1]
    x, chance = x[kept], chance[kept]
    # In parts of one size, for one program.
    parts = np.pad(x, ((0, -len(x) % 60), (0, 0))).reshape(-1, 60, 2)
    lower = [rate_gaps(part, np.array(sizes)).lower for part in parts]
    return 1 - chance[np.concatenate(lower)[: len(x)] <= 0].sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "rate"),
    # Wilson's limits claim a gap in .108 and .100 of these.
    [((10, 400), 0.985), ((25, 300), 0.99)],
)
def test_false_gaps_are_few_for_small_groups_and_extreme_rates(sizes, rate):
    assert rejections(sizes, rate) < 0.056


@pytest.mark.slow
def test_false_gaps_are_few_for_many_small_groups_beside_a_large_one():
    sizes, runs = np.array([10] * 5 + [2000]), 500
    x = np.random.default_rng(0).binomial(sizes, 0.97, (runs, 6))
    # The small groups' order does not matter, so that many tables are the same.
    x[:, :5].sort(axis=1)
    x, times = np.unique(x, axis=0, return_counts=True)
    found = rate_gaps(x, sizes)
    # Two standard errors of 500 tables.
    limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert times @ (found.lower > 0) / runs < limit
    assert times @ (found.p_value <= 0.05) / runs < limit


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 3, 6])
def test_quantile_is_that_of_the_studentised_range(groups):
    gap = padded_gap(np.linspace(0, 1, groups), np.full(groups, 0.1))
    expected = stats.studentized_range.ppf(0.95, groups, 1e6) / np.sqrt(2)
    np.testing.assert_allclose(gap.critical, expected, atol=0.04)
    p_value = stats.studentized_range.sf(1 / 0.1, groups, 1e6)
    assert gap.p_value <= max(1.2 * p_value, 1e-4)
    reach = np.sqrt(2) * 0.1
    np.testing.assert_allclose(gap.lower, 1 - expected * reach, atol=0.01)
    # The upper end is that of one pair, whatever the number of groups.
    np.testing.assert_allclose(gap.upper, 1 + 1.959964 * reach, rtol=1e-4)


@pytest.mark.slow
def test_p_value_is_that_of_the_studentised_range():
    for distance in (0.3, 0.45):
        gap = padded_gap(np.array([0.0, 0.1, distance, 0.2]), np.full(4, 0.1))
        expected = stats.studentized_range.sf(distance / 0.1, 4, 1e6)
        np.testing.assert_allclose(gap.p_value, expected, atol=0.012)
        assert bool(gap.lower > 0) == bool(gap.p_value < 0.05)


@pytest.mark.slow
def test_correlated_estimates():
    values, errors = np.array([0.2, 0.5, 0.4]), np.array([0.1, 0.1, 0.05])
    correlation = np.array([[1, 0.8, 0.3], [0.8, 1, 0.0], [0.3, 0.0, 1]])
    covariance = correlation * np.outer(errors, errors)
    gap = padded_gap(values, errors, covariance)
    spread = np.sqrt(0.01 + 0.01 - 2 * 0.008)
    other = np.sqrt(0.01 + 0.0025 - 2 * 0.3 * 0.005)
    upper = max(0.3 + 1.959964 * spread, 0.2 + 1.959964 * other)
    np.testing.assert_allclose(gap.upper, upper, rtol=1e-4)
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(3), covariance, 10**5)
    pairs = [(0, 1, spread), (0, 2, other), (1, 2, np.sqrt(0.0125))]
    largest = np.max([np.abs(draws[:, i] - draws[:, j]) / s for i, j, s in pairs], 0)
    np.testing.assert_allclose(gap.critical, np.quantile(largest, 0.95), atol=0.03)
    np.testing.assert_allclose(gap.lower, 0.3 - gap.critical * spread, rtol=1e-3)


@pytest.mark.slow
def test_only_correlations_matter_and_not_those_of_unknown_variances():
    values, errors = np.array([0.2, 0.5]), np.array([0.1, 0.1])
    base = padded_gap(values, errors, np.array([[0.01, 0.004], [0.004, 0.01]]))
    scaled = padded_gap(values, errors, np.array([[4.0, 1.6], [1.6, 4.0]]))
    np.testing.assert_allclose(base[:5], scaled[:5], rtol=1e-4)
    independent = padded_gap(values, errors)
    for unknown in (0.0, np.nan):
        matrix = np.array([[0.01, 0.004], [0.004, unknown]])
        found = padded_gap(values, errors, matrix)
        np.testing.assert_allclose(found[:5], independent[:5], rtol=1e-4)


@pytest.mark.slow
def test_groups_left_out_are_as_if_they_were_not_there():
    values, errors = np.array([0.1, np.nan, 0.5, 0.9, 0.3, 0.0]), np.full(6, 0.1)
    valid = np.array([True, True, True, False, True, False])
    gap = normal_gap(values, errors, None, valid)
    kept = normal_gap(values[[0, 2, 4]], errors[[0, 2, 4]])
    assert (gap.highest, gap.lowest) == (2, 0)
    np.testing.assert_allclose(
        (gap.estimate, gap.upper), (kept.estimate, kept.upper), rtol=1e-6
    )
    np.testing.assert_allclose(gap.critical, kept.critical, atol=0.04)
    np.testing.assert_allclose(gap.lower, kept.lower, atol=0.01)
    for column in (np.array([0.3, np.nan]), np.full(2, np.nan)):
        alone = padded_gap(column, np.full(2, 0.1))
        assert np.isnan(alone[:5]).all()
        assert alone.highest == alone.lowest == (0 if column[0] == 0.3 else -1)


@pytest.mark.slow
def test_a_group_without_limits_makes_the_gap_unknown():
    gap = normal_gap(np.array([0.1, 0.5, 0.3]), np.array([0.1, np.nan, 0.1]))
    assert np.isnan(gap[:5]).all()


@pytest.mark.slow
def test_equal_estimates_show_nothing():
    gap = rate_gap_interval(KEY, np.full(3, 7), np.full(3, 20))
    assert (gap.estimate, gap.lower, gap.p_value) == (0, 0, 1)
    assert gap.upper > 0.2


@pytest.mark.slow
def test_rates_of_0_and_1_have_intervals():
    gap = rate_gap_interval(KEY, np.array([0, 20, 0]), np.array([20, 20, 0]))
    assert gap.estimate == 1
    assert 0.6 < gap.lower < 1
    np.testing.assert_allclose(gap.upper, 1, rtol=1e-6)
    assert gap.p_value < 1e-6


def ratio_oracle(x, n, z):
    """Donner and Zou's closed form of one ratio's limits from Wilson's."""
    (p, q), (lower, upper) = x / n, np.asarray(wilson_interval(x, n, z=z), float)
    (a, b), (c, d) = lower, upper
    low = p * q - np.sqrt((p * q) ** 2 - a * d * (2 * p - a) * (2 * q - d))
    high = p * q + np.sqrt((p * q) ** 2 - c * b * (2 * p - c) * (2 * q - b))
    return low / (d * (2 * q - d)), high / (b * (2 * q - b))


@pytest.mark.slow
def test_two_rates_have_donner_and_zous_ratio():
    x, n = np.array([30.0, 60.0]), np.array([100.0, 120.0])

    @jax.jit
    def found(x, n):
        return ratio_interval(KEY, x / n, lambda z: wilson_interval(x, n, z=z))

    ratio = found(x, n)
    np.testing.assert_allclose(ratio.estimate, 0.6, rtol=1e-5)
    expected = ratio_oracle(x, n, 1.959964)
    np.testing.assert_allclose((ratio.lower, ratio.upper), expected, rtol=1e-4)
    swapped = found(x[::-1], n[::-1])
    np.testing.assert_allclose(swapped[:4], ratio[:4], rtol=1e-4)


@pytest.mark.slow
def test_ratio_and_difference_agree_on_whether_there_is_a_gap():
    for second in (30, 36, 40, 44):
        given = np.array([30, second, 31]), np.full(3, 60)
        gap, ratio = rate_gap_interval(KEY, *given), rate_ratio_interval(KEY, *given)
        assert bool(gap.lower > 0) == bool(ratio.upper < 1)
        assert gap.p_value == ratio.p_value


@pytest.mark.slow
def test_difference_and_ratio_at_once_are_those_of_each():
    @jax.jit
    def found(x, n):
        limits = functools.partial(midp_interval, x, n)
        return difference_and_ratio_intervals(KEY, x / n, lambda z: limits(z=z))

    given = np.array([30, 44, 31]), np.full(3, 60)
    together = found(*given)
    alone = rate_gap_interval(KEY, *given), rate_ratio_interval(KEY, *given)
    for one, other in zip(sum(together, ()), sum(alone, ()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_ratios_of_0():
    # The third group has no trials and is left out.
    trials = np.array([20, 20, 0])
    none = rate_ratio_interval(KEY, np.zeros(3, int), trials)
    assert np.isnan(none.estimate)
    assert none.lower < 1e-6
    assert none.upper > 1 - 1e-6
    one = rate_ratio_interval(KEY, np.array([0, 10, 0]), trials)
    assert one.estimate == 0
    assert one.lower < 1e-6
    assert 0.2 < one.upper < 0.6


@pytest.mark.slow
def test_ratio_of_families_is_the_smallest():
    x = np.array([[30.0, 60.0], [50.0, 50.0]])

    @jax.jit
    def found(x):
        return ratio_interval(KEY, x / 100, lambda z: midp_interval(x, 100.0, z=z))

    both = found(x)
    # The third group is left out.
    single = rate_ratio_interval(KEY, np.array([30, 60, 0]), np.array([100, 100, 0]))
    np.testing.assert_allclose(both.estimate, 0.5, rtol=1e-6)
    np.testing.assert_allclose(both.lower, single.lower, rtol=1e-4)
    assert both.upper > single.upper
    np.testing.assert_array_equal(both.highest, [1, 0])


counts_of_groups = st.lists(st.integers(1, 40), min_size=12, max_size=12).map(
    lambda cells: GroupCounts(jnp.array(cells).reshape(3, 2, 2))
)


@pytest.mark.slow
@settings(max_examples=6)
@given(counts_of_groups)
def test_equalized_odds_hold_both_families(counts):
    # The minimum is given, as the next test gives it: one program for both.
    found = equalized_odds_interval(KEY, counts, min_support=0)
    np.testing.assert_allclose(
        found.estimate, equalized_odds_difference(counts), rtol=1e-5
    )
    mean = equalized_odds_interval(KEY, counts, agg="mean")
    np.testing.assert_allclose(
        mean.estimate, equalized_odds_difference(counts, agg="mean"), rtol=1e-5
    )
    singles = [
        rate_gap_interval(
            KEY, counts.counts[:, label, 1], jnp.sum(counts.counts[:, label], axis=1)
        )
        for label in (0, 1)
    ]
    highest = [int(single.highest) for single in singles]
    np.testing.assert_array_equal(found.highest, highest)
    uppers = [float(single.upper) for single in singles]
    np.testing.assert_allclose(found.upper, max(uppers), rtol=1e-4)
    np.testing.assert_allclose(mean.upper, np.mean(uppers), rtol=1e-4)
    # More pairs to be wrong about: no lower end is above that of its family alone.
    assert found.lower <= max(float(single.lower) for single in singles) + 0.01
    assert 0 <= mean.lower <= mean.estimate <= mean.upper
    assert 0 <= found.lower <= found.estimate <= found.upper
    assert bool(found.lower > 0) == bool(found.p_value < 0.05)


@pytest.mark.slow
def test_equalized_odds_leave_groups_out_by_label():
    counts = GroupCounts(
        jnp.array([[[80, 20], [10, 40]], [[75, 25], [25, 25]], [[60, 60], [1, 2]]])
    )
    found = equalized_odds_interval(KEY, counts, min_support=10)
    np.testing.assert_array_equal(found.highest, [2, 0])
    np.testing.assert_array_equal(found.lowest, [0, 1])
    # Only one group has positives; the last one has no rows.
    missing = GroupCounts(jnp.zeros((3, 2, 2), int).at[:2].set(counts.counts[:2]))
    missing = GroupCounts(missing.counts.at[0, 1].set(0))
    found = equalized_odds_interval(KEY, missing, min_support=0)
    assert np.isnan(found.lower)
    with pytest.raises((ValueError, TypeError), match="agg"):
        equalized_odds_interval(KEY, counts, agg="sum")


@pytest.mark.slow
def test_clustered_rows_widen_equalized_odds():
    rng = np.random.default_rng(0)
    labels, predictions, groups = rng.integers(0, 2, (3, 200))
    repeat = 5
    columns = [column.repeat(repeat) for column in (labels, predictions, groups)]
    # The third group is empty, as many as other tests have.
    size = {"num_groups": 3, "num_patients": 200}
    clusters = cluster_label_rates(*columns, np.arange(200).repeat(repeat), **size)
    counts = group_counts(*columns, num_groups=3)
    naive = equalized_odds_interval(KEY, counts, min_support=0)
    robust = equalized_odds_interval(KEY, counts, clusters=clusters)
    single = equalized_odds_interval(
        KEY,
        group_counts(labels, predictions, groups, num_groups=3),
        min_support=0,
    )
    np.testing.assert_allclose(robust.estimate, single.estimate, rtol=1e-5)
    np.testing.assert_allclose(robust.upper, single.upper, atol=0.01)
    assert robust.upper - robust.estimate > 1.8 * (naive.upper - naive.estimate)


@pytest.mark.slow
def test_aurocs_use_their_intervals():
    areas, errors = jnp.array([0.8, 1.0, 0.7]), jnp.array([0.05, 0.0, 0.04])
    m, n = jnp.array([30, 15, 40]), jnp.array([60, 60, 90])
    gap = auroc_gap_interval(KEY, areas, jnp.diag(errors**2), m, n)
    lower, upper = auroc_interval(areas, errors, m, n)
    expected = 0.3 + np.sqrt((upper[1] - 1) ** 2 + (0.7 - lower[2]) ** 2)
    np.testing.assert_allclose(gap.upper, expected, rtol=1e-4)
    low, high = auroc_interval(areas, errors, m, n, z=gap.critical)
    shown = 0.3 - np.sqrt((1 - low[1]) ** 2 + (high[2] - 0.7) ** 2)
    np.testing.assert_allclose(gap.lower, max(shown, 0), rtol=1e-3)


@pytest.mark.slow
def test_gaps_can_be_mapped_and_doubled():
    x, n = np.array([[10, 20, 15], [3, 9, 9]]), np.full(3, 30)
    mapped = jax.jit(jax.vmap(lambda row: rate_gap_interval(KEY, row, n)))(x)
    for index in range(2):
        alone = rate_gap_interval(KEY, x[index], n)
        np.testing.assert_allclose(mapped.lower[index], alone.lower, rtol=1e-4)
        np.testing.assert_allclose(mapped.p_value[index], alone.p_value, rtol=1e-3)
    with jax.enable_x64(True):
        wide = rate_gap_interval(jax.random.key(0), x[0], n)
        assert wide.upper.dtype == np.float64
        np.testing.assert_allclose(wide.upper, mapped.upper[0], rtol=1e-5)


def test_gap_arguments_are_checked():
    with pytest.raises(ValueError, match="confidence must lie in"):
        rate_gap_interval(KEY, np.ones(2), np.full(2, 3.0), confidence=95.0)


compiled_midp = jax.jit(midp_interval)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("small", "large"),
    [(10, 10), (10, 1000), (25, 500)],
)
def test_two_groups_by_enumerating_every_outcome(small, large):
    """The method's own error, without a simulation's: at most 2 points too often."""
    ends, rates = [], []
    for rows in (small, large):
        hits = np.arange(rows + 1)
        ends.append(np.asarray(compiled_midp(hits, rows)))
        rates.append(hits / rows)
    below, above = (
        [abs(rate - end[side]) for rate, end in zip(rates, ends, strict=True)]
        for side in (0, 1)
    )
    gap = rates[0][:, None] - rates[1]
    claimed = gap > np.hypot(below[0][:, None], above[1]) + 1e-6
    claimed |= -gap > np.hypot(above[0][:, None], below[1]) + 1e-6
    errors = [
        (stats.binom.pmf(np.arange(small + 1), small, rate) @ claimed)
        @ stats.binom.pmf(np.arange(large + 1), large, rate)
        for rate in np.linspace(0.005, 0.995, 100)
    ]
    assert 0.03 < max(errors) < 0.07
