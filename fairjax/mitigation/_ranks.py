"""Fractional ranks of numbers in sorted rows, and numbers at such ranks.

A rank between two entries of a row is interpolated linearly. Rows may be padded
with infinity.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fairjax._bisection import bisect

# An integer that may be traced.
Count: TypeAlias = int | Int[Array, ""]


def pick(values: Array, index: Array) -> Array:
    """Returns numbers of a row; beyond its ends, its ends."""
    return values.at[index].get(mode="clip")


def between(lower: Array, upper: Array, fraction: Array) -> Array:
    """Interpolates a fraction of the way from one number to another.

    Equal ends return the lower end exactly, so that ties stay ties.
    """
    way = jnp.where((upper > lower) & (fraction > 0), upper - lower, 0)
    return lower + fraction * way


def nearest(rank: Array) -> Array:
    """Returns the nearest integer rank, the lower of two equally near."""
    return jnp.ceil(rank - 0.5)


def at(values: Float[Array, " U"], rank: Array, last: Count) -> Array:
    """Returns the number at a rank, which is at most the last."""
    low = jnp.floor(jnp.nan_to_num(rank)).astype(jnp.int32)
    high = jnp.minimum(low + 1, last)
    return between(pick(values, low), pick(values, high), rank - low)


def rank(values: Float[Array, " U"], wanted: Array) -> Array:
    """Returns the ranks of numbers in a sorted row, interpolated linearly."""
    number = len(values)
    above = count_below(lambda p: pick(values, p), wanted, number, strict=True)
    above = jnp.clip(above, 0, number - 1)
    below = jnp.maximum(above - 1, 0)
    lower, upper = pick(values, below), pick(values, above)
    # Beyond the last value lies infinity, so the fraction is 0 there.
    fraction = (wanted - lower) / jnp.where(upper > lower, upper - lower, 1)
    return below + jnp.clip(fraction, 0, above - below)


def rank_in_group(
    knots: Float[Array, "G Q"],
    groups: Int[Array, " n"],
    values: Float[Array, " n"],
    last: Count,
    fraction: Float[Array, "..."],
) -> Array:
    """Returns the ranks of values among their group's ``last + 1`` knots.

    A value that equals several knots lies a fraction of the way through these knots.
    """
    width = knots.shape[1]
    # A group's knots are one block of a flat vector, which fits a processor's caches.
    flat, first_of = knots.reshape(-1), groups * width

    def at_knot(knot: Array) -> Array:
        return pick(flat, first_of + knot)

    first = count_below(at_knot, values, width, strict=True)
    past = count_below(at_knot, values, width, strict=False)
    tied = first + fraction * (past - 1 - first)
    below = jnp.clip(first - 1, 0, last)
    lower, upper = at_knot(below), at_knot(jnp.minimum(first, last))
    untied = below + (values - lower) / jnp.where(upper > lower, upper - lower, 1)
    found = jnp.where(past > first, tied, untied)
    return jnp.clip(jnp.nan_to_num(found), 0, last)


def count_below(
    value_at: Callable[[Array], Array], wanted: Array, number: int, *, strict: bool
) -> Int[Array, " n"]:
    """Counts a sorted row's numbers below each wanted number, or at most equal."""

    def is_below(rank: Array) -> Array:
        value = value_at(rank)
        return value < wanted if strict else value <= wanted

    low = jnp.zeros(wanted.shape, jnp.int32)
    return bisect(is_below, low, low + number, number.bit_length())[0]


def distinct(
    ordered: Float[Array, " N"], size: int, limit: Count
) -> Float[Array, " U"]:
    """Returns distinct values, evenly thinned to a limit and padded with infinity."""
    first = jnp.ones(1, bool)
    new = jnp.concatenate([first, ordered[1:] > ordered[:-1]]) & ~jnp.isnan(ordered)
    so_far = jnp.cumsum(new, dtype=jnp.int32)
    count = so_far[-1]
    wanted = jnp.arange(size)
    most = jnp.minimum(count, limit)
    fraction = wanted / jnp.maximum(most - 1, 1)
    chosen = jnp.round(fraction * (count - 1)).astype(jnp.int32)
    # The first row at which the count of distinct values is reached.
    row = count_below(lambda p: pick(so_far, p), chosen + 1, len(ordered), strict=True)
    return jnp.where(wanted < most, pick(ordered, row), jnp.inf)
