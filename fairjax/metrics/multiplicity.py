"""Correction of p-values for many tests of groups, metrics and attributes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fairjax.metrics._rows import compiled, float_type


@compiled()
def holm(
    p_values: Float[Array | np.ndarray, "*tests"] | Sequence[float],
) -> Float[Array, "*tests"]:
    r"""Adjusts p-values for many tests by Holm's step-down method.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Rejecting where the adjusted value is at most α keeps the probability of any false
    rejection at most α, under any dependence between the tests.

    Args:
      p_values: In [0, 1], any shape, such as ``[groups, metrics]``. All entries form
        one family of ``m`` tests. NaN marks a test that was not possible and is not
        counted.

    Returns:
      Adjusted p-values of the same shape, NaN where ``p_values`` is NaN.

    References:
      Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
      Journal of Statistics 6 (1979).

    Example:
      >>> import jax.numpy as jnp
      >>> [round(p, 3) for p in holm(jnp.array([0.01, 0.04, 0.03])).tolist()]
      [0.03, 0.06, 0.06]
    """
    ranked, order, made = _ranked(jnp.asarray(p_values))
    factors = made - jnp.arange(ranked.size)
    stepped = jnp.maximum.accumulate(factors * ranked)
    return _placed(jnp.minimum(stepped, 1), order, np.shape(p_values))


@compiled()
def benjamini_hochberg(
    p_values: Float[Array | np.ndarray, "*tests"] | Sequence[float],
) -> Float[Array, "*tests"]:
    r"""Adjusts p-values for many tests by the false discovery rate.

    .. math:: \tilde p_{(i)} = \min_{j \ge i} \min(1, \tfrac{m}{j}\, p_{(j)})

    Rejecting where the adjusted value is at most α keeps the expected fraction of false
    rejections among the rejections at most α. The tests must be independent or
    positively dependent; tests of overlapping groups mostly are. The guarantee is
    weaker than that of ``holm``, because some rejections are expected to be false.

    Args:
      p_values: In [0, 1], any shape, such as ``[groups, metrics]``. All entries form
        one family of ``m`` tests. NaN marks a test that was not possible and is not
        counted.

    Returns:
      Adjusted p-values of the same shape, NaN where ``p_values`` is NaN.

    References:
      Benjamini and Hochberg, "Controlling the false discovery rate", Journal of the
      Royal Statistical Society B 57 (1995); Benjamini and Yekutieli, Annals of
      Statistics 29 (2001).

    Example:
      >>> import jax.numpy as jnp
      >>> adjusted = benjamini_hochberg(jnp.array([0.01, 0.04, 0.03]))
      >>> [round(p, 3) for p in adjusted.tolist()]
      [0.03, 0.04, 0.04]
    """
    ranked, order, made = _ranked(jnp.asarray(p_values))
    scaled = ranked * made / jnp.arange(1, ranked.size + 1)
    least = jax.lax.cummin(jnp.where(jnp.isnan(scaled), jnp.inf, scaled), reverse=True)
    adjusted = jnp.where(jnp.isnan(ranked), jnp.nan, jnp.minimum(least, 1))
    return _placed(adjusted, order, np.shape(p_values))


def _ranked(p_values: Array) -> tuple[Array, Array, Array]:
    """Returns p-values in ascending order, NaN last; their order; the number known."""
    flat = jnp.ravel(p_values)
    flat = flat.astype(float_type(flat))
    order = jnp.argsort(flat)
    return flat[order], order, jnp.sum(~jnp.isnan(flat))


def _placed(ranked: Array, order: Array, shape: tuple[int, ...]) -> Array:
    return jnp.zeros_like(ranked).at[order].set(ranked).reshape(shape)
