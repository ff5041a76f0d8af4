"""Sums and running sums by group, in memory of the rows' size, on any device and mesh.

Single precision is what makes this a matter of its own. A running sum over all rows
loses the digits of the groups that come late, and a sequential sum of ten million
terms stops growing; so floats are summed in blocks and run afresh in each group, and
whole numbers are summed as integers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from fairjax.metrics._rows import float_type

_BLOCK = 1024


def group_sums(
    values: Shaped[Array, " rows"], ids: Int[Array, " rows"], num_ids: int
) -> Shaped[Array, " ids"]:
    """Sums of ``values`` by id; ids outside ``0 .. num_ids - 1`` are left out.

    Args:
      values: ``[rows]``. Integers are summed exactly, in JAX's default type; floats in
        blocks, in at least single precision.
      ids: ``[rows]``, in any order.
      num_ids: Number of sums.

    Returns:
      ``[num_ids]``.
    """
    values = jnp.asarray(values)
    kept = (ids >= 0) & (ids < num_ids)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        # An index beyond the end is dropped; one of -1 would be counted from the end.
        place = jnp.where(kept, ids, num_ids)
        return jnp.zeros(num_ids, int).at[place].add(values.astype(int), mode="drop")
    # A single float32 total of many rows would lose digits, and stop growing at 2^24.
    # The blocks' totals take no more room than the rows.
    values = values.astype(float_type(values))
    block = max(_BLOCK, num_ids)
    number = max(1, -(-values.size // block))
    place = jnp.arange(values.size) // block * num_ids + ids
    place = jnp.where(kept, place, number * num_ids)
    totals = (
        jnp.zeros(number * num_ids, values.dtype).at[place].add(values, mode="drop")
    )
    return jnp.sum(totals.reshape(number, num_ids), axis=0)


def mean_by(
    mass: Shaped[Array, " rows"],
    values: Float[Array, " rows"],
    ids: Int[Array, " rows"],
    num_ids: int,
) -> Float[Array, " ids"]:
    """Weighted means by id; NaN without weight."""
    total = group_sums(mass, ids, num_ids)
    summed = group_sums(mass * values, ids, num_ids)
    return jnp.where(total > 0, summed / jnp.where(total > 0, total, 1), jnp.nan)


def running_sums(
    values: Shaped[Array, " rows"],
    groups: Int[Array, " rows"],
    starts: Int[Array, " bounds"],
    *,
    reverse: bool = False,
) -> Shaped[Array, " rows"]:
    """Cumulative sums that begin anew in each group of consecutive rows.

    Args:
      values: ``[rows]``, 0 in rows of no group.
      groups: ``[rows]``, ascending; ``G`` for a row in no group.
      starts: ``[G + 1]``, the first row of each group and one past the last group's
        last.
      reverse: Sum from a group's last row up instead of from its first one down.

    Returns:
      ``[rows]``, each including its own row.
    """
    if not jnp.issubdtype(values.dtype, jnp.floating):
        # Integers may even wrap around between groups: the difference is exact.
        upto = jnp.concatenate([jnp.zeros(1, values.dtype), jnp.cumsum(values)])
        if reverse:
            ends = upto[jnp.append(starts[1:], starts[-1])]
            return ends[groups] - upto[:-1]
        return upto[1:] - upto[starts][groups]
    if starts.shape[0] == 2:
        return jax.lax.cumsum(values, reverse=reverse)

    def join(left, right):
        (head, head_group), (tail, tail_group) = left, right
        return jnp.where(head_group == tail_group, head + tail, tail), tail_group

    return jax.lax.associative_scan(join, (values, groups), reverse=reverse)[0]


def tally(
    value: Any, groups: Any, weights: Any, num_groups: int, num_values: int
) -> Array:
    """Returns the sum of weights by group and value, ``[num_groups * num_values]``.

    Args:
      value: ``[rows]``, below ``num_values``; a negative one leaves the row out.
      groups: ``[rows]``, of any integer type; one outside ``0 .. num_groups - 1``
        leaves the row out.
      weights: ``[rows]``, or None to count rows.
      num_groups: Number of groups.
      num_values: Number of values.
    """
    # Narrow ids (int8) would overflow where they are multiplied below.
    groups = jnp.asarray(groups).astype(int)
    weights = jnp.ones_like(groups) if weights is None else jnp.asarray(weights)
    whole = not jnp.issubdtype(weights.dtype, jnp.floating)
    weights = weights.astype(int if whole else float_type(weights))
    counted = (value >= 0) & (groups >= 0) & (groups < num_groups)
    cell = jnp.where(counted, groups * num_values + value, -1)
    size = num_groups * num_values
    # A scatter needs to be told where to put its result if the rows lie on an explicit
    # mesh. Elsewhere it is the fastest way on a CPU, by far if there are many groups;
    # accelerators do it one row at a time, or in an order that changes.
    sharded = any(axis is not None for axis in jax.typeof(cell).sharding.spec)
    if sharded:
        return _compare_and_sum(cell, weights, size)
    return jax.lax.platform_dependent(
        cell,
        weights,
        cpu=lambda cell, weights: group_sums(weights, cell, size),
        default=functools.partial(_compare_and_sum, size=size),
    )


def _compare_and_sum(cell: Array, weights: Array, size: int) -> Array:
    # XLA fuses the comparison into the sum: nothing of [rows, size] is stored.
    hit = cell[:, None] == jnp.arange(size)
    return jnp.sum(jnp.where(hit, weights[:, None], 0), axis=0, dtype=weights.dtype)
