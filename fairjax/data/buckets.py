"""Batches of few shapes from sequences of unequal lengths, with the least padding."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from fairjax.types import check_whole


class BucketBatch(NamedTuple):
    """Rows to pad to one length.

    Attributes:
      rows: ``[B]``, indices of rows in the data.
      mask: ``[B]``, false for rows that only pad the last batch of a bucket.
      length: The length to pad rows to.
    """

    rows: Int[np.ndarray, " B"]
    mask: Bool[np.ndarray, " B"]
    length: int


class Padded(NamedTuple):
    """Padded sequences as one array.

    Attributes:
      values: ``[B, length, *features]``.
      mask: ``[B, length]``, true for values of a sequence, false for padding.
    """

    values: np.ndarray
    mask: Bool[np.ndarray, "B length"]


def bucket_boundaries(lengths: Any, num_buckets: int) -> Int[np.ndarray, " buckets"]:
    """Computes the lengths to pad to that need the least padding.

    The at most ``num_buckets`` lengths ``b`` minimise the padded total
    ``Σ_i min{b_j : b_j ≥ length_i}``. Dynamic programming over the distinct lengths is
    exact, in time ``num_buckets × distinct lengths²``.

    Args:
      lengths: ``[n]``, integers, 0 or more. Length 0 is padded to 1.
      num_buckets: The most lengths, and so the most compiled programs.

    Returns:
      Ascending lengths, the last the greatest of ``lengths``; fewer than
      ``num_buckets`` if there are fewer distinct lengths.

    Raises:
      ValueError: If there are no lengths, or lengths are not integers of 0 or more.

    Example:
      >>> from fairjax.data.buckets import bucket_boundaries
      >>> bucket_boundaries([1, 2, 2, 9, 10], num_buckets=2)
      array([ 2, 10])
    """
    check_whole("num_buckets", num_buckets)
    sizes, counts = np.unique(np.maximum(_lengths(lengths), 1), return_counts=True)
    rows = np.concatenate([[0], np.cumsum(counts)])
    # One bucket holds distinct lengths 0 to j; the last of several holds start to j.
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
    """Computes the fraction of positions that are padding.

    Args:
      lengths: ``[n]``, integers, 0 or more.
      boundaries: ``[buckets]``, ascending.

    Returns:
      A fraction from 0, if each sequence fills its bucket's length, to 1, if all
      sequences are empty.

    Raises:
      ValueError: If lengths or boundaries are not as described, or a length exceeds the
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
    """Pads sequences of unequal lengths at their ends to one array.

    Args:
      sequences: ``B`` arrays ``[length_i, *features]``.
      length: The length to pad to.
      value: The value of padding.

    Returns:
      Values ``[B, length, *features]`` and their mask ``[B, length]``.

    Raises:
      ValueError: If there are no sequences, a sequence is longer than ``length``,
        features differ in shape, or the sequences' type cannot hold ``value``, such as
        NaN among integers.

    Example:
      >>> from fairjax.data.buckets import pad
      >>> pad([[1, 2], [3]], 3).values
      array([[1, 2, 0],
             [3, 0, 0]])
    """
    check_whole("length", length)
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("sequences must hold one or more; got none.")
    if any(
        not array.ndim or array.shape[1:] != arrays[0].shape[1:] for array in arrays
    ):
        raise ValueError(
            "sequences must be [length, *features], with equal features; got shapes "
            f"{sorted({array.shape for array in arrays})}."
        )
    longest = max(len(array) for array in arrays)
    if longest > length:
        raise ValueError(f"sequences must be {length} long or less; got {longest}.")
    # NumPy makes an empty list float, which must not decide the common type.
    kind = np.result_type(*[array for array in arrays if array.size] or arrays)
    with np.errstate(invalid="ignore"):
        filling = np.asarray(value).astype(kind)
    # Floats may round the value; other types would hold a different value.
    if kind.kind in "iub" and not np.array_equal(filling, value):
        raise ValueError(
            f"value must be one that sequences of {kind} can hold; got {value!r}. "
            "Convert the sequences, as by sequence.astype(float)."
        )
    shape = (len(arrays), length, *arrays[0].shape[1:])
    values = np.full(shape, filling, kind)
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
    r"""Counts the batches of an epoch of :func:`batches`.

    .. math::
        \sum_b \lceil n_b / s_b \rceil,

    with ``n_b`` rows in bucket ``b`` and batches of ``s_b``; with ``drop_remainder``
    quotients are rounded down.

    Args:
      lengths: ``[n]``, integers, 0 or more.
      boundaries: ``[buckets]``, ascending.
      batch_size: Rows of a batch; or one number for each bucket.
      drop_remainder: Whether to leave out the last, incomplete batch of a bucket.

    Returns:
      The number of batches.

    Raises:
      ValueError: If lengths, boundaries or sizes are not as described, a length exceeds
        the last boundary, or, with ``drop_remainder``, a bucket has fewer rows than a
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
    """Returns batches of rows of one bucket each, reshuffled in every epoch.

    A row goes to the bucket of the smallest boundary that is not below its length. An
    epoch has every row exactly once. The last batch of a bucket is padded with rows
    that ``mask`` excludes, so that a bucket has one shape. A step's rows depend on
    ``seed`` and the step alone: with ``start=n`` the iterator continues after ``n``
    batches.

    Args:
      lengths: ``[n]``, integers, 0 or more.
      boundaries: ``[buckets]``, ascending, such as from :func:`bucket_boundaries`.
      batch_size: Rows of a batch; or one number for each bucket, to give long
        sequences smaller batches.
      seed: Seed of the shuffling.
      num_epochs: Number of passes over the rows; None for endless passes.
      start: Steps to skip, including the steps of whole epochs.
      drop_remainder: Whether to leave out the last, incomplete batch of a bucket, which
        has other rows in every epoch.

    Returns:
      An iterator of :class:`BucketBatch`.

    Raises:
      ValueError: If lengths, boundaries, sizes or steps are not as described, a length
        exceeds the last boundary, or, with ``drop_remainder``, a bucket has fewer rows
        than a batch and would never be seen.

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
    """Returns each bucket's rows, and the size of its batches."""
    lengths, boundaries = _lengths(lengths), _boundaries(boundaries)
    number = len(boundaries)
    sizes = np.atleast_1d(np.asarray(batch_size))
    valid = sizes.dtype.kind in "iu" and sizes.ndim == 1 and bool((sizes >= 1).all())
    if not valid or len(sizes) not in (1, number):
        raise ValueError(
            "batch_size must be an integer of 1 or more, or one for each of the "
            f"{number} buckets; got {batch_size!r}."
        )
    sizes = np.broadcast_to(sizes, number).tolist()
    bucket = _buckets(lengths, boundaries)
    members = [np.flatnonzero(bucket == b) for b in range(number)]
    for rows, size, length in zip(members, sizes, boundaries, strict=True):
        if drop_remainder and 0 < len(rows) < size:
            raise ValueError(
                f"with drop_remainder the bucket of length {length} must have "
                f"batch_size={size} rows or more; got {len(rows)}. Lower batch_size."
            )
    return members, sizes


def _buckets(lengths: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    if lengths.max() > boundaries[-1]:
        raise ValueError(
            f"lengths must be at most the last boundary, {boundaries[-1]}; got "
            f"{lengths.max()}. Add a boundary."
        )
    return np.searchsorted(boundaries, lengths)


def _lengths(lengths: Any) -> np.ndarray:
    array = np.asarray(lengths)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"lengths must be [n], one or more; got shape {array.shape}.")
    if array.dtype.kind not in "iu" or array.min() < 0:
        raise ValueError(f"lengths must be integers, 0 or more; got {array[:3]}.")
    return array.astype(np.int64)


def _boundaries(boundaries: Any) -> np.ndarray:
    array = np.asarray(boundaries)
    valid = array.ndim == 1 and array.size > 0 and array.dtype.kind in "iu"
    if not valid or array[0] < 1 or (np.diff(array.astype(np.int64)) <= 0).any():
        raise ValueError(
            f"boundaries must be ascending integers of 1 or more; got {boundaries!r}."
        )
    return array.astype(np.int64)
