"""Cells, groups and their policies, against hand counts and pandas' own grouping."""

import itertools
import pickle

import hypothesis
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from fairjax.groups import Grouping, cross, partition
from fairjax.mitigation._sensitive import Groups

SEX = ["f", "f", "f", "m", "m", "m", "m", "f"]
RACE = ["black", "white", "white", "white", "black", "white", "asian", "white"]
# Hand count: f asian 0, f black 1, f white 3, m asian 1, m black 1, m white 2.


def table(sex=SEX, race=RACE):
    return pd.DataFrame({"sex": sex, "race": race})


def test_cells_are_the_product_of_levels_in_order():
    cells = partition(table())
    assert cells.attributes == ("sex", "race")
    assert cells.levels == (("f", "m"), ("asian", "black", "white"))
    assert cells.names == (
        "sex=f, race=asian",
        "sex=f, race=black",
        "sex=f, race=white",
        "sex=m, race=asian",
        "sex=m, race=black",
        "sex=m, race=white",
    )
    assert cells.counts.dtype == np.int64
    assert cells.counts.tolist() == [0, 1, 3, 1, 1, 2]
    assert cells.codes.dtype == np.int32
    assert cells.codes.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert cells.num_cells == 6


def test_encode_gives_each_row_its_cell():
    cells = partition(table())
    encoded = cells.encode(table())
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [1, 2, 2, 5, 4, 5, 3, 2]
    # Column order does not matter, and other columns are ignored.
    shuffled = table().assign(age=1).rename(columns={"age": 0})[[0, "race", "sex"]]
    assert cells.encode(shuffled).tolist() == encoded.tolist()
    assert cells.encode({"sex": [], "race": []}).shape == (0,)


def test_a_table_without_rows_still_needs_its_columns():
    with pytest.raises(ValueError, match="no column 'race'"):
        partition(table()).encode({"sex": []})


def test_observed_cells_leave_out_empty_ones():
    cells = partition(table(), cells="observed")
    assert cells.num_cells == 5
    assert "sex=f, race=asian" not in cells.names
    assert cells.encode(table()).tolist() == [0, 1, 1, 4, 3, 4, 2, 1]


def test_min_count_pools_rare_and_empty_cells_into_the_last():
    cells = partition(table(), min_count=2)
    assert cells.names == ("sex=f, race=white", "sex=m, race=white", "Other")
    assert cells.counts.tolist() == [3, 2, 3]
    assert cells.codes.tolist() == [[0, 2], [1, 2], [-1, -1]]
    assert cells.encode(table()).tolist() == [2, 0, 0, 1, 2, 1, 2, 0]
    # An empty combination was pooled too, so a later row of it has a place.
    assert cells.encode({"sex": ["f"], "race": ["asian"]}).tolist() == [2]


def test_a_pooled_cell_below_min_count_stays():
    cells = partition({"a": ["x"] * 5 + ["y"] * 4 + ["z"]}, min_count=3)
    assert cells.names == ("a=x", "a=y", "Other")
    assert cells.counts.tolist() == [5, 4, 1]


def test_the_pooled_cell_keeps_a_level_that_all_its_rows_share():
    cells = partition(
        {"sex": ["f"] * 6 + ["m"] * 2, "age": list("aabbccab")},
        cells="observed",
        min_count=2,
    )
    assert cells.names[-1] == "Other"
    assert cells.codes[-1].tolist() == [1, -1]
    names, members = cells.membership("sex")
    assert names == ("sex=f", "sex=m")
    assert (members @ cells.counts).tolist() == [6, 2]


@pytest.mark.parametrize("kind", ["all", "observed"])
def test_a_pooled_cell_that_unknown_levels_may_join_is_of_no_level(kind):
    rows = {"sex": [*"fffffmmmm"], "age": [*"aaabbaaab"]}
    cells = partition(rows, cells=kind, min_count=2)
    assert cells.names == ("sex=f, age=a", "sex=f, age=b", "sex=m, age=a", "Other")
    assert cells.codes[-1].tolist() == [1, 1]
    cells = partition(rows, cells=kind, min_count=2, unseen="other")
    assert cells.codes[-1].tolist() == [-1, -1]
    assert cells.encode({"sex": ["x"], "age": ["a"]}).tolist() == [3]


def test_unknown_levels_that_have_their_own_leave_the_pooled_cell_as_it_is():
    rows = {"a": [*"xxxxxyyyyyzz", "p", "q", "r"]}
    options = {"min_level_count": 2, "min_count": 3, "unseen": "other"}
    cells = partition(rows, **options)
    assert cells.names == ("a=x", "a=y", "a=Other", "Other")
    assert cells.codes[:, 0].tolist() == [0, 1, 3, 2]
    # With observed cells an unknown combination may still join it.
    cells = partition(rows, cells="observed", **options)
    assert cells.codes[:, 0].tolist() == [0, 1, 3, -1]


def test_a_row_that_is_unknown_in_every_attribute():
    cells = partition(
        {"a": ["x"] * 3, "b": ["x"] * 3, "c": ["x", "x", "y"]},
        min_count=2,
        unseen="other",
        single_level="allow",
    )
    assert cells.encode({"a": ["?"], "b": ["?"], "c": ["?"]}).tolist() == [1]


def test_min_level_count_merges_levels_before_crossing():
    cells = partition(table(), min_level_count=3)
    assert cells.levels == (("f", "m"), ("white", "Other"))
    assert cells.counts.tolist() == [3, 1, 2, 2]
    names, members = cells.membership("race")
    assert names == ("race=white", "race=Other")
    assert (members @ cells.counts).tolist() == [5, 3]
    # A merged value is known; one never seen is not.
    assert cells.encode({"sex": ["f"], "race": ["asian"]}).tolist() == [1]
    with pytest.raises(ValueError, match="column 'race' has 1 row .*'martian'"):
        cells.encode({"sex": ["f"], "race": ["martian"]})


def test_membership_of_one_and_of_several_attributes():
    cells = partition(table().assign(age=[0, 1] * 4))
    names, members = cells.membership("race")
    assert names == ("race=asian", "race=black", "race=white")
    assert members.dtype == bool
    assert members.shape == (3, 12)
    assert (members @ cells.counts).tolist() == [1, 2, 5]
    names, members = cells.membership(["race", "sex"])
    assert names[:2] == ("race=asian, sex=f", "race=asian, sex=m")
    assert (members @ cells.counts).tolist() == [0, 1, 1, 1, 3, 2]
    assert (members.sum(0) == 1).all()


def test_membership_keeps_a_declared_empty_level_of_one_attribute():
    cells = partition(
        table(), cells="observed", levels={"race": ["black", "white", "asian", "pi"]}
    )
    names, members = cells.membership("race")
    assert names == ("race=black", "race=white", "race=asian", "race=pi")
    assert (members @ cells.counts).tolist() == [2, 5, 1, 0]
    names, members = cells.membership(("sex", "race"))
    assert names == cells.names
    assert (members == np.eye(5, dtype=bool)).all()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("race", "cell 'Other' pools rows .*'race'.*min_level_count"),
        (["sex", "race"], "cell 'Other' pools rows .*'sex', 'race'"),
        ("height", "no attribute 'height'; its attributes are 'sex', 'race'"),
        (["sex", "sex"], "must not be repeated; got 'sex', 'sex'"),
        ([], "at least one attribute"),
    ],
)
def test_membership_refuses(attributes, message):
    with pytest.raises(ValueError, match=message):
        partition(table(), min_count=2).membership(attributes)


@pytest.mark.parametrize(
    ("column", "levels"),
    [
        (["10", "9", "b", "a"], ("10", "9", "a", "b")),
        ([10, 9, -1, 9], ("-1", "9", "10")),
        ([10.5, 9.0, np.nan, 9.0], ("9", "10.5", "missing")),
        ([True, False, True], ("False", "True")),
        (np.array([2, 1, 2], np.int8), ("1", "2")),
        (np.array(["b", "a"]), ("a", "b")),
        (
            np.array(["b", 2, None, 1.5, True], object),
            ("True", "1.5", "2", "b", "missing"),
        ),
        (["b", 3, (1, 2)], ("3", "b", "(1, 2)")),
        (jnp.array([3, 1, 3]), ("1", "3")),
        (jnp.array([True, False]), ("False", "True")),
        (pd.array([2, None, 1], dtype="Int64"), ("1", "2", "missing")),
        (pd.array([True, None, False], dtype="boolean"), ("False", "True", "missing")),
        (pd.array(["b", None, "a"], dtype="string"), ("a", "b", "missing")),
        (pd.Series(["b", np.nan, "a"], dtype=object), ("a", "b", "missing")),
        (pd.Series(["b", "a"], index=[7, 3]), ("a", "b")),
        (
            pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"]),
            ("lo", "mid", "hi"),
        ),
        (
            pd.Categorical(["lo", None], categories=["lo", "hi"]),
            ("lo", "hi", "missing"),
        ),
        (pd.to_datetime(["2020-02-01", "2019-01-01"]), None),
        (pd.cut(pd.Series([70, 20]), [0, 65, 120]), ("(0, 65]", "(65, 120]")),
    ],
)
def test_every_type_of_column(column, levels):
    cells = partition({"a": column})
    if levels is not None:
        assert cells.levels == (levels,)
    encoded = cells.encode({"a": column})
    assert np.bincount(encoded, minlength=cells.num_cells).tolist() == (
        cells.counts.tolist()
    )
    assert cells.counts.sum() == len(column)
    # Each row's cell bears the row's own value.
    for value, cell in zip(list(column), encoded, strict=True):
        shown = "missing" if np.ndim(value) == 0 and pd.isna(value) else str(value)
        assert cells.names[cell] in (f"a={shown}", f"a={shown.removesuffix('.0')}")


def test_equal_values_of_another_type_are_the_same_level():
    cells = partition({"a": [0, 1, 1]})
    for column in ([1.0, 0.0], [True, False], pd.array([1, 0], dtype="Int8")):
        assert cells.encode({"a": column}).tolist() == [1, 0]
    with pytest.raises(ValueError, match="column 'a' has 2 rows .*'1', '0'"):
        cells.encode({"a": ["1", "0"]})


def test_categories_are_declared_levels_and_survive_encoding():
    column = pd.Categorical(["a", "b", "a"], categories=["b", "c", "a"])
    cells = partition({"x": column})
    assert cells.counts.tolist() == [1, 0, 2]
    reordered = pd.Categorical(["c", "a"], categories=["a", "c", "unused"])
    assert cells.encode({"x": reordered}).tolist() == [1, 2]


def test_declared_levels_fix_the_order_and_keep_empty_cells():
    cells = partition(
        table(),
        levels={"race": ["white", "black", "asian", "pacific"], "sex": ["m", "f"]},
    )
    assert cells.levels == (("m", "f"), ("white", "black", "asian", "pacific"))
    assert cells.counts.tolist() == [2, 1, 1, 0, 3, 1, 0, 0]
    assert cells.encode({"sex": ["f"], "race": ["pacific"]}).tolist() == [7]


def test_a_declared_none_keeps_a_level_for_missing_values():
    cells = partition({"a": ["x", "y"]}, levels={"a": ["x", "y", None]})
    assert cells.levels == (("x", "y", "missing"),)
    assert cells.encode({"a": [None, "x"]}).tolist() == [2, 0]


def test_missing_values_without_a_level_follow_the_unseen_policy():
    with pytest.raises(ValueError, match="column 'a' has 2 rows .*'missing'"):
        partition({"a": ["x", "y"]}).encode({"a": [None, "x", np.nan]})
    pooled = partition({"a": ["x", "x", "y"]}, min_count=2, unseen="other")
    assert pooled.encode({"a": [None, "x"]}).tolist() == [1, 0]


def test_missing_error_raises_at_once_and_at_encode():
    with pytest.raises(ValueError, match="column 'a' is missing in 1 row; fill in"):
        partition({"a": ["x", "y", None]}, missing="error")
    # Before any other complaint: two levels would be named "missing" here.
    with pytest.raises(ValueError, match="column 'a' is missing in 1 row; fill in"):
        partition({"a": ["x", "missing", None]}, missing="error")
    cells = partition({"a": ["x", "y"]}, missing="error", unseen="other")
    with pytest.raises(ValueError, match="column 'a' is missing in 2 rows; fill in"):
        cells.encode({"a": [None, None, "x"]})


def test_rare_missing_values_merge_like_any_level():
    cells = partition({"a": ["x"] * 3 + ["y"] * 3 + [None]}, min_level_count=2)
    assert cells.levels == (("x", "y", "Other"),)
    assert cells.encode({"a": [None]}).tolist() == [2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min_level_count": 2}, "a=Other"),  # the attribute's own level comes first
        ({"min_count": 2}, "Other"),
        ({"min_level_count": 2, "min_count": 2}, "a=Other"),
    ],
)
def test_unseen_other(options, expected):
    cells = partition({"a": list("xxyyzw")}, unseen="other", **options)
    (cell,) = cells.encode({"a": ["?"]})
    assert cells.names[cell] == expected


def test_unseen_missing():
    cells = partition({"a": ["x", "y", None]}, unseen="missing")
    assert cells.encode({"a": ["?", "x"]}).tolist() == [2, 0]


@pytest.mark.parametrize("unseen", ["other", "missing"])
def test_unseen_without_a_place_raises(unseen):
    cells = partition({"a": ["x", "y"]}, unseen=unseen)
    with pytest.raises(ValueError, match=f"column 'a' has 1 row .*unseen=\"{unseen}\""):
        cells.encode({"a": ["?", "x"]})


@pytest.mark.parametrize(
    ("unseen", "level"), [("other", "Other"), ("missing", "missing")]
)
def test_undeclared_levels_of_the_first_table_follow_the_policy(unseen, level):
    cells = partition(table(), levels={"race": ["white", "black"]}, unseen=unseen)
    assert cells.levels[1] == ("white", "black", level)
    names, members = cells.membership("race")
    assert dict(zip(names, members @ cells.counts, strict=True)) == {
        "race=white": 5,
        "race=black": 2,
        f"race={level}": 1,
    }


def test_undeclared_levels_raise_by_default():
    with pytest.raises(
        ValueError,
        match="column 'race' has 3 rows with undeclared levels, "
        "'asian', 'black'; declared: 'white'. Declare all",
    ):
        partition(table(), levels={"race": ["white"]})


@pytest.mark.parametrize("unseen", ["error", "missing"])
def test_an_unobserved_combination_raises(unseen):
    cells = partition(table(), cells="observed", unseen=unseen)
    with pytest.raises(ValueError, match="2 rows have .*'sex=f, race=asian'"):
        cells.encode({"sex": ["f", "m", "f"], "race": ["asian", "white", "asian"]})


def test_an_unobserved_combination_joins_the_pooled_cell():
    cells = partition(table(), cells="observed", unseen="other", min_count=2)
    assert cells.encode({"sex": ["f"], "race": ["asian"]}).tolist() == [2]


def test_long_lists_of_levels_are_cut_short():
    cells = partition({"a": ["x", "y"]})
    with pytest.raises(ValueError, match="has 9 rows .* and 4 more; its levels are"):
        cells.encode({"a": list("123456789")})


@pytest.mark.parametrize(
    ("attributes", "options", "message"),
    [
        ({}, {}, "no attributes"),
        (pd.DataFrame([["x"], ["y"]]), {}, "names must be strings; got 0"),
        ({"a": []}, {}, "'a' has no rows"),
        ({"a": ["x", "y"], "b": ["x"]}, {}, "numbers of rows; got 'a' 2, 'b' 1"),
        (
            {"a": np.zeros((2, 2))},
            {},
            r"'a' must have one dimension; got shape \(2, 2\)",
        ),
        ({"a": "xy"}, {}, "'a' must have one dimension"),
        ({"a": [["x"], ["y"]]}, {}, "'a' has values that cannot be levels"),
        ({"a": [None, np.nan]}, {}, "'a' is missing in every row"),
        ({"a": ["x", "x"]}, {}, "'a' has the single level 'x'"),
        ({"a": ["x", "y"]}, {"min_level_count": 2}, "'a' has the single level 'Other'"),
        ({"a": [1, "1"]}, {}, "'a' has levels of the same name: 1, '1'"),
        (
            {"a": ["x", "missing", None]},
            {},
            "'a' would have two levels named 'missing'",
        ),
        ({"a": [*"xxyy", "Other", "Other", "z"]}, {"min_level_count": 2}, "two levels"),
        (
            {"a": ["x", "x", None, None, "z"]},
            {"min_level_count": 2, "missing_name": "Other"},
            "two levels named 'Other'",
        ),
        ({"a": [*"xxyy", "Other", "Other", "z"]}, {"min_count": 2}, "'Other', as is a"),
        ({"a": ["x", "y"]}, {"min_count": 2}, "every cell has fewer than min_count=2"),
        ({"a": ["x", "y"]}, {"min_count": -1}, "min_count must be 0 or more; got -1"),
        ({"a": ["x", "y"]}, {"levels": {"b": ["x"]}}, "for 'b', but the table has 'a'"),
        ({"a": ["x", "y"]}, {"levels": {"a": "xy"}}, "'a' must be a list"),
        ({"a": ["x", "y"]}, {"levels": {"a": []}}, "at least one value; got none"),
        (
            {"a": ["x", "y"]},
            {"levels": {"a": [*"xyx"]}},
            "'x' of 'a' is declared twice",
        ),
        (
            {"a": ["x", "y"]},
            {"cells": "some"},
            "cells must be 'all' or 'observed'",
        ),
        (
            {"a": ["x", "y"]},
            {"missing": "drop"},
            "missing must be 'level' or 'error'; got 'drop'",
        ),
        (
            {"a": ["x", "y"]},
            {"unseen": "drop"},
            "unseen must be 'error', 'other' or 'missing'; got",
        ),
        (
            {"a": ["x", "y"]},
            {"single_level": "drop"},
            "single_level must be 'error' or 'allow'; got",
        ),
        ({"a": ["x", "x, b=y", "x"], "b": ["y, b=z", "z", "z"]}, {}, "two cells"),
        ({"a": np.arange(100_001)}, {}, "'a' has 100001 distinct values"),
        (
            {"a": np.arange(2000), "b": np.arange(2000)},
            {},
            "2000 of 'a', 2000 of 'b'.* have 4000000 combinations",
        ),
    ],
)
def test_partition_refuses(attributes, options, message):
    with pytest.raises(ValueError, match=message):
        partition(attributes, **options)


def test_a_repeated_column_is_refused():
    repeated = pd.DataFrame([["x", "y"], ["y", "x"]], columns=["a", "a"])
    with pytest.raises(ValueError, match="column 'a' occurs more than once"):
        partition(repeated)


def test_encode_refuses_columns_of_different_lengths():
    with pytest.raises(ValueError, match="'sex' 1, 'race' 2"):
        partition(table()).encode({"sex": ["f"], "race": ["black", "white"]})


def test_names_that_would_clash_can_be_chosen():
    column = [*"xxyy", "Other", "Other", "z", None]
    cells = partition(
        {"a": column}, min_level_count=2, other="pooled", missing_name="unknown"
    )
    assert cells.levels == (("Other", "x", "y", "pooled"),)
    # The rare value "Other" may itself be merged into a level of that name.
    cells = partition({"a": [*"xxyyz", "Other"]}, min_level_count=2)
    assert cells.levels == (("x", "y", "Other"),)


def test_a_single_level_can_be_allowed():
    cells = partition({"a": ["x", "x"]}, single_level="allow")
    assert cells.names == ("a=x",)
    assert cells.encode({"a": ["x"]}).tolist() == [0]


def test_a_partition_is_read_only_and_survives_pickling():
    cells = partition(table(), min_count=2)
    for array in (cells.counts, cells.codes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    copy = pickle.loads(pickle.dumps(cells))
    assert copy.names == cells.names
    assert copy.encode(table()).tolist() == cells.encode(table()).tolist()


def test_the_table_is_left_as_it_was():
    before = table().assign(race=pd.Categorical(RACE))
    after = before.copy()
    partition(after, min_level_count=2, min_count=1).encode(after)
    pd.testing.assert_frame_equal(before, after)


def columns_of(size, values):
    return st.lists(st.sampled_from(values), min_size=size, max_size=size)


@st.composite
def tables(draw):
    size = draw(st.integers(2, 40))
    return pd.DataFrame(
        {
            "sex": draw(columns_of(size, ["f", "m"])),
            "race": draw(columns_of(size, ["a", "b", "c", None])),
            "old": draw(columns_of(size, [0.0, 1.0, np.nan])),
        }
    )


@pytest.mark.slow
@hypothesis.given(
    tables(),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from(["all", "observed"]),
    st.randoms(use_true_random=False),
)
def test_counts_and_groups_agree_with_pandas(frame, min_count, merge, kind, random):
    hypothesis.assume(not frame.isna().all().any())
    options = {"cells": kind, "min_level_count": merge, "single_level": "allow"}
    cells = partition(frame, **options)
    encoded = cells.encode(frame)
    assert np.bincount(encoded, minlength=cells.num_cells).tolist() == (
        cells.counts.tolist()
    )
    assert (cells.counts > 0).all() or kind == "all"

    # The oracle: pandas' own grouping after the same merging by hand.
    shown = frame.astype(object).where(frame.notna(), "missing")
    shown = shown.replace({"old": {0.0: "0", 1.0: "1"}})
    for name in shown:
        frequent = shown[name].map(shown[name].value_counts()) >= merge
        shown[name] = shown[name].where(frequent, "Other")
    for size in (1, 2, 3):
        for chosen in itertools.combinations(shown.columns, size):
            names, members = cells.membership(chosen)
            assert (members.sum(0) == 1).all()
            found = dict(zip(names, (members @ cells.counts).tolist(), strict=True))
            expected = shown.groupby(list(chosen)).size()
            keys = [key if isinstance(key, tuple) else (key,) for key in expected.index]
            for key, count in zip(keys, expected, strict=True):
                parts = zip(chosen, key, strict=True)
                name = ", ".join(f"{column}={level}" for column, level in parts)
                assert found.pop(name) == count
            assert not any(found.values())

    order = list(range(len(frame)))
    random.shuffle(order)
    assert cells.encode(frame.iloc[order]).tolist() == encoded[order].tolist()

    # Pooling joins exactly the small cells, and moves no other row.
    if cells.counts.max() < min_count:
        return
    pooled = partition(frame, min_count=min_count, **options)
    small = cells.counts < min_count
    kept = [
        name for name, is_small in zip(cells.names, small, strict=True) if not is_small
    ]
    assert list(pooled.names) == kept + ["Other"] * bool(small.any())
    assert pooled.counts[: len(kept)].tolist() == cells.counts[~small].tolist()
    assert pooled.counts.sum() == len(frame)
    is_pooled = pooled.encode(frame) == len(kept)
    assert is_pooled.tolist() == small[encoded].tolist()


def test_crossed_groupings_by_hand():
    sex = Grouping("sex", ("f", "m"), np.array([0, 1, 1, 0]))
    age = Grouping("age", ("<40", "40-64", "65+"), np.array([2, 0, 2, 2]))
    both = cross([sex, age])
    assert (both.name, both.attributes) == ("sex × age", ("sex", "age"))
    assert both.levels == (
        "f, <40",
        "f, 40-64",
        "f, 65+",
        "m, <40",
        "m, 40-64",
        "m, 65+",
    )
    assert both.codes.tolist() == [2, 3, 5, 2]
    assert both.places[3].tolist() == [1, 0]
    assert both.intersection
    assert not sex.intersection
    # Of too many combinations, those that have rows.
    few = cross([sex, age], most=5)
    assert few.levels == ("f, 65+", "m, <40", "m, 65+")
    assert few.codes.tolist() == [0, 1, 2, 0]
    assert few.places.tolist() == [[0, 2], [1, 0], [1, 2]]


def test_a_grouping_of_one_attribute_has_defaults():
    sex = Grouping("sex", ("f", "m"), np.array([0, 1]))
    assert (sex.attributes, sex.places.tolist()) == (("sex",), [[0], [1]])
    assert (sex.compared.tolist(), sex.reference, sex.size) == ([True] * 2, None, 2)


@pytest.mark.parametrize(
    "values",
    [
        [1, 1.0, True, 0],
        [1.0, np.nan, 2.0],
        [True, False, None],
        ["x", "a", None],
        [2.5, 1, "b"],
        pd.Series([1, 2, None], dtype="Int64"),
        pd.to_datetime(["2020-01-01", "2021-01-01"]),
    ],
    ids=str,
)
def test_levels_are_those_of_mitigation(values):
    """What is equal is one level, whatever its type; what is missing is one more."""
    column = pd.Series(values, dtype=object if isinstance(values, list) else None)
    cells = partition({"g": column})
    groups, codes = Groups.read(pd.DataFrame({"g": column}), rows=len(column))
    own = [cells.names[cell] for cell in cells.encode({"g": column})]
    assert own == [groups.names[code] for code in codes]
