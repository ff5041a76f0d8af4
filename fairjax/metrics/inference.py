"""Tests and intervals for gaps and for differences between methods.

Three questions, three tools. Is this gap more than noise? ``permutation_null``. Do two
methods differ, each trained several times on the same patients? ``paired_test`` over
``patient_bootstrap_weights``. Which of many tests still count? ``holm``.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fairjax.metrics.contingency import random_tables
from fairjax.metrics.counts import BinaryRows, GroupCounts, GroupRows, group_counts
from fairjax.metrics.gaps import equalized_odds_difference

# Two tables whose statistics are equal in exact arithmetic may differ in the last bits.
_TIE = 1e-6


class PermutationNull(NamedTuple):
    """A statistic and its distribution where the attribute means nothing.

    Attributes:
      observed: Scalar, the statistic of the rows as they are.
      null: ``[num_permutations]``, the statistic with the attribute shuffled.
      mean: Scalar, the null's mean: the noise floor that a gap has without any
        disparity.
      p_value: Scalar in (0, 1], one-sided: how often noise does at least as much.
    """

    observed: Float[Array, ""]
    null: Float[Array, " num_permutations"]
    mean: Float[Array, ""]
    p_value: Float[Array, ""]


def permutation_null(
    key: PRNGKeyArray,
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    *,
    num_groups: int,
    num_permutations: int,
    statistic: Callable[[GroupCounts], Float[Array, ""]] = equalized_odds_difference,
    within_label: bool = True,
) -> PermutationNull:
    r"""Null distribution of a gap when the attribute is shuffled across rows.

    .. math:: p = \frac{1 + \#\{\text{null} \ge \text{observed}\}}{1 + N}

    Rows must be patients. Shuffling treats rows as exchangeable; with several rows to a
    patient it underestimates the noise, so keep one row or one mean prediction each.

    The shuffled tables are drawn directly from their multivariate hypergeometric
    distribution, which is exact and does not touch the rows again.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; rows with -1 take no part.
      num_groups: Number of groups declared, ``G``.
      num_permutations: Number of shuffles, ``N``; p is at least ``1 / (1 + N)``.
      statistic: Maps counts to a scalar that is large under disparity, such as
        ``functools.partial(equalized_odds_difference, min_support=10)``.
      within_label: True shuffles among rows of the same label, which keeps every
        group's numbers of positives and negatives. It tests that predictions are
        independent of the group *given the label*: equalized odds, equal opportunity.
        False shuffles among all rows and tests that predictions and labels together
        are independent of the group, as demographic parity needs. A gap of true
        positive rates tested so is too often found where groups differ in prevalence,
        since its null gives a group with few positives more of them.

    Returns:
      Observed value, null, noise floor and p-value. An undefined observed value has a
      NaN p-value; undefined shuffles count against it and are left out of the mean.

    Raises:
      ValueError: If ``num_permutations`` is below 1, and as ``group_counts``.

    Phipson and Smyth, "Permutation p-values should never be zero", Statistical
    Applications in Genetics and Molecular Biology 9 (2010).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> groups = jnp.repeat(jnp.arange(2), 50)
      >>> test = permutation_null(
      ...     jax.random.key(0), jnp.arange(100) % 2, groups, groups,
      ...     num_groups=2, num_permutations=99,
      ... )
      >>> test.observed.item(), round(test.p_value.item(), 3)
      (1.0, 0.01)
    """
    if num_permutations < 1:
        raise ValueError(
            f"num_permutations must be at least 1, got {num_permutations}."
        )
    counts = group_counts(labels, predictions, groups, num_groups=num_groups)
    table = counts.counts
    size = {"num_draws": num_permutations, "max_total": max(labels.shape[0], 1)}
    if within_label:
        strata = [
            random_tables(
                stratum_key,
                jnp.sum(table[:, label], axis=1),
                jnp.sum(table[:, label], axis=0),
                **size,
            )
            for label, stratum_key in enumerate(jax.random.split(key))
        ]
        shuffled = jnp.stack(strata, axis=2)
    else:
        cells = table.reshape(num_groups, 4)
        tables = random_tables(key, jnp.sum(cells, 1), jnp.sum(cells, 0), **size)
        shuffled = tables.reshape(-1, num_groups, 2, 2)
    observed = statistic(counts)
    null = jax.vmap(statistic)(GroupCounts(shuffled))
    p_value = permutation_p_value(observed, null)
    return PermutationNull(observed, null, jnp.nanmean(null), p_value)


def permutation_p_value(
    observed: Float[Array | np.ndarray, ""],
    null: Float[Array | np.ndarray, " num_permutations"],
) -> Float[Array, ""]:
    r"""How often noise does at least as much, counting the observed one.

    .. math:: p = \frac{1 + \#\{\text{null} \ge \text{observed}\}}{1 + N}

    For a statistic made of several nulls, such as the worst of many gaps, draw by draw.

    Args:
      observed: The statistic of the rows as they are.
      null: ``[N]``, the statistic of each shuffle.

    Returns:
      In (0, 1]; NaN where the statistic is not defined. Shuffles where it is not count
      against it.

    Phipson and Smyth, "Permutation p-values should never be zero", Statistical
    Applications in Genetics and Molecular Biology 9 (2010).

    Example:
      >>> import jax.numpy as jnp
      >>> permutation_p_value(jnp.array(0.3), jnp.array([0.1, 0.4, 0.2])).item()
      0.5
    """
    observed, null = jnp.asarray(observed), jnp.asarray(null)
    exceeding = jnp.sum(jnp.isnan(null) | (null >= observed - _TIE))
    p_value = (1 + exceeding) / (1 + null.shape[0])
    return jnp.where(jnp.isnan(observed), jnp.nan, p_value)


def holm(
    p_values: Float[Array | np.ndarray, " tests"],
) -> Float[Array, " tests"]:
    r"""Adjusts p-values for many tests by Holm's step-down method.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Rejecting where the adjusted value is at most α keeps the chance of any false
    rejection within α, whatever the dependence between the tests.

    Args:
      p_values: ``[m]`` in [0, 1]; NaN marks a test that could not be made, which is
        not counted in ``m``.

    Returns:
      Adjusted p-values in the given order, NaN where they were.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6 (1979).

    Example:
      >>> import jax.numpy as jnp
      >>> [round(p, 3) for p in holm(jnp.array([0.01, 0.04, 0.03])).tolist()]
      [0.03, 0.06, 0.06]
    """
    p_values = jnp.asarray(p_values)
    order = jnp.argsort(p_values)  # NaN last
    made = jnp.sum(~jnp.isnan(p_values))
    factors = made - jnp.arange(p_values.shape[0])
    stepped = jnp.maximum.accumulate(factors * p_values[order])
    return jnp.zeros_like(p_values).at[order].set(jnp.minimum(stepped, 1))


def patient_bootstrap_weights(
    key: PRNGKeyArray,
    patient_codes: Int[Array | np.ndarray, " rows"],
    *,
    num_patients: int,
    num_replicates: int,
) -> Int[Array, "num_replicates rows"]:
    """Row weights that resample whole patients.

    Every replicate draws ``num_patients`` patients with replacement; a row's weight is
    how often its patient was drawn. Use one set of weights for every method and every
    repeat that is compared, so that the comparison is paired. Weights are integers, so
    ``group_counts`` stays exact.

    Args:
      key: A random key.
      patient_codes: ``[rows]`` in ``0 .. num_patients - 1``.
      num_patients: Number of patients, including any without rows.
      num_replicates: Number of resamples, ``B``.

    Returns:
      int32 ``[B, rows]``.

    Raises:
      ValueError: If a number is below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = patient_bootstrap_weights(
      ...     jax.random.key(0), jnp.array([0, 0, 1, 2]), num_patients=3,
      ...     num_replicates=2,
      ... )
      >>> (weights[:, 0] == weights[:, 1]).all().item()
      True
      >>> weights[:, 1:].sum(axis=1).tolist()
      [3, 3]
    """
    if num_patients < 1 or num_replicates < 1:
        raise ValueError(
            "num_patients and num_replicates must be at least 1, got "
            f"{num_patients} and {num_replicates}."
        )
    drawn = jax.random.randint(key, (num_replicates, num_patients), 0, num_patients)
    replicate = jnp.arange(num_replicates)[:, None]
    times = jnp.zeros((num_replicates, num_patients), jnp.int32)
    return times.at[replicate, drawn].add(1)[:, jnp.asarray(patient_codes)]


class PairedTest(NamedTuple):
    """The difference between two methods, with its uncertainty.

    Attributes:
      difference: Scalar, the mean over repeats.
      standard_error: Scalar.
      degrees_of_freedom: Scalar, of the t distribution that the rest is taken from.
      lower: Scalar, lower end of the interval.
      upper: Scalar, upper end.
      p_value: Scalar in [0, 1], two-sided, of no difference.
    """

    difference: Float[Array, ""]
    standard_error: Float[Array, ""]
    degrees_of_freedom: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    p_value: Float[Array, ""]


def paired_test(
    repeat_differences: Float[Array | np.ndarray, " repeats"],
    bootstrap_differences: Float[Array | np.ndarray, " replicates"],
    *,
    confidence: float = 0.95,
) -> PairedTest:
    r"""Tests the difference of two methods over repeats that share their patients.

    With :math:`d_r` the difference of a metric between the methods in repeat ``r`` of
    cross-validation (new splits and seeds, the same patients),

    .. math:: \bar d = \frac1R \sum_r d_r, \qquad
              \mathrm{Var}(\bar d) = \mathrm{Var}^*_{\text{patients}}(\bar d)
              + \frac{s^2_{\text{repeats}}}{R},

    the first term the variance of the *mean over repeats* when patients are resampled,
    jointly for all repeats and both methods; the second what is left of the randomness
    of splits and seeds. Few repeats know the second term badly, so the interval and
    the p-value are those of a t distribution, with Satterthwaite's degrees of freedom

    .. math:: \nu = \frac{\mathrm{Var}(\bar d)^2}
              {\mathrm{Var}^*_{\text{patients}}(\bar d)^2 / (B - 1)
              + (s^2_{\text{repeats}} / R)^2 / (R - 1)}.

    Why not a t-test over the repeats? They share their patients, so they are
    correlated: the mean over ever more repeats converges to the difference *on these
    patients*, not to the difference on new ones. Its naive variance, the second term
    alone, goes to zero, and the test then rejects as often as one likes to pay for
    repeats (Nadeau and Bengio 2003). Repeats reduce the second term; only patients
    reduce the first.

    Limits. The bootstrap keeps the fitted models, so the variance from *training* on
    other patients enters only as far as new splits show it, and the conclusion is about
    models like these. The patients' own noise in single repeats is in both terms, which
    errs on the safe side.

    Args:
      repeat_differences: ``[R]``, one per repeat, ``R`` at least 2.
      bootstrap_differences: ``[B]``, the mean over repeats of the difference, in each
        replicate of ``patient_bootstrap_weights``. A NaN replicate (a metric undefined
        there) makes the result NaN.
      confidence: Of the interval, in (0, 1).

    Returns:
      Difference, standard error, interval and p-value.

    Raises:
      ValueError: With fewer than two repeats or replicates, or a confidence outside
        (0, 1).

    Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52
    (2003); Satterthwaite, "An approximate distribution of estimates of variance
    components", Biometrics Bulletin 2 (1946).

    Example:
      >>> import jax.numpy as jnp
      >>> test = paired_test(jnp.array([0.02, 0.04]), jnp.array([0.01, 0.03, 0.05]))
      >>> round(test.difference.item(), 3), round(test.standard_error.item(), 4)
      (0.03, 0.0224)
    """
    repeats, replicates = len(repeat_differences), len(bootstrap_differences)
    if repeats < 2 or replicates < 2:
        raise ValueError(
            "paired_test needs at least two repeats and two bootstrap replicates, got "
            f"{repeats} and {replicates}."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    return _paired_test(repeat_differences, bootstrap_differences, confidence)


# Compiled as a whole: called eagerly, its loops would be compiled at every call.
@functools.partial(jax.jit, static_argnames="confidence")
def _paired_test(
    repeat_differences: Float[Array | np.ndarray, " repeats"],
    bootstrap_differences: Float[Array | np.ndarray, " replicates"],
    confidence: float,
) -> PairedTest:
    repeats, replicates = len(repeat_differences), len(bootstrap_differences)
    difference = jnp.mean(jnp.asarray(repeat_differences))
    patients = jnp.var(jnp.asarray(bootstrap_differences), ddof=1)
    between = jnp.var(jnp.asarray(repeat_differences), ddof=1)
    variance = patients + between / repeats
    error = jnp.sqrt(variance)
    # In shares of the variance, whose squares do not underflow.
    total = jnp.where(variance > 0, variance, 1)
    share = jnp.where(variance > 0, patients / total, 1)
    degrees = 1 / (share**2 / (replicates - 1) + (1 - share) ** 2 / (repeats - 1))
    reach = _t_quantile(confidence, degrees) * error
    # Two methods that agree exactly, always, do not differ.
    same = (error == 0) & (difference == 0)
    score = jnp.where(same, 0, jnp.abs(difference) / jnp.where(same, 1, error))
    p_value = _t_tails(score, degrees)
    return PairedTest(
        difference, error, degrees, difference - reach, difference + reach, p_value
    )


def _t_tails(score: Float[Array, ""], degrees: Float[Array, ""]) -> Float[Array, ""]:
    """The chance that a t variable lies further from 0 than the score."""
    # The incomplete beta function keeps small values that 1 - cdf rounds to zero.
    inside = jnp.where(jnp.isinf(score), 0.0, degrees / (degrees + score**2))
    return jax.scipy.special.betainc(degrees / 2, 0.5, inside)


def _t_quantile(confidence: float, degrees: Float[Array, ""]) -> Float[Array, ""]:
    """The score beyond which a t variable lies with chance ``1 - confidence``."""

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        too_far = _t_tails(middle, degrees) < 1 - confidence
        return jnp.where(too_far, low, middle), jnp.where(too_far, middle, high)

    # By halves, since the tails fall; first to a power of 2 beyond the quantile.
    high = jax.lax.while_loop(
        lambda high: _t_tails(high, degrees) >= 1 - confidence,
        lambda high: 2 * high,
        jnp.ones_like(degrees),
    )
    return jax.lax.fori_loop(0, 50, halve, (jnp.zeros_like(high), high))[1]
