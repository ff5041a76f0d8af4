"""Confusion counts by group: the sufficient statistics of every rate and gap.

A group's rate depends on the data only through four counts. All metrics of hard
predictions start from these counts. A data set too large for one device is counted in
parts, whose counts are added.
"""

import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from fairjax.metrics._rows import as_columns, check_sizes
from fairjax.metrics._segments import tally

# A binary column may hold booleans, integers or floats, from JAX or NumPy.
BinaryRows: TypeAlias = (
    Bool[Array | np.ndarray, " rows"] | Real[Array | np.ndarray, " rows"]
)
GroupRows: TypeAlias = Int[Array | np.ndarray, " rows"]
WeightRows: TypeAlias = Real[Array | np.ndarray, " rows"]


class GroupCounts(NamedTuple):
    """Confusion counts of every group.

    ``GroupCounts`` is a pytree with one leaf, so it can be mapped, summed across
    devices with ``jax.lax.psum`` and carried through a scan. Leading batch axes are
    allowed: every rate and gap reads the last three axes.

    Attributes:
      counts: ``[..., G, 2, 2]``, indexed ``[group, label, prediction]``:
        ``[g, 1, 0]`` is the number of false negatives of group ``g``. Integers unless
        the weights were floating-point.
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

    Without weights, or with integer weights (bootstrap multiplicities), the counts are
    exact and have JAX's default integer type (int32). With floating-point weights the
    counts have the type of the weights, but at least float32. An integer weight of
    ``k`` has the effect of ``k`` copies of the row.

    Args:
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, group ids in ``0 .. num_groups - 1``; -1 marks a row that
        belongs to no group and is not counted.
      num_groups: Number of groups declared, ``G``. A group without rows has zero
        counts.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      Counts ``[G, 2, 2]``. A row whose label or prediction is neither 0 nor 1 (a
      missing value, or a score passed by mistake) is not counted. Such rows show as
      missing rows or NaN rates, never as negatives.

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
    check_sizes(num_groups=num_groups)
    labels, predictions, groups, weights = as_columns(
        labels=labels, predictions=predictions, groups=groups, weights=weights
    )
    return GroupCounts(_tabulate(labels, predictions, groups, weights, num_groups))


def one_vs_rest_counts(
    labels: Int[Array | np.ndarray, " rows"],
    predictions: Int[Array | np.ndarray, " rows"],
    groups: GroupRows,
    *,
    num_groups: int,
    num_classes: int,
    weights: WeightRows | None = None,
) -> GroupCounts:
    """Counts a multi-class problem as one binary problem for each class.

    In problem ``c`` the labels and predictions equal to ``c`` are positive. Every rate
    and gap of this package then gives one value for each class.

    Args:
      labels: ``[rows]``, class ids in ``0 .. num_classes - 1``.
      predictions: ``[rows]``, class ids in ``0 .. num_classes - 1``.
      groups: ``[rows]``, as in ``group_counts``.
      num_groups: Number of groups declared, ``G``.
      num_classes: Number of classes declared, ``C``, at least 2.
      weights: ``[rows]``, as in ``group_counts``.

    Returns:
      Counts ``[C, G, 2, 2]``. A row whose label or prediction is not a class id is not
      counted.

    Raises:
      ValueError: If ``num_groups`` is below 1, ``num_classes`` below 2, or the columns
        differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> labels, predictions = jnp.array([0, 1, 2, 2]), jnp.array([0, 1, 1, 2])
      >>> one_vs_rest_counts(
      ...     labels, predictions, jnp.zeros(4, int), num_groups=1, num_classes=3
      ... ).counts[2].tolist()
      [[[2, 0], [1, 1]]]
    """
    check_sizes(num_groups=num_groups)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2; got {num_classes}.")
    labels, predictions, groups, weights = as_columns(
        labels=labels, predictions=predictions, groups=groups, weights=weights
    )
    table = _confusion(labels, predictions, groups, weights, num_groups, num_classes)
    return GroupCounts(table)


def multilabel_counts(
    labels: Bool[Array | np.ndarray, "rows outcomes"]
    | Real[Array | np.ndarray, "rows outcomes"],
    predictions: Bool[Array | np.ndarray, "rows outcomes"]
    | Real[Array | np.ndarray, "rows outcomes"],
    groups: GroupRows,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> GroupCounts:
    """Counts several binary outcomes of the same rows, such as findings in an image.

    Args:
      labels: ``[rows, L]``, 0 or 1 for each of ``L`` outcomes. Any other value, such as
        NaN or -1 for an uncertain label, omits the row from the counts of that outcome.
      predictions: ``[rows, L]``, 0 or 1.
      groups: ``[rows]``, as in ``group_counts``.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, as in ``group_counts``.

    Returns:
      Counts ``[L, G, 2, 2]``.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the tables differ in shape.

    Example:
      >>> import jax.numpy as jnp
      >>> labels, predictions = jnp.array([[1, 0], [1, 1]]), jnp.array([[1, 1], [0, 1]])
      >>> multilabel_counts(
      ...     labels, predictions, jnp.zeros(2, int), num_groups=1
      ... ).counts.tolist()
      [[[[0, 0], [1, 1]]], [[[0, 1], [0, 1]]]]
    """
    check_sizes(num_groups=num_groups)
    labels, predictions = jnp.asarray(labels), jnp.asarray(predictions)
    if labels.ndim != 2 or labels.shape != predictions.shape:
        raise ValueError(
            "labels and predictions must both be [rows, outcomes]; got shapes "
            f"{labels.shape} and {predictions.shape}."
        )
    _, groups, weights = as_columns(labels=labels[:, 0], groups=groups, weights=weights)
    count = jax.vmap(_tabulate, in_axes=(1, 1, None, None, None))
    return GroupCounts(count(labels, predictions, groups, weights, num_groups))


def conditional_counts(
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    strata: GroupRows,
    *,
    num_groups: int,
    num_strata: int,
    weights: WeightRows | None = None,
) -> GroupCounts:
    """Counts by group within each stratum of a control attribute.

    Gaps of the result compare groups among rows with the same value of the control
    attribute, such as the severity of disease. ``fairjax.metrics.conditional``
    aggregates the gaps over the strata.

    Args:
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, as in ``group_counts``.
      strata: ``[rows]``, ids in ``0 .. num_strata - 1``; -1 marks a row in no stratum,
        which is not counted. Cross several control attributes into one.
      num_groups: Number of groups declared, ``G``.
      num_strata: Number of strata declared, ``S``.
      weights: ``[rows]``, as in ``group_counts``.

    Returns:
      Counts ``[S, G, 2, 2]``.

    Raises:
      ValueError: If a number is below 1 or the columns differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> ones = jnp.ones(3, int)
      >>> conditional_counts(
      ...     ones, ones, jnp.array([0, 1, 1]), jnp.array([0, 0, 1]),
      ...     num_groups=2, num_strata=2,
      ... ).counts[:, :, 1, 1].tolist()
      [[1, 1], [0, 1]]
    """
    check_sizes(num_groups=num_groups, num_strata=num_strata)
    columns = {"labels": labels, "predictions": predictions, "groups": groups}
    labels, predictions, groups, strata, weights = as_columns(
        **columns, strata=strata, weights=weights
    )
    groups, strata = groups.astype(jnp.int32), strata.astype(jnp.int32)
    known = (groups >= 0) & (groups < num_groups) & (strata >= 0)
    crossed = jnp.where(known, strata * num_groups + groups, -1)
    table = _tabulate(labels, predictions, crossed, weights, num_strata * num_groups)
    return GroupCounts(table.reshape(num_strata, num_groups, 2, 2))


@functools.partial(jax.jit, static_argnums=4)
def _tabulate(labels, predictions, groups, weights, num_groups: int) -> Array:
    binary = ((labels == 0) | (labels == 1)) & ((predictions == 0) | (predictions == 1))
    value = jnp.where(binary, 2 * (labels == 1) + (predictions == 1), -1)
    counts = tally(value, groups, weights, num_groups, 4)
    return counts.reshape(num_groups, 2, 2)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _confusion(
    labels, predictions, groups, weights, num_groups: int, num_classes: int
) -> Array:
    # Checked before the cast, which would turn a missing value into a class.
    known = _is_class(labels, num_classes) & _is_class(predictions, num_classes)
    value = labels.astype(int) * num_classes + predictions.astype(int)
    value = jnp.where(known, value, -1)
    table = tally(value, groups, weights, num_groups, num_classes**2)
    table = table.reshape(num_groups, num_classes, num_classes)
    is_class = jnp.eye(num_classes, dtype=table.dtype)
    # Sums rather than differences from a total keep small cells exact.
    split = jnp.stack([1 - is_class, is_class], axis=1)
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("gab,cya,czb->cgyz", table, split, split, precision=exact)


def _is_class(column: Array, num_classes: int) -> Array:
    return (column >= 0) & (column < num_classes) & (column == jnp.floor(column))


def merge(*counts: GroupCounts) -> GroupCounts:
    """Adds the counts of disjoint sets of rows: ``merge(a, b).counts = a + b``.

    Args:
      *counts: At least one, all ``[..., G, 2, 2]`` over the same groups.

    Returns:
      The counts of all rows together.

    Raises:
      ValueError: If no counts are given or the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> half = GroupCounts(jnp.array([[[5, 1], [2, 2]]]))
      >>> merge(half, half).counts.tolist()
      [[[10, 2], [4, 4]]]
    """
    shapes = {table.counts.shape for table in counts}
    if len(shapes) != 1:
        raise ValueError(
            f"merge needs counts over the same groups; got shapes {sorted(shapes)}."
        )
    return GroupCounts(sum(table.counts for table in counts[1:]) + counts[0].counts)


def predictions_at(
    scores: Float[Array | np.ndarray, "*shape"],
    threshold: float | int | Float[Array | np.ndarray, "..."],
) -> Bool[Array, "*shape"]:
    """Predicts the positive class where ``score >= threshold``.

    Args:
      scores: Any shape. A NaN score gives a negative prediction, so reject missing
        scores before this call.
      threshold: A number, or an array that broadcasts against ``scores``, such as one
        threshold for each group indexed by the rows' group ids. Choose the threshold
        on rows that are not used for the evaluation.

    Returns:
      Booleans of the shape of ``scores``.

    Example:
      >>> import jax.numpy as jnp
      >>> predictions_at(jnp.array([0.2, 0.5, 0.9]), 0.5).tolist()
      [False, True, True]
    """
    return jnp.asarray(scores) >= threshold
