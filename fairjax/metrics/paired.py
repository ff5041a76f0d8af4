"""Do two methods differ, each trained several times on the same patients?"""

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


# Compiled as a whole: called eagerly, its loops would be compiled at every call.
@compiled("confidence")
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
    # In shares of the variance, whose squares do not underflow.
    total = jnp.where(variance > 0, variance, 1)
    share = jnp.where(variance > 0, patients / total, 1)
    degrees = 1 / (share**2 / (replicates - 1) + (1 - share) ** 2 / (repeats - 1))
    tail = jnp.full_like(degrees, (1 - confidence) / 2)
    reach = student_t_quantile(tail, jnp.maximum(degrees, 1)) * error
    # Two methods that agree exactly, always, do not differ.
    same = (error == 0) & (difference == 0)
    score = jnp.where(same, 0, jnp.abs(difference) / jnp.where(same, 1, error))
    p_value = student_t_tails(score, degrees)
    return PairedTest(
        difference, error, degrees, difference - reach, difference + reach, p_value
    )
