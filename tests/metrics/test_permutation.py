import functools
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairjax.metrics import (
    GroupCounts,
    cluster_permutation_null,
    demographic_parity_difference,
    difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    group_auroc,
    group_counts,
    permutation_null,
    permutation_p_value,
    predictive_parity_difference,
    score_permutation_null,
)
from fairjax.metrics.permutation import _exchangeable_units

# One program in place of one for each operation.
compiled_null = jax.jit(
    permutation_null,
    static_argnames=("num_groups", "num_permutations", "statistic", "within"),
)


def enumerate_null(labels, predictions, groups, statistic, within):
    """The statistic's exact law over all shuffles of the groups."""
    everyone = np.arange(len(labels))
    shared = {"label": labels, "prediction": predictions, None: 0 * labels}[within]
    strata = [everyone[shared == value] for value in np.unique(shared)]
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statistic", "within"),
    [
        (equalized_odds_difference, "label"),
        (predictive_parity_difference, "prediction"),
        (demographic_parity_difference, None),
    ],
)
def test_null_equals_the_enumeration_of_all_shuffles(statistic, within):
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    predictions = np.array([0, 0, 1, 1, 1, 1, 1, 0])
    groups = np.array([0, 0, 1, 1, 0, 0, 0, 1])
    values, weights = enumerate_null(labels, predictions, groups, statistic, within)
    test = compiled_null(
        jax.random.key(0),
        labels,
        predictions,
        groups,
        num_groups=2,
        num_permutations=20_000,
        statistic=statistic,
        within=within,
    )
    observed = statistic(group_counts(labels, predictions, groups, num_groups=2))
    assert test.observed == observed
    known = ~np.isnan(values)
    mean = values[known] @ weights[known] / weights[known].sum()
    np.testing.assert_allclose(test.mean, mean, atol=0.01)
    extreme = ~known | (values >= observed - 1e-6)
    np.testing.assert_allclose(test.p_value, weights[extreme].sum(), atol=0.015)
    for value in np.unique(values[known]):
        np.testing.assert_allclose(
            np.isclose(test.null, value, atol=1e-6).mean(),
            weights[np.isclose(values, value, atol=1e-6)].sum(),
            atol=0.015,
        )


@pytest.mark.slow
def test_p_value_counts_the_observed_table():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (2, 60))
    groups = rng.integers(0, 3, 60)
    test = compiled_null(
        jax.random.key(0),
        labels,
        predictions,
        groups,
        num_groups=3,
        num_permutations=99,
    )
    exceeding = (np.asarray(test.null) >= float(test.observed) - 1e-6).sum()
    np.testing.assert_allclose(test.p_value, (1 + exceeding) / 100, rtol=1e-6)
    separated = compiled_null(
        jax.random.key(0), labels, groups % 2, groups, num_groups=3, num_permutations=99
    )
    np.testing.assert_allclose(separated.p_value, 0.01, rtol=1e-6)


def rejections(within, runs=250):
    """Share of p <= .05 where odds are equal but a small group has few positives."""
    groups = jnp.repeat(jnp.arange(2), jnp.array([360, 100]), total_repeat_length=460)
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
            num_permutations=19,
            statistic=equal_opportunity_difference,
            within=within,
        ).p_value

    keys = jax.random.split(jax.random.key(1), runs)
    p_values = jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=50))(keys)
    return np.mean(np.asarray(p_values) <= 0.05)


@pytest.mark.slow
def test_shuffling_within_labels_is_valid_where_prevalence_differs():
    # 5 % and 3 standard errors of 250 runs; the pooled shuffle is what would go wrong,
    # in more than two fifths of them, and is not above .15 by chance in 100 runs.
    assert rejections(within="label") < 0.09
    assert rejections(within=None, runs=100) > 0.15


@pytest.mark.slow
def test_the_test_of_predictive_parity_keeps_its_level_and_finds_a_gap():
    """Whatever the groups' odds and selection rates; shuffling within labels does not.

    Where predictive values are equal and prevalence is not, the odds are unequal.
    """
    groups = jnp.repeat(jnp.arange(2), 300)
    selected = jnp.where(groups == 0, 0.5, 0.15)

    def run(key, values, within):
        prediction_key, label_key, test_key = jax.random.split(key, 3)
        predictions = jax.random.bernoulli(prediction_key, selected)
        event = jnp.where(predictions, values[groups], 0.1)
        return permutation_null(
            test_key,
            jax.random.bernoulli(label_key, event),
            predictions,
            groups,
            num_groups=2,
            num_permutations=19,
            statistic=predictive_parity_difference,
            within=within,
        ).p_value

    keys = jax.random.split(jax.random.key(2), 250)

    @functools.partial(jax.jit, static_argnames="within")
    def p_values(values, within):
        return jax.lax.map(lambda key: run(key, values, within), keys, batch_size=50)

    def share(values, within="prediction"):
        return np.mean(np.asarray(p_values(jnp.array(values), within)) <= 0.05)

    assert 0.01 < share([0.6, 0.6]) < 0.09
    assert share([0.7, 0.4]) > 0.8
    assert share([0.7, 0.4], within="label") < 0.5


@pytest.mark.slow
def test_undefined_gaps_have_no_p_value_and_undefined_shuffles_count_against_it():
    labels = np.array([1, 1, 1, 1, 0, 0])
    predictions = np.array([1, 0, 1, 0, 0, 1])
    run = functools.partial(
        compiled_null,
        jax.random.key(0),
        labels,
        predictions,
        num_groups=2,
        num_permutations=200,
        statistic=equal_opportunity_difference,
        within=None,
    )
    undefined = run(np.zeros(6, int))
    assert np.isnan(undefined.observed)
    assert np.isnan(undefined.p_value)
    # Among all rows, a shuffle may leave the group of two without positives.
    some = run(np.array([0, 0, 0, 1, 0, 1]))
    assert np.isnan(some.null).any()
    assert np.isfinite(some.mean)
    exceeding = ~(np.asarray(some.null) < float(some.observed) - 1e-6)
    np.testing.assert_allclose(some.p_value, (1 + exceeding.sum()) / 201, rtol=1e-6)


def test_p_value_of_a_null_made_elsewhere():
    null = np.array([0.1, 0.3, np.nan, 0.2])
    p_value = permutation_p_value
    np.testing.assert_allclose(p_value(jnp.array(0.2), null), 4 / 5)
    np.testing.assert_allclose(p_value(jnp.array(0.9), null), 2 / 5)
    assert np.isnan(p_value(jnp.array(np.nan), null))


def test_no_permutations_is_an_error():
    ones = np.ones(4, int)
    with pytest.raises(ValueError, match="num_permutations"):
        permutation_null(
            jax.random.key(0), ones, ones, ones, num_groups=2, num_permutations=0
        )


def clustered(key, num_patients, rates):
    """Patients with four or eight rows of either label, all of one random level."""
    rng = np.random.default_rng(key)
    patients = np.repeat(np.arange(num_patients), np.resize([8, 8, 4], num_patients))
    groups = (np.arange(num_patients) % 2)[patients]
    labels = np.arange(patients.size) % 2
    level = rng.random(num_patients)[patients]
    return labels, (level < np.asarray(rates)[groups]).astype(int), groups, patients


def test_whole_patients_are_shuffled_exactly():
    """All exchanges of four patients, two of either profile, by enumeration."""
    patients = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4])
    groups = np.array([0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0])
    labels = np.array([1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 1])
    predictions = np.array([1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1])
    statistic = equal_opportunity_difference
    values = []
    for first, second in itertools.product([(0, 1), (1, 0)], repeat=2):
        owner = np.array([*first, *second, 0])
        counts = group_counts(labels, predictions, owner[patients], num_groups=2)
        values.append(float(statistic(counts)))
    test = cluster_permutation_null(
        jax.random.key(0),
        labels,
        predictions,
        groups,
        # The codes themselves mean nothing.
        patients * 7 + 3,
        num_groups=2,
        num_permutations=2000,
        statistic=statistic,
    )
    np.testing.assert_allclose(test.observed, values[0], rtol=1e-6)
    for value in np.unique(values):
        share = np.mean(np.isclose(values, value))
        found = np.mean(np.isclose(test.null, value, atol=1e-6))
        np.testing.assert_allclose(found, share, atol=0.05)
    assert np.isclose(np.asarray(test.null)[:, None], values).any(axis=1).all()


@pytest.mark.slow
def test_rows_alone_are_their_own_patients():
    rng = np.random.default_rng(0)
    labels, predictions, groups = rng.integers(0, 2, (3, 80))
    arguments = (jax.random.key(0), labels, predictions, groups)
    size = {"num_groups": 2, "num_permutations": 4000}
    by_row = compiled_null(*arguments, **size)
    by_patient = cluster_permutation_null(*arguments, np.arange(80), **size)
    assert by_patient.observed == by_row.observed
    np.testing.assert_allclose(by_patient.mean, by_row.mean, rtol=0.05)
    np.testing.assert_allclose(by_patient.p_value, by_row.p_value, atol=0.03)


@pytest.mark.slow
def test_rows_of_a_patient_are_not_independent():
    """Where a patient's rows are copies, the test by row rejects far too often."""
    runs, rejected = 60, {"row": 0, "patient": 0}
    size = {
        "num_groups": 2,
        "num_permutations": 99,
        "statistic": equal_opportunity_difference,
    }
    for run in range(runs):
        *columns, patients = clustered(run, 60, (0.5, 0.5))
        key = jax.random.key(run)
        by_row = compiled_null(key, *columns, **size)
        by_patient = cluster_permutation_null(key, *columns, patients, **size)
        rejected["row"] += bool(by_row.p_value <= 0.05)
        rejected["patient"] += bool(by_patient.p_value <= 0.05)
    # Three standard errors above 5 %.
    assert rejected["patient"] / runs < 0.14
    assert rejected["row"] / runs > 0.2


def test_a_group_that_varies_within_patients_is_refused():
    ones = np.ones(4, int)
    with pytest.raises(ValueError, match="got 1 of 2 patients in several groups"):
        cluster_permutation_null(
            jax.random.key(0),
            ones,
            ones,
            np.array([0, 1, 0, 0]),
            np.array([0, 0, 1, 1]),
            num_groups=2,
            num_permutations=9,
        )


@pytest.mark.slow
def test_shuffled_scores_have_the_law_of_a_numpy_shuffle():
    rng = np.random.default_rng(1)
    labels, groups = rng.integers(0, 2, 60), rng.integers(-1, 2, 60)
    scores = rng.random(60).astype(np.float32)
    test = score_permutation_null(
        jax.random.key(0), labels, scores, groups, num_groups=2, num_permutations=500
    )
    gap = jax.jit(lambda g: difference(group_auroc(labels, scores, g, num_groups=2)))
    np.testing.assert_allclose(test.observed, gap(groups), rtol=1e-6)
    null = []
    for _ in range(500):
        shuffled = groups.copy()
        for label in (0, 1):
            inside = (labels == label) & (groups >= 0)
            shuffled[inside] = rng.permutation(groups[inside])
        null.append(float(gap(shuffled)))
    quantiles = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(
        np.quantile(test.null, quantiles), np.quantile(null, quantiles), atol=0.04
    )


@pytest.mark.slow
def test_scores_of_patients_take_any_statistic():
    labels, hits, groups, patients = clustered(3, 40, (0.5, 0.5))

    def mean_gap(labels, scores, groups):
        sums = jnp.zeros(2).at[groups].add(scores)
        return jnp.abs(jnp.diff(sums / jnp.bincount(groups, length=2)))[0]

    test = score_permutation_null(
        jax.random.key(0),
        labels,
        hits.astype(np.float32),
        groups,
        num_groups=2,
        num_permutations=200,
        statistic=mean_gap,
        patients=patients,
    )
    means = [hits[groups == group].mean() for group in (0, 1)]
    np.testing.assert_allclose(test.observed, abs(means[0] - means[1]), rtol=1e-5)
    assert 0 < test.p_value <= 1


def test_rows_of_no_group_or_label_are_no_units():
    """Of five patients, the second and the third have a group and a binary label."""
    units = _exchangeable_units(
        np.array([1, 0, 1, 2, 1, 1]),
        np.array([1, 1, 0, 1, 1, 2]),
        np.array([-1, 0, 1, 0, 2, 1]),
        np.array([10, 11, 12, 13, 14, 15]),
        2,
        "label",
    )
    np.testing.assert_array_equal(units.group, [0, 1])
    np.testing.assert_array_equal(units.counts, [[0, 1, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(units.unit_of_row, [2, 0, 1, 2, 2, 2])
