"""The trade-off between performance and fairness as one number."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def hypervolume(
    points: Float[Array | np.ndarray, "m 2"], reference: Float[Array | np.ndarray, "2"]
) -> Float[Array, ""]:
    r"""Computes the area dominated by points with a high first, low second coordinate.

    The hypervolume is the area of the union of the rectangles
    :math:`[r_1, p_1] \times [p_2, r_2]` over the points :math:`p` that beat the
    reference :math:`r` on both axes. For a point (AUROC, gap) the rectangle has all
    points with a lower AUROC and a larger gap. The area is exact. An added point
    enlarges the area only if no other point dominates the added point. The area depends
    on the reference, so compare only areas with the same reference.

    Args:
      points: ``[m, 2]``, such as (AUROC, equalized-odds gap). A point that does not
        beat the reference on both axes, or has a NaN, adds no area.
      reference: ``[2]``, the worst corner, such as (0.5, 1.0): the lowest first and
        the highest second coordinate of interest.

    Returns:
      Scalar, at least 0. ``m`` is static, so the function can be mapped over bootstrap
      replicates ``[B, m, 2]``.

    References:
      Zitzler and Thiele, "Multiobjective evolutionary algorithms", IEEE Transactions on
      Evolutionary Computation 3 (1999).

    Example:
      >>> import jax.numpy as jnp
      >>> points = jnp.array([[0.75, 0.25], [1.0, 0.5]])
      >>> hypervolume(points, jnp.array([0.5, 1.0])).item()
      0.3125
    """
    points, reference = jnp.asarray(points), jnp.asarray(reference)
    defined = ~jnp.isnan(points).any(axis=1)
    width = jnp.where(defined, jnp.maximum(points[:, 0] - reference[0], 0), 0)
    height = jnp.where(defined, jnp.maximum(reference[1] - points[:, 1], 0), 0)
    # Going inwards from the widest rectangle, the tallest so far covers each strip.
    order = jnp.argsort(-width)
    width, height = width[order], height[order]
    strips = width - jnp.concatenate([width[1:], jnp.zeros(1, width.dtype)])
    return jnp.sum(strips * jnp.maximum.accumulate(height))
