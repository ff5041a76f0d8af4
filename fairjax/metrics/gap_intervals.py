r"""Intervals for gaps that hold at parity: max − min, min / max, equalized odds.

The percentile bootstrap of a gap fails near parity. A maximum less a minimum is never
negative and biased upwards, and resampling adds noise to noise: without any true gap,
the interval of six small groups misses 0 nearly always. Here every pair of groups gets
an interval, and the gap's follows from them. With :math:`\hat\theta_g` the estimates,
:math:`[l_g, u_g]` the groups' own limits at ``z`` standard errors and :math:`\rho` the
correlation of two estimates, the pair's limits are recovered from the groups' (MOVER):

.. math::
   L_{ij} &= \hat\theta_i - \hat\theta_j - \sqrt{a^2 + b^2 - 2 \rho_{ij} a b}, \quad
   a = \hat\theta_i - l_i,\ b = u_j - \hat\theta_j, \\
   U_{ij} &= \hat\theta_i - \hat\theta_j + \sqrt{c^2 + d^2 - 2 \rho_{ij} c d}, \quad
   c = u_i - \hat\theta_i,\ d = \hat\theta_j - l_j,

and the interval of :math:`\max_{ij} (\theta_i - \theta_j)` is

.. math:: \left[\max\left(0, \max_{ij} L_{ij}(c_\alpha)\right),\
          \max_{ij} U_{ij}(z_{\alpha/2})\right].

Its ends need different numbers of standard errors. The lower one claims that some pair
differs, and there are many pairs to be wrong about: :math:`c_\alpha` is the quantile of
the largest studentised difference over all pairs, :math:`P(\max_{i<j} |Z_i - Z_j| /
\sigma_{ij} \le c_\alpha) = 1 - \alpha`, simulated with the estimates' correlation, as
for Tukey's honest differences. The upper one fails only if it is below the one pair
that is truly furthest apart, and the largest of all pairs' limits is at least that
pair's, so each pair's own :math:`z_{\alpha/2}` is enough. With many groups near parity
the upper end is cautious.

The p-value of no gap is that of the largest ``c`` at which the lower end is above 0:
it is below ``1 - confidence`` exactly where the interval excludes 0.

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
"""The groups' own intervals at so many standard errors."""

_NUM_DRAWS = 20_000
_HALVINGS = 40


class GapInterval(NamedTuple):
    """A gap over groups with its interval.

    Attributes:
      estimate: Scalar, as observed; NaN with fewer than two groups to compare, as are
        the ends and the p-value.
      lower: Scalar, the lower end.
      upper: Scalar, the upper end.
      p_value: Scalar in [0, 1], of no gap at all.
      critical: Scalar, the standard errors by which pairs must differ.
      highest: int32, the group of the largest estimate, -1 if there is none. Of
        several families together, ``[families]``.
      lowest: int32, that of the smallest estimate.
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
    """Interval of the largest minus the smallest of any estimates.

    Args:
      key: A random key, for the simulated quantile; not used up by two groups.
      estimates: ``[G]``, rates, AUROCs or whatever; NaN is left out. Or ``[F, G]``,
        families that are compared within themselves, whose gaps are put together by
        ``agg``.
      limits: Gives the groups' own intervals, of the shape of the estimates, at a
        number of standard errors, and is mapped over several of them:
        ``lambda z: midp_interval(hits, rows, z=z)``, or
        ``lambda z: auroc_interval(areas, errors, positives, negatives, z=z)``, or
        ``lambda z: Interval(values - z * errors, values + z * errors)``.
      covariance: ``[F * G, F * G]``, of which only the correlations are used; by
        default the estimates are independent, as those of disjoint groups are.
      valid: False to leave a group out; all by default.
      agg: ``"max"``, the largest family's gap, or ``"mean"``, their mean.
      confidence: Two-sided, in (0, 1).
      num_draws: Size of the simulation. Its error in the level is about
        ``sqrt(a (1 - a) / num_draws)``, .0015 for a = .05 and the default.

    Returns:
      The gap, its interval, the p-value of no gap in any family, and which groups.

    Raises:
      ValueError: With a confidence outside (0, 1), or another ``agg``.

    See the module's docstring for the method and its sources.

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
    found = _judged(key, families, confidence, num_draws)
    return _difference(families, found, agg, jnp.ndim(estimates))


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
    r"""Interval of the smallest over the largest of estimates that are at least 0.

    A ratio of two groups is above ``r`` where :math:`\theta_i - r \theta_j > 0`, so the
    limits of these contrasts are tried for every ``r`` (Fieller's way, with limits
    recovered from the groups'), which needs no logarithm and stands rates of 0. The
    roles of the ends are exchanged: the upper one claims a disparity and has the
    simultaneous quantile, the lower one each pair's own.

    Args:
      key: A random key.
      estimates: ``[G]``, at least 0; NaN is left out. Or ``[F, G]``, as in
        ``gap_interval``, of which the smallest ratio is taken.
      limits: As in ``gap_interval``; the limits must not be negative.
      covariance: As in ``gap_interval``.
      valid: False to leave a group out; all by default.
      confidence: Two-sided, in (0, 1).
      num_draws: Size of the simulation.

    Returns:
      The ratio in [0, 1], its interval, the p-value of no gap, and which groups. Where
      all estimates are 0 the ratio is NaN and its interval [0, 1].

    Raises:
      ValueError: With a confidence outside (0, 1).

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
    found = _judged(key, families, confidence, num_draws)
    return _ratio(families, found, jnp.ndim(estimates))


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
    """``gap_interval`` and ``ratio_interval`` of the same estimates, simulated once.

    They ask the same question, whether all groups are equal, and have one p-value.

    Args:
      key: A random key.
      estimates: As in ``gap_interval``, and at least 0 for the ratio to mean anything.
      limits: As in ``gap_interval``.
      covariance: As in ``gap_interval``.
      valid: False to leave a group out; all by default.
      asked: False for a family that only pads, so that gaps of one and of several
        families share a program; all by default.
      confidence: Two-sided, in (0, 1).
      num_draws: Size of the simulation.

    Returns:
      The difference (the largest family's) and the ratio (the smallest).

    Raises:
      ValueError: With a confidence outside (0, 1).

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
    found = _judged(key, families, confidence, num_draws)
    ndim = jnp.ndim(estimates)
    return _difference(families, found, "max", ndim), _ratio(families, found, ndim)


class _Judged(NamedTuple):
    """The simulation's findings, and the groups' arms that the two ends need."""

    critical: Array
    p_value: Array
    claimed: tuple[Array, Array]
    single: tuple[Array, Array]


def _judged(
    key: PRNGKeyArray, families: Families, confidence: float, num_draws: int
) -> _Judged:
    z = normal_quantile(confidence)
    critical, p_value = simultaneous(key, families, confidence, num_draws)
    single = families.arms(jnp.asarray(z, critical.dtype))
    return _Judged(critical, p_value, families.arms(critical), single)


def _difference(
    families: Families, judged: _Judged, agg: str, ndim: int
) -> GapInterval:
    def largest(pairs: Array) -> Array:
        return jnp.max(jnp.where(families.comparable, pairs, -jnp.inf), axis=(1, 2))

    lower = jnp.maximum(largest(families.lower_limits(judged.claimed)), 0)
    upper = largest(families.upper_limits(judged.single))
    highest, lowest = extremes(families.estimates, families.valid)
    found = (joined(e, families.asked, agg) for e in (highest - lowest, lower, upper))
    return _where_compared(families, judged, ndim, *found)


def _ratio(families: Families, judged: _Judged, ndim: int) -> GapInterval:
    def are_below(ratios: Array) -> Array:
        # The lower end of the ratio's interval, and the upper one.
        lower = families.lower_limits(judged.single, ratios[0])
        above = jnp.min(jnp.where(families.comparable, lower, jnp.inf)) >= 0
        upper = families.upper_limits(judged.claimed, ratios[1])
        below = jnp.min(jnp.where(families.comparable, upper, jnp.inf)) < 0
        return jnp.stack([above, ~below])

    zeros = jnp.zeros(2, judged.critical.dtype)
    lows, highs = bisect(are_below, zeros, jnp.ones_like(zeros), _HALVINGS)
    highest, lowest = extremes(families.estimates, families.valid)
    ratios = lowest / jnp.where(highest > 0, highest, jnp.nan)
    estimate = jnp.min(jnp.where(families.asked, ratios, jnp.inf))
    return _where_compared(families, judged, ndim, estimate, lows[0], highs[1])


def _ends(families: Families, ndim: int) -> tuple[Array, Array]:
    """The groups of the largest and the smallest estimate; -1 if there is none."""
    values, valid = families.estimates, families.valid
    highest = jnp.argmax(jnp.where(valid, values, -jnp.inf), axis=1)
    lowest = jnp.argmin(jnp.where(valid, values, jnp.inf), axis=1)
    some = jnp.any(valid, axis=1)
    ends = [jnp.where(some, end, -1).astype(jnp.int32) for end in (highest, lowest)]
    return (ends[0], ends[1]) if ndim == 2 else (ends[0][0], ends[1][0])


def _where_compared(
    families: Families, judged: _Judged, ndim: int, *ends: Array
) -> GapInterval:
    """Makes the interval of an estimate and two ends; NaN where nothing is compared."""
    known = jnp.all(jnp.isfinite(families.deviations()))
    some = jnp.any(families.comparable, axis=(1, 2))
    compared = known & jnp.all(some | ~families.asked)
    values = (*ends, judged.p_value, judged.critical)
    values = [jnp.where(compared, value, jnp.nan) for value in values]
    return GapInterval._make([*values, *_ends(families, ndim)])
