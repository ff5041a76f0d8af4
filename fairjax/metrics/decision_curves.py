"""Decision curves: the net benefit of decisions at risk thresholds, by group."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fairjax.metrics._rows import ScoreRows, binary_rows
from fairjax.metrics._segments import group_sums
from fairjax.metrics.counts import BinaryRows, GroupRows, WeightRows


class NetBenefit(NamedTuple):
    """Net benefit by group and threshold, where treating nobody has net benefit 0.

    Attributes:
      model: ``[G, T]``, net benefit of treating where ``score >= threshold``.
      treat_all: ``[G, T]``, net benefit of treating everyone.
    """

    model: Float[Array, "groups thresholds"]
    treat_all: Float[Array, "groups thresholds"]


@functools.partial(jax.jit, static_argnames="num_groups")
def net_benefit(
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    thresholds: Float[Array | np.ndarray, " thresholds"],
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> NetBenefit:
    r"""Computes the net benefit of decisions at each risk threshold, by group.

    .. math:: \mathrm{NB}(t) = \frac{TP}{n} - \frac{FP}{n} \cdot \frac{t}{1 - t}

    The threshold :math:`t` defines the trade-off: one true positive is worth the cost
    of :math:`(1 - t) / t` false positives. The unit is true positives per row, so the
    net benefit depends on the prevalence. Compare a group's model with the group's
    ``treat_all`` and with 0, not with the curve of another group.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``, probabilities in [0, 1].
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      thresholds: ``[T]`` in [0, 1), in any order.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The curves, at most the group's prevalence; NaN for a group without weight or with
      a NaN score, and at thresholds outside [0, 1).

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    References:
      Vickers and Elkin, "Decision curve analysis: a novel method for evaluating
      prediction models", Medical Decision Making 26 (2006).

    Example:
      >>> import jax.numpy as jnp
      >>> curves = net_benefit(
      ...     jnp.array([0, 0, 1, 1]), jnp.array([0.1, 0.5, 0.5, 0.8]),
      ...     jnp.zeros(4, int), jnp.array([0.5, 0.75]), num_groups=1,
      ... )
      >>> curves.model.tolist(), curves.treat_all.tolist()
      ([[0.25, 0.25]], [[0.0, -1.0]])
    """
    table = binary_rows(labels, scores, groups, num_groups, weights)
    thresholds = jnp.asarray(thresholds)
    rank = jnp.argsort(thresholds)
    # A row is selected at all thresholds up to its score, so it is counted once, by the
    # number of such thresholds.
    passed = jnp.searchsorted(thresholds[rank], table.scores, side="right")
    width = thresholds.size + 1
    ids = jnp.where(table.groups >= 0, table.groups * width + passed, -1)

    def selected(mass):
        by_rank = group_sums(mass, ids, num_groups * width).reshape(num_groups, width)
        at_least = jnp.cumsum(by_rank[:, ::-1], axis=1)[:, ::-1]
        ours = jnp.zeros_like(at_least[:, 1:]).at[:, rank].set(at_least[:, 1:])
        return ours, at_least[:, :1]

    hits, positives = selected(jnp.where(table.labels == 1, table.mass, 0))
    alarms, negatives = selected(jnp.where(table.labels == 0, table.mass, 0))
    lost = group_sums(jnp.isnan(table.scores), table.groups, num_groups) > 0
    total = positives + negatives
    defined = (total > 0) & ~lost[:, None] & (thresholds >= 0) & (thresholds < 1)
    odds = jnp.where(thresholds < 1, thresholds / (1 - thresholds), 0)

    def worth(true, false):
        value = (true - odds * false) / jnp.where(total > 0, total, 1)
        return jnp.where(defined, value, jnp.nan)

    return NetBenefit(worth(hits, alarms), worth(positives, negatives))
