"""Values in rising order, of each group and of all groups together: two sorts.

XLA sorts wherever JAX computes and inside ``jax.jit``. NumPy sorts a table at hand
faster than XLA does on a CPU. Both leave the same numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Ordered(NamedTuple):
    """A table whose columns, here rows, are sorted.

    Attributes:
      by_group: ``[d, N]``, the first group's values in rising order with what is
        missing last, then the second's, and so on; N is at least n.
      together: ``[d, N]``, all values in rising order with what is missing last.
      starts: ``[G]``, where a group begins in ``by_group``.
      observed: ``[G, d]``, how many values there are.
    """

    by_group: Float[Array | np.ndarray, "d N"]
    together: Float[Array | np.ndarray, "d N"]
    starts: Int[Array | np.ndarray, " G"]
    observed: Int[Array | np.ndarray, "G d"]


def order(features: Array, groups: Array, num_groups: int) -> Ordered:
    """Sorted by XLA; it may be traced.

    Example:
      >>> import jax.numpy as jnp
      >>> found = order(jnp.array([[3.0], [2], [1]]), jnp.array([0, 1, 0]), 2)
      >>> found.by_group
      Array([[1., 3., 2.]], dtype=float32)
    """
    seen = (~jnp.isnan(features)).astype(jnp.int32)
    sizes = jax.ops.segment_sum(jnp.ones(len(groups), jnp.int32), groups, num_groups)
    columns = features.T
    codes = jnp.broadcast_to(groups, columns.shape)
    return Ordered(
        jax.lax.sort((codes, columns), dimension=1, num_keys=2)[1],
        jnp.sort(columns, axis=1),
        jnp.cumsum(sizes) - sizes,
        jax.ops.segment_sum(seen, groups, num_groups),
    )


def order_on_host(
    features: Float[np.ndarray, "n d"],
    groups: Int[np.ndarray, " n"],
    num_groups: int,
    size: int,
) -> Ordered:
    """Sorted by NumPy, and filled up to ``size`` rows with missing values.

    Example:
      >>> found = order_on_host(np.array([[3.0], [2], [1]]), np.array([0, 1, 0]), 2, 4)
      >>> found.by_group
      array([[ 1.,  3.,  2., nan]])
    """
    rows, columns = features.shape
    together = np.full((columns, size), np.nan, features.dtype)
    together[:, :rows] = features.T
    by_group = together.copy()
    by_group[:, :rows] = together[:, np.argsort(groups, kind="stable")]
    sizes = np.bincount(groups, minlength=num_groups)
    ends = np.cumsum(sizes)
    observed = np.zeros((num_groups, columns), np.int32)
    for group, (start, end) in enumerate(zip(ends - sizes, ends, strict=True)):
        own = by_group[:, start:end]
        own.sort(axis=1)
        observed[group] = np.sum(~np.isnan(own), axis=1)
    together.sort(axis=1)
    return Ordered(by_group, together, (ends - sizes).astype(np.int32), observed)
