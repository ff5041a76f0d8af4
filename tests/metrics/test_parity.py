"""Every named gap by hand, its reference and its support."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairjax import metrics
from fairjax.metrics import GroupCounts

# The table of docs/conventions.md: TN, FP / FN, TP.
TABLE = np.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]], [[5, 5], [4, 1]]])
# Each rate of the three groups.
SELECTION = np.array([8 / 20, 6 / 18, 6 / 15])
TPR = np.array([6 / 8, 3 / 6, 1 / 5])
FPR = np.array([2 / 12, 3 / 12, 5 / 10])
PPV = np.array([6 / 8, 3 / 6, 1 / 6])
NPV = np.array([10 / 12, 9 / 12, 5 / 9])
ACCURACY = np.array([16 / 20, 12 / 18, 6 / 15])
TREATMENT = np.array([2 / 2, 3 / 3, 4 / 5])

# Name, rate, and the fewest rows under it.
DIFFERENCES = {
    "demographic_parity_difference": (SELECTION, 15),
    "equal_opportunity_difference": (TPR, 5),
    "false_positive_rate_difference": (FPR, 10),
    "false_negative_rate_difference": (1 - TPR, 5),
    "predictive_parity_difference": (PPV, 6),
    "negative_predictive_value_difference": (NPV, 9),
    "accuracy_difference": (ACCURACY, 15),
    "error_rate_difference": (1 - ACCURACY, 15),
    "treatment_equality_difference": (TREATMENT, 4),
}
RATIOS = {
    "demographic_parity_ratio": (SELECTION, 15),
    "equal_opportunity_ratio": (TPR, 5),
    "error_rate_ratio": (1 - ACCURACY, 15),
}


@pytest.mark.parametrize("name", [*DIFFERENCES, *RATIOS])
def test_by_hand(name):
    gap = getattr(metrics, name)
    counts = GroupCounts(jnp.array(TABLE))
    if name in DIFFERENCES:
        rate, _ = DIFFERENCES[name]
        widest, against = np.ptp(rate), rate - rate[1]
    else:
        rate, _ = RATIOS[name]
        widest, against = rate.min() / rate.max(), rate / rate[1]
    np.testing.assert_allclose(gap(counts), widest, rtol=1e-5)
    np.testing.assert_allclose(gap(counts, reference=1), against, atol=1e-6)


@pytest.mark.parametrize("name", [*DIFFERENCES, *RATIOS])
def test_support_is_inclusive_and_the_rates_own(name):
    gap = getattr(metrics, name)
    _, least = {**DIFFERENCES, **RATIOS}[name]
    counts = GroupCounts(jnp.array(TABLE))
    np.testing.assert_array_equal(gap(counts, least), gap(counts))
    # One row more is asked for, and some groups go but not all.
    against = [gap(counts, least + 1, reference=group) for group in range(3)]
    assert min(np.isnan(gaps).sum() for gaps in against) in (1, 2)


@pytest.mark.slow
def test_batched_and_mapped_agree():
    @jax.jit
    def gaps(counts):
        names = [*DIFFERENCES, *RATIOS]
        return jnp.stack([getattr(metrics, name)(counts) for name in names])

    batch = GroupCounts(jnp.array([TABLE, TABLE[::-1] * 2, TABLE * [[[0], [1]]]]))
    one_by_one = np.stack([gaps(GroupCounts(counts)) for counts in batch.counts])
    np.testing.assert_allclose(gaps(batch), one_by_one.T, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(gaps)(batch), one_by_one, rtol=1e-6)


def test_names_of_a_signed_kind():
    counts = GroupCounts(jnp.array(TABLE))
    signed = metrics.statistical_parity_difference(counts, reference=0)
    np.testing.assert_allclose(signed, SELECTION - 0.4, atol=1e-6)
    impact = metrics.disparate_impact(counts, reference=1)
    np.testing.assert_allclose(impact, SELECTION * 3, rtol=1e-6)
    average = metrics.average_odds_difference(counts, reference=0)
    np.testing.assert_allclose(average[:2], [0, -1 / 12], atol=1e-6)
    absolute = metrics.average_odds_difference(counts, reference=0, absolute=True)
    np.testing.assert_allclose(absolute[:2], [0, 1 / 6], atol=1e-6)


def test_signed_average_odds_cancel_where_equalized_odds_do_not():
    counts = GroupCounts(jnp.array([[[2, 6], [6, 2]], [[6, 2], [2, 6]]]))
    average = metrics.average_odds_difference(counts, reference=0)
    np.testing.assert_allclose(average, 0, atol=1e-7)
    np.testing.assert_allclose(metrics.equalized_odds_difference(counts), 0.5)


def test_disparate_impact_of_a_reference_without_selections():
    counts = GroupCounts(jnp.array([[[8, 0], [4, 0]], [[4, 4], [2, 2]]]))
    impact = metrics.disparate_impact(counts, reference=0)
    assert np.isnan(impact[0])
    assert impact[1] == np.inf
    rates = metrics.selection_rate(counts)
    assert metrics.zero_reference(rates, reference=0)
    assert not metrics.zero_reference(rates, reference=1)


def test_treatment_equality_without_false_positives():
    gap = metrics.treatment_equality_difference
    one = [[8, 0], [4, 4]]
    assert gap(GroupCounts(jnp.array([one, TABLE[0]]))) == np.inf
    assert np.isnan(gap(GroupCounts(jnp.array([one, one]))))
