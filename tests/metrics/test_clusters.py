import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairjax.metrics import (
    cluster_label_rates,
    cluster_rate_covariance,
    wilson_interval,
)

ROWS, GROUPS, PATIENTS = 24, 3, 7
columns = st.tuples(
    hnp.arrays(int, ROWS, elements=st.integers(0, 1)),
    hnp.arrays(int, ROWS, elements=st.integers(0, 1)),
    hnp.arrays(int, ROWS, elements=st.integers(-1, GROUPS - 1)),
    hnp.arrays(int, ROWS, elements=st.integers(0, PATIENTS - 1)),
)
SIZE = {"num_groups": GROUPS, "num_patients": PATIENTS}


def oracle(hits, base, groups, patients, num_groups, num_patients):
    """The formula with whole matrices, in float64."""
    member = (groups[:, None] == np.arange(num_groups)) & (base[:, None] == 1)
    owner = patients[:, None] == np.arange(num_patients)
    rows = owner.T.astype(float) @ member
    sums = owner.T.astype(float) @ (member * hits[:, None])
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = sums.sum(0) / rows.sum(0)
        influence = (sums - np.nan_to_num(rates) * rows) / rows.sum(0)
        m = (rows > 0).sum(0)
        factor = np.where(m > 1, m / (m - 1), np.nan)
        covariance = influence.T @ influence * np.sqrt(np.outer(factor, factor))
    return rates, covariance, rows


@given(columns)
def test_covariance_is_the_matrix_formula(given_columns):
    found = cluster_rate_covariance(*given_columns, **SIZE)
    rates, covariance, rows = oracle(*given_columns, GROUPS, PATIENTS)
    np.testing.assert_allclose(found.rates, rates, rtol=1e-5)
    np.testing.assert_array_equal(found.patients, (rows > 0).sum(0))
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-3, atol=1e-6)
    total = rows.sum(0)
    trials = np.asarray(found.trials)
    assert (trials <= total + 1e-4).all()
    for group in range(GROUPS):
        variance = covariance[group, group]
        rate = rates[group]
        if variance > 1e-9 and 0 < rate < 1:
            expected = min(rate * (1 - rate) / variance, total[group])
            np.testing.assert_allclose(trials[group], expected, rtol=1e-2)
        elif total[group] and rate in (0, 1):
            expected = total[group] ** 2 / (rows[:, group] ** 2).sum()
            np.testing.assert_allclose(trials[group], expected, rtol=1e-4)


@pytest.mark.slow
@given(columns, st.randoms(use_true_random=False))
def test_order_of_rows_and_names_of_patients_do_not_matter(given_columns, random):
    order, names = list(range(ROWS)), list(range(PATIENTS))
    random.shuffle(order)
    random.shuffle(names)
    hits, base, groups, patients = given_columns
    first = cluster_rate_covariance(hits, base, groups, patients, **SIZE)
    shuffled = [column[order] for column in (hits, base, groups)]
    renamed = np.array(names)[patients][order]
    second = cluster_rate_covariance(*shuffled, renamed, **SIZE)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_rows_of_their_own_patients_are_binomial():
    rng = np.random.default_rng(0)
    hits, groups = rng.integers(0, 2, 90), rng.integers(0, 3, 90)
    found = cluster_rate_covariance(
        hits, np.ones(90), groups, np.arange(90), num_groups=3, num_patients=90
    )
    n = np.bincount(groups)
    rate = np.bincount(groups, hits) / n
    expected = np.diag(rate * (1 - rate) / (n - 1))
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.trials, n - 1, rtol=1e-4)


@pytest.mark.slow
def test_copies_of_rows_bring_no_news():
    """Ten rows of every patient, all alike, are one row of each."""
    hits, groups = np.array([1, 0, 1, 1, 0, 0, 1, 1]), np.repeat([0, 1], 4)
    once = cluster_rate_covariance(
        hits, np.ones(8), groups, np.arange(8), num_groups=2, num_patients=8
    )
    often = cluster_rate_covariance(
        hits.repeat(10),
        np.ones(80),
        groups.repeat(10),
        np.arange(8).repeat(10),
        num_groups=2,
        num_patients=8,
    )
    np.testing.assert_allclose(once.covariance, often.covariance, rtol=1e-5)
    np.testing.assert_allclose(once.trials, often.trials, rtol=1e-5)
    single = wilson_interval(once.rates * once.trials, once.trials)
    naive = wilson_interval(often.rates * 40, 40)
    assert (single.upper - single.lower > 1.5 * (naive.upper - naive.lower)).all()


@pytest.mark.slow
def test_rates_by_label_share_patients():
    labels = np.array([0, 1, 0, 1, 0, 1, 1])
    predictions = np.array([1, 1, 0, 0, 1, 1, 0])
    patients, groups = np.array([0, 0, 1, 1, 2, 2, 3]), np.zeros(7, int)
    found = cluster_label_rates(
        labels, predictions, groups, patients, num_groups=1, num_patients=4
    )
    np.testing.assert_allclose(found.rates, [2 / 3, 1 / 2], rtol=1e-6)
    # Influence of the patients on the rates of label 0 and 1, times 3 and 4 rows.
    first = np.array([1 / 3, -2 / 3, 1 / 3, 0]) / 3
    second = np.array([0.5, -0.5, 0.5, -0.5]) / 4
    expected = first @ second * np.sqrt(3 / 2 * 4 / 3)
    np.testing.assert_allclose(found.covariance[0, 1], expected, rtol=1e-5)


@pytest.mark.slow
def test_groups_without_rows_or_with_one_patient_have_no_variance():
    found = cluster_rate_covariance(
        np.array([1, 0, 1]),
        np.ones(3),
        np.array([0, 0, 1]),
        np.array([0, 1, 2]),
        num_groups=3,
        num_patients=3,
    )
    np.testing.assert_allclose(found.rates, [0.5, 1, np.nan])
    assert np.isnan(found.covariance[1, 1])
    np.testing.assert_allclose(found.trials, [1, 1, 0], rtol=1e-5)


@pytest.mark.slow
def test_it_can_be_mapped_over_predictions():
    rng = np.random.default_rng(1)
    hits = rng.integers(0, 2, (2, ROWS))
    groups, patients = rng.integers(0, 3, ROWS), rng.integers(0, PATIENTS, ROWS)
    mapped = jax.vmap(
        lambda column: cluster_rate_covariance(
            column, np.ones(ROWS), groups, patients, **SIZE
        )
    )(hits)
    for index in range(2):
        one = cluster_rate_covariance(
            hits[index], np.ones(ROWS), groups, patients, **SIZE
        )
        np.testing.assert_allclose(mapped.covariance[index], one.covariance, rtol=1e-5)


def test_there_must_be_patients():
    with pytest.raises(ValueError, match="num_patients"):
        cluster_rate_covariance(
            np.ones(1),
            np.ones(1),
            np.zeros(1, int),
            np.zeros(1, int),
            num_groups=1,
            num_patients=0,
        )
