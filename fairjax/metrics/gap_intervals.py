r"""Intervals for gaps that hold at parity: max − min, min / max, equalized odds.

The percentile bootstrap of a gap fails near parity. A maximum minus a minimum is never
negative and biased upwards, and resampling adds further noise. Without any true gap,
the bootstrap interval of six small groups nearly always misses 0. Here every pair of
groups gets an interval, and the pairs' intervals give the gap's interval. The limits of
a pair are recovered from the limits of its groups (MOVER). With :math:`\hat\theta_g`
the estimates, :math:`[l_g, u_g]` the groups' limits at ``z`` standard errors and
:math:`\rho` the correlation of two estimates,

.. math::
   L_{ij} &= \hat\theta_i - \hat\theta_j - \sqrt{a^2 + b^2 - 2 \rho_{ij} a b}, \quad
   a = \hat\theta_i - l_i,\ b = u_j - \hat\theta_j, \\
   U_{ij} &= \hat\theta_i - \hat\theta_j + \sqrt{c^2 + d^2 - 2 \rho_{ij} c d}, \quad
   c = u_i - \hat\theta_i,\ d = \hat\theta_j - l_j,

and the interval of :math:`\max_{ij} (\theta_i - \theta_j)` is

.. math:: \left[\max\left(0, \max_{ij} L_{ij}(c_\alpha)\right),\
          \max_{ij} U_{ij}(z_{\alpha/2})\right].

The two ends need different numbers of standard errors. The lower end claims that some
pair differs, so it must allow for many pairs. :math:`c_\alpha` is the quantile of the
largest studentised difference over all pairs, :math:`P(\max_{i<j} |Z_i - Z_j| /
\sigma_{ij} \le c_\alpha) = 1 - \alpha`, simulated with the correlation of the
estimates, as for Tukey's honest differences. The upper end fails only if it is below
the true difference of the pair that is furthest apart. The largest upper limit is at
least the limit of that pair, so the single pair's :math:`z_{\alpha/2}` is enough. With
many groups near parity the upper end is conservative.

The p-value of no gap belongs to the largest ``c`` at which the lower end is above 0.
The p-value is below ``1 - confidence`` exactly where the interval excludes 0.

References:
  Zou and Donner, "Construction of confidence limits about effect measures: a general
  approach", Statistics in Medicine 27 (2008); Newcombe, "Interval estimation for the
  difference between independent proportions", Statistics in Medicine 17 (1998).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fairjax._bisection import bisect
from fairjax.metrics._numbers import extremes
from fairjax.metrics._pairs import Families, joined, make_families, simultaneous
from fairjax.metrics.intervals import Interval, normal_quantile
from fairjax.types import check_choice

Limits: TypeAlias = Callable[[Float[Array, ""]], Interval]
"""A function from a number of standard errors to the intervals of the groups."""

_NUM_DRAWS = 20_000
_HALVINGS = 40


class GapInterval(NamedTuple):
    """A gap between groups with its interval.

    The estimate, the ends and the p-value are NaN with fewer than two groups.

    Attributes:
      estimate: Scalar, the observed gap.
      lower: Scalar, the lower end.
      upper: Scalar, the upper end.
      p_value: Scalar in [0, 1], of the hypothesis of no gap.
      critical: Scalar, the number of standard errors by which a pair must differ.
      highest: int32, the group with the largest estimate, -1 if there is none;
        ``[families]`` for several families.
      lowest: int32, the group with the smallest estimate, likewise.
    """

    estimate: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    p_value: Float[Array, ""]
    critical: Float[Array, ""]
    highest: Int[Array, "*families"]
    lowest: Int[Array, "*families"]


def gap_interval(
    key: PRNGKeyArray,
    estimates: Float[Array | np.ndarray, "*families groups"],
    limits: Limits,
    *,
    covariance: Float[Array | np.ndarray, "all all"] | None = None,
    valid: Bool[Array | np.ndarray, "*families groups"] | None = None,
    agg: Literal["max", "mean"] = "max",
    confidence: float = 0.95,
    num_draws: int = _NUM_DRAWS,
) -> GapInterval:
    """Computes the interval of the largest minus the smallest of any estimates.

    See the module's docstring for the method and its sources.

    Args:
      key: A random key for the simulated quantile, which two groups do not affect.
      estimates: ``[G]``, such as rates or AUROCs; NaN omits a group. Or ``[F, G]``:
        F families, such as TPRs and FPRs. Groups are compared within each family, and
        ``agg`` combines the gaps of the families.
      limits: Function from a number of standard errors to the intervals of the groups,
        in the shape of the estimates. It is mapped over several numbers:
        ``lambda z: midp_interval(hits, rows, z=z)``, or
        ``lambda z: auroc_interval(areas, errors, positives, negatives, z=z)``, or
        ``lambda z: Interval(values - z * errors, values + z * errors)``.
      covariance: ``[F * G, F * G]``, of which only the correlations are used. By
        default the estimates are independent, as for disjoint groups.
      valid: False to omit a group; all True by default.
      agg: ``"max"``, the largest gap of a family, or ``"mean"`` of the families' gaps.
      confidence: Two-sided, in (0, 1).
      num_draws: Number of draws of the simulation. The simulation error of the
        significance level ``a`` is about ``sqrt(a (1 - a) / num_draws)``, .0015 for
        a = .05 and the default.

    Returns:
      The gap, its interval, the p-value of no gap in any family, and the two groups.

    Raises:
      ValueError: If the confidence is outside (0, 1), or ``agg`` is not one of these.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fairjax.metrics import midp_interval
      >>> @jax.jit
      ... def interval(hits, rows):
      ...     limits = lambda z: midp_interval(hits, rows, z=z)
      ...     return gap_interval(jax.random.key(0), hits / rows, limits)
      >>> gap = interval(jnp.array([30, 45, 40]), jnp.array([50, 50, 50]))
      >>> round(gap.estimate.item(), 3), gap.highest.item(), gap.lowest.item()
      (0.3, 1, 0)
      >>> round(gap.lower.item(), 2), round(gap.upper.item(), 2)
      (0.1, 0.45)
    """
    check_choice("agg", agg, "max", "mean")
    families = make_families(estimates, limits, covariance, valid)
    tested = _test(key, families, confidence, num_draws)
    return _difference(families, tested, agg, jnp.ndim(estimates))


def ratio_interval(
    key: PRNGKeyArray,
    estimates: Float[Array | np.ndarray, "*families groups"],
    limits: Limits,
    *,
    covariance: Float[Array | np.ndarray, "all all"] | None = None,
    valid: Bool[Array | np.ndarray, "*families groups"] | None = None,
    confidence: float = 0.95,
    num_draws: int = _NUM_DRAWS,
) -> GapInterval:
    r"""Computes the interval of the smallest over the largest of nonnegative estimates.

    A ratio of two groups is above ``r`` where :math:`\theta_i - r \theta_j > 0`. The
    ends of the interval are the ``r`` at which the limits of this contrast reach 0
    (Fieller's method). The limits are recovered from the limits of the groups. The
    method needs no logarithm and allows rates of 0. The two ends exchange their roles:
    the upper end claims a disparity and uses the simultaneous quantile. The lower end
    uses the quantile of a single pair.

    Args:
      key: A random key.
      estimates: ``[G]``, at least 0; NaN omits a group. Or ``[F, G]``, as in
        ``gap_interval``: the result is then the smallest ratio of a family.
      limits: As in ``gap_interval``; the limits must not be negative.
      covariance: As in ``gap_interval``.
      valid: False to omit a group; all True by default.
      confidence: Two-sided, in (0, 1).
      num_draws: Number of draws of the simulation.

    Returns:
      The ratio in [0, 1], its interval, the p-value of no gap, and the two groups. If
      all estimates are 0, the ratio is NaN and its interval [0, 1].

    Raises:
      ValueError: If the confidence is outside (0, 1).

    References:
      Donner and Zou, "Closed-form confidence intervals for functions of the normal mean
      and standard deviation", Statistical Methods in Medical Research 21 (2012).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fairjax.metrics import midp_interval
      >>> @jax.jit
      ... def interval(hits, rows):
      ...     limits = lambda z: midp_interval(hits, rows, z=z)
      ...     return ratio_interval(jax.random.key(0), hits / rows, limits)
      >>> ratio = interval(jnp.array([30, 45, 40]), jnp.array([50, 50, 50]))
      >>> round(ratio.estimate.item(), 3)
      0.667
      >>> round(ratio.lower.item(), 2), round(ratio.upper.item(), 2)
      (0.51, 0.88)
    """
    families = make_families(estimates, limits, covariance, valid)
    tested = _test(key, families, confidence, num_draws)
    return _ratio(families, tested, jnp.ndim(estimates))


def difference_and_ratio_intervals(
    key: PRNGKeyArray,
    estimates: Float[Array | np.ndarray, "*families groups"],
    limits: Limits,
    *,
    covariance: Float[Array | np.ndarray, "all all"] | None = None,
    valid: Bool[Array | np.ndarray, "*families groups"] | None = None,
    asked: Bool[Array | np.ndarray, " families"] | None = None,
    confidence: float = 0.95,
    num_draws: int = _NUM_DRAWS,
) -> tuple[GapInterval, GapInterval]:
    """Computes ``gap_interval`` and ``ratio_interval`` with a single simulation.

    Both intervals test the same hypothesis, that all groups are equal, and share one
    p-value.

    Args:
      key: A random key.
      estimates: As in ``gap_interval``; at least 0 for a meaningful ratio.
      limits: As in ``gap_interval``.
      covariance: As in ``gap_interval``.
      valid: False to omit a group; all True by default.
      asked: False for a padding family, so that gaps of one and of several families can
        share a compiled program; all True by default.
      confidence: Two-sided, in (0, 1).
      num_draws: Number of draws of the simulation.

    Returns:
      The largest difference and the smallest ratio of a family.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fairjax.metrics import midp_interval
      >>> @jax.jit
      ... def both(hits, rows):
      ...     limits = lambda z: midp_interval(hits, rows, z=z)
      ...     key = jax.random.key(0)
      ...     return difference_and_ratio_intervals(key, hits / rows, limits)
      >>> gap, ratio = both(jnp.array([30, 45, 40]), jnp.array([50, 50, 50]))
      >>> round(gap.estimate.item(), 2), round(ratio.estimate.item(), 2)
      (0.3, 0.67)
      >>> gap.p_value.item() == ratio.p_value.item()
      True
    """
    families = make_families(estimates, limits, covariance, valid, asked)
    tested = _test(key, families, confidence, num_draws)
    ndim = jnp.ndim(estimates)
    return _difference(families, tested, "max", ndim), _ratio(families, tested, ndim)


class _Tested(NamedTuple):
    """Results of the simulation, and arms of the groups for the two ends."""

    critical: Array
    p_value: Array
    claimed: tuple[Array, Array]
    single: tuple[Array, Array]


def _test(
    key: PRNGKeyArray, families: Families, confidence: float, num_draws: int
) -> _Tested:
    z = normal_quantile(confidence)
    critical, p_value = simultaneous(key, families, confidence, num_draws)
    single = families.arms(jnp.asarray(z, critical.dtype))
    return _Tested(critical, p_value, families.arms(critical), single)


def _difference(
    families: Families, tested: _Tested, agg: str, ndim: int
) -> GapInterval:
    def largest(pairs: Array) -> Array:
        return jnp.max(jnp.where(families.comparable, pairs, -jnp.inf), axis=(1, 2))

    lower = jnp.maximum(largest(families.lower_limits(tested.claimed)), 0)
    upper = largest(families.upper_limits(tested.single))
    highest, lowest = extremes(families.estimates, families.valid)
    ends = (joined(e, families.asked, agg) for e in (highest - lowest, lower, upper))
    return _where_compared(families, tested, ndim, *ends)


def _ratio(families: Families, tested: _Tested, ndim: int) -> GapInterval:
    def are_below(ratios: Array) -> Array:
        # Tests the lower and the upper end of the ratio's interval.
        lower = families.lower_limits(tested.single, ratios[0])
        above = jnp.min(jnp.where(families.comparable, lower, jnp.inf)) >= 0
        upper = families.upper_limits(tested.claimed, ratios[1])
        below = jnp.min(jnp.where(families.comparable, upper, jnp.inf)) < 0
        return jnp.stack([above, ~below])

    zeros = jnp.zeros(2, tested.critical.dtype)
    lows, highs = bisect(are_below, zeros, jnp.ones_like(zeros), _HALVINGS)
    highest, lowest = extremes(families.estimates, families.valid)
    ratios = lowest / jnp.where(highest > 0, highest, jnp.nan)
    estimate = jnp.min(jnp.where(families.asked, ratios, jnp.inf))
    return _where_compared(families, tested, ndim, estimate, lows[0], highs[1])


def _ends(families: Families, ndim: int) -> tuple[Array, Array]:
    """Returns the groups of the largest and the smallest estimate; -1 for no group."""
    values, valid = families.estimates, families.valid
    highest = jnp.argmax(jnp.where(valid, values, -jnp.inf), axis=1)
    lowest = jnp.argmin(jnp.where(valid, values, jnp.inf), axis=1)
    some = jnp.any(valid, axis=1)
    ends = [jnp.where(some, end, -1).astype(jnp.int32) for end in (highest, lowest)]
    return (ends[0], ends[1]) if ndim == 2 else (ends[0][0], ends[1][0])


def _where_compared(
    families: Families, tested: _Tested, ndim: int, *ends: Array
) -> GapInterval:
    """Returns the interval of an estimate and two ends; NaN if nothing is compared."""
    known = jnp.all(jnp.isfinite(families.deviations()))
    some = jnp.any(families.comparable, axis=(1, 2))
    compared = known & jnp.all(some | ~families.asked)
    values = (*ends, tested.p_value, tested.critical)
    values = [jnp.where(compared, value, jnp.nan) for value in values]
    return GapInterval._make([*values, *_ends(families, ndim)])
