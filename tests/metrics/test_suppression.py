import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairjax.metrics import suppress_small_cells, suppress_small_counts

pytestmark = pytest.mark.filterwarnings("ignore:the next release drops suppress_small")


def test_they_warn_that_they_go():
    with pytest.warns(DeprecationWarning, match="drops suppress_small_counts; fairjax"):
        suppress_small_counts([5, 40])
    with pytest.warns(DeprecationWarning, match="drops suppress_small_cells; fairjax"):
        suppress_small_cells([5, 40], [60, 80])


def consistent_values(withheld, table, least, top):
    """Every withheld cell's values in all tables that agree with what is published.

    ``table`` and ``withheld`` are ``[G + 1, 3]``: rows, positives, negatives, totals
    last. By trying every table of positives and negatives up to ``top``.
    """
    groups = len(table) - 1
    choices = [
        np.arange(least, top + 1) if withheld[group, column] else table[group, [column]]
        for group in range(groups)
        for column in (1, 2)
    ]
    inner = np.stack(np.meshgrid(*choices, indexing="ij"), -1).reshape(-1, groups, 2)
    others = np.concatenate([inner, inner.sum(1, keepdims=True)], axis=1)
    others = np.concatenate([others.sum(2, keepdims=True), others], axis=2)
    agrees = np.where(withheld, others >= least, others == table).all((1, 2))
    return [np.unique(others[agrees][:, *cell]) for cell in np.argwhere(withheld)]


def full_table(positives, negatives):
    inner = np.stack([np.add(positives, negatives), positives, negatives], axis=1)
    return np.concatenate([inner, inner.sum(0, keepdims=True)])


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=3),
    st.integers(1, 5),
    st.booleans(),
)
def test_every_withheld_cell_could_be_two_numbers(cells, threshold, include_zeros):
    positives, negatives = np.array(cells).T
    found = suppress_small_cells(
        positives, negatives, threshold=threshold, include_zeros=include_zeros
    )
    withheld, table = np.stack(found, axis=1), full_table(positives, negatives)
    least = 0 if include_zeros else 1
    small = (table >= least) & (table < threshold)
    assert withheld[small].all()
    assert not withheld[table < least].any()
    for values in consistent_values(withheld, table, least, top=6):
        assert len(values) >= 2


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(1, 6),
    st.booleans(),
)
def test_so_it_could_in_a_single_column(counts, threshold, include_zeros):
    found = suppress_small_counts(
        np.array(counts), threshold=threshold, include_zeros=include_zeros
    )
    least = 0 if include_zeros else 1
    values = {cell: set() for cell in np.flatnonzero(found)}
    choices = [
        range(least, 9) if gone else (count,)
        for gone, count in zip(found[:-1], counts, strict=True)
    ]
    for inner in itertools.product(*choices):
        other = np.append(inner, np.sum(inner))
        published = np.append(counts, np.sum(counts))[~found]
        if (other[~found] == published).all():
            for cell, seen in values.items():
                seen.add(other[cell])
    assert all(len(seen) >= 2 for seen in values.values())


def test_nothing_small_nothing_withheld():
    found = suppress_small_cells([11, 500, 0], [20, 11, 0])
    assert not np.any(found)
    assert suppress_small_counts([0, 11]).tolist() == [False, False, False]


def test_the_cheapest_cells_go_with_a_small_one():
    # Group 0's 5 positives need its negatives or its rows, and one other group's: the
    # smallest there is, group 2's.
    found = suppress_small_cells([5, 90, 30], [60, 80, 95])
    assert found.positives.tolist() == [True, False, True, False]
    assert found.negatives.tolist() == [True, False, True, False]
    assert not found.rows.any()
    # Two small ones protect each other.
    found = suppress_small_cells([5, 7, 300], [60, 80, 400])
    assert found.positives.tolist() == [True, True, False, False]
    assert found.negatives.tolist() == [True, True, False, False]


def test_a_reader_who_knows_the_rule_learns_nothing():
    # 1 and 1 would be known from their published sum of 2, as neither can be 0.
    found = suppress_small_counts([1, 1, 40])
    assert found.tolist() == [True, True, True, False]
    # With zeros withheld, too, they may be 0 and 2.
    assert suppress_small_counts([1, 1, 40], include_zeros=True).tolist() == [
        *(True, True, False, False)
    ]


def test_a_single_group_has_its_total_withheld():
    found = suppress_small_cells([3], [40])
    assert found.positives.tolist() == [True, True]
    assert suppress_small_counts([3]).tolist() == [True, True]


def test_zeros_are_withheld_where_asked():
    found = suppress_small_cells([0, 40, 50], [30, 60, 70], include_zeros=True)
    assert found.positives[0]
    assert not suppress_small_cells([0, 40, 50], [30, 60, 70]).positives.any()


@pytest.mark.slow
def test_many_groups():
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 60, 300), rng.integers(0, 400, 300)
    found = suppress_small_cells(positives, negatives)
    assert (found.positives[:-1] >= ((positives > 0) & (positives < 11))).all()
    assert 0.1 < np.mean(found.positives) < 0.5


@pytest.mark.parametrize(
    ("positives", "negatives", "options", "message"),
    [
        ([1, 2], [1], {}, "got 2 and 1 counts"),
        ([-1], [1], {}, r"integers of at least 0; got \[-1\]"),
        ([0.5], [1.0], {}, r"integers of at least 0; got \[0.5\]"),
        ([], [], {}, r"not empty; got \(0,\)"),
        ([1], [1], {"threshold": 0}, "threshold"),
    ],
)
def test_bad_counts(positives, negatives, options, message):
    with pytest.raises(ValueError, match=message):
        suppress_small_cells(np.array(positives), np.array(negatives), **options)
