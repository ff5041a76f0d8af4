r"""Intervals for one rate: Wilson, mid-p, Jeffreys.

The textbook interval, estimate ± z standard errors, has too low coverage for small
groups and has no width at a rate of 0 or 1. The intervals of this module do not fail
there. The intervals of Wilson and mid-p contain the true values that could have given
the estimate. Jeffreys' interval consists of quantiles of a posterior.

All functions take real numbers of trials, such as the effective trials of a clustered
sample (:mod:`fairjax.metrics.clusters`), and any shapes that broadcast. Intervals can
also be functions of ``z``, the number of standard errors to either side. Intervals of
gaps use this form (:mod:`fairjax.metrics.gap_intervals`).
"""

from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax._bisection import bisect
from fairjax.metrics._numbers import HALVINGS, Numbers, as_floats

# With the smaller shape above the first constant, the normal approximation of a beta
# quantile is accurate to .002 in z. Below the constant, the incomplete beta function is
# accurate in float32, if the larger shape is not above the second constant.
_LARGE_SHAPE = 50.0
_LARGEST_SHAPE = 1e3
# Down to 1e-11, far below the error of the approximation, because the bisection for the
# ends of gaps calls this bisection.
_MIDP_HALVINGS = 36


class Interval(NamedTuple):
    """Both ends of an interval.

    Attributes:
      lower: The lower end, of any shape.
      upper: The upper end, of the same shape.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]

    def where(self, known: Bool[Array, "..."]) -> "Interval":
        """Returns the interval where ``known`` is True, and NaN elsewhere.

        Example:
          >>> interval = Interval(jnp.array([0.1, 0.2]), jnp.array([0.5, 0.6]))
          >>> interval.where(jnp.array([True, False])).upper.tolist()
          [0.5, nan]
        """
        return Interval(*(jnp.where(known, end, jnp.nan) for end in self))


def normal_quantile(confidence: float) -> float:
    r"""Returns the standard errors to either side, :math:`\Phi^{-1}((1+c)/2)`.

    Args:
      confidence: Two-sided, in (0, 1).

    Returns:
      The number ``z``, such as 1.96.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    Example:
      >>> round(normal_quantile(0.95), 3)
      1.96
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}.")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson_interval(
    successes: Numbers,
    trials: Numbers,
    *,
    confidence: float = 0.95,
    z: Numbers | None = None,
) -> Interval:
    r"""Computes Wilson's interval: the rates that a score test does not reject.

    .. math:: \frac{\hat p + z^2/2n \pm
              z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
      successes: Any shape, in ``[0, trials]``, such as true positives.
      trials: Broadcasts against ``successes``, such as positives. Real numbers are
        allowed: the effective trials of clustered rows, with ``successes`` the rate
        times the effective trials.
      confidence: Two-sided, in (0, 1).
      z: Standard errors to either side, instead of ``confidence``.

    Returns:
      Ends in [0, 1]; NaN without trials. The lower end is exactly 0 without successes,
      and the upper end exactly 1 without failures.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    References:
      Wilson, "Probable inference, the law of succession, and statistical inference",
      JASA 22 (1927); Brown, Cai and DasGupta, "Interval estimation for a binomial
      proportion", Statistical Science 16 (2001).

    Example:
      >>> lower, upper = wilson_interval(8, 10)
      >>> round(lower.item(), 3), round(upper.item(), 3)
      (0.49, 0.943)
    """
    z = normal_quantile(confidence) if z is None else z
    successes, trials, z = as_floats(successes, trials, z)
    known = trials > 0
    n = jnp.where(known, trials, 1)
    rate = successes / n
    center = rate + z**2 / (2 * n)
    reach = z * jnp.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    scale = 1 + z**2 / n
    lower = jnp.where(successes <= 0, 0, jnp.maximum((center - reach) / scale, 0))
    upper = jnp.where(successes >= n, 1, jnp.minimum((center + reach) / scale, 1))
    return Interval(lower, upper).where(known)


def midp_interval(
    successes: Numbers,
    trials: Numbers,
    *,
    confidence: float = 0.95,
    z: Numbers | None = None,
) -> Interval:
    r"""Computes the mid-p interval: the rates that a mid-p test does not reject.

    At either end, more extreme values and half of the observed value together have the
    probability of a normal tail,

    .. math:: P_u(X < x) + \tfrac12 P_u(X = x) = \Phi(-z), \qquad
              P_l(X > x) + \tfrac12 P_l(X = x) = \Phi(-z).

    Wilson's interval has the right coverage on average over rates, but not at each end.
    For rates near 0 or 1, one end of Wilson's interval errs far too often, and more
    often for larger ``z``. The ends of the mid-p interval do not have this flaw, which
    matters when ends of several groups are compared. The mid-p interval is close to
    that of Clopper and Pearson, who count the observed value in full, but is narrower.

    The probabilities are Peizer and Pratt's approximation, which keeps the digits that
    sums of probabilities lose in float32. From two trials on, ``z`` of the ends is
    accurate to .02 up to 2 standard errors and to .06 up to 3. From three successes and
    three failures on, the accuracy is .002 and .01. The lower end is 0 with less than
    one success (of effective trials), and the upper end is 1 with less than one
    failure.

    Args:
      successes: Any shape, in ``[0, trials]``.
      trials: Broadcasts against ``successes``; real numbers are allowed, as in
        ``wilson_interval``.
      confidence: Two-sided, in (0, 1).
      z: Standard errors to either side, instead of ``confidence``.

    Returns:
      Ends in [0, 1]; NaN without trials. The lower end is exactly 0 without successes,
      and the upper end exactly 1 without failures.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    References:
      Lancaster, "Significance tests in discrete distributions", JASA 56 (1961); Peizer
      and Pratt, "A normal approximation for binomial, F, beta, and other common,
      related tail probabilities, I", JASA 63 (1968).

    Example:
      >>> lower, upper = midp_interval(8, 10)
      >>> round(lower.item(), 3), round(upper.item(), 3)
      (0.481, 0.965)
    """
    z = normal_quantile(confidence) if z is None else z
    successes, trials, z = jnp.broadcast_arrays(*as_floats(successes, trials, z))
    known = trials > 0
    n = jnp.where(known, trials, 1)
    successes = jnp.clip(successes, 0, n)
    # The lower end is 1 minus the upper end of the failures.
    counts = jnp.stack([successes, n - successes])
    wanted = jax.scipy.special.ndtr(-z)

    def is_inside(rate: Array) -> Array:
        return _midp_tail(counts, n, rate) > wanted

    ends = bisect(is_inside, counts / n, jnp.ones_like(counts), _MIDP_HALVINGS)
    middle = sum(ends) / 2
    upper, failing = jnp.where(counts > n - 1, 1, middle)
    return Interval(1 - failing, upper).where(known)


def _midp_tail(x: Array, n: Array, p: Array) -> Array:
    """Computes P(X < x) + ½ P(X = x) of a binomial X, for x in [0, n - 1]."""
    k = jnp.clip(jnp.stack([x - 1, x]), 0, n - 1)
    below, upto = jax.scipy.special.ndtr(_peizer_pratt(k, n, p))
    # P(X < 0) is 0; x between 0 and 1 interpolates.
    return (below * jnp.minimum(x, 1) + upto) / 2


def _peizer_pratt(k: Array, n: Array, p: Array) -> Array:
    """Approximates the normal quantile of P(X <= k)."""
    info = jnp.finfo(p.dtype)
    p, q = jnp.maximum(p, info.tiny), jnp.maximum(1 - p, info.epsneg)
    distance = k + 2 / 3 - (n + 1 / 3) * p
    distance += 0.02 * (q / (k + 1) - p / (n - k) + (q - 0.5) / (n + 1))
    bend = q * _bend((k + 0.5) / (n * p)) + p * _bend((n - k - 0.5) / (n * q))
    return distance * jnp.sqrt((1 + bend) / ((n + 1 / 6) * p * q))


def _bend(ratio: Array) -> Array:
    """Computes Peizer and Pratt's (1 - r² + 2 r log r) / (1 - r)², 0 at r = 1."""
    t = ratio - 1
    near = jnp.abs(t) < 0.1
    series = t * (-1 / 3 + t * (1 / 6 + t * (-1 / 10 + t * (1 / 15 - t / 21))))
    t = jnp.where(near, 1, t)
    far = (2 * ratio * jnp.log(ratio) - t * (ratio + 1)) / t**2
    return jnp.where(near, series, far)


def jeffreys_interval(
    successes: Numbers, trials: Numbers, *, confidence: float = 0.95
) -> Interval:
    r"""Computes Jeffreys' interval of a rate: quantiles of its posterior.

    .. math:: B_{\alpha/2},\ B_{1-\alpha/2} \quad \text{of} \quad
              \mathrm{Beta}(x + \tfrac12,\ n - x + \tfrac12),

    except that the lower end is 0 without successes, and the upper end is 1 without
    failures (Brown, Cai and DasGupta 2001). Without this exception the coverage would
    be too low near 0 and 1.

    Args:
      successes: Any shape, in ``[0, trials]``.
      trials: Broadcasts against ``successes``; real numbers are allowed.
      confidence: Two-sided, in (0, 1).

    Returns:
      Ends in [0, 1]; NaN without trials.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    References:
      Brown, Cai and DasGupta, "Interval estimation for a binomial proportion",
      Statistical Science 16 (2001).

    Example:
      >>> lower, upper = jeffreys_interval(8, 10)
      >>> round(lower.item(), 3), round(upper.item(), 3)
      (0.497, 0.956)
    """
    normal_quantile(confidence)
    successes, trials = as_floats(successes, trials)
    known = trials > 0
    a = jnp.where(known, successes, 0) + 0.5
    b = jnp.where(known, trials - successes, 0) + 0.5
    tail = (1 - confidence) / 2
    lower = jnp.where(successes <= 0, 0, beta_quantile(tail, a, b))
    upper = jnp.where(successes >= trials, 1, beta_quantile(1 - tail, a, b))
    return Interval(lower, upper).where(known)


def beta_quantile(probability: float, a: Numbers, b: Numbers) -> Float[Array, "..."]:
    r"""Computes a quantile of the beta distribution.

    The quantile is found by bisection if a shape is at most 50. Otherwise it follows
    from the normal approximation of the logit, accurate to .002 standard errors.
    (The incomplete beta function loses all digits in float32 where ``a + b`` is above a
    million.)

    Args:
      probability: Probability below the quantile, in (0, 1).
      a: First shape parameter, above 0, an array of any shape.
      b: Second shape parameter, above 0; broadcasts against ``a``.

    Returns:
      The quantile, in [0, 1].

    References:
      Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.5.22.

    Example:
      >>> round(beta_quantile(0.5, 2.0, 3.0).item(), 4)
      0.3857
    """
    a, b = jnp.broadcast_arrays(*as_floats(a, b))
    # Solved on the side where the mean is below one half, which keeps the digits of
    # rates near 0. Rates near 1 have no such digits.
    mirrored = a > b
    less, more = jnp.minimum(a, b), jnp.maximum(a, b)
    below = jnp.where(mirrored, 1 - probability, probability).astype(a.dtype)
    normal = NormalDist().inv_cdf(probability)
    score = jnp.where(mirrored, -normal, normal).astype(a.dtype)
    quantile = jnp.where(
        less > _LARGE_SHAPE,
        _beta_quantile_large(score, less, more),
        _beta_quantile_small(below, less, more),
    )
    return jnp.where(mirrored, 1 - quantile, quantile)


def _beta_quantile_large(score: Array, a: Array, b: Array) -> Array:
    a, b = jnp.maximum(a, 1), jnp.maximum(b, 1)
    over_a, over_b = 1 / (2 * a - 1), 1 / (2 * b - 1)
    bend = (score**2 - 3) / 6
    mean = 2 / (over_a + over_b)
    w = -score * jnp.sqrt(jnp.maximum(mean + bend, 0)) / mean
    w -= (over_b - over_a) * (bend + 5 / 6 - 2 / (3 * mean))
    return a / (a + b * jnp.exp(2 * w))


@jax.jit
def _beta_quantile_small(probability: Array, a: Array, b: Array) -> Array:
    capped = jnp.minimum(b, _LARGEST_SHAPE)

    def is_below(value: Array) -> Array:
        return jax.scipy.special.betainc(a, capped, value) < probability

    value = sum(bisect(is_below, jnp.zeros_like(a), jnp.ones_like(a), HALVINGS)) / 2
    # With b huge, -log(1 - x) is a gamma variable divided by b + (a - 1) / 2.
    shift = (a - 1) / 2
    rescaled = -jnp.expm1(jnp.log1p(-value) * (capped + shift) / (b + shift))
    return jnp.where(b > capped, rescaled, value)
