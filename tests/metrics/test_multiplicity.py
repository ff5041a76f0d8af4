import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from fairjax.metrics import benjamini_hochberg, holm


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
    np.testing.assert_allclose(holm(p), expected, rtol=1e-5, atol=1e-30)


@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6))
def test_benjamini_and_hochbergs_values_are_those_of_statsmodels(p_values):
    p = np.array(p_values, np.float32)
    expected = multipletests(p.astype(float), method="fdr_bh")[1]
    np.testing.assert_allclose(benjamini_hochberg(p), expected, rtol=1e-5, atol=1e-30)


def test_tests_that_could_not_be_made_are_not_counted():
    p = np.array([0.01, np.nan, 0.04, 0.03, np.nan], np.float32)
    adjusted = np.asarray(benjamini_hochberg(p))
    np.testing.assert_array_equal(np.isnan(adjusted), np.isnan(p))
    np.testing.assert_allclose(
        adjusted[~np.isnan(p)], benjamini_hochberg(p[~np.isnan(p)]), rtol=1e-6
    )
    assert np.isnan(benjamini_hochberg(np.full(2, np.nan, np.float32))).all()


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_groups_by_metrics_are_one_family(adjust):
    p = np.array([[0.01, np.nan, 0.04], [0.2, 0.001, 0.03]], np.float32)
    adjusted = jax.jit(adjust)(p)
    assert adjusted.shape == p.shape
    np.testing.assert_array_equal(np.asarray(adjusted).ravel(), adjust(p.ravel()))
    assert adjust(np.zeros((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_lists_are_p_values(adjust):
    p_values = [0.01, 0.04, 0.03]
    np.testing.assert_array_equal(adjust(p_values), adjust(np.array(p_values)))
