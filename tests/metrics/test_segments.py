import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairjax.metrics import _segments
from fairjax.metrics._rows import as_mass

group_sums = jax.jit(_segments.group_sums, static_argnums=2)
running_sums = jax.jit(_segments.running_sums, static_argnames="reverse")


@pytest.mark.slow
def test_a_float_sum_of_many_rows_does_not_stop_growing():
    """One after another, ones add up to no more than 2²⁴ in float32."""
    rows = 2**24 + 2**22
    found = group_sums(jnp.ones(rows), jnp.zeros(rows, int), 1)
    assert found.tolist() == [rows]


def test_integers_are_exact_beyond_what_floats_hold():
    values, ids = jnp.array([2**24, 1, 5, 2**30, 7]), jnp.array([1, 1, -1, 0, 3])
    assert group_sums(values, ids, 2).tolist() == [2**30, 2**24 + 1]


@pytest.mark.parametrize(
    ("num_groups", "kind"),
    [
        (3, np.int32),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, np.int32), (1, np.float32), (3, np.float32))
        ),
    ],
)
@given(
    ids=st.lists(st.integers(0, 3), min_size=20, max_size=20), seed=st.integers(0, 999)
)
def test_sums_by_group_equal_numpys(kind, num_groups, ids, seed):
    groups = np.minimum(np.sort(ids), num_groups)
    values = np.random.default_rng(seed).integers(0, 50, 20)
    values = np.where(groups < num_groups, values, 0).astype(kind)
    starts = np.searchsorted(groups, np.arange(num_groups + 1))
    columns = jnp.array(values), jnp.array(groups), jnp.array(starts)
    down, up = running_sums(*columns), running_sums(*columns, reverse=True)
    for group in range(num_groups):
        at = groups == group
        np.testing.assert_array_equal(np.asarray(down)[at], values[at].cumsum())
        np.testing.assert_array_equal(
            np.asarray(up)[at], values[at][::-1].cumsum()[::-1]
        )
    sums = group_sums(*columns[:2], num_groups)
    expected = np.bincount(groups, values, minlength=num_groups + 1)[:num_groups]
    np.testing.assert_array_equal(sums, expected)
    assert down.dtype == sums.dtype == kind


def test_running_integers_may_wrap_around_between_groups():
    values = jnp.array([2**31 - 1, 2**31 - 1, 5, 6], jnp.int32)
    groups, starts = jnp.array([0, 1, 2, 2]), jnp.array([0, 1, 2, 4])
    found = running_sums(values, groups, starts)
    assert found.tolist() == [2**31 - 1, 2**31 - 1, 5, 11]


def test_mass_is_whole_where_its_type_is():
    assert as_mass(None, 3).tolist() == [1, 1, 1]
    assert as_mass(np.array([True, False]), 2).dtype == np.int32
    assert as_mass(np.ones(2, np.float16), 2).dtype == np.float32
