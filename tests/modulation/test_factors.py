"""The numbers that gradients are multiplied by: by hand, and their bounds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairjax import modulation
from tests.modulation import transcription

contribution_balance = jax.jit(modulation.contribution_balance)
fairness_factors = jax.jit(modulation.fairness_factors)
fairness_gap = jax.jit(modulation.fairness_gap)
modality_balance = jax.jit(modulation.modality_balance, static_argnames="signed")

shares_of_one = st.floats(0, 1, width=32)
aucs = hnp.arrays(np.float32, 3, elements=shares_of_one)
group_aucs = hnp.arrays(np.float32, (2, 3), elements=shares_of_one)


def test_modality_balance_by_hand():
    """Changes of .3, .1 and 0 add up to .4."""
    found = modality_balance(jnp.array([0.8, 0.4, 0.5]), jnp.full(3, 0.5))
    np.testing.assert_allclose(found, [0.25, 0.75, 1.0], rtol=1e-6)
    # With signs .3 − .1 = .2 is what is compared with.
    found = modality_balance(jnp.array([0.8, 0.4, 0.5]), jnp.full(3, 0.5), signed=True)
    np.testing.assert_allclose(found, [-0.5, 1.5, 1.0], rtol=1e-5)
    nothing = modality_balance(jnp.full(2, 0.7), jnp.full(2, 0.7))
    np.testing.assert_array_equal(nothing, [1, 1])
    single = modality_balance(jnp.array([0.9]), jnp.array([0.5]))
    np.testing.assert_array_equal(single, [1])


def test_modality_balance_among_the_observed_by_hand():
    """Changes of .3 and .1 add up to .4; the third one's counts for nothing."""
    auc, previous = jnp.array([0.8, 0.4, 0.9]), jnp.array([0.5, 0.5, jnp.nan])
    observed = jnp.array([True, True, False])
    found = modality_balance(auc, previous, observed=observed)
    np.testing.assert_allclose(found, [0.25, 0.75, 1], rtol=1e-6)
    found = modality_balance(auc, previous, signed=True, observed=observed)
    np.testing.assert_allclose(found, [-0.5, 1.5, 1], rtol=1e-5)


# Below a ten-thousandth the 1e-8 beside a sum of changes can be seen.
coarse = st.integers(0, 1000).map(lambda number: number / 1000)


@pytest.mark.slow
@given(
    auc=hnp.arrays(np.float32, 4, elements=coarse),
    previous=hnp.arrays(np.float32, 4, elements=coarse),
    observed=hnp.arrays(np.bool_, 4),
    signed=st.booleans(),
)
def test_modality_balance_leaves_out_what_is_not_observed(
    auc, previous, observed, signed
):
    """As if only the observed were there; the rest has 1, and so has one alone."""
    found = modality_balance(
        jnp.asarray(auc),
        jnp.asarray(previous),
        signed=signed,
        observed=jnp.asarray(observed),
    )
    found = np.asarray(found)
    np.testing.assert_array_equal(found[~observed], 1)
    if observed.sum() < 2:
        np.testing.assert_array_equal(found, 1)
    elif not signed:
        alone = modality_balance(
            jnp.asarray(auc[observed]), jnp.asarray(previous[observed])
        )
        np.testing.assert_allclose(found[observed], alone, rtol=1e-4, atol=1e-6)
        wanted = transcription.balance(
            auc.astype(np.float64), previous.astype(np.float64), observed
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        assert found[observed].sum() >= observed.sum() - 1 - 1e-4


@given(auc=aucs, previous=aucs)
def test_modality_balance_lies_in_the_unit_interval(auc, previous):
    found = np.asarray(modality_balance(jnp.asarray(auc), jnp.asarray(previous)))
    assert (found >= 0).all()
    assert (found <= 1).all()
    changed = np.abs(auc.astype(np.float64) - previous).sum()
    if changed > 1e-3:
        np.testing.assert_allclose(found.sum(), 2, rtol=2e-5)
    order = np.array([2, 0, 1])
    permuted = modality_balance(jnp.asarray(auc[order]), jnp.asarray(previous[order]))
    np.testing.assert_allclose(permuted, found[order], rtol=1e-5, atol=1e-6)


def test_small_contributions_are_not_cancelled_by_large_ones():
    """The ratio of the second modality is 6e9, of the first next to none."""
    found = contribution_balance(jnp.array([1e-10, 0.6], jnp.float32), alpha=0.5)
    np.testing.assert_array_equal(found, [1, 0])


def test_contribution_balance_by_hand():
    """Against the mean of the others: 4/2 = 2, 2/3 and 2/3."""
    found = contribution_balance(jnp.array([4.0, 2.0, 2.0]), alpha=0.5)
    np.testing.assert_allclose(found, [1 - math.tanh(1.0), 1, 1], rtol=1e-6)
    equal = contribution_balance(jnp.array([3.0, 3.0]), alpha=0.5)
    np.testing.assert_array_equal(equal, [1, 1])
    for alone in (jnp.array([5.0]), jnp.array([5.0, 0.0])):
        np.testing.assert_array_equal(contribution_balance(alone, alpha=0.5), 1)


def test_a_modality_not_observed_is_compared_with_none():
    """As two modalities, not as three of which one contributes nothing."""
    observed = jnp.array([True, False, True])
    found = contribution_balance(
        jnp.array([0.6, jnp.nan, 0.4]), alpha=0.5, observed=observed
    )
    np.testing.assert_allclose(found, [1 - math.tanh(0.75), 1, 1], rtol=1e-6)


@given(
    contributions=hnp.arrays(np.float32, 3, elements=st.floats(0, 50, width=32)),
    alpha=st.floats(0.0, 1.0),
)
def test_contribution_balance_is_a_share(contributions, alpha):
    found = np.asarray(contribution_balance(jnp.asarray(contributions), alpha=alpha))
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert found[np.argmin(contributions)] == 1


def test_fairness_factors_by_hand():
    """Deviations .1, 0, −.1 and none; half, a quarter, a quarter of the rows."""
    group_auc = jnp.array([[0.8, 0.7, 0.6], [0.6, 0.6, 0.6]])
    shares = jnp.array([0.5, 0.25, 0.25])
    found = fairness_factors(group_auc, shares, strength=0.5, threshold=0.05)
    np.testing.assert_allclose(found, [1 - 10 * (0.05 - 0.025), 1], rtol=1e-5)
    # No threshold is below a ten-thousandth.
    found = fairness_factors(group_auc, shares, strength=1e-3, threshold=0.0)
    np.testing.assert_allclose(found, [1 - 10 * (0.05 - 0.025), 1], rtol=1e-5)
    # Without the first group the others' mean is .65, and its rows have no say.
    found = fairness_factors(
        jnp.array([[jnp.nan, 0.7, 0.6], [jnp.nan, 0.6, 0.6]]),
        shares,
        strength=0.5,
        threshold=0.05,
        observed=jnp.array([[False, True, True]] * 2),
    )
    np.testing.assert_allclose(found, [1, 1], rtol=1e-5)
    found = fairness_factors(
        group_auc, jnp.array([0.0, 0.0, 1.0]), strength=0.5, threshold=0.05
    )
    np.testing.assert_allclose(found, [2, 1], rtol=1e-5)


@given(group_auc=group_aucs)
def test_fairness_factors_are_one_where_groups_are_equally_frequent(group_auc):
    found = fairness_factors(
        jnp.asarray(group_auc), jnp.full(3, 1 / 3), strength=0.5, threshold=0.04
    )
    np.testing.assert_allclose(found, 1, atol=2e-5)


def test_fairness_gap_by_hand():
    group_auc = jnp.array([[0.8, 0.6, 0.7], [0.5, 0.5, 0.8]])
    wanted = (0.1 + 0.1 + 0.0 + 0.1 + 0.1 + 0.2) / 6
    np.testing.assert_allclose(fairness_gap(group_auc), wanted, rtol=1e-5)
    observed = jnp.array([[True, True, False], [False, False, True]])
    found = fairness_gap(group_auc, observed=observed)
    np.testing.assert_allclose(found, 0.2 / 3, rtol=1e-5)
    assert float(fairness_gap(group_auc, observed=jnp.zeros((2, 3), bool))) == 0


@pytest.mark.slow
@given(group_auc=group_aucs, equal=st.booleans())
def test_fairness_gap_is_zero_only_where_groups_are_equal(group_auc, equal):
    if equal:
        group_auc[:] = group_auc[:, :1]
    found = float(fairness_gap(jnp.asarray(group_auc)))
    apart = np.ptp(group_auc.astype(np.float64), axis=1).max()
    assert found >= 0
    if equal:
        assert found < 1e-6
    if apart > 1e-5:
        # Of six deviations, those of the most unequal modality add up to its range.
        assert found > apart / 6 * 0.9
    permuted = fairness_gap(jnp.asarray(group_auc[::-1, [2, 0, 1]]))
    assert float(permuted) == pytest.approx(found, abs=1e-6)
