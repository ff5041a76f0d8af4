"""Intervals of an AUROC from its standard error, or from the numbers of rows.

The main interval uses DeLong's standard error on the logit scale. A group with
perfectly separated scores has no such standard error and gets Newcombe's interval. All
functions broadcast, take real numbers of rows, and accept ``z``, the number of standard
errors to either side.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fairjax._bisection import bisect
from fairjax.metrics._numbers import HALVINGS, Numbers, as_floats
from fairjax.metrics.intervals import Interval, normal_quantile


def logit_interval(
    estimate: Numbers,
    standard_error: Numbers,
    *,
    confidence: float = 0.95,
    z: Numbers | None = None,
) -> Interval:
    r"""Computes an interval in (0, 1) by the delta method on the logit scale.

    .. math:: \operatorname{logit}^{-1}\!\left(\operatorname{logit} \hat\theta \pm
              z\, \frac{\mathrm{SE}}{\hat\theta (1 - \hat\theta)}\right)

    Use this interval for an AUROC with DeLong's standard error, or for a rate with a
    cluster-robust standard error. At an estimate of 0 or 1, or without a standard
    error, the interval is [0, 1], valid but useless. ``auroc_interval`` and Wilson's
    interval with effective trials then give narrower intervals from the numbers of
    rows.

    Args:
      estimate: Any shape, in [0, 1].
      standard_error: Broadcasts against ``estimate``, at least 0.
      confidence: Two-sided, in (0, 1).
      z: Standard errors to either side, instead of ``confidence``.

    Returns:
      Ends in [0, 1]; NaN where the estimate is NaN.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    References:
      Pepe, "The Statistical Evaluation of Medical Tests for Classification and
      Prediction" (2003), section 5.2.

    Example:
      >>> lower, upper = logit_interval(0.9, 0.05)
      >>> round(lower.item(), 3), round(upper.item(), 3)
      (0.752, 0.964)
    """
    z = normal_quantile(confidence) if z is None else z
    estimate, error, z = as_floats(estimate, standard_error, z)
    inside = (estimate > 0) & (estimate < 1) & (error > 0)
    value = jnp.where(inside, estimate, 0.5)
    logit = jnp.log(value) - jnp.log1p(-value)
    reach = z * jnp.where(inside, error, 1) / (value * (1 - value))
    lower = jnp.where(inside, jax.nn.sigmoid(logit - reach), 0)
    upper = jnp.where(inside, jax.nn.sigmoid(logit + reach), 1)
    return Interval(lower, upper).where(~jnp.isnan(estimate))


def newcombe_interval(
    auroc: Numbers,
    positives: Numbers,
    negatives: Numbers,
    *,
    confidence: float = 0.95,
    z: Numbers | None = None,
) -> Interval:
    r"""Computes the interval of an AUROC from the numbers of positives and negatives.

    The interval contains the values :math:`\theta` with :math:`|\hat\theta - \theta|
    \le z \sqrt{V(\theta)}`, where

    .. math:: V(\theta) = \frac{\theta (1 - \theta)}{m n} \left[1 + N \left(
              \frac{1 - \theta}{2 - \theta} + \frac{\theta}{1 + \theta}\right)\right],
              \qquad N = \frac{m + n}{2} - 1,

    is the variance under exponential scores with :math:`m, n` averaged. The variance
    is that at :math:`\theta`, not at the estimate, so the interval has a width even at
    an AUROC of 1.

    Args:
      auroc: Any shape, in [0, 1].
      positives: Broadcasts against ``auroc``; for clustered rows, the number of
        patients with positives.
      negatives: Likewise.
      confidence: Two-sided, in (0, 1).
      z: Standard errors to either side, instead of ``confidence``.

    Returns:
      Ends in [0, 1]; NaN where the AUROC is NaN or a class has no rows.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    References:
      Hanley and McNeil, Radiology 143 (1982); Newcombe, "Confidence intervals for an
      effect size measure based on the Mann-Whitney statistic. Part 2", Statistics in
      Medicine 25 (2006), method 5.

    Example:
      >>> lower, upper = newcombe_interval(1.0, 20, 30)
      >>> round(lower.item(), 3), upper.item()
      (0.916, 1.0)
    """
    z = normal_quantile(confidence) if z is None else z
    auroc, positives, negatives, z = jnp.broadcast_arrays(
        *as_floats(auroc, positives, negatives, z)
    )
    known = (positives > 0) & (negatives > 0) & ~jnp.isnan(auroc)
    area = jnp.where(known, auroc, 0.5)
    m, n = jnp.where(known, positives, 1), jnp.where(known, negatives, 1)
    lower = _newcombe_lower(area, m, n, z)
    upper = 1 - _newcombe_lower(1 - area, m, n, z)
    return Interval(lower, upper).where(known)


@jax.jit
def _newcombe_lower(area: Array, m: Array, n: Array, z: Array) -> Array:
    mean = (m + n) / 2 - 1

    def is_too_low(theta: Array) -> Array:
        bends = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + mean * bends) / (m * n)
        return area - theta > z * jnp.sqrt(variance)

    low, high = bisect(is_too_low, jnp.zeros_like(area), area, HALVINGS)
    return (low + high) / 2


def auroc_interval(
    auroc: Numbers,
    standard_error: Numbers,
    positives: Numbers,
    negatives: Numbers,
    *,
    confidence: float = 0.95,
    z: Numbers | None = None,
) -> Interval:
    """Computes an AUROC's interval: DeLong on the logit scale, or Newcombe's.

    DeLong's variance is 0 where scores separate the classes perfectly, which happens by
    chance in small groups. ``newcombe_interval`` replaces such intervals. An unknown
    standard error, for example with one positive or one patient, gives no interval.

    Args:
      auroc: Any shape, in [0, 1].
      standard_error: Broadcasts against ``auroc``, from DeLong; cluster-robust for
        clustered rows.
      positives: Likewise; for clustered rows, the number of patients with positives.
      negatives: Likewise.
      confidence: Two-sided, in (0, 1).
      z: Standard errors to either side, instead of ``confidence``.

    Returns:
      Ends in [0, 1]; NaN where the AUROC or its error is NaN, or a class has no rows.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> area, error = jnp.array([0.9, 1.0]), jnp.array([0.05, 0.0])
      >>> [round(end, 3) for end in auroc_interval(area, error, 20, 30).lower.tolist()]
      [0.752, 0.916]
    """
    chosen = {"confidence": confidence, "z": z}
    smooth = logit_interval(auroc, standard_error, **chosen)
    exact = newcombe_interval(auroc, positives, negatives, **chosen)
    area, error = as_floats(auroc, standard_error)
    flat = ~((error > 0) & (area > 0) & (area < 1))
    lower = jnp.where(flat, exact.lower, smooth.lower)
    upper = jnp.where(flat, exact.upper, smooth.upper)
    return Interval(lower, upper).where(~jnp.isnan(exact.lower) & ~jnp.isnan(error))
