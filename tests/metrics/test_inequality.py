import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import xlogy

from fairjax.metrics import (
    GroupCounts,
    differential_fairness,
    entropy_split,
    generalized_entropy_index,
    group_counts,
)

ALPHAS = [-1, 0, 0.5, 1, 2, 3]
NUM_GROUPS = 4
split_at = functools.partial(entropy_split, num_groups=NUM_GROUPS)


def index(benefits, weights, alpha):
    """The definition, in NumPy float64."""
    benefits, weights = benefits[weights > 0], weights[weights > 0]
    relative = benefits / np.average(benefits, weights=weights)
    with np.errstate(divide="ignore"):
        if alpha == 0:
            terms = -np.log(relative)
        elif alpha == 1:
            terms = xlogy(relative, relative)
        else:
            terms = (relative**alpha - 1) / (alpha * (alpha - 1))
    return np.average(terms, weights=weights)


@st.composite
def tables(draw):
    """Labels, predictions, groups (some in none, one group always empty), weights."""
    row = st.tuples(
        st.integers(0, 1),
        st.integers(0, 1),
        st.integers(-1, NUM_GROUPS - 2),
        st.integers(0, 3),
    )
    rows = draw(st.lists(row, min_size=18, max_size=18))
    # In a group, with a weight and a benefit, so that there is an index.
    rows += [(0, 0, 0, 1), (0, 1, 1, 1)]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        # Benefits 0, 1, 2, 1.
        (2, ((1 + 0 + 1 + 0) / 4) / 2),
        (1, 2 * np.log(2) / 4),
        (0, np.inf),
        (3, ((0 + 1 + 8 + 1) / 4 - 1) / 6),
    ],
)
def test_by_hand(alpha, expected):
    labels, predictions = np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0])
    found = generalized_entropy_index(labels, predictions, alpha)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_mean_log_deviation_without_missed_positives():
    # Benefits 2, 1, 1, 1.
    labels, predictions = np.array([0, 1, 0, 0]), np.array([1, 1, 0, 0])
    found = generalized_entropy_index(labels, predictions, 0)
    expected = np.log(5 / 4) - np.log(2) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ALPHAS)
@given(table=tables())
def test_equals_the_definition_and_its_parts_add_up(alpha, table):
    labels, predictions, groups, weights = table
    total, between, within = split_at(
        labels, predictions, groups, alpha, weights=weights
    )
    mass = np.where(groups < 0, 0, weights).astype(float)
    benefits = (predictions - labels + 1).astype(float)
    expected = index(benefits, mass, alpha)
    np.testing.assert_allclose(total, expected, rtol=2e-5, atol=1e-6)
    means = benefits.copy()
    for group in np.unique(groups[mass > 0]):
        at = groups == group
        means[at] = np.average(benefits[at], weights=mass[at])
    np.testing.assert_allclose(between, index(means, mass, alpha), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(between + within, total, rtol=2e-5, atol=1e-6)
    assert within >= 0


@pytest.mark.slow
@given(tables())
def test_integer_weights_equal_repeated_rows_in_any_order(table):
    *columns, weights = table
    pad = 60 - weights.sum()
    order = np.random.default_rng(weights.sum()).permutation(60)
    repeated = [np.append(np.repeat(c, weights), np.full(pad, -1)) for c in columns]
    repeated = [column[order] for column in repeated]
    weighted = split_at(*columns, 1, weights=weights)
    np.testing.assert_allclose(split_at(*repeated, 1), weighted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_parts_add_up_exactly_in_double_precision():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (2, 5000))
    groups = rng.integers(0, NUM_GROUPS, 5000)
    with jax.enable_x64(True):
        for alpha in (1, 2):
            total, between, within = split_at(labels, predictions, groups, alpha)
            assert total.dtype == jnp.float64
            np.testing.assert_allclose(between + within, total, rtol=1e-14)


@pytest.mark.parametrize(
    "alpha", [0.5, *(pytest.param(a, marks=pytest.mark.slow) for a in (-1, 0, 1, 2, 3))]
)
def test_a_small_index_keeps_its_digits(alpha):
    # 100,000 rows of which ten have another benefit: about 1e-4 / 2.
    labels, predictions = np.zeros((2, 100_000), np.int8)
    predictions[:10] = 1
    found = generalized_entropy_index(labels, predictions, alpha)
    expected = index(predictions + 1.0, np.ones(100_000), alpha)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_infinite_term_of_no_weight_is_none():
    labels, predictions = np.array([1, 0, 1]), np.array([0, 1, 1])
    weights = np.array([0, 1, 1])
    found = generalized_entropy_index(labels, predictions, 0, weights=weights)
    expected = index(predictions - labels + 1.0, weights, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ALPHAS)
def test_equal_benefits_have_no_inequality(alpha):
    # As many rows as the tables have, with weights: of these there are programs.
    labels = np.tile([0, 1, 0, 1], 5)
    groups = np.tile([0, 0, 1, 2], 5)
    found = split_at(labels, labels, groups, alpha, weights=np.full(20, 3))
    assert list(found) == [0, 0, 0]


@pytest.mark.parametrize("alpha", [1, 2])
def test_a_group_without_any_benefit(alpha):
    labels, predictions = np.array([1, 1, 0, 0]), np.array([0, 0, 0, 1])
    total, between, within = split_at(
        labels, predictions, np.array([0, 0, 1, 1]), alpha
    )
    benefits = np.array([0.0, 0, 1, 2])
    np.testing.assert_allclose(total, index(benefits, np.ones(4), alpha), rtol=1e-6)
    means = np.array([0, 0, 1.5, 1.5])
    np.testing.assert_allclose(between, index(means, np.ones(4), alpha), rtol=1e-6)
    np.testing.assert_allclose(between + within, total, rtol=1e-6)


@pytest.mark.slow
def test_no_rows_no_index():
    ones = np.ones(3, int)
    assert np.isnan(split_at(ones, ones, -ones)).all()


@pytest.mark.slow
def test_index_mapped_and_compiled_agree():
    rng = np.random.default_rng(2)
    labels, predictions, groups = rng.integers(0, 2, (3, 5, 40))
    one_by_one = [
        split_at(*rows) for rows in zip(labels, predictions, groups, strict=True)
    ]
    mapped = jax.jit(jax.vmap(split_at))(labels, predictions, groups)
    np.testing.assert_allclose(np.transpose(mapped), one_by_one, rtol=1e-5, atol=1e-6)


def test_errors_name_the_columns():
    ones = np.ones(3, int)
    with pytest.raises(ValueError, match="num_groups must be at least 1"):
        entropy_split(ones, ones, ones, num_groups=0)


def epsilon(positives, rows, concentration=0.0):
    """The definition, over all pairs."""
    chance = (np.array(positives) + concentration / 2) / (
        np.array(rows) + concentration
    )
    pairs = [abs(np.log(a / b)) for a in chance for b in chance]
    return max(pairs + [abs(np.log((1 - a) / (1 - b))) for a in chance for b in chance])


def test_differential_fairness_by_hand():
    counts = GroupCounts(jnp.array([[[6, 2], [1, 1]], [[4, 4], [1, 1]]]))
    # 3 and 5 of 10 are selected.
    found = differential_fairness(counts, 0)
    np.testing.assert_allclose(found, np.log(5 / 3), rtol=1e-6)
    found = differential_fairness(counts, 2)
    np.testing.assert_allclose(found, np.log((6 / 12) / (4 / 12)), rtol=1e-6)
    # 2 of 10 are positive in both.
    assert differential_fairness(counts, of="labels") == 0


@pytest.mark.slow
@pytest.mark.parametrize("concentration", [0.0, 1.0, 7.5])
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(10, 20)), min_size=2, max_size=2)
)
def test_differential_fairness_equals_the_definition(concentration, groups):
    positives, rows = zip(*groups, (3, 12), strict=True)
    predicted = [[[n - k, k], [0, 0]] for k, n in zip(positives, rows, strict=True)]
    counts = GroupCounts(jnp.array([*predicted, [[0, 0], [0, 0]]]))
    expected = epsilon(positives, rows, concentration)
    found = differential_fairness(counts, concentration)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    labels = GroupCounts(jnp.swapaxes(counts.counts, -1, -2))
    same = differential_fairness(labels, concentration, of="labels")
    np.testing.assert_allclose(same, found, rtol=1e-6)


def test_differential_fairness_of_an_outcome_that_groups_lack():
    never, some = [[8, 0], [0, 0]], [[4, 4], [0, 0]]
    assert differential_fairness(GroupCounts(jnp.array([never, some])), 0) == np.inf
    assert differential_fairness(GroupCounts(jnp.array([never, never])), 0) == 0
    smoothed = differential_fairness(GroupCounts(jnp.array([never, some])), 1)
    np.testing.assert_allclose(smoothed, np.log(9), rtol=1e-5)
    empty = np.zeros((2, 2), int)
    assert np.isnan(differential_fairness(GroupCounts(jnp.array([some, empty]))))


@pytest.mark.slow
def test_differential_fairness_mapped_and_compiled_agree():
    rng = np.random.default_rng(3)
    columns = rng.integers(0, 2, (3, 40))
    counts = group_counts(*columns, num_groups=3).counts
    batch = GroupCounts(jnp.stack([counts, counts[::-1] * 3, counts * 0]))
    one_by_one = [differential_fairness(GroupCounts(c)) for c in batch.counts]
    np.testing.assert_allclose(differential_fairness(batch), one_by_one, rtol=1e-6)
    mapped = jax.jit(jax.vmap(differential_fairness))(batch)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-6)


def test_differential_fairness_refuses():
    counts = GroupCounts(jnp.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="concentration must be at least 0"):
        differential_fairness(counts, -1)
