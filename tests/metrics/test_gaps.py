import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairjax.metrics import (
    GroupCounts,
    compared_groups,
    demographic_parity_difference,
    difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    equalized_odds_ratio,
    false_positive_rate_difference,
    rate_difference,
    rate_ratio,
    ratio,
    valid_groups,
    zero_reference,
)

A = [[10, 2], [2, 6]]
B = [[9, 3], [3, 3]]
C = [[5, 5], [4, 1]]
NO_POSITIVES = [[4, 4], [0, 0]]

mean_odds = functools.partial(equalized_odds_difference, agg="mean")
GAPS = [
    demographic_parity_difference,
    equal_opportunity_difference,
    false_positive_rate_difference,
    equalized_odds_difference,
    mean_odds,
]


def table(*groups):
    return GroupCounts(jnp.array(groups))


@pytest.mark.parametrize(
    ("gap", "two_groups", "three_groups"),
    [
        (demographic_parity_difference, 0.4 - 1 / 3, 0.4 - 1 / 3),
        (equal_opportunity_difference, 0.25, 0.55),
        (false_positive_rate_difference, 1 / 12, 1 / 3),
        (equalized_odds_difference, 0.25, 0.55),
        (mean_odds, (0.25 + 1 / 12) / 2, (0.55 + 1 / 3) / 2),
    ],
)
def test_values_that_other_toolkits_agree_on(gap, two_groups, three_groups):
    np.testing.assert_allclose(gap(table(A, B)), two_groups, rtol=1e-5)
    np.testing.assert_allclose(gap(table(A, B, C)), three_groups, rtol=1e-5)


def test_max_takes_the_worse_rate_whichever_it_is():
    flipped = GroupCounts(table(A, B, C).counts[:, ::-1, ::-1])
    np.testing.assert_allclose(equal_opportunity_difference(flipped), 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(equalized_odds_difference(flipped), 0.55, rtol=1e-5)


def test_a_group_without_positives_is_skipped_not_zero():
    counts = table(A, B, NO_POSITIVES)
    np.testing.assert_allclose(equal_opportunity_difference(counts), 0.25, rtol=1e-5)
    # Its negatives still count: 4/8 against 2/12.
    np.testing.assert_allclose(false_positive_rate_difference(counts), 1 / 3, rtol=1e-5)
    assert valid_groups(counts).tolist() == [[True, True], [True, True], [True, False]]


def test_min_support_is_inclusive_and_counts_each_label():
    counts = table(A, B, C)
    # Positives 8, 6, 5 and negatives 12, 12, 10.
    np.testing.assert_allclose(equal_opportunity_difference(counts, 6), 0.25, rtol=1e-5)
    np.testing.assert_allclose(
        equalized_odds_difference(counts, min_support=6), 1 / 3, rtol=1e-5
    )
    assert np.isnan(equal_opportunity_difference(counts, 7))
    assert np.isnan(equalized_odds_difference(counts, min_support=7))
    np.testing.assert_allclose(
        false_positive_rate_difference(counts, 11), 1 / 12, rtol=1e-5
    )
    assert np.isnan(demographic_parity_difference(counts, 20))
    assert valid_groups(counts, 8)[:, 1].tolist() == [True, False, False]


@pytest.mark.parametrize("gap", GAPS)
def test_fewer_than_two_groups_have_no_gap(gap):
    assert np.isnan(gap(table(A)))
    assert np.isnan(gap(table(A, np.zeros((2, 2), int))))
    assert gap(table(A, A)) == 0


def all_gaps(counts):
    return jnp.stack([gap(counts) for gap in GAPS])


@pytest.mark.slow
def test_batched_mapped_and_compiled_agree():
    batch = table([A, B, C], [A, A, NO_POSITIVES], [A, np.zeros((2, 2), int), C])
    one_by_one = np.stack([all_gaps(GroupCounts(counts)) for counts in batch.counts])
    np.testing.assert_allclose(all_gaps(batch), one_by_one.T, rtol=1e-6)
    mapped = jax.jit(jax.vmap(all_gaps))(batch)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-6)


compiled_gaps = jax.jit(all_gaps)


@pytest.mark.slow
@given(
    hnp.arrays(np.int32, (5, 2, 2), elements=st.integers(0, 20)),
    st.permutations(range(5)),
)
def test_order_of_groups_and_scale_of_weights_do_not_matter(counts, order):
    original = GroupCounts(jnp.array(counts))
    changed = GroupCounts(jnp.array(counts[list(order)] * 3))
    np.testing.assert_allclose(
        compiled_gaps(changed), compiled_gaps(original), rtol=1e-5, atol=1e-6
    )


RATES = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([np.nan, 0.0]), st.floats(0, 1, width=32)),
        st.booleans(),
    ),
    min_size=4,
    max_size=4,
)


@pytest.mark.slow
@given(RATES)
def test_difference_equals_numpy_over_the_valid(groups):
    rates, valid = (np.array(column) for column in zip(*groups, strict=True))
    kept = rates[valid & ~np.isnan(rates)]
    expected = np.ptp(kept) if kept.size >= 2 else np.nan
    result = difference(rates.astype(np.float32), valid)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.slow
@given(RATES, st.integers(0, 3))
def test_ratio_and_reference_equal_numpy(groups, reference):
    rates, valid = (np.array(column) for column in zip(*groups, strict=True))
    rates = np.where(rates < 1e-30, 0 * rates, rates).astype(np.float32)
    known = np.where(valid, rates, np.nan)
    kept = known[~np.isnan(known)]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = kept.min() / kept.max() if kept.size >= 2 else np.nan
        over = known / known[reference]
    np.testing.assert_allclose(ratio(rates, valid), expected, rtol=1e-6)
    found = ratio(rates, valid, reference=reference)
    np.testing.assert_allclose(found, over, rtol=1e-6)
    less = difference(rates, valid, reference=reference)
    np.testing.assert_allclose(less, known - known[reference], atol=1e-6)
    flag = zero_reference(rates, valid, reference=reference)
    assert flag == (known[reference] == 0)
    assert flag or not np.isinf(found).any()


def test_difference_of_infinite_rates():
    assert difference(jnp.array([np.inf, 1.0])) == np.inf
    assert np.isnan(difference(jnp.array([np.inf, np.inf])))


def test_reference_is_checked_and_may_be_mapped():
    rates = jnp.array([0.25, 0.75])
    with pytest.raises(ValueError, match="one of 2 groups; got 2"):
        difference(rates, reference=2)
    with pytest.raises(ValueError, match="got -1"):
        ratio(rates, reference=-1)
    batch = jnp.stack([rates, rates[::-1]])
    mapped = jax.jit(jax.vmap(functools.partial(difference, reference=1)))(batch)
    assert mapped.tolist() == [[-0.5, 0.0], [0.5, 0.0]]


def test_min_support_counts_the_rows_under_the_rate():
    counts = table(A, B, C)
    # Predicted positive: 8, 6, 6.
    assert compared_groups(counts, "positive_predictive_value", 7).tolist() == [
        True,
        False,
        False,
    ]
    found = rate_difference(counts, "positive_predictive_value", 6)
    np.testing.assert_allclose(found, 6 / 8 - 1 / 6, rtol=1e-6)
    assert np.isnan(rate_difference(counts, "positive_predictive_value", 7))
    against = rate_ratio(counts, "true_positive_rate", 6, reference=1)
    np.testing.assert_allclose(against, [1.5, 1, np.nan], rtol=1e-6)


def test_equalized_odds_ratio_and_reference():
    counts = table(A, B, C)
    # TPR 3/4, 1/2, 1/5; FPR 1/6, 1/4, 1/2.
    np.testing.assert_allclose(equalized_odds_ratio(counts), 0.8 / 3, rtol=1e-6)
    np.testing.assert_allclose(
        equalized_odds_ratio(counts, agg="mean"), (0.8 / 3 + 1 / 3) / 2, rtol=1e-6
    )
    worst = equalized_odds_difference(counts, reference=1)
    np.testing.assert_allclose(worst, [0.25, 0, 0.3], atol=1e-6)
    mean = equalized_odds_difference(counts, "mean", reference=1)
    np.testing.assert_allclose(mean, [1 / 6, 0, 0.275], atol=1e-6)


@pytest.mark.slow
def test_double_precision_if_asked():
    counts = np.array([A, B, C])
    with jax.enable_x64(True):
        gap = equalized_odds_difference(GroupCounts(jnp.asarray(counts)))
        assert gap.dtype == jnp.float64
        np.testing.assert_allclose(gap, 0.55, rtol=1e-15)
