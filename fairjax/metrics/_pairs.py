"""Simultaneous comparison of all pairs of groups: limits, quantile, p-value."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from fairjax._bisection import bisect
from fairjax.metrics._numbers import as_floats
from fairjax.metrics._rows import check_sizes
from fairjax.metrics.intervals import Interval

_HALVINGS = 28
# The limits of the groups are computed once, at these numbers of standard errors, and
# interpolated by cubics in between. So limits that are slow to solve for compile once.
_NODES, _NODES_TO_ONE = 53, 4
_FURTHEST = (_NODES - 1) / _NODES_TO_ONE  # a p-value there is 0 in float32
_DRAWS_AT_ONCE = 2**20


class Families(NamedTuple):
    """Estimates of groups in families, such as TPRs and FPRs.

    Groups are compared within each family only.

    Attributes:
      estimates: ``[F, G]``, 0 for an omitted group.
      valid: ``[F, G]``, False for an omitted group.
      comparable: ``[F, G, G]``, whether two groups are compared.
      asked: ``[F]``, False for a padding family.
      correlation: ``[F * G, F * G]`` of all estimates; None if independent.
      nodes: Distances of the groups' limits below and above the estimates, at
        increasing numbers of standard errors from 0.
    """

    estimates: Float[Array, "families groups"]
    valid: Bool[Array, "families groups"]
    comparable: Bool[Array, "families groups groups"]
    asked: Bool[Array, " families"]
    correlation: Float[Array, "all all"] | None
    nodes: Float[Array, "nodes 2 families groups"]

    def arms(self, standard_errors: Array) -> tuple[Array, Array]:
        """Returns the distances of the groups' limits below and above the estimates."""
        place = standard_errors * _NODES_TO_ONE
        start = jnp.clip(jnp.floor(place).astype(int) - 1, 0, _NODES - 4)
        t = place - start
        # Lagrange's cubic through four nodes.
        weights = jnp.stack(
            [
                -(t - 1) * (t - 2) * (t - 3) / 6,
                t * (t - 2) * (t - 3) / 2,
                -t * (t - 1) * (t - 3) / 2,
                t * (t - 1) * (t - 2) / 6,
            ]
        )
        nodes = jax.lax.dynamic_slice_in_dim(self.nodes, start, 4)
        below, above = jnp.maximum(jnp.tensordot(weights, nodes, 1), 0)
        return below, above

    def deviations(self) -> Array:
        """Returns the standard errors of the estimates, averaged over both sides."""
        return jnp.mean(self.nodes[_NODES_TO_ONE], axis=0)

    def within(self) -> Array:
        """Returns the correlations within families, ``[F, G, G]``."""
        number, groups = self.estimates.shape
        if self.correlation is None:
            return jnp.zeros((number, groups, groups), self.estimates.dtype)
        blocks = self.correlation.reshape(number, groups, number, groups)
        return jnp.stack([blocks[family, :, family] for family in range(number)])

    def lower_limits(self, arms: tuple[Array, Array], ratio: Array | int = 1) -> Array:
        """Returns lower limits of a first estimate minus ``ratio`` times a second."""
        below, above = arms
        return self._contrast(ratio) - self._reach(below, ratio * above)

    def upper_limits(self, arms: tuple[Array, Array], ratio: Array | int = 1) -> Array:
        """Returns upper limits of a first estimate minus ``ratio`` times a second."""
        below, above = arms
        return self._contrast(ratio) + self._reach(above, ratio * below)

    def _contrast(self, ratio: Array | int) -> Array:
        return self.estimates[:, :, None] - ratio * self.estimates[:, None, :]

    def _reach(self, first: Array, second: Array) -> Array:
        first, second = first[:, :, None], second[:, None, :]
        square = first**2 + second**2 - 2 * self.within() * first * second
        return jnp.sqrt(jnp.maximum(square, 0))


def make_families(
    estimates: Array | np.ndarray,
    limits: Callable[[Array], Interval],
    covariance: Array | np.ndarray | None,
    valid: Array | np.ndarray | None,
    asked: Array | np.ndarray | None = None,
) -> Families:
    """Returns estimates ``[G]`` or ``[F, G]`` with their limits; NaN omits a group."""
    (estimates,) = as_floats(estimates)
    check_sizes(groups=estimates.shape[-1])
    families, kept, asked = in_families(estimates, valid, asked)
    itself = jnp.eye(kept.shape[1], dtype=bool)
    comparable = kept[:, :, None] & kept[:, None, :] & ~itself
    correlation = (
        None if covariance is None else correlation_of(jnp.asarray(covariance))
    )

    def arms(standard_errors: Array) -> Array:
        lower, upper = limits(standard_errors)
        below = families - jnp.reshape(lower, kept.shape)
        above = jnp.reshape(upper, kept.shape) - families
        return jnp.where(kept, jnp.stack([below, above]), 0)

    nodes = jax.vmap(arms)(jnp.arange(_NODES, dtype=families.dtype) / _NODES_TO_ONE)
    return Families(families, kept, comparable, asked, correlation, nodes)


def in_families(
    estimates: Array, valid: Any, asked: Any
) -> tuple[Float[Array, "F G"], Bool[Array, "F G"], Bool[Array, " F"]]:
    """Returns estimates ``[G]`` or ``[F, G]`` by family, and which are compared.

    Returns:
      Estimates, 0 where omitted; whether each estimate is kept; and whether each family
      is requested, all True by default.
    """
    kept = ~jnp.isnan(estimates)
    if valid is not None:
        kept &= jnp.asarray(valid)
    kept = kept.reshape(-1, estimates.shape[-1])
    asked = jnp.ones(len(kept), bool) if asked is None else jnp.asarray(asked)
    kept &= asked[:, None]
    return jnp.where(kept, estimates.reshape(kept.shape), 0), kept, asked


def joined(values: Array, asked: Array, agg: str) -> Array:
    """Returns the largest value ``[..., F]`` of the requested families, or the mean."""
    if agg == "max":
        return jnp.max(jnp.where(asked, values, -jnp.inf), axis=-1)
    return jnp.mean(values, axis=-1, where=asked)


def correlation_of(covariance: Array) -> Array:
    """Returns correlations, 0 for estimates with zero or unknown variance."""
    variance = jnp.diagonal(covariance)
    known = variance > 0
    deviation = jnp.sqrt(jnp.where(known, variance, 1))
    scaled = covariance / (deviation[:, None] * deviation)
    scaled = jnp.where(known[:, None] & known, jnp.clip(scaled, -1, 1), 0)
    return jnp.where(jnp.eye(variance.size, dtype=bool), 1, scaled)


def simultaneous(
    key: PRNGKeyArray, families: Families, confidence: float, num_draws: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Simulates the quantile of the largest difference, and the p-value of no gap.

    Args:
      key: A random key.
      families: The estimates to compare.
      confidence: In (0, 1).
      num_draws: Number of draws of the simulation.

    Returns:
      The quantile of the largest studentised difference, by which a pair must differ;
      and the probability, if all groups are equal, of a lower limit as far from 0.
    """
    maxima = jnp.sort(_largest_differences(key, families, num_draws))
    # Bounds that hold under any correlation, and are exact for one pair.
    pairs = jnp.maximum(jnp.sum(families.comparable) / 2, 1)
    alpha = 1 - confidence
    rank = int(np.ceil(confidence * (num_draws + 1) - 1e-9)) - 1
    critical = jnp.clip(
        maxima[min(rank, num_draws - 1)],
        -jax.scipy.special.ndtri(jnp.asarray(alpha / 2, maxima.dtype)),
        -jax.scipy.special.ndtri(alpha / 2 / pairs),
    )

    def is_shown(errors: Array) -> Array:
        lower = families.lower_limits(families.arms(errors))
        return jnp.max(jnp.where(families.comparable, lower, -1)) > 0

    ends = jnp.zeros_like(critical), jnp.full_like(critical, _FURTHEST)
    reached = bisect(is_shown, *ends, _HALVINGS)[0]
    simulated = (1 + jnp.sum(maxima >= reached)) / (1 + num_draws)
    single = 2 * jax.scipy.special.ndtr(-reached)
    return critical, jnp.clip(simulated, single, jnp.minimum(pairs * single, 1))


def _largest_differences(
    key: PRNGKeyArray, families: Families, num_draws: int
) -> Float[Array, " draws"]:
    """Draws the largest studentised difference for equal groups."""
    number, groups = families.estimates.shape
    dtype = families.estimates.dtype
    deviations = families.deviations().reshape(-1)
    first, second = np.triu_indices(groups, 1)
    first = np.concatenate([family * groups + first for family in range(number)])
    second = np.concatenate([family * groups + second for family in range(number)])
    covariance = deviations[first] * deviations[second]
    if families.correlation is None:
        root = None
        covariance = 0 * covariance
    else:
        values, vectors = jnp.linalg.eigh(families.correlation)
        root = vectors * jnp.sqrt(jnp.maximum(values, 0))
        covariance = covariance * families.correlation[first, second]
    spread = deviations[first] ** 2 + deviations[second] ** 2 - 2 * covariance
    valid = families.valid.reshape(-1)
    compared = valid[first] & valid[second] & (spread > 0)
    scale = jnp.where(compared, jax.lax.rsqrt(jnp.where(compared, spread, 1)), 0)

    def largest(draw: Array) -> Array:
        noise = (draw if root is None else root @ draw) * deviations
        return jnp.max(jnp.abs(noise[first] - noise[second]) * scale, initial=0)

    draws = jax.random.normal(key, (num_draws, number * groups), dtype)
    batch = max(1, _DRAWS_AT_ONCE // max(1, first.size))
    return jax.lax.map(largest, draws, batch_size=min(batch, num_draws))
