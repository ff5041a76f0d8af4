"""Metrics of one model in one grouping, in one compiled program.

All groupings and models of an audit are padded to one number of groups, so that the
program is compiled once. Padded groups are empty, and empty groups have no numbers.
"""

import functools
from collections.abc import Iterable
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fairjax import metrics
from fairjax.metrics import GroupCounts, Interval
from fairjax.metrics.definitions import CELLS, COMPLEMENTS, METRICS, RATES

# Cells of (label, prediction), in the order of a group's counts.
_CELLS = sorted(CELLS, key=lambda cell: CELLS[cell])


def _place(names: Iterable[str]) -> tuple[bool, ...]:
    return tuple(cell in names for cell in _CELLS)


# Rates: whether each cell is in the numerator, and whether it is in the denominator.
_SHARES = {
    name: (_place(cells[0]), _place(cells[0] + cells[1]))
    for name in RATES
    if name not in COMPLEMENTS and (cells := METRICS[name].cells)
}
# A rate over all rows but true negatives. F1 increases with it: F1 = 2 J / (1 + J).
_SHARES["jaccard"] = (_place(["TP"]), _place(["TP", "FP", "FN"]))
SHARES = tuple(_SHARES)
# False positive rate, then true positive rate: the rates of equalized odds.
ODDS = tuple(SHARES.index(f"{of}_positive_rate") for of in ("false", "true"))
_HITS, BASE = np.array(list(_SHARES.values()), int).swapaxes(0, 1)
CALIBRATION_BINS = 10


class Rows(NamedTuple):
    """The rows of one model.

    Attributes:
      labels: ``[n]``, 0 or 1.
      scores: ``[n]`` in [0, 1].
      decisions: ``[n]``.
      patients: ``[n]`` codes; None if every row is a patient.
    """

    labels: Int[Array | np.ndarray, " n"]
    scores: Float[Array | np.ndarray, " n"]
    decisions: Bool[Array | np.ndarray, " n"]
    patients: Int[Array | np.ndarray, " n"] | None


class Estimate(NamedTuple):
    """A metric of every group.

    Attributes:
      value: ``[G]``.
      lower: ``[G]``, NaN without an interval.
      upper: ``[G]``, NaN without an interval.
      rows: ``[G]``, number of rows that the metric is a mean over.
    """

    value: Float[Array, " groups"]
    lower: Float[Array, " groups"]
    upper: Float[Array, " groups"]
    rows: Array


class Shares(NamedTuple):
    """The rates of `SHARES`, in order, with the inputs of gaps and intervals.

    Attributes:
      rates: ``[M, G]``.
      trials: ``[M, G]``, effective numbers if patients have several rows.
      covariance: ``[M, G, G]``; None if rows are patients.
      degrees: ``[M, G]``, degrees of freedom of the variances; None if rows are
        patients.
    """

    rates: Float[Array, "rates groups"]
    trials: Float[Array, "rates groups"]
    covariance: Float[Array, "rates groups groups"] | None
    degrees: Float[Array, "rates groups"] | None


class Measured(NamedTuple):
    """All metrics of one grouping.

    Attributes:
      counts: ``[G, 2, 2]``.
      shares: The rates.
      estimates: Metric -> values and intervals of the groups.
      auroc_errors: ``[G]``, standard errors.
      auroc_covariance: ``[G, G]``, for groups that may share patients; None if rows
        are patients.
      recalibration: Intercepts and slopes.
      calibration: Calibration curves, in bins of equal size by group.
      observed: ``[G, B]``, intervals of the observed fraction in each bin.
      prevalence: Fraction of rows with the outcome.
      shrunken: ``[G, 2]``, false and true positive rates, shrunk towards other groups.
    """

    counts: GroupCounts
    shares: Shares
    estimates: dict[str, Estimate]
    auroc_errors: Float[Array, " groups"]
    auroc_covariance: Float[Array, "groups groups"] | None
    recalibration: metrics.Recalibration
    calibration: metrics.CalibrationCurve
    observed: Interval
    prevalence: Estimate
    shrunken: Float[Array, "groups 2"]


def measure(
    rows: Rows,
    codes: Int[Array | np.ndarray, " n"],
    *,
    num_groups: int,
    num_patients: int,
    confidence: float,
) -> Measured:
    """Computes all metrics of all groups with their intervals.

    Args:
      rows: Rows of the model.
      codes: ``[n]``, group of each row; -1 for none.
      num_groups: Number of groups, with padding.
      num_patients: Number of patients.
      confidence: Confidence of the intervals.
    """
    sizes = {"num_groups": num_groups, "num_patients": num_patients}
    # Two programs, one after the other, need less memory than one program.
    ranked = _rank(rows, codes, **sizes)
    return _measure(rows, codes, ranked, **sizes, confidence=confidence)


class _Ranked(NamedTuple):
    """Metrics that need sorted scores."""

    auroc: Float[Array, " groups"]
    auroc_errors: Float[Array, " groups"]
    auroc_covariance: Float[Array, "groups groups"] | None
    auprc: Float[Array, " groups"]
    calibration_error: Float[Array, " groups"]
    calibration: metrics.CalibrationCurve


@functools.partial(jax.jit, static_argnames=("num_groups", "num_patients"))
def _rank(
    rows: Rows,
    codes: Int[Array | np.ndarray, " n"],
    *,
    num_groups: int,
    num_patients: int,
) -> _Ranked:
    table = (rows.labels, rows.scores, codes)
    bins = {"num_groups": num_groups, "num_bins": CALIBRATION_BINS}
    return _Ranked(
        *_auroc(rows, jnp.asarray(codes), num_groups, num_patients),
        metrics.group_auprc(*table, num_groups=num_groups),
        metrics.group_calibration_error(*table, **bins),
        metrics.calibration_curve(*table, **bins),
    )


@functools.partial(
    jax.jit, static_argnames=("num_groups", "num_patients", "confidence")
)
def _measure(
    rows: Rows,
    codes: Int[Array | np.ndarray, " n"],
    ranked: _Ranked,
    *,
    num_groups: int,
    num_patients: int,
    confidence: float,
) -> Measured:
    groups = {"num_groups": num_groups}
    clusters: dict[str, Any] = {}
    if rows.patients is not None:
        clusters = {"patients": rows.patients, "num_patients": num_patients}
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    counts = metrics.group_counts(
        rows.labels, rows.decisions, codes, num_groups=num_groups
    )
    shares = _shares(rows, codes, counts, num_groups, num_patients)
    limits = share_limits(shares.rates, shares.trials, shares.degrees, z)
    cells = counts.counts.reshape(num_groups, 4)
    base = jnp.asarray(BASE) @ cells.T
    found = {
        name: Estimate(shares.rates[i], limits.lower[i], limits.upper[i], base[i])
        for i, name in enumerate(SHARES)
    }
    found["f1_score"] = _f1(found.pop("jaccard"))
    found["balanced_accuracy"] = _balanced(
        found["true_positive_rate"],
        found["false_positive_rate"],
        independent=rows.patients is None,
    )
    total = jnp.sum(cells, axis=1)
    area, errors = ranked.auroc, ranked.auroc_errors
    negatives, positives = class_sizes(counts, shares)
    score = (
        z
        if shares.degrees is None
        else metrics.student_equivalent(z, degrees_of_both(shares.degrees))
    )
    limits = metrics.auroc_interval(area, errors, positives, negatives, z=score)
    found["auroc"] = Estimate(area, *limits, total)
    area = ranked.auprc
    # Treats AUPRC as a proportion of the positives: Boyd, Eng and Page (2013).
    spread = jnp.sqrt(area * (1 - area) / positives)
    found["auprc"] = Estimate(
        area,
        *metrics.logit_interval(area, spread, z=score),
        found["true_positive_rate"].rows,
    )
    found["brier_score"] = _brier(rows, codes, total, score, num_groups, num_patients)
    table = (rows.labels, rows.scores, codes)
    unknown = jnp.full_like(area, jnp.nan)
    found["expected_calibration_error"] = Estimate(
        ranked.calibration_error, unknown, unknown, total
    )
    again = metrics.logistic_recalibration(*table, **groups, **clusters)
    for name in ("intercept", "slope"):
        value, error = getattr(again, name), getattr(again, f"{name}_se")
        found[f"calibration_{name}"] = Estimate(
            value, value - score * error, value + score * error, total
        )
    for name, of in COMPLEMENTS.items():
        value, lower, upper, base = found[of]
        found[name] = Estimate(1 - value, 1 - upper, 1 - lower, base)
    prevalence = found.pop("prevalence")
    # Rows of a bin are as similar as rows of the group.
    ratio = (_copies(shares, "selection_rate", total) / jnp.maximum(total, 1))[:, None]
    bins = ranked.calibration
    observed = metrics.wilson_interval(bins.events * ratio, bins.rows * ratio, z=z)
    return Measured(
        counts,
        shares,
        found,
        errors,
        ranked.auroc_covariance,
        again,
        bins,
        observed,
        prevalence,
        shrunken(shares),
    )


def share_limits(
    rates: Array, trials: Array, degrees: Array | None, z: Array | float
) -> Interval:
    """Computes Wilson's limits of rates; with Student's t for variances by patient."""
    if degrees is not None:
        z = metrics.student_equivalent(z, degrees)
    return metrics.wilson_interval(rates * trials, trials, z=z)


def class_sizes(counts: GroupCounts, shares: Shares) -> tuple[Array, Array]:
    """Counts negatives and positives, with a patient's rows as copies of one row."""
    negatives, positives = counts.counts.sum(axis=2).T
    return (
        _copies(shares, "false_positive_rate", negatives),
        _copies(shares, "true_positive_rate", positives),
    )


def degrees_of_both(degrees: Float[Array, "rates groups"]) -> Float[Array, " groups"]:
    """Returns the smaller degrees of freedom of positives and negatives."""
    return jnp.min(degrees[jnp.array(ODDS)], axis=0)


def _copies(shares: Shares, rate: str, rows: Array) -> Array:
    """Counts independent rows, with a patient's rows as copies of one row."""
    if shares.degrees is None:
        return rows
    return jnp.minimum(shares.degrees[SHARES.index(rate)] + 1, rows)


@jax.jit
def shrunken(shares: Shares) -> Float[Array, "groups 2"]:
    """Computes empirical-Bayes false and true positive rates of effective trials."""
    rates, trials = shares.rates[jnp.array(ODDS)], shares.trials[jnp.array(ODDS)]

    def one(hits: Array, trials: Array) -> Array:
        return metrics.beta_binomial_posterior(hits, trials).mean

    return jax.vmap(one)(jnp.nan_to_num(rates) * trials, trials).T


def _shares(rows, codes, counts, num_groups: int, num_patients: int) -> Shares:
    cells = counts.counts.reshape(num_groups, 4)
    if rows.patients is None:
        trials = (jnp.asarray(BASE) @ cells.T).astype(float)
        hits = jnp.asarray(_HITS) @ cells.T
        rates = jnp.where(trials > 0, hits / jnp.maximum(trials, 1), jnp.nan)
        return Shares(rates, trials, None, None)
    cell = 2 * rows.labels.astype(jnp.int32) + rows.decisions

    def one(tables):
        hits, base = tables
        found = metrics.cluster_rate_covariance(
            hits[cell],
            base[cell],
            codes,
            rows.patients,
            num_groups=num_groups,
            num_patients=num_patients,
        )
        return found.rates, found.trials, found.covariance, found.degrees_of_freedom

    return Shares(*jax.lax.map(one, (jnp.asarray(_HITS), jnp.asarray(BASE))))


def _auroc(
    rows: Rows, codes: Array, num_groups: int, num_patients: int
) -> tuple[Array, Array, Array | None]:
    """Computes areas, standard errors, and covariance of groups that share patients."""
    table = (rows.labels, rows.scores, codes)
    if rows.patients is None:
        found = metrics.delong(*table, num_groups=num_groups)
        return found.auroc[0], jnp.sqrt(found.covariance[:, 0, 0]), None
    found = metrics.delong_joint(
        *table, rows.patients, num_groups=num_groups, num_patients=num_patients
    )
    covariance = found.covariance[0, :, 0, :]
    return found.auroc[0], jnp.sqrt(jnp.diag(covariance)), covariance


def _f1(jaccard: Estimate) -> Estimate:
    """Transforms Jaccard's index to F1: F1 and its limits increase with the index."""
    value, lower, upper = (2 * v / (1 + v) for v in jaccard[:3])
    return Estimate(value, lower, upper, jaccard.rows)


def _balanced(
    sensitivity: Estimate, fall_out: Estimate, *, independent: bool
) -> Estimate:
    """Computes the mean of two rates, with limits recovered from the rates' limits.

    Patients with rows of both outcomes make the rates dependent. The limits then add
    up, which is valid for any correlation.
    """
    value = (sensitivity.value + 1 - fall_out.value) / 2
    together = jnp.hypot if independent else jnp.add
    below = together(
        sensitivity.value - sensitivity.lower, fall_out.upper - fall_out.value
    )
    above = together(
        sensitivity.upper - sensitivity.value, fall_out.value - fall_out.lower
    )
    rows = jnp.minimum(sensitivity.rows, fall_out.rows)
    return Estimate(value, value - below / 2, value + above / 2, rows)


def _brier(
    rows, codes, total, z: Array | float, num_groups: int, num_patients: int
) -> Estimate:
    """Computes the Brier score, with limits from the variance of patients' sums."""
    table = (rows.labels, rows.scores, codes)
    value = metrics.group_brier(*table, num_groups=num_groups)
    squares = (rows.scores - rows.labels) ** 2
    shares = (squares - value[codes]) / jnp.maximum(total, 1)[codes]

    variance = metrics.influence_variance(
        shares,
        codes,
        num_groups=num_groups,
        patients=rows.patients,
        num_patients=None if rows.patients is None else num_patients,
    )
    reach = z * jnp.sqrt(variance)
    lower, upper = jnp.maximum(value - reach, 0), jnp.minimum(value + reach, 1)
    return Estimate(value, lower, upper, total)
