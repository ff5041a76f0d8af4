"""The mathematics of quantile repair, compiled: of tables that may be parts or padded.

:mod:`fairjax.mitigation.quantile_repair` says what it computes.
"""

import functools
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fairjax.mitigation._order import Ordered
from fairjax.mitigation._places import (
    Whole,
    at,
    between,
    distinct,
    nearest,
    pick,
    place,
    place_in_group,
)
from fairjax.types import Scalar

Scale: TypeAlias = Literal["value", "rank"]
Ties: TypeAlias = Literal["middle", "random"]


class GroupQuantiles(NamedTuple):
    """What quantile repair learns of a table.

    Attributes:
      knots: ``[G + 1, Q, d]``, quantiles of each group's observed values, rising along
        the second axis; NaN where a group has no value of a feature. The last row is of
        all groups together.
      target: ``[Q, d]``, the quantiles of the common distribution.
      values: ``[U, d]``, distinct values of all groups in rising order, at most G Q of
        them, evenly thinned where there are more; filled up with infinity.
      discrete: ``[d]``, whether a feature is given observed values only.
    """

    knots: Float[Array | np.ndarray, "G1 Q d"]
    target: Float[Array | np.ndarray, "Q d"]
    values: Float[Array | np.ndarray, "U d"]
    discrete: Bool[Array | np.ndarray, " d"]


def most_distinct(num_quantiles: int, num_groups: int, rows: int) -> int:
    """How many distinct values are kept: all groups' knots, so that none is lost.

    Example:
      >>> most_distinct(1000, 10, 100_000)
      10000
    """
    return min(num_quantiles * num_groups, rows)


@functools.partial(jax.jit, static_argnames=("size", "most"))
def learn(
    ordered: Ordered,
    discrete: Bool[Array, " d"],
    number: Whole,
    limit: Whole,
    *,
    size: int,
    most: int,
) -> GroupQuantiles:
    """The quantiles of a sorted table, however it was sorted.

    Args:
      ordered: The table.
      discrete: ``[d]``, features that are given observed values only.
      number: Q; may be traced.
      limit: The most distinct values that are kept; may be traced.
      size: At least Q: knots are filled up to that many, with the last.
      most: At least the limit: distinct values are filled up to that many, with
        infinity.

    Returns:
      The quantiles. They do not depend on ``size`` and ``most`` but by what they are
      filled up with.
    """
    steps = number - 1
    knot = jnp.minimum(jnp.arange(size), steps)

    def of_feature(part: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        by_group, together, observed, whole = part
        # Order leaves the sign of zeros open.
        by_group, together = (jnp.where(x == 0, 0, x) for x in (by_group, together))
        # All groups together are one group more.
        both = jnp.concatenate([by_group, together])
        start = jnp.append(ordered.starts, len(by_group))[:, None]
        count = jnp.append(observed, jnp.sum(observed))[:, None]
        last = jnp.maximum(count - 1, 0)
        # knot * last / steps in whole numbers, so that no order statistic is missed by
        # a rounding; taken apart so that none overflows.
        over = knot * (last % steps)
        low = knot * (last // steps) + over // steps
        share = jnp.where(whole, 0, (over % steps).astype(both.dtype) / steps)
        lower, upper = (
            pick(both, start + at_) for at_ in (low, jnp.minimum(low + 1, last))
        )
        knots = jnp.where(count > 0, between(lower, upper, share), jnp.nan)
        return knots, _lower_median(knots[:-1]), distinct(together, most, limit)

    parts = (ordered.by_group, ordered.together, ordered.observed.T, discrete)
    knots, target, values = jax.lax.map(of_feature, parts)
    return GroupQuantiles(jnp.moveaxis(knots, 0, 2), target.T, values.T, discrete)


def _lower_median(knots: Float[Array, "G Q"]) -> Float[Array, " Q"]:
    ordered = jnp.sort(knots, axis=0)
    number = jnp.sum(~jnp.isnan(knots), axis=0)
    middle = jnp.maximum((number - 1) // 2, 0)
    return jnp.take_along_axis(ordered, middle[None], axis=0)[0]


@functools.partial(jax.jit, static_argnames=("scale", "ties"))
def move(
    features: Float[Array, "n d"],
    groups: Int[Array, " n"],
    learnt: GroupQuantiles,
    number: Whole,
    level: Scalar,
    key: Array | None,
    first_row: Whole,
    *,
    scale: Scale,
    ties: Ties,
) -> Float[Array, "n d"]:
    """Repair a part of a table, feature by feature.

    Args:
      features: ``[n, d]``, the part.
      groups: ``[n]``, of its rows.
      learnt: What was learnt; knots and values may be filled up with infinity, and the
        target with anything.
      number: Q, less what was filled up; may be traced.
      level: As in :func:`repair`.
      key: Likewise.
      first_row: Where the part begins in the table. A row's random ties are drawn by
        the key folded with its place in the table, so that they depend on no others.
      scale: As in :func:`repair`.
      ties: Likewise.

    Returns:
      The part, repaired.
    """
    dtype, last = learnt.knots.dtype, number - 1
    level = jnp.asarray(level, dtype)
    columns = features.T
    # How far through the levels that a value stands for.
    shares = jnp.full(len(columns), 0.5, dtype)
    if ties == "random":
        shares = _draws(key, jnp.arange(len(features)) + first_row, len(columns), dtype)

    def of_feature(part: tuple[Array, ...]) -> Array:
        given, knots, target, observed, whole, share = part
        values = given.astype(dtype)
        position = place_in_group(knots, groups, values, last, share)
        position = jnp.where(whole, jnp.round(position), position)
        aim = at(target, position, last)
        end = len(observed) - 1

        def to_observed(place_: Array) -> Array:
            return at(observed, nearest(place_), end)

        if scale == "value":
            repaired = values + jnp.where(aim == values, 0, level * (aim - values))
            repaired = jax.lax.cond(
                whole,
                lambda x: to_observed(place(observed, x)),
                lambda x: x,
                repaired,
            )
        else:
            start, stop = place(observed, values), place(observed, aim)
            start, stop = (jnp.where(whole, nearest(x), x) for x in (start, stop))
            way = level * (stop - start)
            there = start + jnp.where(whole, jnp.round(way), way)
            there = jnp.clip(there, jnp.minimum(start, stop), jnp.maximum(start, stop))
            repaired = jnp.where(whole, to_observed(there), at(observed, there, end))
        # At its ends the way need not lead there to the last digit.
        repaired = jnp.where(level == 1, aim, repaired)
        known = ~jnp.isnan(knots[groups, 0]) & ~jnp.isnan(values)
        return jnp.where(known & (level > 0), repaired.astype(given.dtype), given)

    knots = jnp.moveaxis(learnt.knots, 2, 0)
    parts = (columns, knots, learnt.target.T, learnt.values.T, learnt.discrete, shares)
    return jax.lax.map(of_feature, parts).T


def _draws(key: Any, rows: Int[Array, " n"], columns: int, dtype: Any) -> Array:
    """``[d, n]`` in [0, 1): of each row by its own key."""

    def of_row(row: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, row), (columns,), dtype)

    return jax.vmap(of_row, out_axes=1)(rows)
