"""Intervals for the most common gaps: in rates, odds and AUROCs.

Each function is ``gap_interval`` or ``ratio_interval`` with given limits of the groups,
compiled once for each number of groups. Padding groups with 0 trials are omitted, so
attributes with different numbers of categories can share a compiled program.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Real

from fairjax.metrics._numbers import student_equivalent
from fairjax.metrics._rows import check_unweighted
from fairjax.metrics.auroc_intervals import auroc_interval
from fairjax.metrics.clusters import ClusterRates
from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.gap_intervals import GapInterval, gap_interval, ratio_interval
from fairjax.metrics.gaps import valid_groups
from fairjax.metrics.intervals import Interval, midp_interval

_STATIC = ("confidence", "num_draws")
_NUM_DRAWS = 20_000


@functools.partial(jax.jit, static_argnames=_STATIC)
def rate_gap_interval(
    key: PRNGKeyArray,
    successes: Real[Array | np.ndarray, " groups"],
    trials: Real[Array | np.ndarray, " groups"],
    *,
    clusters: ClusterRates | None = None,
    valid: Bool[Array | np.ndarray, " groups"] | None = None,
    confidence: float = 0.95,
    num_draws: int = _NUM_DRAWS,
) -> GapInterval:
    """Computes the interval of the largest minus the smallest rate, by mid-p intervals.

    Args:
      key: A random key.
      successes: ``[G]``, in ``[0, trials]``, such as true positives.
      trials: ``[G]``, such as positives. A group without trials is omitted.
      clusters: From ``cluster_rate_covariance`` of the same rows, if patients have
        several rows. The rates are then taken from ``clusters``.
      valid: False to omit a group.
      confidence: Two-sided, in (0, 1).
      num_draws: Number of draws of the simulation.

    Returns:
      As ``gap_interval``.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> gap = rate_gap_interval(
      ...     jax.random.key(0), jnp.array([30, 45, 40]), jnp.array([50, 50, 50])
      ... )
      >>> round(gap.estimate.item(), 3), round(gap.lower.item(), 2)
      (0.3, 0.1)
    """
    options = {"valid": valid, "confidence": confidence, "num_draws": num_draws}
    return _of_rates(gap_interval, key, successes, trials, clusters, options)


@functools.partial(jax.jit, static_argnames=_STATIC)
def rate_ratio_interval(
    key: PRNGKeyArray,
    successes: Real[Array | np.ndarray, " groups"],
    trials: Real[Array | np.ndarray, " groups"],
    *,
    clusters: ClusterRates | None = None,
    valid: Bool[Array | np.ndarray, " groups"] | None = None,
    confidence: float = 0.95,
    num_draws: int = _NUM_DRAWS,
) -> GapInterval:
    """Computes the interval of the smallest over the largest rate.

    The ratio of selection rates is known as disparate impact.

    Args:
      key: A random key.
      successes: ``[G]``, as in ``rate_gap_interval``.
      trials: ``[G]``, as in ``rate_gap_interval``.
      clusters: As in ``rate_gap_interval``.
      valid: False to omit a group.
      confidence: Two-sided, in (0, 1).
      num_draws: Number of draws of the simulation.

    Returns:
      As ``ratio_interval``.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> ratio = rate_ratio_interval(
      ...     jax.random.key(0), jnp.array([30, 45, 40]), jnp.array([50, 50, 50])
      ... )
      >>> round(ratio.estimate.item(), 3), round(ratio.upper.item(), 2)
      (0.667, 0.88)
    """
    options = {"valid": valid, "confidence": confidence, "num_draws": num_draws}
    return _of_rates(ratio_interval, key, successes, trials, clusters, options)


def _of_rates(interval, key, successes, trials, clusters, options) -> GapInterval:
    """Computes the interval of a gap in rates from the mid-p intervals of the rates."""
    successes, trials = jnp.asarray(successes), jnp.asarray(trials)
    if clusters is None:
        some = trials > 0
        rates = jnp.where(some, successes / jnp.where(some, trials, 1), jnp.nan)
        single = functools.partial(midp_interval, successes, trials)
        return interval(key, rates, lambda z: single(z=z), **options)
    if clusters.rates.size != trials.size:
        raise ValueError(
            f"clusters must have {trials.size} rates, one for each number of trials; "
            f"got {clusters.rates.size}. Equalized odds need cluster_label_rates."
        )
    rates, effective, degrees = (
        leaf.reshape(trials.shape)
        for leaf in (clusters.rates, clusters.trials, clusters.degrees_of_freedom)
    )

    def limits(z: Array) -> Interval:
        score = student_equivalent(z, degrees)
        return midp_interval(rates * effective, effective, z=score)

    return interval(key, rates, limits, covariance=clusters.covariance, **options)


@functools.partial(jax.jit, static_argnames=("agg", *_STATIC))
def equalized_odds_interval(
    key: PRNGKeyArray,
    counts: GroupCounts,
    *,
    agg: Literal["max", "mean"] = "max",
    min_support: float | int | Real[Array | np.ndarray, ""] = 0,
    clusters: ClusterRates | None = None,
    confidence: float = 0.95,
    num_draws: int = _NUM_DRAWS,
) -> GapInterval:
    """Computes the interval of the equalized odds difference, from TPR and FPR jointly.

    Args:
      key: A random key.
      counts: ``[G, 2, 2]``, unweighted.
      agg: ``"max"``, the worse of the gaps in true and false positive rates, or
        ``"mean"``.
      min_support: Minimum positives (negatives) for a group's true (false) positive
        rate to be compared.
      clusters: From ``cluster_label_rates``, if patients have several rows.
      confidence: Two-sided, in (0, 1).
      num_draws: Number of draws of the simulation.

    Returns:
      The value of ``equalized_odds_difference`` with its interval. ``highest`` and
      ``lowest`` are ``[2]``, for the false and then the true positive rates.

    Raises:
      ValueError: If the confidence is outside (0, 1), ``agg`` is not one of these, or
        the counts have floating-point weights.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[80, 20], [10, 40]], [[75, 25], [25, 25]]]))
      >>> gap = equalized_odds_interval(jax.random.key(0), counts)
      >>> round(gap.estimate.item(), 2), gap.highest.tolist(), gap.lowest.tolist()
      (0.3, [1, 0], [0, 1])
      >>> round(gap.lower.item(), 2), round(gap.upper.item(), 2)
      (0.09, 0.47)
      >>> gap.p_value.item() < 0.01
      True
    """
    check_unweighted(jnp.asarray(counts.counts), "equalized_odds_interval")
    table = jnp.moveaxis(jnp.asarray(counts.counts), 1, 0)  # [label, G, prediction]
    options = {
        "valid": valid_groups(counts, min_support).T,
        "agg": agg,
        "confidence": confidence,
        "num_draws": num_draws,
    }
    trials = jnp.sum(table, axis=-1)
    return _of_rates(gap_interval, key, table[..., 1], trials, clusters, options)


@functools.partial(jax.jit, static_argnames=_STATIC)
def auroc_gap_interval(
    key: PRNGKeyArray,
    aurocs: Float[Array | np.ndarray, " groups"],
    covariance: Float[Array | np.ndarray, "groups groups"],
    positives: Real[Array | np.ndarray, " groups"],
    negatives: Real[Array | np.ndarray, " groups"],
    *,
    valid: Bool[Array | np.ndarray, " groups"] | None = None,
    confidence: float = 0.95,
    num_draws: int = _NUM_DRAWS,
) -> GapInterval:
    """Computes the interval of the largest minus the smallest AUROC.

    The limits of each group are those of ``auroc_interval``.

    Args:
      key: A random key.
      aurocs: ``[G]``; NaN omits a group.
      covariance: ``[G, G]``, from DeLong: diagonal if groups share no patients,
        cluster-robust if patients have several rows.
      positives: ``[G]``; for clustered rows, the number of patients with positives.
      negatives: ``[G]``, likewise.
      valid: False to omit a group.
      confidence: Two-sided, in (0, 1).
      num_draws: Number of draws of the simulation.

    Returns:
      As ``gap_interval``.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> aurocs, covariance = jnp.array([0.9, 0.7]), jnp.diag(jnp.array([4e-4, 9e-4]))
      >>> gap = auroc_gap_interval(
      ...     jax.random.key(0), aurocs, covariance, jnp.array([80, 80]),
      ...     jnp.array([200, 200]),
      ... )
      >>> round(gap.lower.item(), 2), round(gap.upper.item(), 2)
      (0.13, 0.27)
    """
    errors = jnp.sqrt(jnp.maximum(jnp.diagonal(jnp.asarray(covariance)), 0))
    return gap_interval(
        key,
        aurocs,
        lambda z: auroc_interval(aurocs, errors, positives, negatives, z=z),
        covariance=covariance,
        valid=valid,
        confidence=confidence,
        num_draws=num_draws,
    )
