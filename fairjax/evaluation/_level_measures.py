"""Metrics of each group of an attribute, most of them against a reference group.

The metrics are functions of (expected) counts. Each metric has a name for every group,
``metric/attribute=level``, and two summaries over the compared groups, ``metric/mean``
and ``metric/worst``. A metric with a parity value also has the distance from parity of
every group but the reference, ``metric/distance attribute=level``; its summaries are
over these distances. Distances are computed in every repeat and resample, so
differences of opposite signs do not cancel in their means.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairjax import metrics
from fairjax.evaluation._sample import Sample
from fairjax.evaluation.names import (
    AVERAGE_ODDS,
    DISTANCE,
    IMPACT,
    OPPORTUNITY,
    STATISTICAL_PARITY,
    SUMMARIES,
)
from fairjax.metrics import GroupCounts


class LevelMetric(NamedTuple):
    """A metric of each group of an attribute.

    Attributes:
      of: ``of(counts, reference) -> [B, G]``, the metric's values.
      parity: The reference group's value of a metric against the reference. Summaries
        are over the distances from parity. None for a metric whose larger values are
        better.
      limits: Ends of the metric's range.
    """

    of: Callable[[GroupCounts, int], jax.Array]
    parity: float | None
    limits: tuple[float, float] = (0.0, 1.0)


def _group_rate(name: str) -> LevelMetric:
    """Returns the metric of a rate of each group."""
    return LevelMetric(lambda counts, _: metrics.group_rate(counts, name), None)


def _against(
    gap: Callable[..., jax.Array],
    parity: float = 0.0,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> LevelMetric:
    """Returns the metric of each group's gap from the reference."""
    return LevelMetric(
        lambda counts, reference: gap(counts, reference=reference), parity, limits
    )


BY_LEVEL: Mapping[str, LevelMetric] = {
    IMPACT: _against(metrics.disparate_impact, 1.0, (0.0, math.inf)),
    STATISTICAL_PARITY: _against(metrics.statistical_parity_difference),
    OPPORTUNITY: _against(metrics.equal_opportunity_difference),
    AVERAGE_ODDS: _against(metrics.average_odds_difference),
    "group_accuracy": _group_rate("accuracy"),
    "group_balanced_accuracy": _group_rate("balanced_accuracy"),
    "group_f1_score": _group_rate("f1_score"),
    "group_recall": _group_rate("true_positive_rate"),
}
"""Metrics of each group; those with a parity need an attribute with a reference."""


def by_level(name: str, sample: Sample) -> dict[str, jax.Array]:
    """Computes a metric of each compared group, its distances and its summaries.

    Summaries of a metric with a parity value are over the distances from parity. The
    reference, whose distance is 0, is left out of summaries.

    Raises:
      ValueError: If a metric with a parity value has no reference group.
    """
    metric, found, chosen = BY_LEVEL[name], {}, []
    for grouping in sample.cohort.attributes:
        summarised = grouping.compared.copy()
        if metric.parity is not None:
            if grouping.reference is None:
                raise ValueError(
                    f"{name} needs references[{grouping.name!r}]; got no reference."
                )
            summarised[grouping.reference] = False
        values = metric.of(sample.counts(grouping), grouping.reference or 0)
        distances = values
        if metric.parity is not None:
            distances = jnp.abs(values - metric.parity)
        for g in np.flatnonzero(grouping.compared):
            group = f"{grouping.name}={grouping.levels[g]}"
            found[f"{name}/{group}"] = values[:, g]
            if metric.parity is not None and summarised[g]:
                found[f"{name}/{DISTANCE} {group}"] = distances[:, g]
        chosen.append(distances[:, np.flatnonzero(summarised)])
    every = jnp.concatenate(chosen, axis=1)
    worst = every.min(axis=1) if metric.parity is None else every.max(axis=1)
    summaries = {f"{name}/mean": every.mean(axis=1), f"{name}/worst": worst}
    return found | summaries


def limits(metric: str) -> tuple[float, float]:
    """Returns the ends of a metric's range, by its full name.

    Example:
      >>> limits("statistical_parity_difference/sex=f"), limits("auroc")
      ((-1.0, 1.0), (0.0, 1.0))
      >>> limits("statistical_parity_difference/worst")
      (0.0, 1.0)
      >>> limits("statistical_parity_difference/distance sex=f")
      (0.0, 1.0)
    """
    name, _, part = metric.partition("/")
    if name not in BY_LEVEL:
        return 0.0, 1.0
    low, high = BY_LEVEL[name].limits
    unsigned = part in SUMMARIES or part.startswith(f"{DISTANCE} ")
    return (0.0, high) if unsigned else (low, high)
