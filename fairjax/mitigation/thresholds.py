r"""Decision thresholds tuned on validation patients: one for all, or one per group."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int, Real

from fairjax.metrics import GroupCounts, f1_score
from fairjax.metrics._rows import as_rows, check_sizes
from fairjax.metrics._segments import tally
from fairjax.mitigation import _patients

# .10, .11, ..., .89, as published.
GRID = np.arange(10, 90) / 100


class Thresholds(NamedTuple):
    """Tuned thresholds, and the metric at each.

    Attributes:
      values: ``[G]``, float64; select where ``score >= values[group]``.
      reached: ``[G]``, each group's metric at its threshold, or the metric of all
        groups together where one threshold serves all; NaN where the metric is defined
        at no threshold.
    """

    values: Float[np.ndarray, " groups"]
    reached: Float[np.ndarray, " groups"]


@functools.partial(jax.jit, static_argnames="num_groups")
def threshold_counts(
    labels: Real[Array | np.ndarray, " rows"],
    scores: Real[Array | np.ndarray, " rows"],
    groups: Int[Array | np.ndarray, " rows"],
    thresholds: Real[Array | np.ndarray, " thresholds"],
    *,
    num_groups: int,
    weights: Real[Array | np.ndarray, " rows"] | None = None,
) -> GroupCounts:
    r"""Counts every group's confusion at every threshold, in one pass over the rows.

    .. math:: N_{t,g,y,1} = \sum_i w_i [g_i = g] [y_i = y] [s_i \ge t]

    Args:
      labels: ``[rows]``, 0 or 1; rows of other values are not counted.
      scores: ``[rows]``; rows of NaN are not counted.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; rows of -1 are not counted.
      thresholds: ``[T]``, in any order.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      Counts ``[T, G, 2, 2]``, for every rate of :mod:`fairjax.metrics`.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    Example:
      >>> import jax.numpy as jnp
      >>> labels, scores = jnp.array([0, 1, 1]), jnp.array([0.2, 0.4, 0.9])
      >>> counts = threshold_counts(
      ...     labels, scores, jnp.zeros(3, int), jnp.array([0.5, 0.3]), num_groups=1
      ... )
      >>> counts.counts[:, 0].tolist()
      [[[1, 0], [1, 1]], [[1, 0], [0, 2]]]
    """
    labels, scores, groups, weights = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, weights=weights
    )
    thresholds = jnp.asarray(thresholds)
    number = thresholds.size
    rank = jnp.argsort(thresholds)
    # The number of thresholds that a score reaches.
    passed = jnp.searchsorted(thresholds[rank], scores, side="right")
    known = ((labels == 0) | (labels == 1)) & ~jnp.isnan(scores)
    value = jnp.where(known, (labels == 1) * (number + 1) + passed, -1)
    mass = tally(value, groups, weights, num_groups, 2 * (number + 1))
    mass = mass.reshape(num_groups, 2, number + 1)
    at_least = jnp.cumsum(mass[..., ::-1], axis=-1)[..., ::-1]
    selected = at_least[..., 1 + jnp.argsort(rank)]
    both = jnp.stack([at_least[..., :1] - selected, selected], axis=-1)
    return GroupCounts(jnp.moveaxis(both, 2, 0))


def tune_thresholds(
    labels: Real[Array | np.ndarray, " rows"] | pd.Series,
    scores: Real[Array | np.ndarray, " rows"] | pd.Series,
    groups: Int[Array | np.ndarray, " rows"] | pd.Series,
    *,
    num_groups: int,
    metric: Callable[[GroupCounts], Array] = f1_score,
    grid: Real[Array | np.ndarray, " thresholds"] = GRID,
    by_group: bool = True,
    weights: Real[Array | np.ndarray, " rows"] | pd.Series | None = None,
) -> Thresholds:
    r"""Finds the threshold of a grid that maximises a metric, by group or for all.

    .. math:: t_g = \arg\max_{t \in \text{grid}} \text{metric}(N_{t,g})

    Tune on patients that the model was not trained on, and evaluate on further
    patients. Thresholds by group need each patient's group at the decision, and are
    noisy in small groups. ``by_group=False`` gives every group the threshold that is
    best for all patients together.

    Args:
      labels: ``[rows]``, 0 or 1.
      scores: ``[rows]``, finite; compared with the grid in float64.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      metric: From counts ``[..., G, 2, 2]`` to ``[..., G]``, larger being better: a
        rate of :mod:`fairjax.metrics` such as ``f1_score`` or ``balanced_accuracy``.
      grid: ``[T]``; .10, .11 to .89 by default. The first of equally good thresholds
        is taken.
      by_group: Whether each group has its own threshold.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The thresholds. Some groups cannot be tuned: groups without positives or
      negatives, and groups whose metric is constant or undefined over the grid. Such a
      group has the threshold of all patients together.

    Raises:
      ValueError: If labels are not 0 or 1; scores or thresholds are not finite; groups
        or weights are out of range; weights are too large or too small for counts in
        single precision; the grid is empty; columns differ in length; or ``metric``
        does not give one number for each threshold and group, or is defined at no
        threshold even for all patients.

    Example:
      >>> import jax.numpy as jnp
      >>> labels = jnp.array([0, 1, 1, 0, 0, 1])
      >>> scores = jnp.array([0.2, 0.4, 0.9, 0.3, 0.5, 0.7])
      >>> groups = jnp.array([0, 0, 0, 1, 1, 1])
      >>> tuned = tune_thresholds(labels, scores, groups, num_groups=2)
      >>> tuned.values.tolist()
      [0.21, 0.51]
    """
    grid = np.asarray(grid, np.float64)
    if grid.ndim != 1 or not grid.size:
        raise ValueError(f"grid must be a list of thresholds; got shape {grid.shape}.")
    check_sizes(num_groups=num_groups)
    _patients.check_lengths(
        labels=labels, scores=scores, groups=groups, weights=weights
    )
    grid = _patients.finite("grid", grid)
    scores = _patients.finite("scores", scores)
    if weights is not None:
        _patients.check_single(weights)
    # Ranks stand for thresholds and scores, because float32 holds ranks exactly.
    rank = np.argsort(grid, kind="stable")
    ranks = np.empty(grid.size, np.int32)
    ranks[rank] = np.arange(1, grid.size + 1)
    counts = threshold_counts(
        _patients.binary(labels),
        np.searchsorted(grid[rank], scores, side="right").astype(np.int32),
        _patients.group_ids(groups, num_groups, least=-1),
        ranks,
        num_groups=num_groups,
        weights=None if weights is None else np.asarray(weights),
    )
    # All patients together are an additional last group.
    total = counts.counts.sum(axis=1, keepdims=True)
    values = np.asarray(metric(GroupCounts(jnp.append(counts.counts, total, axis=1))))
    if values.shape != (grid.size, num_groups + 1):
        raise ValueError(
            f"metric must give {(grid.size, num_groups + 1)} numbers, for thresholds "
            f"and for groups and all patients together; got {values.shape}."
        )
    best = np.argmax(np.where(np.isnan(values), -np.inf, values), axis=0)
    if np.isnan(values[best[-1], -1]):
        raise ValueError("metric must be defined at a threshold of grid; got only NaN.")
    if not by_group:
        reached = np.repeat(values[best[-1], -1], num_groups)
        return Thresholds(np.repeat(grid[best[-1]], num_groups), reached)
    differs = np.nanmax(values, axis=0, initial=-np.inf)
    differs = differs > np.nanmin(values, axis=0, initial=np.inf)
    both = (counts.counts[0].sum(axis=-1) > 0).all(axis=-1)
    best = np.where(differs[:-1] & both, best[:-1], best[-1])
    return Thresholds(grid[best], values[best, np.arange(num_groups)])
