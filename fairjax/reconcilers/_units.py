"""Preparation of Gram matrices for the solvers: rows in use, unit rows, scaling."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def usable_rows(
    gramian: Float[Array, "R R"], mask: Bool[Array, " R"] | None
) -> Bool[Array, " R"]:
    """Returns which rows are neither zero nor masked.

    Example:
      >>> import jax.numpy as jnp
      >>> usable_rows(jnp.diag(jnp.array([4.0, 0.0])), None)
      Array([ True, False], dtype=bool)
    """
    used = jnp.diagonal(gramian) > 0
    return used if mask is None else used & mask


def unit_gramian(
    gramian: Float[Array, "R R"], used: Bool[Array, " R"]
) -> tuple[Float[Array, "R R"], Float[Array, " R"]]:
    """Returns cosines between the rows, and the rows' norms; 0 and 1 for unused rows.

    Example:
      >>> import jax.numpy as jnp
      >>> gram = jnp.array([[4.0, 3.0], [3.0, 9.0]])
      >>> unit_gramian(gram, jnp.array([True, True]))
      (Array([[1. , 0.5],
             [0.5, 1. ]], dtype=float32), Array([2., 3.], dtype=float32))
    """
    norms = jnp.sqrt(jnp.where(used, jnp.diagonal(gramian), 1.0))
    pairs = used[:, None] & used[None, :]
    units = jnp.where(pairs, gramian / norms[:, None] / norms[None, :], 0.0)
    return units, norms


def normalised(
    gramian: Float[Array, "R R"], used: Bool[Array, " R"]
) -> tuple[Float[Array, "R R"], Float[Array, ""]]:
    """Divides the used rows' Gram matrix by its greatest entry; returns both.

    Example:
      >>> import jax.numpy as jnp
      >>> normalised(jnp.diag(jnp.array([4.0, 8.0])), jnp.array([True, True]))
      (Array([[0.5, 0. ],
             [0. , 1. ]], dtype=float32), Array(8., dtype=float32))
    """
    greatest = jnp.max(jnp.where(used, jnp.diagonal(gramian), 0.0))
    greatest = jnp.where(greatest > 0, greatest, 1.0)
    pairs = used[:, None] & used[None, :]
    return jnp.where(pairs, gramian / greatest, 0.0), greatest


def matmul(left: Array, right: Array) -> Array:
    """Multiplies in full float32, which is not the default on a TPU."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
