"""Test of two methods, each trained several times on the same patients."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fairjax.metrics._numbers import student_t_quantile, student_t_tails
from fairjax.metrics._rows import compiled, float_type


class PairedTest(NamedTuple):
    """The difference between two methods, with its uncertainty.

    Attributes:
      difference: Scalar, the mean over repeats.
      standard_error: Scalar, the standard error of the difference.
      degrees_of_freedom: Scalar, of the t distribution of the interval and p-value.
      lower: Scalar, lower end of the interval.
      upper: Scalar, upper end.
      p_value: Scalar in [0, 1], two-sided, of the hypothesis of no difference.
    """

    difference: Float[Array, ""]
    standard_error: Float[Array, ""]
    degrees_of_freedom: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    p_value: Float[Array, ""]


# Compiled as a whole, because an eager call would compile the loops every time.
@compiled("confidence")
def paired_test(
    repeat_differences: Float[Array | np.ndarray, " repeats"],
    bootstrap_differences: Float[Array | np.ndarray, " replicates"],
    *,
    confidence: float = 0.95,
) -> PairedTest:
    r"""Tests the difference between two methods over repeats on the same patients.

    With :math:`d_r` the difference in a metric between the methods in repeat ``r`` of
    cross-validation (new splits and seeds, the same patients),

    .. math:: \bar d = \frac1R \sum_r d_r, \qquad
              \mathrm{Var}(\bar d) = \mathrm{Var}^*_{\text{patients}}(\bar d)
              + \frac{s^2_{\text{repeats}}}{R},

    where the first term is the variance of the *mean over repeats* when patients are
    resampled, jointly for all repeats and both methods. The second term is the
    remaining randomness of splits and seeds. Few repeats estimate the second term
    poorly, so the interval and the p-value use a t distribution, with Satterthwaite's
    degrees of freedom

    .. math:: \nu = \frac{\mathrm{Var}(\bar d)^2}
              {\mathrm{Var}^*_{\text{patients}}(\bar d)^2 / (B - 1)
              + (s^2_{\text{repeats}} / R)^2 / (R - 1)}.

    A t-test over the repeats is not valid. Repeats share their patients and are
    correlated: the mean over more and more repeats converges to the difference *on
    these patients*, not to the difference on new patients. The naive variance, the
    second term alone, goes to zero, so a t-test with enough repeats always rejects
    (Nadeau and Bengio 2003). Repeats reduce only the second term, and patients the
    first.

    Limits. The bootstrap keeps the fitted models. The variance from *training* on other
    patients enters only through new splits, and the conclusion applies to models like
    these. The noise of the patients in single repeats enters both terms, which is
    conservative.

    Args:
      repeat_differences: ``[R]``, one for each repeat, ``R`` at least 2.
      bootstrap_differences: ``[B]``, the mean over repeats of the difference, in each
        replicate of ``patient_bootstrap_weights``. A NaN replicate (an undefined
        metric) makes the result NaN.
      confidence: Confidence of the interval, in (0, 1).

    Returns:
      Difference, standard error, interval and p-value.

    Raises:
      ValueError: If there are fewer than two repeats or replicates, or the confidence
        is outside (0, 1).

    References:
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
            "paired_test needs at least two repeats and two bootstrap replicates; got "
            f"{repeats} and {replicates}."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}.")
    dtype = float_type(repeat_differences, bootstrap_differences)
    difference = jnp.mean(jnp.asarray(repeat_differences, dtype))
    patients = jnp.var(jnp.asarray(bootstrap_differences, dtype), ddof=1)
    between = jnp.var(jnp.asarray(repeat_differences, dtype), ddof=1)
    variance = patients + between / repeats
    error = jnp.sqrt(variance)
    # Squares of fractions of the variance do not underflow.
    total = jnp.where(variance > 0, variance, 1)
    part = jnp.where(variance > 0, patients / total, 1)
    degrees = 1 / (part**2 / (replicates - 1) + (1 - part) ** 2 / (repeats - 1))
    tail = jnp.full_like(degrees, (1 - confidence) / 2)
    reach = student_t_quantile(tail, jnp.maximum(degrees, 1)) * error
    # Two methods that always agree exactly get a p-value of 1.
    same = (error == 0) & (difference == 0)
    score = jnp.where(same, 0, jnp.abs(difference) / jnp.where(same, 1, error))
    p_value = student_t_tails(score, degrees)
    return PairedTest(
        difference, error, degrees, difference - reach, difference + reach, p_value
    )
