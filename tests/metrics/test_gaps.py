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
    demographic_parity_difference,
    difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    false_positive_rate_difference,
    valid_groups,
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


@pytest.mark.parametrize("gap", GAPS)
def test_batched_mapped_and_compiled_agree(gap):
    batch = table([A, B, C], [A, A, NO_POSITIVES], [A, np.zeros((2, 2), int), C])
    one_by_one = [gap(GroupCounts(counts)) for counts in batch.counts]
    np.testing.assert_allclose(gap(batch), one_by_one, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(gap))(batch), one_by_one, rtol=1e-6)


@given(
    hnp.arrays(np.int32, (5, 2, 2), elements=st.integers(0, 20)),
    st.permutations(range(5)),
)
def test_order_of_groups_and_scale_of_weights_do_not_matter(counts, order):
    original = GroupCounts(jnp.array(counts))
    changed = GroupCounts(jnp.array(counts[list(order)] * 3))
    for gap in GAPS:
        np.testing.assert_allclose(gap(changed), gap(original), rtol=1e-5, atol=1e-6)


@given(
    st.lists(
        st.tuples(st.one_of(st.just(np.nan), st.floats(0, 1, width=32)), st.booleans()),
        min_size=4,
        max_size=4,
    )
)
def test_difference_equals_numpy_over_the_valid(groups):
    rates, valid = (np.array(column) for column in zip(*groups, strict=True))
    kept = rates[valid & ~np.isnan(rates)]
    expected = np.ptp(kept) if kept.size >= 2 else np.nan
    result = difference(rates.astype(np.float32), valid)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_unknown_aggregation_is_an_error():
    with pytest.raises((ValueError, TypeError), match="agg"):
        equalized_odds_difference(table(A, B), agg="min")
