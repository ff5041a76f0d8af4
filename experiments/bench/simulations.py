"""Simulated groups with known gaps, and the results of each method on them.

Every function here is one run with one key. The function draws rows or counts from
groups with given true values, and returns the methods' results. Runs are mapped over
many keys in one compiled program, which serves all true values.
"""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from fairjax import metrics
from fairjax.metrics import GroupCounts

NEGATIVES = 3
"""Negatives for each positive: a prevalence of one quarter."""


@dataclass(frozen=True)
class Scenario:
    """Groups and the metric that is compared.

    Attributes:
      metric: ``"TPR"``, ``"TPR ratio"``, ``"odds"``, ``"mean odds"`` or ``"AUROC"``.
      positives: Positives of each group.
      rate: The middle of the groups' true values.
    """

    metric: Literal["TPR", "TPR ratio", "odds", "mean odds", "AUROC"]
    positives: tuple[int, ...]
    rate: float = 0.75

    def truth(self, gap: float) -> float:
        """Returns the value for intervals to cover: the gap, or 1 less the ratio."""
        if self.metric == "TPR ratio":
            return 1 - (self.rate - gap / 2) / (self.rate + gap / 2)
        return gap / 2 if self.metric == "mean odds" else gap


@dataclass(frozen=True)
class Sizes:
    """Numbers of replicates, shuffles and draws of each run."""

    replicates: int = 400
    permutations: int = 99
    draws: int = 4000


def spread(gap: jax.Array, groups: int, middle: float = 0.75) -> jax.Array:
    """Returns the groups' true values, evenly spaced about the middle."""
    return middle + gap * jnp.linspace(-0.5, 0.5, groups)


class Findings(NamedTuple):
    """The methods' results on one data set.

    Attributes:
      interval: ``[2]``, this package's interval.
      percentile: ``[2]``, the percentile bootstrap's interval.
      p_value: P-value of the permutation test.
      gap: ``[2]``, as observed, and less its bias by ``gap_noise``; NaN for a ratio.
    """

    interval: jax.Array
    percentile: jax.Array
    p_value: jax.Array
    gap: jax.Array


def find(key: jax.Array, gap: jax.Array, scenario: Scenario, sizes: Sizes) -> Findings:
    """Draws one data set with this true gap, and applies every method."""
    keys = jax.random.split(key, 4)
    number, positives = len(scenario.positives), np.array(scenario.positives)
    # For each group, first the positives, then the negatives.
    repeats = np.stack([positives, NEGATIVES * positives], axis=1).ravel()
    labels = jnp.asarray(np.repeat([1, 0] * number, repeats))
    groups = jnp.asarray(np.repeat(np.arange(number).repeat(2), repeats))
    rows = (spread(gap, number, scenario.rate)[groups], labels, groups)
    run = _find_auroc if scenario.metric == "AUROC" else _find_rates
    found, noise, percentile, test = run(keys, rows, scenario, sizes)
    corrected = jnp.stack([found.estimate, noise.corrected])
    if scenario.metric == "TPR ratio":
        corrected = jnp.full_like(corrected, jnp.nan)
    interval = jnp.stack([found.lower, found.upper])
    return Findings(interval, jnp.stack(percentile), test.p_value, corrected)


def _find_rates(
    keys: jax.Array, rows: tuple[jax.Array, ...], scenario: Scenario, sizes: Sizes
):
    data, simulation, resample, shuffle = keys
    values, labels, groups = rows
    number = len(scenario.positives)
    # The false positive rates are equal, so the gap of the odds is the gap of the TPR.
    rates = jnp.where(labels == 1, values, 0.2)
    predictions = jax.random.bernoulli(data, rates)
    counts = metrics.group_counts(labels, predictions, groups, num_groups=number)
    table = jnp.moveaxis(counts.counts, 1, 0)  # [label, G, prediction]
    agg = "mean" if scenario.metric == "mean odds" else "max"
    if "odds" in scenario.metric:
        statistic = functools.partial(metrics.equalized_odds_difference, agg=agg)
        found = metrics.equalized_odds_interval(
            simulation, counts, agg=agg, num_draws=sizes.draws
        )
    else:
        table = table[1:]
        statistic, interval = {
            "TPR": (metrics.equal_opportunity_difference, metrics.rate_gap_interval),
            "TPR ratio": (_below_parity, metrics.rate_ratio_interval),
        }[scenario.metric]
        counted = (table[0, :, 1], table[0].sum(1))
        found = interval(simulation, *counted, num_draws=sizes.draws)
    if scenario.metric == "TPR ratio":
        found = found._replace(lower=1 - found.upper, upper=1 - found.lower)
    hits, trials = table[..., 1], table.sum(axis=2)
    pooled = hits.sum(axis=1, keepdims=True) / trials.sum(axis=1, keepdims=True)
    errors = jnp.sqrt(pooled * (1 - pooled) / trials)
    noise = metrics.gap_noise(
        simulation, hits / trials, errors, agg=agg, num_draws=sizes.draws
    )
    test = metrics.permutation_null(
        *(shuffle, labels, predictions, groups),
        num_groups=number,
        num_permutations=sizes.permutations,
        statistic=statistic,
    )
    percentile = percentile_interval(resample, counts, statistic, sizes.replicates)
    return found, noise, percentile, test


def _below_parity(counts: GroupCounts) -> jax.Array:
    """Computes how far the ratio of true positive rates is below 1."""
    return 1 - metrics.ratio(metrics.true_positive_rate(counts))


def percentile_interval(key, counts: GroupCounts, statistic, replicates: int):
    """Computes percentiles over resampled rows, as fairlearn's ``difference_ci``."""
    drawn = metrics.multinomial_bootstrap(
        key, counts, num_replicates=replicates, within="table"
    )
    return metrics.bootstrap_interval(statistic(drawn), statistic(counts))


def _find_auroc(
    keys: jax.Array, rows: tuple[jax.Array, ...], scenario: Scenario, sizes: Sizes
):
    data, simulation, resample, shuffle = keys
    values, labels, groups = rows
    number, positives = len(scenario.positives), jnp.asarray(scenario.positives)
    columns = (labels, _scores(data, labels, values), groups)
    delong = metrics.delong(*columns, num_groups=number)
    areas, variances = delong.auroc[0], delong.covariance[:, 0, 0]
    found = metrics.auroc_gap_interval(
        *(simulation, areas, jnp.diag(variances), positives, NEGATIVES * positives),
        num_draws=sizes.draws,
    )
    replicates = metrics.bootstrap_auroc(
        resample, *columns, num_groups=number, num_replicates=sizes.replicates
    )
    percentile = metrics.bootstrap_interval(
        metrics.difference(replicates), metrics.difference(areas)
    )
    test = metrics.score_permutation_null(
        shuffle, *columns, num_groups=number, num_permutations=sizes.permutations
    )
    noise = metrics.gap_noise(
        simulation, areas, jnp.sqrt(variances), num_draws=sizes.draws
    )
    return found, noise, percentile, test


def _scores(key: jax.Array, labels: jax.Array, areas: jax.Array) -> jax.Array:
    """Draws normal scores with known AUROCs."""
    shift = jnp.sqrt(2.0) * ndtri(areas)
    return jax.random.normal(key, labels.shape) + jnp.where(labels == 1, shift, 0)


def single_rate(key: jax.Array, given: jax.Array, replicates: int) -> jax.Array:
    """Computes Wilson's, Jeffreys' and percentile intervals ``[3, 2]`` of one rate."""
    trials, rate = given
    data, resample = jax.random.split(key)
    successes = jax.random.binomial(data, trials, rate)
    drawn = jax.random.binomial(
        resample, trials, successes / trials, shape=(replicates,)
    )
    intervals = (
        metrics.wilson_interval(successes, trials),
        metrics.jeffreys_interval(successes, trials),
        metrics.bootstrap_interval(drawn / trials, successes / trials),
    )
    return jnp.stack([jnp.stack(interval) for interval in intervals])


def single_auroc(key: jax.Array, area: jax.Array, positives: int) -> jax.Array:
    """Computes the AUROC's interval, and DeLong's without the logit, ``[2, 2]``."""
    negatives = NEGATIVES * positives
    labels = jnp.repeat(jnp.array([1, 0]), np.array([positives, negatives]))
    scores = _scores(key, labels, jnp.full(labels.shape, area))
    found = metrics.delong(labels, scores, jnp.zeros_like(labels), num_groups=1)
    estimate, error = found.auroc[0, 0], jnp.sqrt(found.covariance[0, 0, 0])
    smooth = metrics.auroc_interval(estimate, error, positives, negatives)
    reach = 1.959964 * error
    return jnp.stack(
        [jnp.stack(smooth), jnp.stack([estimate - reach, estimate + reach])]
    )


@dataclass(frozen=True)
class Clusters:
    """Patients with several rows each.

    Attributes:
      patients: Number of patients in each group.
      groups: Number of groups.
      varying: Whether the group varies from row to row of a patient, as a site does.
      correlation: Correlation of two rows of a patient.
      rows: Numbers of rows of the patients, in turn.
    """

    patients: int
    groups: int
    varying: bool = False
    correlation: float = 0.4
    rows: tuple[int, ...] = (1, 2, 4, 8)


class ClusterFindings(NamedTuple):
    """Intervals of one data set, with independent rows and by patient, ``[2, ...]``.

    Attributes:
      rates: ``[2, groups, 2]``, the intervals of the groups' rates.
      gap: ``[2, 2]``, the interval of the gap.
    """

    rates: jax.Array
    gap: jax.Array


def find_clustered(
    key: jax.Array, gap: jax.Array, scenario: Clusters, draws: int
) -> ClusterFindings:
    """Draws one data set of clustered rows, with this true gap."""
    data, simulation = jax.random.split(key)
    number, total = scenario.groups, scenario.groups * scenario.patients
    patients = np.repeat(np.arange(total), np.resize(scenario.rows, total))
    groups = (np.arange(patients.size) if scenario.varying else patients) % number
    values = spread(gap, number)
    # A row repeats its patient's draw with a probability whose square is the
    # correlation.
    shared, repeats, own = jax.random.split(data, 3)
    of_patient = jax.random.uniform(shared, (total,))[patients]
    chance = np.sqrt(scenario.correlation)
    repeated = jax.random.bernoulli(repeats, chance, patients.shape)
    uniform = jax.random.uniform(own, patients.shape)
    hits = jnp.where(repeated, of_patient, uniform) < values[groups]
    found = metrics.cluster_rate_covariance(
        hits,
        jnp.ones(patients.size),
        groups,
        patients,
        num_groups=number,
        num_patients=total,
    )
    trials = jnp.asarray(np.bincount(groups, minlength=number))
    judge = functools.partial(metrics.rate_gap_interval, simulation, num_draws=draws)
    naive = judge(found.rates * trials, trials)
    robust = judge(found.rates * trials, trials, clusters=found)
    by_row = metrics.wilson_interval(found.rates * trials, trials)
    by_patient = metrics.cluster_interval(found)
    rates = [jnp.stack(one, axis=-1) for one in (by_row, by_patient)]
    gaps = [jnp.stack([one.lower, one.upper]) for one in (naive, robust)]
    return ClusterFindings(jnp.stack(rates), jnp.stack(gaps))
