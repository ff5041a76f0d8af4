"""Sums by group in memory of the rows' size, on any device and mesh."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fairjax.metrics._rows import float_type
from fairjax.metrics._segments import group_sums


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
