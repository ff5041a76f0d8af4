"""Numbers into levels."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairjax.audit.reading.binning import cut, number, quantile_edges


@pytest.mark.parametrize(
    ("values", "edges", "names"),
    [
        ([10.0, 50], (18, 40, 65), ("under 18", "18 to 39", "40 to 64", "65 and over")),
        ([10.0, 50.5], (18, 40), ("under 18", "18 to under 40", "40 and over")),
        ([10.0, 50], (18.5, 40), ("under 18.5", "18.5 to under 40", "40 and over")),
        ([1.0, 2], (1, 2, 4), ("under 1", "1", "2 to 3", "4 and over")),
        ([-3.0, np.nan], (-2, 0), ("under -2", "-2 to -1", "0 and over")),
    ],
)
def test_names(values, edges, names):
    assert cut(np.array(values), edges)[1] == names


def test_an_edge_belongs_to_the_level_above_it():
    values = np.array([17.999, 18, 39.999, 40, -np.inf, np.inf, np.nan])
    assert cut(values, (18, 40))[0].tolist() == [0, 1, 1, 2, 0, 2, -1]


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), min_size=8, max_size=8),
    st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=4),
)
def test_cut_is_that_of_pandas(values, edges):
    edges = sorted(edges)
    codes, names = cut(np.array(values), edges)
    wanted = pd.cut(values, [-np.inf, *edges, np.inf], right=False, labels=False)
    assert codes.tolist() == np.nan_to_num(wanted, nan=-1).astype(int).tolist()
    assert len(names) == len(edges) + 1


@given(
    st.lists(st.integers(0, 40) | st.just(None), min_size=20, max_size=20),
    st.integers(2, 6),
)
def test_quantiles(values, num_levels):
    values = np.array(values, float)
    edges = quantile_edges(values, num_levels)
    present = np.unique(values[~np.isnan(values)])
    if len(present) < 2:
        assert edges == ()
        return
    assert 1 <= len(edges) < num_levels
    assert list(edges) == sorted(set(edges))
    codes, names = cut(values, edges)
    # No level is empty, and each edge is a value that occurs.
    assert set(codes[codes >= 0]) == set(range(len(names)))
    assert set(edges) <= set(present)


def test_quantiles_without_ties_are_of_equal_size():
    values = np.random.default_rng(0).permutation(1000).astype(float)
    values = np.append(values, [np.nan] * 50)
    for num_levels in (2, 4, 5, 10):
        codes, _ = cut(values, quantile_edges(values, num_levels))
        assert set(np.bincount(codes[codes >= 0])) == {1000 // num_levels}


def test_edges_are_rounded_unless_that_makes_them_one():
    wide = np.random.default_rng(0).normal(60, 10, 1000)
    edges = quantile_edges(wide, 4)
    assert [number(edge) for edge in edges] == [f"{edge:.4g}" for edge in edges]
    np.testing.assert_allclose(edges, np.quantile(wide, [0.25, 0.5, 0.75]), rtol=1e-3)
    narrow = 100_000 + np.arange(8) / 10
    assert quantile_edges(narrow, 4) == (100000.2, 100000.4, 100000.6)


def test_no_values_have_no_edges():
    assert quantile_edges(np.full(3, np.nan), 4) == ()
