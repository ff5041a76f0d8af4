"""Groups are told apart by their levels, not by how these are written."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairjax.mitigation._sensitive import Groups, check_not_among


def of(given):
    rows = len(next(iter(given.values()))) if isinstance(given, dict) else len(given)
    return Groups.of(given, rows=rows)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["m", "f", "m"], ("f", "m")),
        ([1, 0, 1], ("0", "1")),
        (np.array([1.0, 0.0]), ("0", "1")),
        (np.array([True, False]), ("False", "True")),
        (np.array([[1, 2], [1, 3]]), ("1, 2", "1, 3")),
        (pd.Series(["a", "b"], name="sex"), ("sex=a", "sex=b")),
        (pd.Series(["a", "b"]), ("a", "b")),
        (
            {"sex": ["f", "m"], "old": [False, True]},
            ("sex=f, old=False", "sex=m, old=True"),
        ),
        (pd.DataFrame({"x": pd.cut([1, 9], [0, 5, 10])}), ("x=(0, 5]", "x=(5, 10]")),
        # One name would stand for two groups.
        ([["a, b", "c"], ["a", "b, c"]], ("'a', 'b, c'", "'a, b', 'c'")),
        (["missing", None, "x"], ("'missing'", "missing", "x")),
        ([1, "1"], ("'1'", "1")),
    ],
)
def test_names(given, names):
    assert set(of(given).names) == set(names)
    assert len(of(given).names) == len(names)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_what_is_missing_is_one_group(missing):
    groups = of(["f", missing, None])
    assert groups.names == ("f", "missing")
    np.testing.assert_array_equal(groups.codes([missing, "f"], rows=2), [1, 0])


def test_numbers_are_the_same_however_they_are_written():
    groups = of(pd.DataFrame({"g": [0, 1, 1]}))
    for other in ([0.0, 1.0], [False, True], pd.array([0, 1], dtype="Int64")):
        table = pd.DataFrame({"g": other})
        np.testing.assert_array_equal(groups.known(table, rows=2), [0, 1])
    text = pd.DataFrame({"g": ["0", "1"]})
    np.testing.assert_array_equal(groups.codes(text, rows=2), [-1, -1])


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "a, b", "b", "", None]),
            st.sampled_from(["c", "b, c", 1, 2.5, None]),
        ),
        min_size=1,
    )
)
def test_rows_share_a_group_if_and_only_if_they_share_their_levels(rows):
    table = pd.DataFrame(rows, columns=["p", "q"], dtype=object)
    groups = Groups.of(table, rows=len(rows))
    codes = groups.known(table, rows=len(rows))
    assert len(set(rows)) == len(groups.names) == len(set(groups.names))
    assert {(row, code) for row, code in zip(rows, codes, strict=True)} == {
        (cell, place) for place, cell in enumerate(groups.cells)
    }
    stored = json.loads(json.dumps([groups.columns, groups.named, groups.cells]))
    assert Groups(*stored).names == groups.names


def test_many_columns_of_many_levels():
    rng = np.random.default_rng(0)
    table = rng.integers(0, 200, (400, 9))
    assert len(Groups.of(table, rows=400).names) == 400


def test_columns_are_compared_where_both_have_names():
    named = of(pd.Series(["f", "m"], name="sex"))
    np.testing.assert_array_equal(named.known(np.array(["m", "f"]), rows=2), [1, 0])
    with pytest.raises(ValueError, match=r"seen at fit, \['sex'\]; got \['age'\]"):
        named.codes(pd.Series(["f", "m"], name="age"), rows=2)
    with pytest.raises(
        ValueError, match=r"the columns seen at fit, \['sex'\]; got \['0', '1'\]"
    ):
        named.codes(np.array([["f", "m"]]), rows=1)


@pytest.mark.parametrize("level", [["f"], {"sex": "f"}, {"f"}])
def test_levels_are_single_values(level):
    with pytest.raises(
        ValueError, match="must hold single values.*; got others in 'sex'"
    ):
        of(pd.Series([level, level], name="sex"))


def test_unknown_groups_are_named():
    groups = of({"sex": ["f", "m"]})
    with pytest.raises(ValueError, match="got 'sex=x', 'sex=y' in 2 rows. Fit"):
        groups.known({"sex": ["x", "f", "y"]}, rows=3)


def test_a_sensitive_column_among_the_features():
    for name in ("sex", 2):
        groups = of(pd.DataFrame({name: ["f", "m"]}))
        with pytest.raises(
            ValueError, match=f"must not include .*; got .*'{name}'.* among its columns"
        ):
            check_not_among(pd.DataFrame({name: [0], "age": [1]}), groups)
    # Names that nobody gave are no names.
    check_not_among(pd.DataFrame({"group": [0]}), of(["f", "m"]))
