import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairjax import metrics
from fairjax.metrics import (
    GroupCounts,
    conditional_counts,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
)

conditional = jax.jit(metrics.conditional, static_argnums=(0, 2), static_argnames="agg")

# Two strata in which nothing differs, of which one group has more of the second.
SIMPSON = np.array(
    [
        [[[16, 4], [0, 0]], [[4, 1], [0, 0]]],
        [[[1, 4], [0, 0]], [[4, 16], [0, 0]]],
    ]
)


def test_a_difference_that_the_strata_explain():
    whole = GroupCounts(jnp.array(SIMPSON.sum(axis=0)))
    # 8/25 and 17/25 are selected, .2 in the one and .8 in the other stratum.
    np.testing.assert_allclose(demographic_parity_difference(whole), 0.36, rtol=1e-6)
    counts = GroupCounts(jnp.array(SIMPSON))
    for agg in ("max", "mean"):
        result = conditional(demographic_parity_difference, counts, agg)
        np.testing.assert_allclose(result.gap, 0, atol=1e-6)
    result = conditional(demographic_parity_ratio, counts, "min")
    np.testing.assert_allclose(result.gap, 1, rtol=1e-6)


def test_strata_are_weighted_by_their_rows_and_those_without_a_gap_left_out():
    a, b, empty = [[10, 2], [2, 6]], [[9, 3], [3, 3]], [[0, 0], [0, 0]]
    twice = [[18, 6], [0, 6]]
    counts = GroupCounts(jnp.array([[a, b], [a, empty], [b, twice]]))
    result = conditional(equal_opportunity_difference, counts, "mean")
    assert result.compared.tolist() == [True, False, True]
    np.testing.assert_allclose(result.stratum_gaps, [0.25, np.nan, 0.5])
    # 38 and 48 rows.
    np.testing.assert_allclose(result.gap, (38 * 0.25 + 48 * 0.5) / 86, rtol=1e-6)
    assert conditional(equal_opportunity_difference, counts, "max").gap == 0.5
    assert conditional(equal_opportunity_difference, counts, "min").gap == 0.25


@pytest.mark.parametrize("agg", ["max", "min", "mean"])
def test_no_stratum_no_gap(agg):
    counts = GroupCounts(jnp.zeros((3, 2, 2, 2), int))
    result = conditional(demographic_parity_difference, counts, agg)
    assert np.isnan(result.gap)
    assert not result.compared.any()


@pytest.mark.slow
@pytest.mark.parametrize("agg", ["max", "min", "mean"])
def test_batched_mapped_and_compiled_agree(agg):
    batch = jnp.array([SIMPSON, SIMPSON[:, :, ::-1], SIMPSON * 0])

    def gap(counts):
        return conditional(demographic_parity_difference, GroupCounts(counts), agg).gap

    one_by_one = [gap(counts) for counts in batch]
    np.testing.assert_allclose(gap(batch), one_by_one, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(gap))(batch), one_by_one, rtol=1e-6)


def test_from_rows():
    rng = np.random.default_rng(0)
    labels, predictions, groups, strata = rng.integers(0, 2, (4, 400))
    counts = conditional_counts(
        labels, predictions, groups, strata, num_groups=2, num_strata=2
    )
    expected = []
    for stratum in range(2):
        at = strata == stratum
        rates = [predictions[at & (groups == group)].mean() for group in range(2)]
        expected.append(abs(rates[0] - rates[1]))
    result = conditional(demographic_parity_difference, counts, "max")
    np.testing.assert_allclose(result.stratum_gaps, expected, atol=1e-6)
    np.testing.assert_allclose(result.gap, max(expected), atol=1e-6)


def test_the_worst_ratio_is_the_smallest():
    counts = GroupCounts(
        jnp.array([[[[0, 10], [0, 0]], [[7, 3], [0, 0]]]])
        .repeat(2, axis=0)
        .at[1, 1, 0]
        .set(jnp.array([8, 2]))
    )
    found = conditional(demographic_parity_ratio, counts, agg="min")
    np.testing.assert_allclose(found.stratum_gaps, [0.3, 0.2], rtol=1e-6)
    np.testing.assert_allclose(found.gap, 0.2, rtol=1e-6)


@pytest.mark.parametrize("agg", ["max", "mean"])
def test_a_gap_of_every_group_is_not_one_of_every_stratum(agg):
    counts = GroupCounts(jnp.array(SIMPSON))
    signed = functools.partial(demographic_parity_difference, reference=0)
    with pytest.raises(ValueError, match=r"shape \(2,\); got shape \(2, 2\)"):
        conditional(signed, counts, agg)
    chosen = conditional(lambda counts: signed(counts)[..., 1], counts, agg)
    np.testing.assert_allclose(chosen.stratum_gaps, 0, atol=1e-6)
