"""Deprecated: suppression of small counts in one table, for one release.

``fairjax audit --suppress-below`` suppresses them in a whole report.

A count of one to ten patients may identify the patients and is therefore not published.
Suppressing small counts alone is not enough where totals are published, since a single
missing number is the total minus the others. Further cells must be suppressed until no
suppressed cell can be computed.

A table with its totals is a network. Each cell is an arc that carries its count, and
each sum is a node with equal inflow and outflow. Other tables agree with the published
numbers exactly where units can circulate on a cycle of suppressed arcs. So a cell is
protected if it lies on such a cycle, and the cheapest cycle suppresses the fewest
further patients.

References:
  Castro, "Recent advances in optimization techniques for statistical tabular data
  protection", European Journal of Operational Research 216 (2012).
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
    """Returns the function with a warning that the next release drops the function."""

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
    """Deprecated: suppressed cells of a table of groups by label.

    Attributes:
      rows: bool ``[G + 1]``, whether the number of rows of each group, and last of all
        rows, is suppressed.
      positives: bool ``[G + 1]``, likewise for the positives.
      negatives: bool ``[G + 1]``, likewise for the negatives.
    """

    rows: Bool[np.ndarray, " cells"]
    positives: Bool[np.ndarray, " cells"]
    negatives: Bool[np.ndarray, " cells"]


@_deprecated
def suppress_small_counts(
    counts: Counts, *, threshold: int = 11, include_zeros: bool = False
) -> Bool[np.ndarray, " cells"]:
    """Deprecated: suppresses small counts of groups with their total.

    See ``suppress_small_cells`` for the rule.

    Args:
      counts: ``[G]``, disjoint groups.
      threshold: The smallest count that may be published.
      include_zeros: Whether empty groups are suppressed, too.

    Returns:
      ``[G + 1]``, True for suppressed counts: the groups, then the total.

    Raises:
      ValueError: If a count is negative or not an integer, or the threshold is below 1.
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
    """Deprecated: suppresses small counts of groups by label, with all totals.

    The rule first suppresses every count from 1 to ``threshold - 1``. If the published
    numbers determine a suppressed count, the rule suppresses further cells with the
    smallest total count. In the end at least two values of every suppressed cell are
    consistent with all published numbers and with the rule. (Unless empty cells are
    suppressed too, a reader knows that a suppressed count is not 0.)

    The rule prevents exact disclosure only: the consistent values may lie close to each
    other. The rule protects a single table. Tables of several attributes, and of their
    intersections, have common sums. Rates, intervals or curves of a suppressed group
    can reveal the group's counts, and must be suppressed too.

    Args:
      positives: ``[G]``, positives of disjoint groups.
      negatives: ``[G]``, negatives of the same groups.
      threshold: The smallest count that may be published; 11 is usual for patients.
      include_zeros: Whether counts of 0 are suppressed, too.

    Returns:
      True for the suppressed counts of the groups and of their totals.

    Raises:
      ValueError: If a count is negative or not an integer, the lengths differ, or the
        threshold is below 1.
    """
    positive, negative = _check(positives, threshold), _check(negatives, threshold)
    if positive.shape != negative.shape:
        raise ValueError(
            "positives and negatives must have one count for each group; got "
            f"{positive.size} and {negative.size} counts."
        )
    # Nodes: the groups, the line of totals, and the columns. A group's rows flow into
    # the group, its positives and negatives from the group to their columns, and the
    # columns flow to the totals.
    lines = np.arange(positive.size + 1)
    rows, column_1, column_0 = (np.full(lines.size, lines.size + i) for i in range(3))
    groups = np.arange(lines.size) < positive.size

    def outward(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.where(groups, lines, column), np.where(groups, column, lines)

    (tail_1, head_1), (tail_0, head_0) = outward(column_1), outward(column_0)
    head_rows, tail_rows = outward(rows)
    positive = np.append(positive, positive.sum())
    negative = np.append(negative, negative.sum())
    suppressed = _protect(
        np.concatenate([tail_rows, tail_1, tail_0]),
        np.concatenate([head_rows, head_1, head_0]),
        np.concatenate([positive + negative, positive, negative]),
        threshold,
        include_zeros,
    )
    return Suppression(*np.split(suppressed, 3))


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
    """Returns which arcs of a circulation to suppress."""
    least = 0 if include_zeros else 1
    suppressed = (counts >= least) & (counts < threshold)
    arcs = list(map(_Arc, tails.tolist(), heads.tolist(), counts.tolist()))
    # The smallest first, because its protection often protects others.
    for small in np.argsort(counts, kind="stable").tolist():
        if suppressed[small]:
            free = set(np.flatnonzero(suppressed).tolist())
            cycles = [
                _cheapest_cycle(small, up, arcs, free, least)
                for up in (True, False)
                if up or arcs[small].count > least
            ]
            # One more patient in a group and in all its totals is always possible.
            suppressed[min(cycle for cycle in cycles if cycle is not None)[1]] = True
    return suppressed


def _cheapest_cycle(
    number: int, up: bool, arcs: list[_Arc], free: set[int], least: int
) -> tuple[int, list[int]] | None:
    """Returns the cost and arcs of the cheapest cycle of one unit through an arc.

    The unit flows along an arc, or against an arc if the remaining count is possible
    for a suppressed cell. Cells that are already suppressed cost nothing.
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
