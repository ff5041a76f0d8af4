"""What every step asks of the current rows, ``C G Cᵀ``."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.solvers._units import matmul
from fairjax.types import Coefficients, Gramian, Mask


def row_gramian(coefficients: Coefficients, gramian: Gramian) -> Float[Array, "R R"]:
    """The current rows' own inner products, ``C G Cᵀ``.

    Example:
      >>> import jax.numpy as jnp
      >>> row_gramian(jnp.array([[2.0, 1.0]]), jnp.eye(2))
      Array([[5.]], dtype=float32)
    """
    return matmul(matmul(coefficients, gramian), coefficients.T)


def row_mask(coefficients: Coefficients, mask: Mask | None) -> Bool[Array, " R"]:
    """Which rows use at least one objective that is not masked.

    Example:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 2.0], [0.0, 1.0]])
      >>> row_mask(rows, jnp.array([True, False]))
      Array([ True, False], dtype=bool)
    """
    used = coefficients != 0
    return jnp.any(used if mask is None else used & mask, axis=1)
