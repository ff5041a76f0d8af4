r"""Intervals for one rate: Wilson, mid-p, Jeffreys.

The textbook interval, estimate ± z standard errors, covers far too seldom for small
groups and has no width at a rate of 0 or 1. Those here do not fail there: they ask
which true values could have given the estimate (Wilson, mid-p), or are quantiles of a
posterior (Jeffreys).

All take real-valued numbers of trials, so the effective number of a clustered sample
fits (:mod:`fairjax.metrics.clusters`), and any shapes that broadcast. Each is also a
function of ``z``, the number of standard errors to either side, which is how intervals
of gaps are built from those of groups (:mod:`fairjax.metrics.gap_intervals`).
"""

from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax._bisection import bisect
from fairjax.metrics._numbers import HALVINGS, Numbers, as_floats

# Where the smaller shape is above the first, the normal approximation of a beta
# quantile is right to .002 in z. Below it, the incomplete beta function is, in float32,
# as long as the larger shape is not above the second.
_LARGE_SHAPE = 50.0
_LARGEST_SHAPE = 1e3
# To 1e-11, far below the error of the approximation: the ends of gaps halve around it.
_MIDP_HALVINGS = 36


class Interval(NamedTuple):
    """Both ends of an interval.

    Attributes:
      lower: Any shape, the lower end.
      upper: The same shape, the upper end.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]

    def where(self, known: Bool[Array, "..."]) -> "Interval":
        """The interval where it is known, and NaN elsewhere."""
        return Interval(*(jnp.where(known, end, jnp.nan) for end in self))


def normal_quantile(confidence: float) -> float:
    r"""Standard errors to either side of an estimate, :math:`\Phi^{-1}((1+c)/2)`.

    Args:
      confidence: Two-sided, in (0, 1).

    Returns:
      The number ``z``, such as 1.96.

    Raises:
      ValueError: With a confidence outside (0, 1).

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
    r"""Wilson's interval of a rate: the values that a score test does not reject.

    .. math:: \frac{\hat p + z^2/2n \pm
              z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
      successes: Any shape, in ``[0, trials]``, such as true positives.
      trials: Broadcasts against it, such as positives. Real numbers are allowed: the
        effective trials of clustered rows, with ``successes`` the rate times these.
      confidence: Two-sided, in (0, 1).
      z: Standard errors to either side, instead of ``confidence``.

    Returns:
      Ends in [0, 1]; NaN without trials. The lower end at no successes is exactly 0
      and the upper one at all successes exactly 1.

    Raises:
      ValueError: With a confidence outside (0, 1).

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
    r"""Mid-p interval of a rate: the values whose tails are large enough.

    The ends are the rates at which what was seen, counted by half, and what is further
    out have the chance of a normal tail,

    .. math:: P_u(X < x) + \tfrac12 P_u(X = x) = \Phi(-z), \qquad
              P_l(X > x) + \tfrac12 P_l(X = x) = \Phi(-z).

    Wilson's interval is right on average over rates, but not at each end: with rates
    near 0 or 1 one of its ends errs many times as often as it should, the more so the
    larger ``z``. These do not, which matters wherever ends of several groups are
    compared with each other. They are nearly those of Clopper and Pearson, who count
    what was seen whole, without their excess width.

    The chances are Peizer and Pratt's approximation, which has the digits that sums of
    probabilities lose in float32. For two and more trials, ``z`` of the ends is right
    to .02 up to 2 standard errors and to .06 up to 3, and from three successes and
    failures on to .002 and .01. With less than one success (of effective trials) the
    lower end is 0, and with less than one failure the upper end is 1.

    Args:
      successes: Any shape, in ``[0, trials]``.
      trials: Broadcasts against it; real numbers are allowed, as in
        ``wilson_interval``.
      confidence: Two-sided, in (0, 1).
      z: Standard errors to either side, instead of ``confidence``.

    Returns:
      Ends in [0, 1]; NaN without trials. The lower end at no successes is exactly 0
      and the upper one at all successes exactly 1.

    Raises:
      ValueError: With a confidence outside (0, 1).

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
    # The lower end is the upper one of the failures.
    counts = jnp.stack([successes, n - successes])
    wanted = jax.scipy.special.ndtr(-z)

    def is_inside(rate: Array) -> Array:
        return _midp_tail(counts, n, rate) > wanted

    ends = bisect(is_inside, counts / n, jnp.ones_like(counts), _MIDP_HALVINGS)
    found = sum(ends) / 2
    upper, failing = jnp.where(counts > n - 1, 1, found)
    return Interval(1 - failing, upper).where(known)


def _midp_tail(x: Array, n: Array, p: Array) -> Array:
    """P(X < x) + ½ P(X = x) for a binomial X, for x in [0, n - 1]."""
    k = jnp.clip(jnp.stack([x - 1, x]), 0, n - 1)
    below, upto = jax.scipy.special.ndtr(_peizer_pratt(k, n, p))
    # No less than 0 successes; between 0 and 1, what lies between.
    return (below * jnp.minimum(x, 1) + upto) / 2


def _peizer_pratt(k: Array, n: Array, p: Array) -> Array:
    """The normal quantile of P(X <= k), nearly."""
    info = jnp.finfo(p.dtype)
    p, q = jnp.maximum(p, info.tiny), jnp.maximum(1 - p, info.epsneg)
    distance = k + 2 / 3 - (n + 1 / 3) * p
    distance += 0.02 * (q / (k + 1) - p / (n - k) + (q - 0.5) / (n + 1))
    bend = q * _bend((k + 0.5) / (n * p)) + p * _bend((n - k - 0.5) / (n * q))
    return distance * jnp.sqrt((1 + bend) / ((n + 1 / 6) * p * q))


def _bend(ratio: Array) -> Array:
    """Peizer and Pratt's (1 - r² + 2 r log r) / (1 - r)², which is 0 at 1."""
    t = ratio - 1
    near = jnp.abs(t) < 0.1
    series = t * (-1 / 3 + t * (1 / 6 + t * (-1 / 10 + t * (1 / 15 - t / 21))))
    t = jnp.where(near, 1, t)
    far = (2 * ratio * jnp.log(ratio) - t * (ratio + 1)) / t**2
    return jnp.where(near, series, far)


def jeffreys_interval(
    successes: Numbers, trials: Numbers, *, confidence: float = 0.95
) -> Interval:
    r"""Jeffreys' interval of a rate: quantiles of its posterior.

    .. math:: B_{\alpha/2},\ B_{1-\alpha/2} \quad \text{of} \quad
              \mathrm{Beta}(x + \tfrac12,\ n - x + \tfrac12),

    except that the lower end is 0 where there are no successes, and the upper end 1
    where there are only successes (Brown, Cai and DasGupta 2001), without which it
    covers too seldom near 0 and 1.

    Args:
      successes: Any shape, in ``[0, trials]``.
      trials: Broadcasts against it; real numbers are allowed.
      confidence: Two-sided, in (0, 1).

    Returns:
      Ends in [0, 1]; NaN without trials.

    Raises:
      ValueError: With a confidence outside (0, 1).

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
    r"""The value below which a beta variable lies with the given probability.

    By halving where a shape is at most 50, else from the normal approximation of its
    logit, which is then right to .002 of a standard error. (The incomplete beta
    function itself loses all digits in float32 where ``a + b`` is above a million.)

    Args:
      probability: In (0, 1).
      a: Any shape, above 0.
      b: Broadcasts against it, above 0.

    Returns:
      In [0, 1].

    References:
      Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.5.22.

    Example:
      >>> round(beta_quantile(0.5, 2.0, 3.0).item(), 4)
      0.3857
    """
    a, b = jnp.broadcast_arrays(*as_floats(a, b))
    # Solved on the side where the mean is below one half, which keeps the digits of
    # rates near 0; those near 1 have none to keep.
    mirrored = a > b
    less, more = jnp.minimum(a, b), jnp.maximum(a, b)
    chance = jnp.where(mirrored, 1 - probability, probability).astype(a.dtype)
    normal = NormalDist().inv_cdf(probability)
    score = jnp.where(mirrored, -normal, normal).astype(a.dtype)
    found = jnp.where(
        less > _LARGE_SHAPE,
        _beta_quantile_large(score, less, more),
        _beta_quantile_small(chance, less, more),
    )
    return jnp.where(mirrored, 1 - found, found)


def _beta_quantile_large(score: Array, a: Array, b: Array) -> Array:
    a, b = jnp.maximum(a, 1), jnp.maximum(b, 1)
    over_a, over_b = 1 / (2 * a - 1), 1 / (2 * b - 1)
    bend = (score**2 - 3) / 6
    mean = 2 / (over_a + over_b)
    w = -score * jnp.sqrt(jnp.maximum(mean + bend, 0)) / mean
    w -= (over_b - over_a) * (bend + 5 / 6 - 2 / (3 * mean))
    return a / (a + b * jnp.exp(2 * w))


@jax.jit
def _beta_quantile_small(chance: Array, a: Array, b: Array) -> Array:
    capped = jnp.minimum(b, _LARGEST_SHAPE)

    def is_below(value: Array) -> Array:
        return jax.scipy.special.betainc(a, capped, value) < chance

    found = sum(bisect(is_below, jnp.zeros_like(a), jnp.ones_like(a), HALVINGS)) / 2
    # With b huge, -log(1 - x) is a gamma variable over b + (a - 1) / 2.
    shift = (a - 1) / 2
    rescaled = -jnp.expm1(jnp.log1p(-found) * (capped + shift) / (b + shift))
    return jnp.where(b > capped, rescaled, found)
