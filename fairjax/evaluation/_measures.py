"""The available metrics, of predictions under any weights.

Each metric is a function of a `Sample` that returns values ``[B]`` under weights
``[B, n]``. Resamples and weighted patients therefore need no code of their own. A
metric of a grouping has one name for each attribute, ``metric/attribute``, and one for
the crossed attributes where intersections are compared. Two summaries are over the
attributes alone: ``metric/mean``, and ``metric/worst``, the worst attribute's value.
Crossed groups are finer than any attribute's groups, so intersections would always be
the worst. A metric of each group has a name for each, ``metric/attribute=level``, and
the same summaries over the groups.

Decisions are bool, or probabilities of a positive decision. With probabilities every
metric is an expectation, without a draw.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairjax import metrics
from fairjax.evaluation._level_measures import BY_LEVEL, by_level
from fairjax.evaluation._sample import Sample
from fairjax.evaluation.names import AUROC_GAP, EQUITY, GAP, GROUP_AUROC, PARITY
from fairjax.groups import Grouping
from fairjax.metrics import GroupCounts
from fairjax.metrics.definitions import GAPS, METRICS, RATES


class GroupMetric(NamedTuple):
    """A metric of the groups of one attribute.

    Attributes:
      of: The function of a sample and a grouping that returns values ``[B]``.
      worst: The worst of several attributes' values, along the first axis.
    """

    of: Callable[[Sample, Grouping], jax.Array]
    worst: Callable[..., jax.Array]


def rate_gap(metric: str, grouping: Grouping) -> Callable[[GroupCounts], jax.Array]:
    """Returns a gap of rates over the compared groups, as a function of counts."""
    valid = jnp.asarray(grouping.compared)

    def gap(counts):
        rates = [metrics.group_rate(counts, name) for name in GAPS[metric].rates]
        gaps = [metrics.difference(rate, valid) for rate in rates]
        return jnp.maximum(*gaps) if len(gaps) == 2 else gaps[0]

    return gap


def _gap_metric(metric: str) -> GroupMetric:
    return GroupMetric(lambda s, g: rate_gap(metric, g)(s.counts(g)), jnp.max)


def _auroc_gap(sample: Sample, grouping: Grouping) -> jax.Array:
    return metrics.difference(sample.group_aurocs(grouping))


def _equity_scaled(sample: Sample, grouping: Grouping) -> jax.Array:
    aurocs = sample.group_aurocs(grouping)
    return metrics.equity_scaled_auroc(sample.auroc(), aurocs)


def _rate(name: str) -> Callable[[Sample], jax.Array]:
    """Returns the function that computes a rate of all patients."""
    return lambda sample: metrics.group_rate(sample.counts(), name)[:, 0]


def _brier(sample: Sample) -> jax.Array:
    squares = (sample.scores - sample.cohort.labels) ** 2
    return sample.weights @ squares / sample.weights.sum(axis=1)


def _worst_group_auroc(sample: Sample) -> jax.Array:
    """Returns the lowest AUROC of intersections with enough of both outcomes."""
    weights, labels = sample.weights, sample.cohort.labels

    def one(rows):
        order = metrics.score_order(sample.scores[rows])
        # Padding rows, -1, index the last patient, with a weight of 0.
        mass = jnp.where(rows < 0, 0, weights[:, rows])
        auroc = jax.vmap(metrics.auroc_from_order, in_axes=(None, None, 0))
        return auroc(order, labels[rows], mass)

    if not len(sample.cohort.judged):
        return jnp.full(weights.shape[0], jnp.nan)
    return jax.lax.map(one, sample.cohort.judged).min(axis=0)


OVERALL: Mapping[str, Callable[[Sample], jax.Array]] = {
    "auroc": Sample.auroc,
    "worst_group_auroc": _worst_group_auroc,
    "brier": _brier,
    **{name: _rate(name) for name in RATES if METRICS[name].bounded},
}
BY_GROUP: Mapping[str, GroupMetric] = {
    GAP: _gap_metric(GAP),
    PARITY: _gap_metric(PARITY),
    AUROC_GAP: GroupMetric(_auroc_gap, jnp.max),
    EQUITY: GroupMetric(_equity_scaled, jnp.min),
}
KNOWN = (*OVERALL, *BY_GROUP, *BY_LEVEL, GROUP_AUROC)


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names without repetition.

    Raises:
      ValueError: If a metric is unknown.
    """
    unknown = [name for name in names if name not in KNOWN]
    if unknown:
        raise ValueError(
            f"metric_names must be among {', '.join(KNOWN)}; got {', '.join(unknown)}."
        )
    return tuple(dict.fromkeys(names))


def measure(names: Sequence[str], sample: Sample) -> dict[str, jax.Array]:
    """Computes the named metrics of a sample, ``[B]`` each, by full name."""
    found = {name: OVERALL[name](sample) for name in names if name in OVERALL}
    for name in names:
        if name in BY_GROUP:
            found |= _by_attribute(name, sample)
        if name in BY_LEVEL:
            found |= by_level(name, sample)
    if GROUP_AUROC in names:
        for grouping in sample.cohort.groupings:
            aurocs = sample.group_aurocs(grouping)
            for g in np.flatnonzero(grouping.compared):
                group = f"{grouping.name}={grouping.levels[g]}"
                found[f"{GROUP_AUROC}/{group}"] = aurocs[:, g]
    return found


def _by_attribute(name: str, sample: Sample) -> dict[str, jax.Array]:
    metric = BY_GROUP[name]
    values = {g.name: metric.of(sample, g) for g in sample.cohort.attributes}
    stacked = jnp.stack(list(values.values()))
    values |= {"mean": stacked.mean(axis=0), "worst": metric.worst(stacked, axis=0)}
    if sample.cohort.crossed is not None:
        crossed = sample.cohort.crossed
        values[crossed.name] = metric.of(sample, crossed)
    return {f"{name}/{attribute}": value for attribute, value in values.items()}
