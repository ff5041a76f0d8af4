r"""The gap that noise alone gives, and a bias-corrected gap, for any estimates.

A maximum minus a minimum over groups is too large on average, because noise makes the
extreme estimates more extreme. This module simulates the bias, and the gap between
equal groups, for any estimates with known standard errors,
:math:`\hat\theta_g \sim N(\theta_g, \sigma_g^2)`. The bias is simulated at constrained
empirical-Bayes estimates, whose spread is the estimated spread of the true values.
:mod:`fairjax.metrics.correction` explains why neither the estimates nor their mean are
suitable. The constrained estimates are

.. math:: \tilde\theta_g = m + \sqrt{\frac{\tau^2}{\tau^2 + \sigma_g^2}}
          (\hat\theta_g - m), \qquad m = \frac{\sum_g w_g \hat\theta_g}{\sum_g w_g},
          \quad w_g = \sigma_g^{-2},

with DerSimonian and Laird's variance between groups,

.. math:: \tau^2 = \max\!\left(0, \frac{\sum_g w_g (\hat\theta_g - m)^2 - (G - 1)}
          {\sum_g w_g - \sum_g w_g^2 / \sum_g w_g}\right).
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from fairjax.metrics._numbers import as_floats, extremes
from fairjax.metrics._pairs import correlation_of, in_families, joined
from fairjax.types import check_choice


class GapNoise(NamedTuple):
    """The effect of sampling noise on a gap.

    Attributes:
      floor: Scalar, the mean gap between equal groups.
      bias: Scalar, the mean error of the gap.
      corrected: Scalar, ``max(0, gap - bias)``.
    """

    floor: Float[Array, ""]
    bias: Float[Array, ""]
    corrected: Float[Array, ""]


def gap_noise(
    key: PRNGKeyArray,
    estimates: Float[Array | np.ndarray, "*families groups"],
    errors: Float[Array | np.ndarray, "*families groups"],
    *,
    covariance: Float[Array | np.ndarray, "all all"] | None = None,
    valid: Bool[Array | np.ndarray, "*families groups"] | None = None,
    asked: Bool[Array | np.ndarray, " families"] | None = None,
    agg: Literal["max", "mean"] = "max",
    num_draws: int = 4_000,
) -> GapNoise:
    r"""Estimates the noise in the largest minus the smallest of any estimates.

    ``bias_corrected_gap`` redraws counts. This function needs only standard errors, and
    so applies to AUROCs, calibration slopes, or rates of patients with several rows.
    The limits of ``bias_corrected_gap`` apply here too. For rates, use errors at the
    pooled rate, :math:`\sqrt{m (1 - m) / n_g}`. Errors at each group's rate are 0 if a
    small group has no successes.

    Args:
      key: A random key.
      estimates: ``[G]``; NaN omits a group. Or ``[F, G]``: F families, such as TPRs and
        FPRs. Groups are compared within each family, and ``agg`` combines the gaps.
      errors: Standard errors of the estimates, above 0; groups with other errors are
        omitted.
      covariance: ``[F * G, F * G]``, of which only the correlations are used; by
        default the estimates are independent.
      valid: False to omit a group; all True by default.
      asked: False for a padding family; all True by default.
      agg: ``"max"``, the largest gap of a family, or ``"mean"`` of the families' gaps.
      num_draws: Number of draws of the simulation.

    Returns:
      The noise floor, the bias and the corrected gap; NaN if a family has fewer than
      two groups.

    Raises:
      ValueError: If ``agg`` is not one of these.

    References:
      DerSimonian and Laird, "Meta-analysis in clinical trials", Controlled Clinical
      Trials 7 (1986); Louis, "Estimating a population of parameter values using Bayes
      and empirical Bayes methods", JASA 79 (1984).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> noise = jax.jit(gap_noise)(
      ...     jax.random.key(0), jnp.array([0.7, 0.72, 0.9]), jnp.full(3, 0.05)
      ... )
      >>> round(noise.floor.item(), 3), round(noise.corrected.item(), 3)
      (0.085, 0.179)
    """
    check_choice("agg", agg, "max", "mean")
    estimates, errors = as_floats(estimates, errors)
    known = (errors > 0) & jnp.isfinite(errors)
    valid = known if valid is None else known & jnp.asarray(valid)
    values, kept, asked = in_families(estimates, valid, asked)
    deviations = jnp.where(kept, errors.reshape(kept.shape), 0)
    mean, drawn_towards = _shrunken(values, deviations, kept)

    noise = jax.random.normal(key, (num_draws, values.size), values.dtype)
    if covariance is not None:
        roots, vectors = jnp.linalg.eigh(correlation_of(jnp.asarray(covariance)))
        noise = noise @ (vectors * jnp.sqrt(jnp.maximum(roots, 0))).T
    noise = noise.reshape(num_draws, *values.shape) * deviations

    def gap(of: Array) -> Array:
        highest, lowest = extremes(of, kept)
        return joined(highest - lowest, asked, agg)

    floor = jnp.mean(gap(mean + noise))
    bias = jnp.mean(gap(drawn_towards + noise)) - gap(drawn_towards)
    corrected = jnp.maximum(gap(values) - bias, 0)
    compared = jnp.all((jnp.sum(kept, axis=1) > 1) | ~asked)
    return GapNoise(
        *(jnp.where(compared, value, jnp.nan) for value in (floor, bias, corrected))
    )


def _shrunken(values: Array, deviations: Array, kept: Array) -> tuple[Array, Array]:
    """Returns each family's mean, and its constrained empirical-Bayes estimates."""
    weights = jnp.where(kept, 1 / jnp.where(kept, deviations, 1) ** 2, 0)
    total = jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-30)
    mean = jnp.sum(weights * values, axis=1, keepdims=True) / total
    away = jnp.where(kept, values - mean, 0)
    excess = jnp.sum(weights * away**2, axis=1, keepdims=True)
    excess -= jnp.sum(kept, axis=1, keepdims=True) - 1
    scale = total - jnp.sum(weights**2, axis=1, keepdims=True) / total
    between = jnp.maximum(excess, 0) / jnp.where(scale > 0, scale, 1)
    variance = jnp.where(kept, between + deviations**2, 1)
    return mean, mean + jnp.sqrt(between / variance) * away
