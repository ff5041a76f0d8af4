"""Deprecated: suppression of small counts in one table, for one release.

``fairjax audit --suppress-below`` suppresses them in a whole report.

A count of one to ten patients may identify them, so it is not published. That alone
protects nobody where totals are published, since a single missing number is the total
less the others. Further cells have to be withheld until no withheld one is determined.

A table with its totals is a network: each cell is an arc that carries its count, and
each sum is a node where what comes in goes out. Other tables agree with the published
numbers exactly where some units can be sent around a cycle of withheld arcs. So a cell
is protected where it lies on such a cycle, and the search for the fewest patients to
withhold besides is a search for the cheapest cycle (Castro, "Recent advances in
optimization techniques for statistical tabular data protection", European Journal of
Operational Research 216, 2012).
"""

import functools
import heapq
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, ParamSpec, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Array, Bool, Real

Counts: TypeAlias = Real[Array | np.ndarray, "..."] | Sequence[int]
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _deprecated(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Returns the function with a warning that the next release drops it."""

    @functools.wraps(function)
    def old(*args: _P.args, **options: _P.kwargs) -> _R:
        warnings.warn(
            f"the next release drops {function.__name__}; fairjax audit with "
            "--suppress-below suppresses small counts in a whole report.",
            DeprecationWarning,
            stacklevel=2,
        )
        return function(*args, **options)

    return old


class Suppression(NamedTuple):
    """Deprecated: what of a table of groups by label must not be published.

    Attributes:
      rows: bool ``[G + 1]``, the groups' numbers of rows, and last that of all rows.
      positives: bool ``[G + 1]``, the same of the positives.
      negatives: bool ``[G + 1]``, the same of the negatives.
    """

    rows: Bool[np.ndarray, " cells"]
    positives: Bool[np.ndarray, " cells"]
    negatives: Bool[np.ndarray, " cells"]


@_deprecated
def suppress_small_counts(
    counts: Counts, *, threshold: int = 11, include_zeros: bool = False
) -> Bool[np.ndarray, " cells"]:
    """Deprecated: withholds small counts of groups with their total.

    See ``suppress_small_cells`` for the rule.

    Args:
      counts: ``[G]``, disjoint groups.
      threshold: The smallest count that may be published.
      include_zeros: Whether empty groups are withheld, too.

    Returns:
      True for what must be withheld: ``[G + 1]``, the groups, then the total.

    Raises:
      ValueError: If a count is negative or no whole number, or the threshold is below
        1.
    """
    values = _check(counts, threshold)
    groups = values.size
    return _protect(
        np.append(np.zeros(groups, int), 1),
        np.append(np.ones(groups, int), 0),
        np.append(values, values.sum()),
        threshold,
        include_zeros,
    )


@_deprecated
def suppress_small_cells(
    positives: Counts,
    negatives: Counts,
    *,
    threshold: int = 11,
    include_zeros: bool = False,
) -> Suppression:
    """Deprecated: withholds small counts of groups by label, with all totals.

    First every count from 1 to ``threshold - 1``. Then, for each of these that the
    published numbers would determine, the cheapest further cells by their counts, so
    that at least two values of every withheld cell are consistent with all published
    numbers, and with the rule itself: unless empty cells are withheld too, a reader
    knows that a withheld count is not 0.

    It is a rule of exact disclosure: the consistent values may lie close to each other.
    It protects one table. Several attributes, and their intersections, have sums in
    common; tables of rates, intervals or curves of a withheld group can give its counts
    back, and must be withheld with it.

    Args:
      positives: ``[G]``, positives of disjoint groups.
      negatives: ``[G]``, their negatives.
      threshold: The smallest count that may be published; 11 is usual for patients.
      include_zeros: Whether counts of 0 are withheld, too.

    Returns:
      True for what must be withheld, of the groups and of their totals.

    Raises:
      ValueError: If a count is negative or no whole number, the lengths differ, or the
        threshold is below 1.
    """
    positive, negative = _check(positives, threshold), _check(negatives, threshold)
    if positive.shape != negative.shape:
        raise ValueError(
            "positives and negatives must have one count for each group; got "
            f"{positive.size} and {negative.size} counts."
        )
    # Nodes: the groups, the line of totals, and the columns. A group's rows flow into
    # it, its positives and negatives out of it to their columns, those to the totals.
    lines = np.arange(positive.size + 1)
    rows, column_1, column_0 = (np.full(lines.size, lines.size + i) for i in range(3))
    groups = np.arange(lines.size) < positive.size

    def outward(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.where(groups, lines, column), np.where(groups, column, lines)

    (tail_1, head_1), (tail_0, head_0) = outward(column_1), outward(column_0)
    head_rows, tail_rows = outward(rows)
    positive = np.append(positive, positive.sum())
    negative = np.append(negative, negative.sum())
    withheld = _protect(
        np.concatenate([tail_rows, tail_1, tail_0]),
        np.concatenate([head_rows, head_1, head_0]),
        np.concatenate([positive + negative, positive, negative]),
        threshold,
        include_zeros,
    )
    return Suppression(*np.split(withheld, 3))


def _check(counts: Counts, threshold: int) -> np.ndarray:
    if threshold < 1:
        raise ValueError(f"threshold must be at least 1; got {threshold}.")
    values = np.asarray(counts)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"counts must be [groups], not empty; got {values.shape}.")
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
        raise ValueError(f"counts must be integers of at least 0; got {values}.")
    return values.astype(np.int64)


class _Arc(NamedTuple):
    tail: int
    head: int
    count: int


def _protect(
    tails: np.ndarray,
    heads: np.ndarray,
    counts: np.ndarray,
    threshold: int,
    include_zeros: bool,
) -> np.ndarray:
    """Which arcs of a circulation to withhold."""
    least = 0 if include_zeros else 1
    withheld = (counts >= least) & (counts < threshold)
    arcs = list(map(_Arc, tails.tolist(), heads.tolist(), counts.tolist()))
    # The smallest first: what protects it often protects others.
    for small in np.argsort(counts, kind="stable").tolist():
        if withheld[small]:
            free = set(np.flatnonzero(withheld).tolist())
            cycles = [
                _cheapest_cycle(small, up, arcs, free, least)
                for up in (True, False)
                if up or arcs[small].count > least
            ]
            # One more patient in a group and in all its totals is always possible.
            withheld[min(cycle for cycle in cycles if cycle is not None)[1]] = True
    return withheld


def _cheapest_cycle(
    number: int, up: bool, arcs: list[_Arc], free: set[int], least: int
) -> tuple[int, list[int]] | None:
    """The cost and arcs of the cheapest way to move one unit through an arc.

    The unit goes along an arc, or against it where that leaves what a withheld cell may
    be. What is withheld already is free.
    """
    ways: dict[int, list[tuple[int, int]]] = {}
    for other, arc in enumerate(arcs):
        if other != number and arc.count >= least:
            ways.setdefault(arc.tail, []).append((arc.head, other))
            if arc.count > least:
                ways.setdefault(arc.head, []).append((arc.tail, other))
    tail, head, _ = arcs[number]
    start, goal = (head, tail) if up else (tail, head)
    queue: list[tuple[int, int, list[int]]] = [(0, start, [])]
    done = set()
    while queue:
        spent, node, path = heapq.heappop(queue)
        if node == goal:
            return spent, path
        if node not in done:
            done.add(node)
            for onward, other in ways.get(node, []):
                cost = 0 if other in free else arcs[other].count + 1
                heapq.heappush(queue, (spent + cost, onward, [*path, other]))
    return None
