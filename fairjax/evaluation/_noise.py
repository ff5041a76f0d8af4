"""Noise floors of gaps, where the attributes have no effect, and corrected gaps.

Groups exchange their members, and nothing else changes. Gaps of error rates and of
AUROC are conditional on the outcome, so members of equal outcomes are exchanged. Any
two members are exchanged for demographic parity. Unweighted counts are shuffled without
patients. Otherwise patients are shuffled, all attributes of a patient together, and
each patient keeps its weight. Weights that depend on the group make such floors
approximate.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fairjax import metrics
from fairjax.evaluation._level_measures import BY_LEVEL, by_level
from fairjax.evaluation._measures import BY_GROUP, rate_gap
from fairjax.evaluation._sample import Sample
from fairjax.evaluation.cohorts import Cohort
from fairjax.evaluation.names import GAP, IMPACT, PARITY, STATISTICAL_PARITY, SUMMARIES
from fairjax.metrics import CorrectedGap

_RATE_GAPS = (GAP, PARITY)
# Metrics of all patients, whatever their outcome.
_OF_SELECTION = (PARITY, IMPACT, STATISTICAL_PARITY)
# How many numbers are held at a time where many shuffles run at once.
_AT_ONCE = 2**22


class Noise(NamedTuple):
    """Noise floors, corrected gaps and p-values of metrics of groups, by full name.

    Attributes:
      floor: The mean of the metric under shuffled attributes.
      corrected: The gap less its bias; NaN for weighted rates and for AUROCs, which
        have no parametric bootstrap here.
      p_value: The one-sided p-value of the hypothesis that attributes have no effect.
    """

    floor: dict[str, jax.Array]
    corrected: dict[str, jax.Array]
    p_value: dict[str, jax.Array]


class _Null(NamedTuple):
    """The observed value, and the values of the shuffles ``[P]``."""

    observed: jax.Array
    null: jax.Array


def noise(
    key: jax.Array,
    scores: jax.Array,
    decisions: jax.Array,
    *,
    names: Sequence[str],
    cohort: Cohort,
    weights: jax.Array | None,
    num_permutations: int,
) -> Noise:
    """Computes the noise in one repeat's metrics.

    The summaries over attributes are taken in each shuffle.

    Args:
      key: A random key.
      scores: float32 ``[n]``.
      decisions: bool ``[n]``, or probabilities of a positive decision.
      names: The metrics; those of groups have noise floors.
      cohort: The patients.
      weights: float32 ``[n]``, or None for equal weights.
      num_permutations: Shuffles, and redrawn counts.
    """
    found = Noise({}, {}, {})
    chosen = [name for name in BY_GROUP if name in names]
    exact = weights is None and not jnp.issubdtype(decisions.dtype, jnp.floating)
    counted = [name for name in chosen if name in _RATE_GAPS and exact]
    mass = jnp.ones_like(scores) if weights is None else weights
    predictions = Sample(cohort, scores, decisions, mass[None])
    for metric in counted:
        nulls, gaps = _from_counts(key, metric, predictions, num_permutations)
        _add(found, metric, nulls, cohort, _corrected(cohort, gaps))
    rest = [name for name in chosen if name not in counted]
    by_group = [
        name for name, of in BY_LEVEL.items() if name in names and of.parity is not None
    ]
    kinds = ((rest, _of_attributes), (by_group, _of_groups))
    strata = (cohort.labels, jnp.zeros_like(cohort.labels))
    stream = len(_RATE_GAPS) * len(cohort.groupings)
    for some, measure in kinds:
        for everyone, stratum in enumerate(strata):
            asked = [m for m in some if (m in _OF_SELECTION) == bool(everyone)]
            if asked:
                shuffle_key = jax.random.fold_in(key, stream)
                shuffled = _from_patients(
                    shuffle_key, asked, measure, predictions, stratum, num_permutations
                )
                for metric, nulls in shuffled.items():
                    _add(found, metric, nulls, cohort)
            stream += 1
    return found


def _of_attributes(metric: str, sample: Sample) -> dict[str, jax.Array]:
    """Returns a metric's value for each grouping."""
    groupings = sample.cohort.groupings
    return {g.name: BY_GROUP[metric].of(sample, g)[0] for g in groupings}


def _of_groups(metric: str, sample: Sample) -> dict[str, jax.Array]:
    """Returns the summaries of a metric of each group."""
    every = by_level(metric, sample)
    return {part: every[f"{metric}/{part}"][0] for part in SUMMARIES}


def _from_counts(
    key: jax.Array, metric: str, sample: Sample, number: int
) -> tuple[dict[str, _Null], dict[str, CorrectedGap]]:
    """Shuffles a gap of unweighted rates, and redraws counts at shrunken rates."""
    nulls, gaps, groupings = {}, {}, sample.cohort.groupings
    # All patients have one label where outcomes do not matter: the selection rate is
    # then the rate of that label, and its bias is computed in the same way.
    labels = sample.cohort.labels
    asked = labels if metric == GAP else jnp.ones_like(labels)
    for n, grouping in enumerate(groupings, _RATE_GAPS.index(metric) * len(groupings)):
        one, two = jax.random.split(jax.random.fold_in(key, n))
        rows, of = (asked, sample.decisions, grouping.codes), grouping.size
        gap = rate_gap(metric, grouping)
        test = metrics.permutation_null(
            one, *rows, num_groups=of, num_permutations=number, statistic=gap
        )
        nulls[grouping.name] = _Null(test.observed, test.null)
        counts = metrics.group_counts(*rows, num_groups=of)
        gaps[grouping.name] = metrics.bias_corrected_gap(
            two, counts, num_replicates=number, statistic=gap
        )
    return nulls, gaps


def _corrected(
    cohort: Cohort, gaps: Mapping[str, CorrectedGap]
) -> dict[str, jax.Array]:
    """Returns the corrected gaps of the groupings and of the summaries."""
    each = [gaps[grouping.name] for grouping in cohort.attributes]
    raw, at_rates = (
        jnp.stack([getattr(g, kind) for g in each]) for kind in ("raw", "at_rates")
    )
    redrawn = jnp.stack([g.replicates for g in each])
    bias = redrawn.max(axis=0).mean() - at_rates.max()
    return {
        **{name: gap.corrected for name, gap in gaps.items()},
        "mean": jnp.stack([g.corrected for g in each]).mean(),
        "worst": jnp.maximum(raw.max() - bias, 0),
    }


def _from_patients(
    key: jax.Array,
    names: Sequence[str],
    measure: Callable[[str, Sample], dict[str, jax.Array]],
    sample: Sample,
    stratum: jax.Array,
    number: int,
) -> dict[str, dict[str, _Null]]:
    """Computes metrics of patients who exchange their attributes within strata."""
    order = jnp.argsort(stratum, stable=True)
    everyone = jnp.arange(stratum.size)

    def shuffle(shuffle_key: jax.Array) -> jax.Array:
        bits = jax.random.bits(shuffle_key, stratum.shape)
        _, _, drawn = jax.lax.sort((stratum, bits, everyone), num_keys=2)
        return jnp.zeros_like(everyone).at[order].set(drawn)

    def values(rows: jax.Array) -> dict[str, dict[str, jax.Array]]:
        cohort = sample.cohort.exchanged(rows)
        shuffled = Sample(cohort, sample.scores, sample.decisions, sample.weights)
        return {metric: measure(metric, shuffled) for metric in names}

    shuffles = jax.vmap(shuffle)(jax.random.split(key, number))
    groups = sum(grouping.size for grouping in sample.cohort.groupings)
    batch = max(1, _AT_ONCE // (4 * groups * stratum.size))
    # The observed order comes first.
    found = jax.lax.map(
        values,
        jnp.concatenate([everyone[None], shuffles]),
        batch_size=min(batch, number),
    )
    return {
        metric: {name: _Null(each[0], each[1:]) for name, each in of.items()}
        for metric, of in found.items()
    }


def _add(
    found: Noise,
    metric: str,
    nulls: Mapping[str, _Null],
    cohort: Cohort,
    corrected: Mapping[str, jax.Array] | None = None,
) -> None:
    """Adds one metric's noise: of each grouping, and of the attributes' summaries.

    A metric of each group has only summaries, which were shuffled themselves.
    """
    rows, sign = dict(nulls), 1
    if metric in BY_GROUP:
        each = [nulls[grouping.name] for grouping in cohort.attributes]
        observed = jnp.stack([null.observed for null in each])
        shuffled = jnp.stack([null.null for null in each])
        worst = BY_GROUP[metric].worst
        rows["mean"] = _Null(observed.mean(), shuffled.mean(axis=0))
        rows["worst"] = _Null(worst(observed), worst(shuffled, axis=0))
        # Low values of a score are bad.
        sign = -1 if worst is jnp.min else 1
    for name, (value, null) in rows.items():
        full = f"{metric}/{name}"
        # Shuffles in which a group's metric is undefined are ignored.
        found.floor[full] = jnp.nanmean(null) if name in nulls else null.mean()
        found.p_value[full] = metrics.permutation_p_value(sign * value, sign * null)
        found.corrected[full] = (corrected or {}).get(name, jnp.array(jnp.nan))
