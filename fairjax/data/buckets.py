"""Sequences of unequal lengths in batches of few shapes, with the least padding."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from fairjax.types import check_whole


class BucketBatch(NamedTuple):
    """Rows that are padded to one length.

    Attributes:
      rows: ``[B]``, positions in the data.
      mask: ``[B]``, false where a row only fills up the last batch of its bucket.
      length: What the rows are padded to.
    """

    rows: Int[np.ndarray, " B"]
    mask: Bool[np.ndarray, " B"]
    length: int


class Padded(NamedTuple):
    """Sequences as one array.

    Attributes:
      values: ``[B, length, *features]``.
      mask: ``[B, length]``, true where a value is a sequence's own.
    """

    values: np.ndarray
    mask: Bool[np.ndarray, "B length"]


def bucket_boundaries(lengths: Any, num_buckets: int) -> Int[np.ndarray, " buckets"]:
    """The lengths to pad to that waste least.

    Of all choices of at most ``num_buckets`` lengths ``b``, it is one that minimises
    the padded total ``Σ_i min{b_j : b_j ≥ length_i}``, by dynamic programming over the
    distinct lengths: exact, in time ``num_buckets × distinct lengths²``.

    Args:
      lengths: ``[n]``, whole numbers, 0 or more. Length 0 is padded to 1.
      num_buckets: At most as many lengths, which is as many compiled programs.

    Returns:
      Ascending, the last the greatest length; fewer than ``num_buckets`` if there are
      fewer distinct lengths.

    Raises:
      ValueError: No lengths, or some that are no whole numbers of 0 or more.

    Example:
      >>> from fairjax.data.buckets import bucket_boundaries
      >>> bucket_boundaries([1, 2, 2, 9, 10], num_buckets=2)
      array([ 2, 10])
    """
    check_whole("num_buckets", num_buckets)
    sizes, counts = np.unique(np.maximum(_lengths(lengths), 1), return_counts=True)
    rows = np.concatenate([[0], np.cumsum(counts)])
    # Distinct lengths 0 to j in one bucket; in more, the last holds start to j.
    totals = sizes * rows[1:]
    starts = []
    for used in range(1, min(num_buckets, len(sizes))):
        best, start = np.full_like(totals, 2**62), np.zeros_like(totals)
        for j in range(used, len(sizes)):
            split = np.arange(used, j + 1)
            cost = totals[split - 1] + sizes[j] * (rows[j + 1] - rows[split])
            start[j] = split[np.argmin(cost)]
            best[j] = cost.min()
        totals = best
        starts.append(start)
    last = len(sizes) - 1
    ends = [last]
    for start in reversed(starts):
        last = start[last] - 1
        ends.append(last)
    return sizes[ends[::-1]]


def padding_share(lengths: Any, boundaries: Any) -> float:
    """The share of padded positions that no sequence fills.

    Args:
      lengths: ``[n]``, whole numbers, 0 or more.
      boundaries: ``[buckets]``, ascending.

    Returns:
      From 0, where each sequence fills its bucket's length, to 1, where all are empty.

    Raises:
      ValueError: Lengths or boundaries that are no such numbers; a length beyond the
        last boundary.

    Example:
      >>> from fairjax.data.buckets import padding_share
      >>> padding_share([1, 2, 2, 9, 10], [10]), padding_share([2, 2, 10], [2, 10])
      (0.52, 0.0)
    """
    lengths = _lengths(lengths)
    boundaries = _boundaries(boundaries)
    padded = boundaries[_buckets(lengths, boundaries)]
    return float(1 - lengths.sum() / padded.sum())


def pad(sequences: Sequence[Any], length: int, value: Any = 0) -> Padded:
    """Sequences of unequal lengths as one array, filled up at their ends.

    Args:
      sequences: ``B`` arrays ``[length_i, *features]``.
      length: What they are padded to.
      value: What they are padded with.

    Returns:
      Values ``[B, length, *features]`` and their mask ``[B, length]``.

    Raises:
      ValueError: No sequences, one longer than ``length``, features that differ, or a
        value that the sequences' type does not hold, such as NaN among integers.

    Example:
      >>> from fairjax.data.buckets import pad
      >>> pad([[1, 2], [3]], 3).values
      array([[1, 2, 0],
             [3, 0, 0]])
    """
    check_whole("length", length)
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("There are no sequences to pad.")
    if any(
        not array.ndim or array.shape[1:] != arrays[0].shape[1:] for array in arrays
    ):
        raise ValueError(
            "The sequences' features differ: their shapes are "
            f"{sorted({array.shape for array in arrays})}."
        )
    longest = max(len(array) for array in arrays)
    if longest > length:
        raise ValueError(f"A sequence has length {longest}, more than {length}.")
    # An empty list is of floats, and should not make all of them so.
    kind = np.result_type(*[array for array in arrays if array.size] or arrays)
    with np.errstate(invalid="ignore"):
        held = np.asarray(value).astype(kind)
    # Floats may round the value; other types would hold another one.
    if kind.kind in "iub" and not np.array_equal(held, value):
        raise ValueError(
            f"sequences of {kind} cannot hold the value {value!r}; pass sequences of a "
            "type that can, such as sequence.astype(float)."
        )
    shape = (len(arrays), length, *arrays[0].shape[1:])
    values = np.full(shape, held, kind)
    for i, array in enumerate(arrays):
        values[i, : len(array)] = array
    ends = np.array([len(array) for array in arrays])
    return Padded(values, np.arange(length) < ends[:, None])


def num_batches(
    lengths: Any,
    boundaries: Any,
    batch_size: int | Sequence[int],
    *,
    drop_remainder: bool = False,
) -> int:
    r"""How many batches an epoch of :func:`batches` has.

    .. math::
        \sum_b \lceil n_b / s_b \rceil,

    with ``n_b`` rows in bucket ``b`` and batches of ``s_b``; with ``drop_remainder``
    it is rounded down.

    Args:
      lengths: ``[n]``, whole numbers, 0 or more.
      boundaries: ``[buckets]``, ascending.
      batch_size: Rows of a batch; or one number for each bucket.
      drop_remainder: Whether the last, incomplete batch of a bucket is left out.

    Returns:
      Their number.

    Raises:
      ValueError: Lengths, boundaries or sizes that are no such numbers; a length
        beyond the last boundary; with ``drop_remainder``, a bucket of fewer rows than a
        batch.

    Example:
      >>> from fairjax.data.buckets import num_batches
      >>> num_batches([1, 2, 2, 9, 10], [2, 10], batch_size=2)
      3
    """
    members, sizes = _members(lengths, boundaries, batch_size, drop_remainder)
    return sum(_count(*of, drop_remainder) for of in zip(members, sizes, strict=True))


def batches(
    lengths: Any,
    boundaries: Any,
    batch_size: int | Sequence[int],
    *,
    seed: int,
    num_epochs: int | None = 1,
    start: int = 0,
    drop_remainder: bool = False,
) -> Iterator[BucketBatch]:
    """Batches of rows of one bucket each, shuffled anew in every epoch.

    A row goes to the bucket of the smallest boundary that is not below its length. In
    an epoch every row comes exactly once; the last batch of a bucket is filled up with
    rows that ``mask`` rules out, so that a bucket has one shape. Which rows come in
    which step depends on ``seed`` and the step alone: with ``start=n`` the iterator
    goes on as one that has given ``n`` batches.

    Args:
      lengths: ``[n]``, whole numbers, 0 or more.
      boundaries: ``[buckets]``, ascending, such as :func:`bucket_boundaries` gives.
      batch_size: Rows of a batch; or one number for each bucket, to give long
        sequences smaller batches.
      seed: Of the shuffling.
      num_epochs: How often to go through the rows; None for ever.
      start: Steps to leave out, those of whole epochs included.
      drop_remainder: Leave out the last, incomplete batch of a bucket, with other rows
        in every epoch.

    Returns:
      An iterator of :class:`BucketBatch`.

    Raises:
      ValueError: Lengths, boundaries, sizes or steps that are no such numbers; a length
        beyond the last boundary; with ``drop_remainder``, a bucket of fewer rows than a
        batch, which would never be seen.

    Example:
      >>> from fairjax.data.buckets import batches
      >>> for batch in batches([1, 2, 2, 9], [2, 9], batch_size=2, seed=1):
      ...     print(batch.rows, batch.mask, batch.length)
      [3 3] [ True False] 9
      [0 1] [ True  True] 2
      [2 2] [ True False] 2
    """
    check_whole("start", start, 0)
    check_whole("seed", seed, 0)
    if num_epochs is not None:
        check_whole("num_epochs", num_epochs)
    members, sizes = _members(lengths, boundaries, batch_size, drop_remainder)
    bounds = _boundaries(boundaries).tolist()

    def epoch(number: int) -> list[BucketBatch]:
        rng = np.random.default_rng([seed, number])
        made = []
        for rows, size, length in zip(members, sizes, bounds, strict=True):
            order = rng.permutation(rows)
            for i in range(_count(rows, size, drop_remainder)):
                chosen = order[i * size : (i + 1) * size]
                filling = np.full(size - len(chosen), chosen[0])
                mask = np.arange(size) < len(chosen)
                made.append(
                    BucketBatch(np.concatenate([chosen, filling]), mask, length)
                )
        return [made[i] for i in rng.permutation(len(made))]

    def run() -> Iterator[BucketBatch]:
        first, skipped = divmod(start, len(epoch(0)))
        epochs = itertools.count() if num_epochs is None else range(num_epochs)
        for number in itertools.islice(epochs, first, None):
            yield from epoch(number)[skipped:]
            skipped = 0

    return run()


def _count(rows: np.ndarray, size: int, drop_remainder: bool) -> int:
    return len(rows) // size if drop_remainder else -(-len(rows) // size)


def _members(
    lengths: Any, boundaries: Any, batch_size: Any, drop_remainder: bool
) -> tuple[list[np.ndarray], list[int]]:
    """Each bucket's rows, and the size of its batches."""
    lengths, boundaries = _lengths(lengths), _boundaries(boundaries)
    number = len(boundaries)
    sizes = np.atleast_1d(np.asarray(batch_size))
    whole = sizes.dtype.kind in "iu" and sizes.ndim == 1 and bool((sizes >= 1).all())
    if not whole or len(sizes) not in (1, number):
        raise ValueError(
            "batch_size is a whole number of 1 or more, or one for each of the "
            f"{number} buckets, not {batch_size!r}."
        )
    sizes = np.broadcast_to(sizes, number).tolist()
    bucket = _buckets(lengths, boundaries)
    members = [np.flatnonzero(bucket == b) for b in range(number)]
    for rows, size, length in zip(members, sizes, boundaries, strict=True):
        if drop_remainder and 0 < len(rows) < size:
            raise ValueError(
                f"The bucket of length {length} has {len(rows)} rows, fewer than "
                f"batch_size={size}: with drop_remainder they would never be seen."
            )
    return members, sizes


def _buckets(lengths: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    if lengths.max() > boundaries[-1]:
        raise ValueError(
            f"Length {lengths.max()} is beyond the last boundary, {boundaries[-1]}."
        )
    return np.searchsorted(boundaries, lengths)


def _lengths(lengths: Any) -> np.ndarray:
    array = np.asarray(lengths)
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"lengths are one or more, in one axis, not of shape {array.shape}."
        )
    if array.dtype.kind not in "iu" or array.min() < 0:
        raise ValueError("lengths are whole numbers, 0 or more.")
    return array.astype(np.int64)


def _boundaries(boundaries: Any) -> np.ndarray:
    array = np.asarray(boundaries)
    whole = array.ndim == 1 and array.size > 0 and array.dtype.kind in "iu"
    if not whole or array[0] < 1 or (np.diff(array.astype(np.int64)) <= 0).any():
        raise ValueError(
            f"boundaries are ascending whole numbers of 1 or more, not {boundaries!r}."
        )
    return array.astype(np.int64)
