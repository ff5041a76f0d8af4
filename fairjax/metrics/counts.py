"""Confusion counts by group: the sufficient statistics of every rate and gap.

A rate of a group depends on the data only through four numbers, so everything that
reads hard predictions starts here, and a data set too large for one device is counted
in pieces and added.
"""

import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

# A binary column may come as booleans, integers or floats, from JAX or NumPy.
BinaryRows: TypeAlias = (
    Bool[Array | np.ndarray, " rows"] | Real[Array | np.ndarray, " rows"]
)
GroupRows: TypeAlias = Int[Array | np.ndarray, " rows"]
WeightRows: TypeAlias = Real[Array | np.ndarray, " rows"]


class GroupCounts(NamedTuple):
    """Confusion counts of every group.

    A pytree with one leaf, so it can be mapped, summed across devices with
    ``jax.lax.psum`` and carried through a scan. Leading batch axes are allowed: every
    rate and gap reads the last three axes.

    Attributes:
      counts: ``[..., G, 2, 2]``, indexed ``[group, label, prediction]``:
        ``[g, 1, 0]`` are the false negatives of group ``g``. Integers unless the
        weights were floating-point.
    """

    counts: Array


def group_counts(
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> GroupCounts:
    r"""Counts rows by group, label and prediction.

    .. math:: N_{g,y,p} = \sum_i w_i [g_i = g] [y_i = y] [p_i = p]

    Without weights, or with integer ones (bootstrap multiplicities), the counts are
    int32 and exact; with floating-point weights they have the weights' type. An integer
    weight counts a row as many times as repeating it would.

    Args:
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, group ids in ``0 .. num_groups - 1``; -1 marks a row that
        belongs to no group and is counted nowhere.
      num_groups: Number of groups declared, ``G``. A group without rows keeps its
        place, with zero counts.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      Counts ``[G, 2, 2]``. A row whose label or prediction is neither 0 nor 1 (a
      missing value, or a score passed by mistake) is counted nowhere either, so that
      it shows as missing rows or NaN rates, never as a negative.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> labels, predictions = jnp.array([1, 1, 0, 1]), jnp.array([1, 0, 0, 1])
      >>> group_counts(
      ...     labels, predictions, jnp.array([0, 0, 0, 1]), num_groups=2
      ... ).counts.tolist()
      [[[1, 0], [1, 1]], [[0, 0], [0, 1]]]
    """
    if num_groups < 1:
        raise ValueError(f"num_groups must be at least 1, got {num_groups}.")
    columns = {"labels": labels, "predictions": predictions, "groups": groups}
    if weights is not None:
        columns["weights"] = weights
    lengths = {name: column.shape for name, column in columns.items()}
    if len(set(lengths.values())) != 1 or len(labels.shape) != 1:
        raise ValueError(
            f"The columns must be one-dimensional and of one length, got {lengths}."
        )
    return GroupCounts(_tabulate(labels, predictions, groups, weights, num_groups))


@functools.partial(jax.jit, static_argnames="num_groups")
def _tabulate(labels, predictions, groups, weights, num_groups: int) -> Array:
    labels, predictions = jnp.asarray(labels), jnp.asarray(predictions)
    # Narrow ids (int8) would overflow where they are multiplied below.
    groups = jnp.asarray(groups).astype(jnp.int32)
    weights = jnp.int32(1) if weights is None else jnp.asarray(weights)[:, None]
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        weights = weights.astype(jnp.int32)
    binary = ((labels == 0) | (labels == 1)) & ((predictions == 0) | (predictions == 1))
    counted = binary & (groups >= 0) & (groups < num_groups)
    cell = 4 * groups + 2 * (labels == 1) + (predictions == 1)
    cell = jnp.where(counted, cell, -1)
    # Compare and sum rather than scatter: XLA fuses it without storing the [rows, 4G]
    # array, it runs on a row-sharded mesh, and under vmap it does not serialise.
    hit = cell[:, None] == jnp.arange(4 * num_groups)
    counts = jnp.sum(jnp.where(hit, weights, 0), axis=0, dtype=weights.dtype)
    return counts.reshape(num_groups, 2, 2)


def merge(*counts: GroupCounts) -> GroupCounts:
    """Adds the counts of disjoint sets of rows: ``merge(a, b).counts = a + b``.

    Args:
      *counts: At least one, all ``[..., G, 2, 2]`` over the same groups.

    Returns:
      The counts of all rows together.

    Raises:
      ValueError: If nothing is given or the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> half = GroupCounts(jnp.array([[[5, 1], [2, 2]]]))
      >>> merge(half, half).counts.tolist()
      [[[10, 2], [4, 4]]]
    """
    shapes = {table.counts.shape for table in counts}
    if len(shapes) != 1:
        raise ValueError(
            f"merge needs counts over the same groups, got shapes {sorted(shapes)}."
        )
    return GroupCounts(sum(table.counts for table in counts[1:]) + counts[0].counts)


def predictions_at(
    scores: Float[Array | np.ndarray, "*shape"],
    threshold: float | int | Float[Array | np.ndarray, "..."],
) -> Bool[Array, "*shape"]:
    """Predicts the positive class where ``score >= threshold``.

    Args:
      scores: Any shape. A NaN score is predicted negative: reject missing scores
        before this.
      threshold: A number, or an array that broadcasts against ``scores``, such as one
        threshold for each group indexed by the rows' group ids. Choose it on other
        rows than those it is evaluated on.

    Returns:
      Booleans of the scores' shape.

    Example:
      >>> import jax.numpy as jnp
      >>> predictions_at(jnp.array([0.2, 0.5, 0.9]), 0.5).tolist()
      [False, True, True]
    """
    return jnp.asarray(scores) >= threshold
