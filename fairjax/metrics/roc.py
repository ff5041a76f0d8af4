"""Receiver operating characteristics by group, and the area between them.

A group's curve joins the points that its distinct scores give as thresholds. As a
function of the false positive rate it is a chain of line segments, one to each tied run
that has a negative; runs of positives alone are vertical jumps between them.
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


class _Shares(NamedTuple):
    """Of each group, the share of its positives and negatives at or above a score.

    ``above`` leaves out the tied run itself. ``defined`` is False for a group that
    lacks a class or has a weighted row without a score.
    """

    tpr: Float[Array, " rows"]
    tpr_above: Float[Array, " rows"]
    fpr: Float[Array, " rows"]
    fpr_above: Float[Array, " rows"]
    defined: Bool[Array, " groups"]


def _shares(
    order: GroupedOrder, labels: BinaryRows, weights: WeightRows | None
) -> _Shares:
    mass = sorted_mass(order, labels, weights)
    final = order.last == order.starts[jnp.minimum(order.group + 1, order.num_groups)]

    def shares(part):
        running = running_sums(part, order.group, order.starts, reverse=True)
        above = jnp.where(final, 0, running[jnp.minimum(order.last, part.size - 1)])
        total = group_sums(part, order.group, order.num_groups)
        # One share is one float, whichever the group: equal ones meet in the integral.
        base = jnp.append(jnp.where(total > 0, total, 1), 1)[order.group]
        return running[order.first] / base, above / base, total > 0

    tpr, tpr_above, positives = shares(mass.positive)
    fpr, fpr_above, negatives = shares(mass.negative)
    lost = group_sums(mass.undefined, order.group, order.num_groups)
    defined = positives & negatives & (lost == 0)
    return _Shares(tpr, tpr_above, fpr, fpr_above, defined)


class RocCurve(NamedTuple):
    """ROC curves of all groups on one grid.

    Attributes:
      fpr: ``[num_points]``, false positive rates from 0 to 1.
      tpr: ``[G, num_points]``, the true positive rates there.
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
    """Each group's ROC curve at evenly spaced false positive rates, for drawing.

    Straight lines join the curve's points, through a tied run as well. Where it rises
    vertically the upper end is given, the highest true positive rate to be had at that
    false positive rate; so a drawing starts at the origin and goes up to ``tpr[:, 0]``.

    Args:
      labels: ``[rows]``, 0 or 1; other values take no part.
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
    share = _shares(order, labels, weights)
    at = jnp.linspace(0, 1, num_points, dtype=share.fpr.dtype)
    if not share.fpr.size:
        return RocCurve(at, jnp.full((num_groups, num_points), jnp.nan, at.dtype))
    # Within a group the rate falls along the rows. Bisection finds the first run whose
    # rate is at most the one asked for: the curve comes to that point next after it.
    low = jnp.broadcast_to(order.starts[:-1, None], (num_groups, num_points))
    high = jnp.broadcast_to(order.starts[1:, None], (num_groups, num_points))

    def is_above(row: Array) -> Array:
        return ~(share.fpr[jnp.minimum(row, share.fpr.size - 1)] <= at)

    found, _ = bisect(is_above, low, high, share.fpr.size.bit_length())
    run = jnp.maximum(found - 1, 0)
    width = share.fpr[run] - share.fpr_above[run]
    part = (at - share.fpr_above[run]) / jnp.where(width > 0, width, 1)
    rise = share.tpr[run] - share.tpr_above[run]
    tpr = jnp.where(
        found > order.starts[:-1, None], share.tpr_above[run] + part * rise, 1
    )
    return RocCurve(at, jnp.where(share.defined[:, None], tpr, jnp.nan))


@functools.partial(jax.jit, static_argnames="num_groups")
def abroca(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> Float[Array, "groups groups"]:
    r"""Absolute area between the ROC curves (ABROCA) of each pair of groups.

    .. math:: \int_0^1 \left|\mathrm{ROC}_a(t) - \mathrm{ROC}_b(t)\right| dt

    It is at least the difference of the two AUROCs, and positive where curves that
    cross have equal areas. The integral is exact for the piecewise linear curves,
    their crossings included; no grid is involved. Sampling noise alone separates two
    curves, so it is positive at parity too. Time is O(n log n + nG²), memory O(n).

    Args:
      labels: ``[rows]``, 0 or 1; other values take no part.
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
    share = _shares(order, labels, weights)
    # One line segment to a run with negatives, kept by the run's first row.
    rows = jnp.arange(share.fpr.size, dtype=jnp.int32)
    width = share.fpr - share.fpr_above
    kept = (rows == order.first) & (width > 0) & (order.group < num_groups)
    slope = (share.tpr - share.tpr_above) / jnp.where(kept, width, 1)
    start = jnp.where(kept, share.fpr_above, 1)
    owner = jnp.where(kept, order.group, num_groups)
    start, owner, height, slope = jax.lax.sort(
        (start, owner, share.tpr_above, slope), num_keys=1
    )
    # Between the starts of neighbouring segments, whosesoever they are, every curve is
    # one line. A block of such intervals is taken at a time, with the lines that the
    # groups came with from the block before.
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
        place = jnp.where(mine, jnp.arange(1, block + 1, dtype=jnp.int32)[:, None], 0)
        latest = jax.lax.cummax(place, axis=0)

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
        # Of a line that changes sign, the two triangles on either side of the crossing.
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
    defined = share.defined[:, None] & share.defined[None, :]
    return jnp.where(defined, jnp.minimum(area, 1), jnp.nan)
