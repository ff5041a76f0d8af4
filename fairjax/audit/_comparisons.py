"""Gaps between the groups of a family: estimate, interval, noise, test.

Where every row is a patient, the tests of rates are permutation tests: the attribute is
shuffled among the rows that a rate is over, which is exact in any sample. Where
patients have several rows, and for areas and calibration, the p-value is that of the
gap's interval.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fairjax import metrics
from fairjax.audit._measures import SHARES, Measured, Shares, share_limits
from fairjax.metrics import GapInterval, GroupCounts, Interval
from fairjax.metrics.contingency import random_tables

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
_ODDS_GAPS = ("false_positive_rate_difference", "equal_opportunity_difference")
ODDS = tuple(SHARES.index(SHARE_GAPS[name]) for name in _ODDS_GAPS)


class Support(NamedTuple):
    """Which groups have enough rows to be compared.

    Attributes:
      shares: ``[M, G]``, for the rates of `SHARES`.
      both: ``[G]``, for what needs positives and negatives.
    """

    shares: Bool[Array, "rates groups"]
    both: Bool[Array, " groups"]


class Gap(NamedTuple):
    """A gap over the groups that can be compared.

    Attributes:
      interval: The estimate, its interval, whose they are.
      p_value: Scalar, of no gap.
      noise: Scalar, the mean gap of shuffled attributes; NaN where none were.
      corrected: Scalar, less its sampling bias; NaN where that is not known.
    """

    interval: GapInterval
    p_value: Float[Array, ""]
    noise: Float[Array, ""]
    corrected: Float[Array, ""]


def support(measured: Measured, min_positives: int, min_negatives: int) -> Support:
    """Says which groups are compared: by positives, negatives, or rows of the base.

    Effective rows count, so that ten rows of one patient are not ten patients.
    """
    trials = measured.shares.trials
    positives = trials[SHARES.index("true_positive_rate")] >= min_positives
    negatives = trials[SHARES.index("false_positive_rate")] >= min_negatives
    fewest = jnp.full((len(SHARES), 1), max(min_positives, min_negatives))
    fewest = fewest.at[SHARES.index("true_positive_rate")].set(min_positives)
    fewest = fewest.at[SHARES.index("false_positive_rate")].set(min_negatives)
    return Support(trials >= fewest, positives & negatives)


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


class _Compared(NamedTuple):
    """What one gap is over; every kind of limits can be had from it.

    Attributes:
      values: ``[G]``.
      errors: ``[G]``, standard errors, where the limits are the values and these.
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


@functools.partial(jax.jit, static_argnames=("confidence", "replicates", "max_rows"))
def compare(
    key: PRNGKeyArray,
    measured: Measured,
    supported: Support,
    odds: GapInterval,
    *,
    confidence: float,
    replicates: int,
    max_rows: int,
) -> dict[str, Gap]:
    """All gaps of a family.

    Args:
      key: A random key.
      measured: The family's metrics.
      supported: Who is compared.
      odds: From `odds_interval`.
      confidence: Of the intervals.
      replicates: Number of shuffles of the attribute, and of redrawn counts.
      max_rows: At least the number of rows.
    """
    keys = jax.random.split(key, 3)
    shares = measured.shares
    parity = SHARES.index("selection_rate")
    selected = jax.tree.map(lambda leaf: leaf[parity], shares)
    found = _intervals(keys[0], measured, supported, confidence)
    found["equalized_odds_difference"] = odds
    found["demographic_parity_ratio"] = metrics.ratio_interval(
        keys[1],
        selected.rates,
        lambda z: share_limits(selected.rates, selected.trials, selected.degrees, z),
        covariance=selected.covariance,
        valid=supported.shares[parity],
        confidence=confidence,
    )
    gaps = {name: _plain(interval) for name, interval in found.items()}
    if shares.covariance is None:
        gaps |= _shuffled(keys[2], gaps, shares, supported.shares, replicates, max_rows)
    return gaps


def odds_of(shares: Shares, supported: Support) -> Odds:
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


@functools.partial(jax.jit, static_argnames="confidence")
def odds_interval(key: PRNGKeyArray, odds: Odds, *, confidence: float) -> GapInterval:
    """The interval of equalized odds, from both families of rates together.

    A program of its own, which is run at every threshold and compiled once.
    """
    rates, trials, valid, covariance, degrees = odds
    return metrics.gap_interval(
        key,
        rates,
        lambda z: share_limits(rates, trials, degrees, z),
        covariance=covariance,
        valid=valid,
        confidence=confidence,
    )


def _plain(interval: GapInterval) -> Gap:
    unknown = jnp.full_like(interval.estimate, jnp.nan)
    return Gap(interval, interval.p_value, unknown, unknown)


def _intervals(
    key: PRNGKeyArray, measured: Measured, supported: Support, confidence: float
) -> dict[str, GapInterval]:
    """Gaps of rates, of the AUROC and of calibration, in one compiled body."""
    shares, again = measured.shares, measured.recalibration
    auroc = measured.estimates["auroc"].value
    picked = jnp.array(_TESTED)
    names = [*SHARE_GAPS, *_OTHER_GAPS]
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
    compared = _Compared(
        jnp.concatenate(
            [shares.rates[picked], jnp.stack([auroc, again.intercept, again.slope])]
        ),
        jnp.concatenate([jnp.stack([none] * len(_TESTED)), errors]),
        jnp.concatenate([shares.trials[picked], jnp.stack([none] * 3)]),
        jnp.array([0] * len(_TESTED) + [1, 2, 2]),
        jnp.concatenate([supported.shares[picked], others]),
        covariance,
        degrees,
    )
    negatives, positives = measured.counts.counts.sum(axis=2).T

    def one(number: Array, gap: _Compared) -> GapInterval:
        def limits(z: Array) -> Interval:
            reach = z * gap.errors
            kinds = (
                share_limits(gap.values, gap.trials, gap.degrees, z),
                metrics.auroc_interval(
                    gap.values, gap.errors, positives, negatives, z=z
                ),
                Interval(gap.values - reach, gap.values + reach),
            )
            lower, upper = (
                jnp.stack(ends)[gap.kind] for ends in zip(*kinds, strict=True)
            )
            return Interval(lower, upper)

        return metrics.gap_interval(
            jax.random.fold_in(key, number),
            gap.values,
            limits,
            covariance=gap.covariance,
            valid=gap.valid,
            confidence=confidence,
        )

    stacked = jax.vmap(one)(jnp.arange(len(names)), compared)
    return {
        name: jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        for i, name in enumerate(names)
    }


def _shuffled(
    key: PRNGKeyArray,
    gaps: dict[str, Gap],
    shares: Shares,
    valid: Bool[Array, "rates groups"],
    replicates: int,
    max_rows: int,
) -> dict[str, Gap]:
    """The rates' gaps with permutation tests, noise floors and less their bias."""
    one, two = jax.random.split(key)
    picked = jnp.array(_TESTED)
    trials, valid = shares.trials[picked], valid[picked]
    hits = jnp.round(jnp.nan_to_num(shares.rates[picked]) * trials)
    tables = jnp.stack([trials - hits, hits], axis=-1).astype(jnp.int32)

    def shuffle(number: Array, table: Array, valid: Array) -> tuple[Array, ...]:
        drawn = random_tables(
            jax.random.fold_in(one, number),
            jnp.sum(table, axis=1),
            jnp.sum(table, axis=0),
            num_draws=replicates,
            max_total=max_rows,
        )

        def gap(counts: GroupCounts) -> Array:
            return metrics.difference(metrics.true_positive_rate(counts), valid)

        # Either label has the table, so that the gap of one is that of the rate.
        redrawn = metrics.bias_corrected_gap(
            jax.random.fold_in(two, number),
            GroupCounts(jnp.stack([table, table], axis=1)),
            num_replicates=replicates,
            statistic=gap,
        )
        null = metrics.difference(_rates_of(drawn), valid)
        return null, redrawn.replicates, redrawn.at_rates

    numbers = jnp.arange(len(SHARE_GAPS))
    drawn = jax.vmap(shuffle)(numbers, tables, valid)
    by_name = {name: [leaf[i] for leaf in drawn] for i, name in enumerate(SHARE_GAPS)}
    # Draw by draw, since the two families of rates are drawn independently.
    by_name["equalized_odds_difference"] = [
        jnp.maximum(*pair)
        for pair in zip(*(by_name[name] for name in _ODDS_GAPS), strict=True)
    ]
    found = {}
    for name, (null, replicated, at_rates) in by_name.items():
        interval = gaps[name].interval
        bias = jnp.mean(replicated) - at_rates
        found[name] = Gap(
            interval,
            metrics.permutation_p_value(interval.estimate, null),
            jnp.nanmean(null),
            jnp.maximum(interval.estimate - bias, 0),
        )
    ratio = gaps["demographic_parity_ratio"]
    # It asks what the difference asks: whether selection rates are equal.
    parity = found["demographic_parity_difference"].p_value
    return found | {"demographic_parity_ratio": ratio._replace(p_value=parity)}


def _rates_of(tables: Array) -> Array:
    total = jnp.sum(tables, axis=-1)
    return jnp.where(total > 0, tables[..., 1] / jnp.maximum(total, 1), jnp.nan)
