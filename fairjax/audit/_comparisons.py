"""Gaps between the groups of a family: estimate, interval, test, noise.

The test of a gap is that of its simultaneous interval, so that the two never disagree:
mid-p intervals of rates, with effective trials and Student's t where patients have
several rows, hold their level for few rows and for rates near 0 and 1.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fairjax import metrics
from fairjax.audit._measures import SHARES, Measured, Shares
from fairjax.metrics import GapInterval, Interval

# Gap -> the rate it is of.
SHARE_GAPS = {
    "demographic_parity_difference": "selection_rate",
    "equal_opportunity_difference": "true_positive_rate",
    "false_positive_rate_difference": "false_positive_rate",
    "predictive_parity_difference": "positive_predictive_value",
    "negative_predictive_value_difference": "negative_predictive_value",
    "accuracy_difference": "accuracy",
}
_TESTED = tuple(SHARES.index(rate) for rate in SHARE_GAPS.values())
_OTHER_GAPS = (
    "auroc_difference",
    "calibration_intercept_difference",
    "calibration_slope_difference",
)
# Of negatives, then of positives.
ODDS_GAPS = ("false_positive_rate_difference", "equal_opportunity_difference")
ODDS = tuple(SHARES.index(SHARE_GAPS[name]) for name in ODDS_GAPS)


# Programs of a few groups, which take seconds to compile and milliseconds to run: LLVM
# is told not to try hard.
_little_work = functools.partial(
    jax.jit,
    static_argnames=("confidence", "replicates"),
    compiler_options={"xla_backend_optimization_level": 0},
)


class Support(NamedTuple):
    """Which groups have enough rows to be compared.

    Attributes:
      shares: ``[M, G]``, for the rates of `SHARES`.
      both: ``[G]``, for what needs positives and negatives.
    """

    shares: Bool[Array, "rates groups"]
    both: Bool[Array, " groups"]


class Gap(NamedTuple):
    """A gap over the groups that can be compared; leading axes where there are several.

    Attributes:
      interval: The estimate, its interval, its test, whose they are.
      noise: The mean gap of equal groups, and the gap less its sampling bias.
    """

    interval: GapInterval
    noise: metrics.GapNoise


class Odds(NamedTuple):
    """False positive rates, then true positive rates.

    Attributes:
      rates: ``[2, G]``.
      trials: ``[2, G]``, effective.
      valid: ``[2, G]``, who is compared.
      covariance: ``[2 G, 2 G]``; None where rows are patients.
      degrees: ``[2, G]``; None likewise.
    """

    rates: Float[Array, "2 groups"]
    trials: Float[Array, "2 groups"]
    valid: Bool[Array, "2 groups"]
    covariance: Float[Array, "all all"] | None
    degrees: Float[Array, "2 groups"] | None


@jax.jit
def support(
    measured: Measured,
    min_positives: int | Int[Array, ""],
    min_negatives: int | Int[Array, ""],
) -> tuple[Support, Odds]:
    """Says which groups are compared: by positives, negatives, or rows of the base.

    Effective rows count, so that ten rows of one patient are not ten patients. With
    them, the rates that equalized odds are of.
    """
    trials = measured.shares.trials
    positives = trials[SHARES.index("true_positive_rate")] >= min_positives
    negatives = trials[SHARES.index("false_positive_rate")] >= min_negatives
    fewest = jnp.maximum(min_positives, min_negatives)
    fewest = jnp.full((len(SHARES), 1), fewest)
    fewest = fewest.at[SHARES.index("true_positive_rate")].set(min_positives)
    fewest = fewest.at[SHARES.index("false_positive_rate")].set(min_negatives)
    supported = Support(trials >= fewest, positives & negatives)
    return supported, _odds_of(measured.shares, supported)


def _odds_of(shares: Shares, supported: Support) -> Odds:
    """False and true positive rates from all rates."""
    rates, trials, valid = (
        leaf[jnp.array(ODDS)]
        for leaf in (shares.rates, shares.trials, supported.shares)
    )
    covariance = None
    if shares.covariance is not None:
        # The two families as if independent: by Sidak's inequality that is cautious.
        covariance = jax.scipy.linalg.block_diag(*(shares.covariance[i] for i in ODDS))
    degrees = None if shares.degrees is None else shares.degrees[jnp.array(ODDS)]
    return Odds(rates, trials, valid, covariance, degrees)


@_little_work
def compare(
    key: PRNGKeyArray,
    measured: Measured,
    supported: Support,
    *,
    confidence: float,
    replicates: int,
) -> dict[str, Gap]:
    """All gaps of a family but equalized odds.

    Args:
      key: A random key.
      measured: The family's metrics.
      supported: Who is compared.
      confidence: Of the intervals.
      replicates: Size of the simulations.
    """
    compared = _compared(measured, supported)
    negatives, positives = measured.counts.counts.sum(axis=2).T

    def one(gap: _Compared) -> tuple[Gap, Gap]:
        def limits(z: Array) -> Interval:
            reach = z * gap.errors
            kinds = (
                gap_limits(gap.values, gap.trials, gap.degrees, z),
                metrics.auroc_interval(
                    gap.values, gap.errors, positives, negatives, z=z
                ),
                Interval(gap.values - reach, gap.values + reach),
            )
            lower, upper = (
                jnp.stack(ends)[gap.kind] for ends in zip(*kinds, strict=True)
            )
            return Interval(lower, upper)

        # One key: the same draws serve all gaps, and what is asked of each.
        shared = {"covariance": gap.covariance, "valid": gap.valid}
        shared["num_draws"] = replicates
        intervals = metrics.difference_and_ratio_intervals(
            key, gap.values, limits, confidence=confidence, **shared
        )
        noise = metrics.gap_noise(key, gap.values, gap.errors, **shared)
        difference, ratio = (Gap(interval, noise) for interval in intervals)
        return difference, ratio

    names = [*SHARE_GAPS, *_OTHER_GAPS]
    differences, ratios = jax.vmap(one)(compared)

    def named(gaps: Gap, name: str) -> Gap:
        return jax.tree.map(lambda leaf: leaf[names.index(name)], gaps)

    found = {name: named(differences, name) for name in names}
    ratio = named(ratios, "demographic_parity_difference")
    unknown = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), ratio.noise)
    return found | {"demographic_parity_ratio": ratio._replace(noise=unknown)}


@_little_work
def odds_gaps(
    key: PRNGKeyArray,
    odds: Odds,
    rates: Float[Array, "thresholds 2 groups"],
    number: Int[Array, ""],
    *,
    confidence: float,
    replicates: int,
) -> Gap:
    """Equalized odds, both families of rates together, at several thresholds.

    Args:
      key: A random key.
      odds: What is compared, at the audited threshold.
      rates: The rates at each threshold.
      number: How many of the thresholds are asked for; the rest are left at 0.
      confidence: Of the intervals.
      replicates: Size of the simulations.

    Returns:
      A gap with a leading axis of thresholds. Where patients have several rows, trials
      and covariance are those at the audited threshold.
    """

    def at(rates: Array) -> Gap:
        shared = {"covariance": odds.covariance, "valid": odds.valid}
        shared["num_draws"] = replicates
        interval = metrics.gap_interval(
            key,
            rates,
            lambda z: gap_limits(rates, odds.trials, odds.degrees, z),
            confidence=confidence,
            **shared,
        )
        errors = _pooled_errors(rates, odds.trials, odds.valid)
        return Gap(interval, metrics.gap_noise(key, rates, errors, **shared))

    found = jax.eval_shape(at, rates[0])
    found = jax.tree.map(
        lambda leaf: jnp.zeros((len(rates), *leaf.shape), leaf.dtype), found
    )

    def fill(step: Array, found: Gap) -> Gap:
        return jax.tree.map(
            lambda leaves, leaf: leaves.at[step].set(leaf), found, at(rates[step])
        )

    return jax.lax.fori_loop(0, number, fill, found)


def gap_limits(
    rates: Array, trials: Array, degrees: Array | None, z: Array
) -> Interval:
    """Mid-p limits of rates; with Student's t where variances are by patient."""
    score = z if degrees is None else metrics.student_equivalent(z, degrees)
    return metrics.midp_interval(rates * trials, trials, z=score)


class _Compared(NamedTuple):
    """What one gap is over; every kind of limits can be had from it.

    Attributes:
      values: ``[G]``.
      errors: ``[G]``, standard errors.
      trials: ``[G]``, effective numbers of trials of a rate.
      kind: 0 for a rate, 1 for an AUROC, 2 for what has no ends.
      valid: ``[G]``, who is compared.
      covariance: ``[G, G]``; None where rows are patients.
      degrees: ``[G]``, of a rate; None likewise.
    """

    values: Float[Array, "*gaps groups"]
    errors: Float[Array, "*gaps groups"]
    trials: Float[Array, "*gaps groups"]
    kind: Int[Array, "*gaps"]
    valid: Bool[Array, "*gaps groups"]
    covariance: Float[Array, "*gaps groups groups"] | None
    degrees: Float[Array, "*gaps groups"] | None


def _compared(measured: Measured, supported: Support) -> _Compared:
    """Rates, the AUROC and calibration, stacked, to be compared in one body."""
    shares, again = measured.shares, measured.recalibration
    auroc = measured.estimates["auroc"].value
    picked = jnp.array(_TESTED)
    none = jnp.zeros_like(auroc)
    errors = jnp.stack([measured.auroc_errors, again.intercept_se, again.slope_se])
    others = supported.both & ~jnp.isnan(errors)
    covariance = degrees = None
    joint = measured.auroc_covariance
    if (
        shares.covariance is not None
        and shares.degrees is not None
        and joint is not None
    ):
        apart = jnp.stack([joint, *(jnp.diag(error**2) for error in errors[1:])])
        covariance = jnp.concatenate([shares.covariance[picked], apart])
        degrees = jnp.concatenate([shares.degrees[picked], jnp.ones((3, none.size))])
    rates, trials, valid = (
        leaf[picked] for leaf in (shares.rates, shares.trials, supported.shares)
    )
    return _Compared(
        jnp.concatenate([rates, jnp.stack([auroc, again.intercept, again.slope])]),
        jnp.concatenate([_pooled_errors(rates, trials, valid), errors]),
        jnp.concatenate([trials, jnp.stack([none] * 3)]),
        jnp.array([0] * len(_TESTED) + [1, 2, 2]),
        jnp.concatenate([valid, others]),
        covariance,
        degrees,
    )


def _pooled_errors(rates: Array, trials: Array, valid: Array) -> Array:
    """Standard errors of rates that are equal, at their common value."""
    known = jnp.where(valid, trials, 0)
    hits = jnp.sum(jnp.nan_to_num(rates) * known, axis=-1, keepdims=True)
    mean = hits / jnp.maximum(jnp.sum(known, axis=-1, keepdims=True), 1)
    return jnp.sqrt(mean * (1 - mean) / jnp.where(valid & (trials > 0), trials, 1))
