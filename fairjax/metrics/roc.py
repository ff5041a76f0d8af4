"""Receiver operating characteristics by group, and the area between them.

A group's curve joins the points given by its distinct scores as thresholds. The curve
consists of line segments, one for each tied run with a negative, as a function of the
false positive rate. Runs of positives alone are vertical jumps between the segments.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax._bisection import bisect
from fairjax.metrics._placement import sorted_mass
from fairjax.metrics._rows import ScoreRows, as_rows
from fairjax.metrics._segments import group_sums, running_sums
from fairjax.metrics.counts import BinaryRows, GroupRows, WeightRows
from fairjax.metrics.order import GroupedOrder, grouped_score_order

# Entries of a block's table, block rows × groups × groups.
_TABLE = 2**20


class _Rates(NamedTuple):
    """Fractions of each group's positives and negatives at or above a score.

    ``above`` excludes the tied run. ``defined`` is False for a group that lacks a class
    or has a weighted row without a score.
    """

    tpr: Float[Array, " rows"]
    tpr_above: Float[Array, " rows"]
    fpr: Float[Array, " rows"]
    fpr_above: Float[Array, " rows"]
    defined: Bool[Array, " groups"]


def _rates(
    order: GroupedOrder, labels: BinaryRows, weights: WeightRows | None
) -> _Rates:
    mass = sorted_mass(order, labels, weights)
    final = order.last == order.starts[jnp.minimum(order.group + 1, order.num_groups)]

    def fractions(part):
        running = running_sums(part, order.group, order.starts, reverse=True)
        above = jnp.where(final, 0, running[jnp.minimum(order.last, part.size - 1)])
        total = group_sums(part, order.group, order.num_groups)
        # Equal fractions of different groups are equal floats and meet in the integral.
        base = jnp.append(jnp.where(total > 0, total, 1), 1)[order.group]
        return running[order.first] / base, above / base, total > 0

    tpr, tpr_above, positives = fractions(mass.positive)
    fpr, fpr_above, negatives = fractions(mass.negative)
    lost = group_sums(mass.undefined, order.group, order.num_groups)
    defined = positives & negatives & (lost == 0)
    return _Rates(tpr, tpr_above, fpr, fpr_above, defined)


class RocCurve(NamedTuple):
    """ROC curves of all groups on one grid.

    Attributes:
      fpr: ``[num_points]``, false positive rates from 0 to 1.
      tpr: ``[G, num_points]``, the true positive rates at these false positive rates.
    """

    fpr: Float[Array, " num_points"]
    tpr: Float[Array, "groups num_points"]


@functools.partial(jax.jit, static_argnames=("num_groups", "num_points"))
def roc_curve_at(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    num_points: int = 101,
    weights: WeightRows | None = None,
) -> RocCurve:
    """Computes each group's ROC curve at evenly spaced false positive rates, to draw.

    Straight lines join the points of the curve, also through a tied run. Where the
    curve rises vertically, the value is the upper end: the highest true positive rate
    at that false positive rate. A drawing therefore starts at the origin and goes up to
    ``tpr[:, 0]``.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, higher for the positive class.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      num_points: Number of false positive rates, at least 2.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The curves; NaN for a group that lacks a class.

    Raises:
      ValueError: If ``num_groups`` is below 1, ``num_points`` below 2, or the columns
        differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> roc_curve_at(
      ...     jnp.array([0, 0, 1, 1]), jnp.array([0.1, 0.5, 0.5, 0.8]),
      ...     jnp.zeros(4, int), num_groups=1, num_points=3,
      ... ).tpr.tolist()
      [[0.5, 1.0, 1.0]]
    """
    labels, scores, groups, weights = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, weights=weights
    )
    if num_points < 2:
        raise ValueError(f"num_points must be at least 2; got {num_points}.")
    order = grouped_score_order(scores, groups, num_groups=num_groups)
    rates = _rates(order, labels, weights)
    at = jnp.linspace(0, 1, num_points, dtype=rates.fpr.dtype)
    if not rates.fpr.size:
        return RocCurve(at, jnp.full((num_groups, num_points), jnp.nan, at.dtype))
    # Within a group the rate falls along the rows. Bisection finds the first run with
    # a rate of at most ``at``; the segment to interpolate is that of the run before.
    low = jnp.broadcast_to(order.starts[:-1, None], (num_groups, num_points))
    high = jnp.broadcast_to(order.starts[1:, None], (num_groups, num_points))

    def is_above(row: Array) -> Array:
        return ~(rates.fpr[jnp.minimum(row, rates.fpr.size - 1)] <= at)

    first, _ = bisect(is_above, low, high, rates.fpr.size.bit_length())
    run = jnp.maximum(first - 1, 0)
    width = rates.fpr[run] - rates.fpr_above[run]
    part = (at - rates.fpr_above[run]) / jnp.where(width > 0, width, 1)
    rise = rates.tpr[run] - rates.tpr_above[run]
    tpr = jnp.where(
        first > order.starts[:-1, None], rates.tpr_above[run] + part * rise, 1
    )
    return RocCurve(at, jnp.where(rates.defined[:, None], tpr, jnp.nan))


@functools.partial(jax.jit, static_argnames="num_groups")
def abroca(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> Float[Array, "groups groups"]:
    r"""Computes the area between the ROC curves (ABROCA) of each pair of groups.

    .. math:: \int_0^1 \left|\mathrm{ROC}_a(t) - \mathrm{ROC}_b(t)\right| dt

    ABROCA is at least the difference of the two AUROCs, and positive where crossing
    curves have equal areas. The integral is exact for the piecewise linear curves,
    including their crossings, without a grid. Sampling noise alone separates two
    curves, so ABROCA is positive even at parity. Time is O(n log n + nG²), memory O(n).

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, higher for the positive class.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      ``[G, G]`` in [0, 1], symmetric, with zeros on the diagonal; NaN where either
      group lacks a class.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    References:
      Gardner, Brooks and Baker, "Evaluating the fairness of predictive student models
      through slicing analysis", LAK (2019).

    Example:
      >>> import jax.numpy as jnp
      >>> abroca(
      ...     jnp.array([0, 1, 1, 0]), jnp.array([0.2, 0.6, 0.4, 0.9]),
      ...     jnp.array([0, 0, 1, 1]), num_groups=2,
      ... ).tolist()
      [[0.0, 1.0], [1.0, 0.0]]
    """
    labels, scores, groups, weights = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, weights=weights
    )
    order = grouped_score_order(scores, groups, num_groups=num_groups)
    rates = _rates(order, labels, weights)
    # One line segment for each run with negatives, stored at the run's first row.
    rows = jnp.arange(rates.fpr.size, dtype=jnp.int32)
    width = rates.fpr - rates.fpr_above
    kept = (rows == order.first) & (width > 0) & (order.group < num_groups)
    slope = (rates.tpr - rates.tpr_above) / jnp.where(kept, width, 1)
    start = jnp.where(kept, rates.fpr_above, 1)
    owner = jnp.where(kept, order.group, num_groups)
    start, owner, height, slope = jax.lax.sort(
        (start, owner, rates.tpr_above, slope), num_keys=1
    )
    # Between the starts of neighbouring segments of any groups, every curve is a line.
    # The loop takes a block of such intervals at a time, and carries the groups' lines
    # from the block before.
    block = max(1, min(rows.size, _TABLE // num_groups**2))
    number = -(-rows.size // block)
    stop = jnp.append(start, 1)[1:]

    def blocks(column, fill):
        padded = jnp.pad(column, (0, number * block - rows.size), constant_values=fill)
        return padded.reshape(number, block)

    def add(carry, intervals):
        area, lines = carry
        start, stop, owner, height, slope = intervals
        mine = owner[:, None] == jnp.arange(num_groups)
        index = jnp.where(mine, jnp.arange(1, block + 1, dtype=jnp.int32)[:, None], 0)
        latest = jax.lax.cummax(index, axis=0)

        def current(column, line):
            return jnp.where(latest > 0, column[jnp.maximum(latest - 1, 0)], line)

        begins, level, rise = (
            current(column, line)
            for column, line in zip((start, height, slope), lines, strict=True)
        )
        at_start = level + rise * (start[:, None] - begins)
        at_stop = level + rise * (stop[:, None] - begins)
        left = at_start[:, :, None] - at_start[:, None, :]
        right = at_stop[:, :, None] - at_stop[:, None, :]
        size = jnp.abs(left) + jnp.abs(right)
        # A difference that changes sign has two triangles, one each side of the zero.
        crossed = (left**2 + right**2) / jnp.where(size > 0, size, 1)
        mean = jnp.where(left * right < 0, crossed, size) / 2
        area += jnp.sum(mean * (stop - start)[:, None, None], axis=0)
        return (area, (begins[-1], level[-1], rise[-1])), None

    zero = jnp.zeros(num_groups, start.dtype)
    area = jnp.zeros((num_groups, num_groups), start.dtype)
    columns = ((start, 1), (stop, 1), (owner, num_groups), (height, 0), (slope, 0))
    (area, _), _ = jax.lax.scan(
        add, (area, (zero, zero, zero)), tuple(blocks(*c) for c in columns)
    )
    defined = rates.defined[:, None] & rates.defined[None, :]
    return jnp.where(defined, jnp.minimum(area, 1), jnp.nan)
