r"""Bias correction of a gap, the largest minus the smallest rate.

Noise raises the largest observed rate and lowers the smallest, so an observed gap is
biased upwards. The bias grows with the number of groups, and shrinks with their size
and with the true gap. With :math:`n_g` rows of a label in group :math:`g`,
:math:`\hat p_g` the observed rates and :math:`\theta_g` the true rates,

.. math:: b(\theta) = E[\max_g \hat p_g - \min_g \hat p_g \mid \theta]
          - (\max_g \theta_g - \min_g \theta_g).

A parametric bootstrap at an estimate of :math:`\theta` gives the bias. The choice of
the estimate matters. The observed rates are too far apart, so a bootstrap there finds
too little bias. One common rate gives far too much bias if there is a real gap.
Constrained empirical-Bayes estimates lie between the two. Their spread over the groups
is the estimated spread of the true rates:

.. math:: \tilde\theta_g = m + \sqrt{\tau^2 / (\tau^2 + \sigma_g^2)}\,(\hat p_g - m),
          \qquad \sigma_g^2 = (m(1-m) - \tau^2) / n_g,

with :math:`m` the pooled rate and :math:`\tau^2` the variance between groups by the
method of moments,

.. math:: \tau^2 = \frac{\sum_g n_g (\hat p_g - m)^2 - (G - 1)\, m (1 - m)}
          {N - \sum_g n_g^2 / N - (G - 1)}, \quad \text{kept within } [0, m(1-m)],

whose numerator has expectation :math:`\tau^2` times the denominator under
:math:`E[\theta_g] = m`, :math:`\mathrm{Var}[\theta_g] = \tau^2` and binomial sampling.
The square root makes the variance of the :math:`\tilde\theta_g` equal :math:`\tau^2`.
Posterior means, which shrink without the square root, would spread too little.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fairjax.metrics._rows import check_unweighted
from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.gaps import equalized_odds_difference


class CorrectedGap(NamedTuple):
    """A gap with and without its sampling bias.

    Attributes:
      raw: Scalar, the observed statistic.
      bias: Scalar, the estimated bias of ``raw``.
      corrected: Scalar, ``max(0, raw - bias)``.
      replicates: ``[num_replicates]``, the statistic of the redrawn counts.
      at_rates: Scalar, the statistic of the rates that the counts are drawn from. The
        bias is the mean of the replicates minus ``at_rates``.
    """

    raw: Float[Array, ""]
    bias: Float[Array, ""]
    corrected: Float[Array, ""]
    replicates: Float[Array, " num_replicates"]
    at_rates: Float[Array, ""]


def bias_corrected_gap(
    key: PRNGKeyArray,
    counts: GroupCounts,
    *,
    num_replicates: int = 1000,
    statistic: Callable[[GroupCounts], Float[Array, ""]] = equalized_odds_difference,
) -> CorrectedGap:
    r"""Subtracts the bias due to sampling noise from a gap.

    ``corrected = max(0, raw - bias)``. ``bias`` is the mean of the statistic over a
    parametric bootstrap of the counts at shrunken group rates, minus the statistic of
    the shrunken rates. The bootstrap fixes the number of rows of each group and label
    and redraws the predictions. So the statistic must be a gap in rates given the
    label: true or false positive rates, or equalized odds with either ``agg``. The
    rates of the two labels are shrunk and drawn independently.

    Limits. The result is a point estimate, not a test (use ``permutation_null``) and
    not an interval. An estimator that is never negative cannot be unbiased at parity.
    In simulations a quarter to a half of the raw bias remains at parity. The reasons
    are that the correction stops at zero, and that the spread between groups is
    estimated. For a gap of about one to four standard errors the estimate tends to be
    too low, but by less than the raw bias at parity. For larger gaps the two agree. The
    estimate has a larger variance than the raw gap. Its mean squared error is smaller
    than the raw gap's near parity, and up to a third larger further away. Rows must be
    independent and the counts unweighted. With several rows for a patient, the
    correction is too small.

    Args:
      key: A random key.
      counts: ``[G, 2, 2]``, unweighted.
      num_replicates: Size of the bootstrap. The Monte Carlo error of ``bias`` is the
        gap's standard error over the square root of this.
      statistic: Maps counts to a gap, such as
        ``functools.partial(equalized_odds_difference, min_support=10)``. Groups that
        the statistic omits still enter the pooled rate, in proportion to their rows.

    Returns:
      The raw gap, its bias and the corrected gap; all NaN if the gap is undefined.

    Raises:
      ValueError: If the counts have floating-point weights.

    References:
      Louis, "Estimating a population of parameter values using Bayes and empirical
      Bayes methods", JASA 79 (1984); Kleinman, "Proportions with extraneous variance",
      JASA 68 (1973); Efron and Tibshirani, "An Introduction to the Bootstrap" (1993),
      chapter 10.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[40, 10], [6, 14]], [[42, 8], [9, 11]]]))
      >>> gap = jax.jit(bias_corrected_gap)(jax.random.key(0), counts)
      >>> round(gap.raw.item(), 2), round(gap.corrected.item(), 2)
      (0.15, 0.01)
    """
    check_unweighted(jnp.asarray(counts.counts), "bias_corrected_gap")
    support = jnp.sum(jnp.asarray(counts.counts), axis=-1).astype(float)
    rates = shrunken_rates(counts)
    drawn = jax.random.binomial(
        key, support, rates, shape=(num_replicates, *support.shape)
    )
    raw = statistic(counts)
    replicates = jax.vmap(statistic)(_from_positives(support, drawn))
    at_rates = statistic(_from_positives(support, support * rates))
    bias = jnp.mean(replicates) - at_rates
    return CorrectedGap(raw, bias, jnp.maximum(raw - bias, 0), replicates, at_rates)


def shrunken_rates(counts: GroupCounts) -> Float[Array, "groups 2"]:
    """Computes constrained empirical-Bayes rates of positive predictions.

    Args:
      counts: ``[G, 2, 2]``, unweighted.

    Returns:
      ``[G, 2]`` in [0, 1], indexed ``[group, label]``; a group without rows of a label
      gets the pooled rate.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> noise = GroupCounts(jnp.array([[[4, 6], [5, 5]], [[6, 4], [5, 5]]]))
      >>> jax.jit(shrunken_rates)(noise)[:, 0].tolist()
      [0.5, 0.5]
    """
    table = jnp.asarray(counts.counts).astype(float)
    support, positives = jnp.sum(table, axis=-1), table[..., 1]
    pooled, between = rate_moments(positives, support)
    deviation = jnp.where(support > 0, _ratio(positives, support) - pooled, 0)
    within = _ratio(pooled * (1 - pooled) - between, support)
    return pooled + jnp.sqrt(_ratio(between, between + within)) * deviation


class RateMoments(NamedTuple):
    """Mean and variance of the distribution of the groups' true rates.

    Attributes:
      mean: ``[...]``, the pooled rate; 0 without rows.
      between: ``[...]``, the variance between groups, in [0, mean (1 - mean)].
    """

    mean: Float[Array, "..."]
    between: Float[Array, "..."]


def rate_moments(
    successes: Float[Array, "groups ..."], trials: Float[Array, "groups ..."]
) -> RateMoments:
    """Estimates the moments of the true rates of groups, without sampling noise.

    Args:
      successes: ``[G, ...]``.
      trials: ``[G, ...]``; groups without trials are ignored.

    Returns:
      The moments, as in the module's docstring, each ``[...]``.

    Example:
      >>> import jax.numpy as jnp
      >>> moments = rate_moments(jnp.array([40.0, 60.0]), jnp.array([100.0, 100.0]))
      >>> moments.mean.item(), round(moments.between.item(), 3)
      (0.5, 0.018)
    """
    total = jnp.sum(trials, axis=0)
    pooled = _ratio(jnp.sum(successes, axis=0), total)
    deviation = jnp.where(trials > 0, _ratio(successes, trials) - pooled, 0)
    binomial = pooled * (1 - pooled)
    spare_groups = jnp.sum(trials > 0, axis=0) - 1
    excess = jnp.sum(trials * deviation**2, axis=0) - spare_groups * binomial
    scale = total - _ratio(jnp.sum(trials**2, axis=0), total) - spare_groups
    return RateMoments(pooled, jnp.clip(_ratio(excess, scale), 0, binomial))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Returns the quotient, and zero where the denominator is not positive."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 0)


def _from_positives(support: Array, positives: Array) -> GroupCounts:
    """Returns counts ``[..., G, 2, 2]`` from rows and positives ``[..., G, 2]``."""
    return GroupCounts(jnp.stack([support - positives, positives], axis=-1))
