r"""Empirical-Bayes rates, to be shown beside the raw rates.

A small group's raw rate is mostly noise, so the worst of many groups is often the
smallest group. With rates drawn from :math:`\mathrm{Beta}(Mm, M(1-m))` around a common
mean, a group's posterior is

.. math:: \theta_g \mid x_g, n_g \sim \mathrm{Beta}(Mm + x_g,\ M(1-m) + n_g - x_g),
          \qquad E[\theta_g] = \frac{M m + x_g}{M + n_g},

so that the posterior mean lies between the common mean and the group's rate, depending
on the size of the group. Mean and prior size are estimated from all groups: ``m`` is
the pooled rate, and ``M = m (1 - m) / τ² - 1`` follows from the variance between groups
by the method of moments (:func:`fairjax.metrics.correction.rate_moments`).

Limits. Groups are assumed to be exchangeable: only their counts tell that a group may
differ. The estimate of a small group that truly differs moves towards the others, which
hides harm. So show shrunken rates beside the raw rates, never instead. Gaps between
shrunken rates are too small. Few groups estimate ``M`` poorly, and the interval ignores
this uncertainty. ``M`` is at most the number of rows, so even if all groups seem equal,
the interval is as wide as the pooled rate is uncertain. Rows must be independent.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fairjax.metrics._numbers import Numbers, as_floats
from fairjax.metrics._rows import check_unweighted
from fairjax.metrics.correction import rate_moments
from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.intervals import beta_quantile, normal_quantile


class PosteriorRates(NamedTuple):
    """Shrunken rates with their intervals.

    Attributes:
      mean: The posterior means, in the shape of the rates.
      lower: The lower ends of the intervals.
      upper: The upper ends of the intervals.
      prior_mean: The common mean, a scalar or one value for each label.
      prior_size: The number of rows that the prior is worth, likewise.
    """

    mean: Float[Array, "*shape"]
    lower: Float[Array, "*shape"]
    upper: Float[Array, "*shape"]
    prior_mean: Float[Array, "*prior"]
    prior_size: Float[Array, "*prior"]


def posterior_rates(counts: GroupCounts, *, confidence: float = 0.95) -> PosteriorRates:
    """Computes posterior false and true positive rates of the groups.

    Args:
      counts: ``[G, 2, 2]`` of unweighted, independent rows: integers.
      confidence: Confidence of the intervals, in (0, 1).

    Returns:
      ``[G, 2]``, indexed ``[group, label]``; the prior is ``[2]``. A group without rows
      of a label gets the prior; NaN if no group has rows of the label.

    Raises:
      ValueError: If the confidence is outside (0, 1), or the counts are not integers.

    See the module's docstring for method and limits.

    References:
      Morris, "Parametric empirical Bayes inference", JASA 78 (1983); Kleinman,
      "Proportions with extraneous variance", JASA 68 (1973).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[4, 6], [9, 1]], [[600, 400], [500, 500]]]))
      >>> rates = jax.jit(posterior_rates)(counts)
      >>> [round(rate, 2) for rate in rates.mean[:, 1].tolist()]
      [0.18, 0.5]
    """
    normal_quantile(confidence)
    table = jnp.asarray(counts.counts)
    check_unweighted(table, "The posterior of rates")
    posterior = functools.partial(_posterior, confidence=confidence)
    rates = jax.vmap(posterior, in_axes=1)(table[..., 1], jnp.sum(table, axis=-1))
    return PosteriorRates(rates.mean.T, rates.lower.T, rates.upper.T, *rates[3:])


def beta_binomial_posterior(
    successes: Numbers, trials: Numbers, *, confidence: float = 0.95
) -> PosteriorRates:
    """Computes posterior rates of groups from numbers of successes and trials.

    Args:
      successes: ``[G]``, in ``[0, trials]``, such as a group's selected rows.
      trials: ``[G]``, such as a group's rows.
      confidence: Confidence of the intervals, in (0, 1).

    Returns:
      ``[G]``, with a scalar prior. A group without trials gets the prior.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> hits, rows = jnp.array([1, 500]), jnp.array([10, 1000])
      >>> rates = jax.jit(beta_binomial_posterior)(hits, rows)
      >>> [round(rate, 2) for rate in rates.mean.tolist()]
      [0.18, 0.5]
    """
    normal_quantile(confidence)
    return _posterior(successes, trials, confidence)


def _posterior(
    successes: Numbers, trials: Numbers, confidence: float
) -> PosteriorRates:
    successes, trials = as_floats(successes, trials)
    mean, between = rate_moments(successes, trials)
    total = jnp.sum(trials)
    within = mean * (1 - mean)
    size = jnp.where(
        between > 0, within / jnp.where(between > 0, between, 1) - 1, total
    )
    size = jnp.clip(size, 0, total)
    a = size * mean + successes
    b = size * (1 - mean) + trials - successes
    # A rate of 0 or 1 in all groups gives a shape of 0. Jeffreys' shape of one half
    # then gives a proper interval, whose outer end is exactly 0 or 1.
    inner_a, inner_b = jnp.where(a > 0, a, 0.5), jnp.where(b > 0, b, 0.5)
    tail = (1 - confidence) / 2
    lower = jnp.where(a > 0, beta_quantile(tail, inner_a, inner_b), 0)
    upper = jnp.where(b > 0, beta_quantile(1 - tail, inner_a, inner_b), 1)
    known = total > 0
    center = a / jnp.where(known, a + b, 1)
    rates = PosteriorRates(center, lower, upper, mean, size)
    return PosteriorRates._make(jnp.where(known, value, jnp.nan) for value in rates)
