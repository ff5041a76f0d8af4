"""Sums and running sums by group, in memory of the rows' size, on any device and mesh.

Single precision needs special care. A running sum over all rows loses digits in later
groups, and a sequential sum of ten million terms stops growing. Floats are therefore
summed in blocks, with running sums that restart in each group. Integers are summed as
integers.
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
    """Sums ``values`` by id; ids outside ``0 .. num_ids - 1`` are ignored.

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
        # An index beyond the end is dropped; -1 would count from the end.
        slot = jnp.where(kept, ids, num_ids)
        return jnp.zeros(num_ids, int).at[slot].add(values.astype(int), mode="drop")
    # A single float32 total of many rows would lose digits, and stop growing at 2^24.
    # The totals of the blocks need no more memory than the rows.
    values = values.astype(float_type(values))
    block = max(_BLOCK, num_ids)
    number = max(1, -(-values.size // block))
    slot = jnp.arange(values.size) // block * num_ids + ids
    slot = jnp.where(kept, slot, number * num_ids)
    totals = jnp.zeros(number * num_ids, values.dtype).at[slot].add(values, mode="drop")
    return jnp.sum(totals.reshape(number, num_ids), axis=0)


def mean_by(
    mass: Shaped[Array, " rows"],
    values: Float[Array, " rows"],
    ids: Int[Array, " rows"],
    num_ids: int,
) -> Float[Array, " ids"]:
    """Computes weighted means by id; NaN without weight."""
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
    """Computes cumulative sums that restart in each group of consecutive rows.

    Args:
      values: ``[rows]``, 0 in rows of no group.
      groups: ``[rows]``, ascending; ``G`` for a row in no group.
      starts: ``[G + 1]``, the first row of each group, then one past the last row of
        the last group.
      reverse: Whether to sum from the last to the first row of a group.

    Returns:
      ``[rows]``, where each sum includes its row.
    """
    if not jnp.issubdtype(values.dtype, jnp.floating):
        # Differences of integers are exact, even if sums wrap around between groups.
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
      value: ``[rows]``, below ``num_values``; a negative value omits the row.
      groups: ``[rows]``, of any integer type; an id outside ``0 .. num_groups - 1``
        omits the row.
      weights: ``[rows]``, or None to count rows.
      num_groups: Number of groups.
      num_values: Number of values.
    """
    # Narrow ids (int8) would overflow in the multiplication below.
    groups = jnp.asarray(groups).astype(int)
    weights = jnp.ones_like(groups) if weights is None else jnp.asarray(weights)
    whole = not jnp.issubdtype(weights.dtype, jnp.floating)
    weights = weights.astype(int if whole else float_type(weights))
    counted = (value >= 0) & (groups >= 0) & (groups < num_groups)
    cell = jnp.where(counted, groups * num_values + value, -1)
    size = num_groups * num_values
    # On an explicit mesh a scatter needs a sharding for its result. Elsewhere a scatter
    # is the fastest way on a CPU, by far with many groups. Accelerators scatter one row
    # at a time, or in a varying order.
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
    # XLA fuses the comparison into the sum, so no array [rows, size] is stored.
    hit = cell[:, None] == jnp.arange(size)
    return jnp.sum(jnp.where(hit, weights[:, None], 0), axis=0, dtype=weights.dtype)
