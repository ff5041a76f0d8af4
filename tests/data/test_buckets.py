"""Buckets waste least, hold every row once, and go on where they were left."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from fairjax.data import buckets

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=14)
NOTES = [3, 7, 7, 40, 5, 12, 38, 9, 4, 60, 11, 7]


def padded_total(lengths, bounds):
    return sum(min(b for b in bounds if b >= length) for length in lengths)


def least_total(lengths, num_buckets):
    """By trying every set of distinct lengths that holds the greatest."""
    sizes = sorted({max(length, 1) for length in lengths})
    return min(
        padded_total(lengths, (*chosen, sizes[-1]))
        for used in range(min(num_buckets, len(sizes)))
        for chosen in itertools.combinations(sizes[:-1], used)
    )


def test_boundaries_by_hand():
    # One bucket pads 5 to 10 each; of two, [2, 10] pads 1 + 1 positions.
    lengths = [1, 2, 2, 9, 10]
    np.testing.assert_array_equal(buckets.bucket_boundaries(lengths, 1), [10])
    np.testing.assert_array_equal(buckets.bucket_boundaries(lengths, 2), [2, 10])
    np.testing.assert_array_equal(buckets.bucket_boundaries(lengths, 9), [1, 2, 9, 10])
    assert buckets.padding_share(lengths, [10]) == pytest.approx(26 / 50)
    assert buckets.padding_share(lengths, [2, 10]) == pytest.approx(2 / 26)
    assert buckets.padding_share(lengths, [1, 2, 9, 10]) == 0


def test_a_length_of_0_is_padded_to_1():
    np.testing.assert_array_equal(buckets.bucket_boundaries([0, 0], 3), [1])
    assert buckets.padding_share([0, 1], [1]) == 0.5


@given(LENGTHS, st.integers(1, 6))
def test_boundaries_waste_least(lengths, num_buckets):
    bounds = buckets.bucket_boundaries(lengths, num_buckets)
    assert padded_total(lengths, bounds) == least_total(lengths, num_buckets)
    assert len(bounds) == min(num_buckets, len({max(n, 1) for n in lengths}))
    assert (np.diff(bounds) > 0).all()


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=300), st.integers(1, 12))
def test_more_buckets_never_waste_more(lengths, num_buckets):
    few, more, one = (
        buckets.padding_share(lengths, buckets.bucket_boundaries(lengths, number))
        for number in (num_buckets, num_buckets + 1, 1)
    )
    assert 0 <= more <= few <= one <= 1


def test_pad_by_hand():
    values, mask = buckets.pad([[1, 2], [], [3]], 3, value=-1)
    np.testing.assert_array_equal(values, [[1, 2, -1], [-1, -1, -1], [3, -1, -1]])
    np.testing.assert_array_equal(mask, [[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    assert values.dtype == np.int64
    vitals = [np.ones((2, 4), np.float32), np.ones((1, 4), np.float32)]
    values, mask = buckets.pad(vitals, 2)
    assert values.shape == (2, 2, 4)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values.sum((1, 2)), [8, 4])


@given(LENGTHS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_every_row_comes_once_an_epoch(lengths, num_buckets, size, seed):
    bounds = buckets.bucket_boundaries(lengths, num_buckets)
    given_ = list(buckets.batches(lengths, bounds, size, seed=seed))
    assert len(given_) == buckets.num_batches(lengths, bounds, size)
    rows = np.concatenate([batch.rows[batch.mask] for batch in given_])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(lengths)))
    for batch in given_:
        assert batch.rows.shape == batch.mask.shape == (size,)
        place = np.searchsorted(bounds, batch.length)
        shorter = bounds[place - 1] if place else -1
        of = np.asarray(lengths)[batch.rows]
        assert ((of > shorter) & (of <= batch.length)).all()


@given(st.integers(0, 20))
def test_batches_go_on_from_a_step(start):
    bounds = buckets.bucket_boundaries(NOTES, 3)
    settings = {"seed": 5, "num_epochs": 3}
    whole = list(buckets.batches(NOTES, bounds, 2, **settings))
    rest = list(buckets.batches(NOTES, bounds, 2, start=start, **settings))
    assert len(rest) == max(0, len(whole) - start)
    for mine, theirs in zip(rest, whole[start:], strict=True):
        np.testing.assert_array_equal(mine.rows, theirs.rows)
        np.testing.assert_array_equal(mine.mask, theirs.mask)
        assert mine.length == theirs.length


def test_epochs_and_seeds_shuffle_anew():
    bounds = buckets.bucket_boundaries(NOTES, 2)
    endless = buckets.batches(NOTES, bounds, 4, seed=0, num_epochs=None)
    number = buckets.num_batches(NOTES, bounds, 4)
    first, second = (
        [batch.rows.tolist() for batch in itertools.islice(endless, number)]
        for _ in range(2)
    )
    other = [b.rows.tolist() for b in buckets.batches(NOTES, bounds, 4, seed=1)]
    assert first != second
    assert first != other


def test_the_remainder_can_be_dropped():
    given_ = list(
        buckets.batches(NOTES, [12, 60], 2, seed=0, drop_remainder=True, num_epochs=9)
    )
    assert len(given_) == 9 * buckets.num_batches(
        NOTES, [12, 60], 2, drop_remainder=True
    )
    # Of nine short and three long notes, eight and two in each epoch.
    assert sum(batch.length == 12 for batch in given_) == 9 * 4
    assert all(batch.mask.all() for batch in given_)
    assert {row for batch in given_ for row in batch.rows} == set(range(len(NOTES)))


def test_each_bucket_can_have_a_size_of_its_own():
    sizes = {
        b.length: len(b.rows) for b in buckets.batches(NOTES, [12, 60], [6, 1], seed=0)
    }
    assert sizes == {12: 6, 60: 1}


def test_an_empty_bucket_gives_no_batch():
    made = list(buckets.batches([1, 9], [1, 5, 9], 2, seed=0, drop_remainder=False))
    assert sorted(batch.length for batch in made) == [1, 9]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: buckets.bucket_boundaries([], 2),
            r"must be \[n\], .*; got shape \(0,\)",
        ),
        (
            lambda: buckets.bucket_boundaries([[1]], 2),
            r"must be \[n\], .*; got shape \(1, 1\)",
        ),
        (
            lambda: buckets.bucket_boundaries([1.5], 2),
            r"integers, 0 or more; got \[1.5\]",
        ),
        (
            lambda: buckets.bucket_boundaries([-1], 2),
            r"integers, 0 or more; got \[-1\]",
        ),
        (lambda: buckets.bucket_boundaries([1], 0), "num_buckets must be at least 1"),
        (
            lambda: buckets.padding_share([5], [4]),
            "at most the last boundary, 4; got 5",
        ),
        (
            lambda: buckets.padding_share([1], [4, 4]),
            r"ascending integers .*; got \[4, 4\]",
        ),
        (
            lambda: buckets.padding_share([1], [0, 4]),
            r"ascending integers .*; got \[0, 4\]",
        ),
        (lambda: buckets.pad([], 4), "sequences must hold one or more; got none"),
        (lambda: buckets.pad([[1, 2]], 1), "sequences must be 1 long or less; got 2"),
        (lambda: buckets.pad([[[1, 2]], [[1]]], 3), "with equal features; got shapes"),
        (lambda: buckets.pad([[1, 2]], 3, np.nan), "int64 can hold; got nan"),
        (lambda: buckets.pad([[1, 2]], 3, 0.5), "int64 can hold; got 0.5"),
        (lambda: buckets.pad([np.ones(2, "u1")], 3, -1), "uint8 can hold; got -1"),
        (lambda: buckets.pad([[True]], 3, 2), "bool can hold; got 2"),
        (
            lambda: buckets.batches([1], [1], 0, seed=0),
            "batch_size must be an integer .*; got 0",
        ),
        (
            lambda: buckets.batches([1], [1], [1, 1], seed=0),
            r"each of the 1 buckets; got \[1, 1\]",
        ),
        (lambda: buckets.batches([1], [1], 1, seed=-1), "seed must be at least 0"),
        (
            lambda: buckets.batches([1], [1], 1, seed=0, start=-1),
            "start must be at least 0",
        ),
        (
            lambda: buckets.batches([1], [1], 2, seed=0, drop_remainder=True),
            "must have batch_size=2 rows or more; got 1",
        ),
    ],
)
def test_what_cannot_be_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
