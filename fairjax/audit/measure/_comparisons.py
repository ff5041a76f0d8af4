"""Gaps between the groups of a grouping: estimate, interval, test and noise.

The test of a gap is the test of its simultaneous interval, so that both always agree.
Rates have mid-p intervals, with effective trials and Student's t if patients have
several rows. These intervals keep their confidence for few rows and for rates near 0
and 1.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fairjax import metrics
from fairjax.audit.measure._estimates import (
    BASE,
    ODDS,
    SHARES,
    Measured,
    Shares,
    class_sizes,
    degrees_of_both,
)
from fairjax.metrics import GapInterval, Interval
from fairjax.metrics.definitions import AUDITED, GAPS

# Gap -> its rate.
SHARE_GAPS = {
    name: GAPS[name].rates[0]
    for name in AUDITED
    if GAPS[name].kind == "difference" and GAPS[name].rates[0] in SHARES
    if not GAPS[name].joined
}
_TESTED = tuple(SHARES.index(rate) for rate in SHARE_GAPS.values())
_ODDS = "equalized_odds_difference"
_NAMES = (
    *SHARE_GAPS,
    "auroc_difference",
    "calibration_intercept_difference",
    "calibration_slope_difference",
    _ODDS,
)
# The gaps of the rates in `ODDS`, in their order.
ODDS_GAPS = ("false_positive_rate_difference", "equal_opportunity_difference")


class Support(NamedTuple):
    """Which groups have enough rows to be compared.

    Attributes:
      shares: ``[M, G]``, for the rates of `SHARES`.
      both: ``[G]``, for metrics that need positives and negatives.
    """

    shares: Bool[Array, "rates groups"]
    both: Bool[Array, " groups"]


class Gap(NamedTuple):
    """A gap over the groups that can be compared.

    Attributes:
      interval: The estimate, its interval, its test, and its groups.
      noise: The mean gap of equal groups, and the gap minus its sampling bias.
    """

    interval: GapInterval
    noise: metrics.GapNoise


class Odds(NamedTuple):
    """False positive rates, then true positive rates.

    Attributes:
      rates: ``[2, G]``.
      trials: ``[2, G]``, effective numbers of trials.
      valid: ``[2, G]``, groups that are compared.
      covariance: ``[2 G, 2 G]``; None if rows are patients.
      degrees: ``[2, G]``, degrees of freedom; None if rows are patients.
    """

    rates: Float[Array, "2 groups"]
    trials: Float[Array, "2 groups"]
    valid: Bool[Array, "2 groups"]
    covariance: Float[Array, "all all"] | None
    degrees: Float[Array, "2 groups"] | None


class Compared(NamedTuple):
    """The gaps of a grouping.

    Attributes:
      gaps: Name -> gap.
      odds: ``[thresholds]``, intervals of equalized odds at other thresholds.
    """

    gaps: dict[str, Gap]
    odds: GapInterval


@jax.jit
def support(
    measured: Measured,
    min_positives: int | Int[Array, ""],
    min_negatives: int | Int[Array, ""],
) -> tuple[Support, Odds]:
    """Returns which groups are compared, and the rates of equalized odds.

    A metric needs positives, negatives, or both, depending on the rows in its
    denominator. A metric over all rows needs as many rows as both minima together.
    Counts are effective rows, with a patient's rows as copies of one row at most: ten
    rows of one patient do not count as ten patients.

    Args:
      measured: Metrics of the grouping.
      min_positives: Smallest number of positives.
      min_negatives: Smallest number of negatives.
    """
    trials, degrees = measured.shares.trials, measured.shares.degrees
    if degrees is not None:
        trials = jnp.minimum(trials, degrees + 1)
    positives = trials[SHARES.index("true_positive_rate")] >= min_positives
    negatives = trials[SHARES.index("false_positive_rate")] >= min_negatives
    # Cells in the denominator: TN, FP, FN, TP.
    fewest = {
        (1, 1, 1, 1): min_positives + min_negatives,
        (1, 1, 0, 0): min_negatives,
        (0, 0, 1, 1): min_positives,
    }
    most = jnp.maximum(min_positives, min_negatives)
    asked = jnp.stack([fewest.get(tuple(base), most) for base in BASE.tolist()])
    supported = Support(trials >= asked[:, None], positives & negatives)
    return supported, _odds_of(measured.shares, supported)


def _odds_of(shares: Shares, supported: Support) -> Odds:
    """Selects the false and true positive rates from all rates."""
    rates, trials, valid = (
        leaf[jnp.array(ODDS)]
        for leaf in (shares.rates, shares.trials, supported.shares)
    )
    covariance = None
    if shares.covariance is not None:
        # Treats the two rates as independent, which is conservative (Royen 2014).
        covariance = jax.scipy.linalg.block_diag(*(shares.covariance[i] for i in ODDS))
    degrees = None if shares.degrees is None else shares.degrees[jnp.array(ODDS)]
    return Odds(rates, trials, valid, covariance, degrees)


@functools.partial(jax.jit, static_argnames=("confidence", "replicates"))
def compare(
    key: PRNGKeyArray,
    measured: Measured,
    supported: Support,
    odds: Odds,
    rates: Float[Array | np.ndarray, "thresholds 2 groups"],
    number: Int[Array | np.ndarray, ""],
    *,
    confidence: float,
    replicates: int,
) -> Compared:
    """Computes all gaps of a grouping, and equalized odds at other thresholds.

    Args:
      key: A random key.
      measured: Metrics of the grouping.
      supported: Groups that are compared.
      odds: Rates of equalized odds at the audited threshold.
      rates: Rates of equalized odds at other thresholds. If patients have several
        rows, trials and covariance are taken from the audited threshold.
      number: Number of thresholds to compute, from the first.
      confidence: Confidence of the intervals.
      replicates: Draws of the simulations.
    """
    questions, values, errors = _questions(
        measured, supported, odds, jnp.asarray(rates)
    )
    negatives, positives = class_sizes(measured.counts, measured.shares)

    def infer(asked: _Question) -> tuple[GapInterval, GapInterval, metrics.GapNoise]:
        def limits(z: Array) -> Interval:
            if asked.degrees is not None:
                z = metrics.student_equivalent(z, asked.degrees)
            reach = z * asked.errors
            kinds = (
                metrics.midp_interval(asked.values * asked.trials, asked.trials, z=z),
                metrics.auroc_interval(
                    asked.values, asked.errors, positives, negatives, z=z
                ),
                Interval(asked.values - reach, asked.values + reach),
            )
            lower, upper = (
                jnp.stack(ends)[asked.kind] for ends in zip(*kinds, strict=True)
            )
            return Interval(lower, upper)

        # One key: all gaps, and all questions on a gap, use the same draws.
        shared = {"covariance": asked.covariance, "valid": asked.valid}
        shared |= {"asked": asked.families, "num_draws": replicates}
        intervals = metrics.difference_and_ratio_intervals(
            key, asked.values, limits, confidence=confidence, **shared
        )
        noise = metrics.gap_noise(key, asked.values, asked.errors, **shared)
        return *intervals, noise

    def question(step: Array) -> _Question:
        # At other thresholds, only the rates and their errors differ.
        last = jnp.minimum(step, len(_NAMES) - 1)
        found = jax.tree.map(lambda leaf: leaf[last], questions)
        return found._replace(values=values[step], errors=errors[step])

    blank = jax.eval_shape(lambda: infer(question(jnp.int32(0))))
    steps = len(_NAMES) + len(rates)
    blank = jax.tree.map(
        lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype), blank
    )

    def fill(step: Array, found: Any) -> Any:
        return jax.tree.map(
            lambda leaves, leaf: leaves.at[step].set(leaf), found, infer(question(step))
        )

    # A loop, not a map: compiles the body for one gap, and stops after the last gap.
    found = jax.lax.fori_loop(0, len(_NAMES) + number, fill, blank)
    differences, ratios, noises = found

    def gap(intervals: GapInterval, index: int) -> Gap:
        return Gap(*jax.tree.map(lambda leaf: leaf[index], (intervals, noises)))

    gaps = {name: gap(differences, index) for index, name in enumerate(_NAMES)}
    ratio = gap(ratios, _NAMES.index("demographic_parity_difference"))
    unknown = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), ratio.noise)
    gaps["demographic_parity_ratio"] = ratio._replace(noise=unknown)
    at = jax.tree.map(lambda leaf: leaf[len(_NAMES) :], differences)
    return Compared(gaps, at)


class _Question(NamedTuple):
    """The input of one gap: two rows of values by group; the second may be padding.

    Attributes:
      values: ``[2, G]``.
      errors: ``[2, G]``, standard errors.
      trials: ``[2, G]``, effective numbers of trials of a rate.
      kind: 0 for a rate, 1 for an AUROC, 2 for an unbounded value.
      valid: ``[2, G]``, groups that are compared.
      families: ``[2]``, rows that are not padding.
      covariance: ``[2 G, 2 G]``; None if rows are patients.
      degrees: ``[2, G]``, degrees of freedom of the errors; None if rows are patients.
    """

    values: Float[Array, "*gaps 2 groups"]
    errors: Float[Array, "*gaps 2 groups"]
    trials: Float[Array, "*gaps 2 groups"]
    kind: Int[Array, "*gaps"]
    valid: Bool[Array, "*gaps 2 groups"]
    families: Bool[Array, "*gaps 2"]
    covariance: Float[Array, "*gaps all all"] | None
    degrees: Float[Array, "*gaps 2 groups"] | None


def _questions(
    measured: Measured, supported: Support, odds: Odds, rates: Array
) -> tuple[_Question, Array, Array]:
    """Stacks rates, AUROC, calibration and equalized odds.

    Also returns values and errors of all of these, and of equalized odds at other
    thresholds.
    """
    shares, again = measured.shares, measured.recalibration
    auroc = measured.estimates["auroc"].value
    picked = jnp.array(_TESTED)
    none = jnp.zeros_like(auroc)
    errors = jnp.stack([measured.auroc_errors, again.intercept_se, again.slope_se])
    others = supported.both & ~jnp.isnan(errors)
    known, trials, valid = (
        leaf[picked] for leaf in (shares.rates, shares.trials, supported.shares)
    )

    def families(single: list[Array], pair: Array) -> Array:
        first = jnp.concatenate(single)
        return jnp.concatenate(
            [jnp.stack([first, jnp.zeros_like(first)], axis=1), pair[None]]
        )

    covariance = degrees = None
    joint = measured.auroc_covariance
    if (
        shares.covariance is not None
        and shares.degrees is not None
        and odds.degrees is not None
        and odds.covariance is not None
        and joint is not None
    ):
        apart = jnp.stack([joint, *(jnp.diag(error**2) for error in errors[1:])])
        single = jnp.concatenate([shares.covariance[picked], apart])
        padded = jnp.pad(single, ((0, 0), (0, none.size), (0, none.size)))
        covariance = jnp.concatenate([padded, odds.covariance[None]])
        degrees = families(
            [shares.degrees[picked], *[degrees_of_both(shares.degrees)[None]] * 3],
            odds.degrees,
        )
        degrees = jnp.maximum(degrees, 1)
    values = families(
        [known, jnp.stack([auroc, again.intercept, again.slope])], odds.rates
    )
    errors = families(
        [_pooled_errors(known, trials, valid), errors],
        _pooled_errors(odds.rates, odds.trials, odds.valid),
    )
    at = _pooled_errors(rates, odds.trials, odds.valid)
    questions = _Question(
        values,
        errors,
        families([trials, jnp.stack([none] * 3)], odds.trials),
        jnp.array([0] * len(_TESTED) + [1, 2, 2, 0]),
        families([valid, others], odds.valid),
        jnp.array([[True, name == _ODDS] for name in _NAMES]),
        covariance,
        degrees,
    )
    values, errors = jnp.concatenate([values, rates]), jnp.concatenate([errors, at])
    return questions, values, errors


def _pooled_errors(rates: Array, trials: Array, valid: Array) -> Array:
    """Returns standard errors of rates under equality, at their pooled value."""
    known = jnp.where(valid, trials, 0)
    hits = jnp.sum(jnp.nan_to_num(rates) * known, axis=-1, keepdims=True)
    mean = hits / jnp.maximum(jnp.sum(known, axis=-1, keepdims=True), 1)
    return jnp.sqrt(mean * (1 - mean) / jnp.where(valid & (trials > 0), trials, 1))
