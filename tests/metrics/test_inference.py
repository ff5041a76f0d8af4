import functools
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fairjax.metrics import (
    GroupCounts,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    group_counts,
    holm,
    inference,
    paired_test,
    patient_bootstrap_weights,
    permutation_null,
)


def enumerate_null(labels, predictions, groups, statistic, within_label):
    """The statistic's exact law over all shuffles of the groups."""
    everyone = np.arange(len(labels))
    strata = (
        [everyone[labels == 0], everyone[labels == 1]] if within_label else [everyone]
    )
    tables = Counter()
    for orders in itertools.product(*(itertools.permutations(s) for s in strata)):
        shuffled = groups.copy()
        for stratum, order in zip(strata, orders, strict=True):
            shuffled[stratum] = groups[list(order)]
        table = np.zeros((2, 2, 2), int)
        np.add.at(table, (shuffled, labels, predictions), 1)
        tables[table.tobytes()] += 1
    counts = np.stack([np.frombuffer(t, int).reshape(2, 2, 2) for t in tables])
    values = np.asarray(statistic(GroupCounts(jnp.array(counts))))
    weights = np.array(list(tables.values())) / sum(tables.values())
    return values, weights


@pytest.mark.parametrize(
    ("statistic", "within_label"),
    [
        (equalized_odds_difference, True),
        (demographic_parity_difference, False),
    ],
)
def test_null_equals_the_enumeration_of_all_shuffles(statistic, within_label):
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    predictions = np.array([0, 0, 1, 1, 1, 1, 1, 0])
    groups = np.array([0, 0, 1, 1, 0, 0, 0, 1])
    values, weights = enumerate_null(
        labels, predictions, groups, statistic, within_label
    )
    test = permutation_null(
        jax.random.key(0),
        labels,
        predictions,
        groups,
        num_groups=2,
        num_permutations=20_000,
        statistic=statistic,
        within_label=within_label,
    )
    observed = statistic(group_counts(labels, predictions, groups, num_groups=2))
    assert test.observed == observed
    np.testing.assert_allclose(test.mean, values @ weights, atol=0.01)
    expected = weights[values >= observed - 1e-6].sum()
    np.testing.assert_allclose(test.p_value, expected, atol=0.015)
    for value in np.unique(values):
        np.testing.assert_allclose(
            np.isclose(test.null, value, atol=1e-6).mean(),
            weights[np.isclose(values, value, atol=1e-6)].sum(),
            atol=0.015,
        )


def test_p_value_counts_the_observed_table():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (2, 60))
    groups = rng.integers(0, 3, 60)
    test = permutation_null(
        jax.random.key(0),
        labels,
        predictions,
        groups,
        num_groups=3,
        num_permutations=99,
    )
    exceeding = (np.asarray(test.null) >= float(test.observed) - 1e-6).sum()
    np.testing.assert_allclose(test.p_value, (1 + exceeding) / 100, rtol=1e-6)
    separated = permutation_null(
        jax.random.key(0), labels, groups % 2, groups, num_groups=3, num_permutations=99
    )
    np.testing.assert_allclose(separated.p_value, 0.01, rtol=1e-6)


def rejections(within_label, runs=250):
    """Share of p <= .05 where odds are equal but a small group has few positives."""
    groups = jnp.repeat(jnp.arange(2), jnp.array([900, 100]), total_repeat_length=1000)
    prevalence = jnp.where(groups == 0, 0.5, 0.06)

    def run(key):
        label_key, prediction_key, test_key = jax.random.split(key, 3)
        labels = jax.random.bernoulli(label_key, prevalence)
        rate = jnp.where(labels, 0.7, 0.2)
        predictions = jax.random.bernoulli(prediction_key, rate)
        return permutation_null(
            test_key,
            labels,
            predictions,
            groups,
            num_groups=2,
            num_permutations=99,
            statistic=equal_opportunity_difference,
            within_label=within_label,
        ).p_value

    keys = jax.random.split(jax.random.key(1), runs)
    p_values = jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=50))(keys)
    return np.mean(np.asarray(p_values) <= 0.05)


def test_shuffling_within_labels_is_valid_where_prevalence_differs():
    # 5 % and 3 standard errors of 250 runs; the pooled shuffle is what would go wrong.
    assert rejections(within_label=True) < 0.09
    assert rejections(within_label=False) > 0.15


def test_undefined_gaps_have_no_p_value_and_undefined_shuffles_count_against_it():
    labels = np.array([1, 1, 1, 1, 0, 0])
    predictions = np.array([1, 0, 1, 0, 0, 1])
    run = functools.partial(
        permutation_null,
        jax.random.key(0),
        labels,
        predictions,
        num_groups=2,
        num_permutations=200,
    )
    undefined = run(np.zeros(6, int))
    assert np.isnan(undefined.observed)
    assert np.isnan(undefined.p_value)
    # Among all rows, a shuffle may leave the group of two without positives.
    some = run(
        np.array([0, 0, 0, 1, 0, 1]),
        statistic=equal_opportunity_difference,
        within_label=False,
    )
    assert np.isnan(some.null).any()
    assert np.isfinite(some.mean)
    exceeding = ~(np.asarray(some.null) < float(some.observed) - 1e-6)
    np.testing.assert_allclose(some.p_value, (1 + exceeding.sum()) / 201, rtol=1e-6)


def test_p_value_of_a_null_made_elsewhere():
    null = np.array([0.1, 0.3, np.nan, 0.2])
    p_value = inference.permutation_p_value
    np.testing.assert_allclose(p_value(jnp.array(0.2), null), 4 / 5)
    np.testing.assert_allclose(p_value(jnp.array(0.9), null), 2 / 5)
    assert np.isnan(p_value(jnp.array(np.nan), null))


def test_no_permutations_is_an_error():
    ones = np.ones(4, int)
    with pytest.raises(ValueError, match="num_permutations"):
        permutation_null(
            jax.random.key(0), ones, ones, ones, num_groups=2, num_permutations=0
        )


def test_holm_hand_values():
    adjusted = holm(np.array([0.01, 0.02, np.nan, 0.03, 0.005], np.float32))
    np.testing.assert_allclose(adjusted, [0.03, 0.04, np.nan, 0.04, 0.02], rtol=1e-5)


@given(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5))
def test_holm_equals_closed_testing_with_bonferroni(p_values):
    p = np.array(p_values, np.float32)
    expected = np.zeros(len(p))
    for size in range(1, len(p) + 1):
        for subset in itertools.combinations(range(len(p)), size):
            bound = min(1, size * min(p[list(subset)].astype(float)))
            for member in subset:
                expected[member] = max(expected[member], bound)
    np.testing.assert_allclose(jax.jit(holm)(p), expected, rtol=1e-5, atol=1e-30)


def test_bootstrap_draws_whole_patients():
    codes = np.array([0, 3, 1, 1, 2, 0, 3])
    weights = np.asarray(
        patient_bootstrap_weights(
            jax.random.key(0), codes, num_patients=5, num_replicates=4000
        )
    )
    assert weights.dtype == np.int32
    for patient in (0, 1, 3):
        rows = weights[:, codes == patient]
        np.testing.assert_array_equal(rows[:, :1].repeat(rows.shape[1], 1), rows)
    times = weights[:, [0, 2, 4, 1]]
    # Multinomial(5, 1/5): mean 1, variance 5 · .2 · .8, covariance −5 · .2 · .2.
    np.testing.assert_allclose(times.mean(0), 1, atol=0.06)
    expected = np.eye(4) - 0.2
    np.testing.assert_allclose(np.cov(times.T), expected, atol=0.08)
    # Patient 4 has no rows and is drawn all the same.
    assert (times.sum(1) <= 5).all()
    assert (times.sum(1) < 5).any()


def test_bootstrap_sizes_must_be_positive():
    with pytest.raises(ValueError, match="num_patients"):
        patient_bootstrap_weights(
            jax.random.key(0), np.zeros(1, int), num_patients=0, num_replicates=1
        )


def test_paired_test_hand_values():
    repeats = np.array([0.02, 0.04, 0.06], np.float32)
    replicates = np.array([0.02, 0.04, 0.06, 0.08], np.float32)
    test = jax.jit(functools.partial(paired_test, confidence=0.9))(repeats, replicates)
    error = np.sqrt(0.002 / 3 + 0.0004 / 3)
    np.testing.assert_allclose(test.difference, 0.04, rtol=1e-5)
    np.testing.assert_allclose(test.standard_error, error, rtol=1e-5)
    # Variances .002/3 of 3 degrees and .0004/3 of 2, Satterthwaite: 5/6 and 1/6 of all.
    degrees = 1 / ((5 / 6) ** 2 / 3 + (1 / 6) ** 2 / 2)
    np.testing.assert_allclose(test.degrees_of_freedom, degrees, rtol=1e-4)
    interval = stats.t.interval(0.9, degrees, 0.04, error)
    np.testing.assert_allclose((test.lower, test.upper), interval, rtol=1e-4)
    p_value = 2 * stats.t.sf(0.04 / error, degrees)
    np.testing.assert_allclose(test.p_value, p_value, rtol=1e-4)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9999])
@pytest.mark.parametrize("degrees", [1.0, 1.7, 4.0, 19.0, 518.0])
def test_t_distribution_is_scipys(degrees, confidence):
    found = inference._t_quantile(confidence, jnp.array(degrees))
    expected = stats.t.ppf(0.5 + confidence / 2, degrees)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    for score in (0.0, 0.3, 2.0, 9.0):
        tails = inference._t_tails(jnp.array(score), jnp.array(degrees))
        expected = 2 * stats.t.sf(score, degrees)
        np.testing.assert_allclose(tails, expected, rtol=2e-3)


def test_few_repeats_that_vary_do_not_pretend_to_be_many():
    """Where splits are all of the noise, tests of two repeats keep their level."""

    def run(key):
        differences = jax.random.normal(key, (2,))
        return paired_test(differences, jnp.full(200, differences.mean())).p_value

    p_values = jax.vmap(run)(jax.random.split(jax.random.key(1), 2000))
    assert 0.03 < np.mean(np.asarray(p_values) < 0.05) < 0.07


def test_paired_test_keeps_tiny_p_values_and_knows_identical_methods():
    replicates = np.linspace(7.5, 12.5, 400)
    far = paired_test(np.array([10.0, 10.0]), replicates)
    score = 10 / np.std(replicates, ddof=1)
    np.testing.assert_allclose(far.p_value, 2 * stats.t.sf(score, 399), rtol=1e-2)
    same = paired_test(np.zeros(3), np.zeros(5))
    assert (same.p_value, same.lower, same.upper) == (1, 0, 0)


def test_repeats_on_shared_patients_are_not_independent():
    runs, patients, repeats, replicates = 300, 80, 10, 200

    def run(key):
        keys = jax.random.split(key, 4)
        # No true difference; a patient's own effect is shared by all repeats.
        patient = jax.random.normal(keys[0], (patients, 1))
        split = 0.1 * jax.random.normal(keys[1], (1, repeats))
        noise = 0.3 * jax.random.normal(keys[2], (patients, repeats))
        differences = patient + split + noise
        weights = patient_bootstrap_weights(
            keys[3],
            jnp.arange(patients),
            num_patients=patients,
            num_replicates=replicates,
        )
        boot = weights @ differences.mean(1) / patients
        return paired_test(differences.mean(0), boot).p_value, differences.mean(0)

    keys = jax.random.split(jax.random.key(0), runs)
    p_values, differences = jax.jit(jax.vmap(run))(keys)
    naive = stats.ttest_1samp(np.asarray(differences), 0, axis=1).pvalue
    assert 0.01 < np.mean(np.asarray(p_values) < 0.05) < 0.09
    assert np.mean(naive < 0.05) > 0.3


@pytest.mark.parametrize(
    ("repeats", "replicates", "confidence", "message"),
    [
        (1, 5, 0.95, "at least two repeats"),
        (5, 1, 0.95, "at least two repeats"),
        (5, 5, 1.0, "confidence"),
    ],
)
def test_paired_test_errors(repeats, replicates, confidence, message):
    with pytest.raises(ValueError, match=message):
        paired_test(np.zeros(repeats), np.zeros(replicates), confidence=confidence)
