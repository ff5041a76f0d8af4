"""Places of numbers among the rising ones of a feature, and numbers at places.

A place is a position in a row of numbers that rise; a place between two of them is in
proportion. Rows may be filled up with infinity.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fairjax._bisection import bisect

# It may be traced.
Whole: TypeAlias = int | Int[Array, ""]


def pick(values: Array, index: Array) -> Array:
    """Numbers of a row; beyond its ends, its ends."""
    return values.at[index].get(mode="clip")


def between(lower: Array, upper: Array, share: Array) -> Array:
    """What lies a share of the way from one number to another.

    Nothing is added where there is no way to go, so that ties stay ties.
    """
    way = jnp.where((upper > lower) & (share > 0), upper - lower, 0)
    return lower + share * way


def nearest(place: Array) -> Array:
    """The nearest whole place, of two the lower."""
    return jnp.ceil(place - 0.5)


def at(values: Float[Array, " U"], place: Array, last: Whole) -> Array:
    """The number at a place, no further than the last."""
    low = jnp.floor(jnp.nan_to_num(place)).astype(jnp.int32)
    high = jnp.minimum(low + 1, last)
    return between(pick(values, low), pick(values, high), place - low)


def place(values: Float[Array, " U"], wanted: Array) -> Array:
    """Where numbers lie among others, between them in proportion."""
    number = len(values)
    above = count_below(lambda p: pick(values, p), wanted, number, strict=True)
    above = jnp.clip(above, 0, number - 1)
    below = jnp.maximum(above - 1, 0)
    lower, upper = pick(values, below), pick(values, above)
    # Beyond the last value lies infinity, and none of the way to it is gone.
    share = (wanted - lower) / jnp.where(upper > lower, upper - lower, 1)
    return below + jnp.clip(share, 0, above - below)


def place_in_group(
    knots: Float[Array, "G Q"],
    groups: Int[Array, " n"],
    values: Float[Array, " n"],
    last: Whole,
    share: Float[Array, "..."],
) -> Array:
    """Where values lie among their group's knots, of which there are ``last + 1``.

    Where several knots are a value, it lies a share of the way through them.
    """
    width = knots.shape[1]
    # One row's numbers are a block of one vector, which a processor's caches hold.
    flat, first_of = knots.reshape(-1), groups * width

    def own(knot: Array) -> Array:
        return pick(flat, first_of + knot)

    first = count_below(own, values, width, strict=True)
    past = count_below(own, values, width, strict=False)
    tied = first + share * (past - 1 - first)
    below = jnp.clip(first - 1, 0, last)
    lower, upper = own(below), own(jnp.minimum(first, last))
    untied = below + (values - lower) / jnp.where(upper > lower, upper - lower, 1)
    found = jnp.where(past > first, tied, untied)
    return jnp.clip(jnp.nan_to_num(found), 0, last)


def count_below(
    value_at: Callable[[Array], Array], wanted: Array, number: int, *, strict: bool
) -> Int[Array, " n"]:
    """How many of a rising row's numbers lie below each wanted one (or at it)."""

    def is_below(place: Array) -> Array:
        found = value_at(place)
        return found < wanted if strict else found <= wanted

    low = jnp.zeros(wanted.shape, jnp.int32)
    return bisect(is_below, low, low + number, number.bit_length())[0]


def distinct(
    ordered: Float[Array, " N"], size: int, limit: Whole
) -> Float[Array, " U"]:
    """Distinct values, evenly thinned to a limit; infinity fills up to the size."""
    first = jnp.ones(1, bool)
    new = jnp.concatenate([first, ordered[1:] > ordered[:-1]]) & ~jnp.isnan(ordered)
    so_far = jnp.cumsum(new, dtype=jnp.int32)
    count = so_far[-1]
    wanted = jnp.arange(size)
    most = jnp.minimum(count, limit)
    share = wanted / jnp.maximum(most - 1, 1)
    chosen = jnp.round(share * (count - 1)).astype(jnp.int32)
    # The first row by which there have been that many.
    row = count_below(lambda p: pick(so_far, p), chosen + 1, len(ordered), strict=True)
    return jnp.where(wanted < most, pick(ordered, row), jnp.inf)
