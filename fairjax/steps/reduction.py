"""Adding the rows up into one."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from fairjax.steps._rows import row_mask
from fairjax.types import Coefficients, Gramian, Mask, Numbers, Step, is_known


def combine(
    reduction: Literal["sum", "mean"] | Numbers = "sum",
) -> Step:
    r"""Add the rows up into the one row that becomes the update.

    ``"sum"`` is :math:`\sum_i g_i`; ``"mean"`` divides by the number of rows in use;
    weights ``[R]`` give :math:`\sum_i w_i g_i`.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: An unknown reduction, a weight that is negative or not finite (where
        it is known, rather than traced), or weights that do not fit the rows.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.combine("mean")
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2))[0]
      Array([[0.5, 0.5]], dtype=float32)
    """
    named = isinstance(reduction, str)
    if named and reduction not in ("sum", "mean"):
        raise ValueError(f"reduction is 'sum', 'mean' or weights, not {reduction!r}.")

    if not named and is_known(reduction):
        given = np.asarray(reduction)
        bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
        if given.ndim == 1 and bad.size:
            raise ValueError(
                f"weights are finite and 0 or more; that of row {bad[0]} is "
                f"{given[bad[0]]}, which would ascend its objective."
            )

    def init(num_objectives: int) -> optax.EmptyState:
        del num_objectives
        return optax.EmptyState()

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], Any]:
        del gramian, extra
        rows = coefficients.shape[0]
        used = row_mask(coefficients, mask).astype(coefficients.dtype)
        if not named:
            weights = jnp.asarray(reduction, coefficients.dtype)
            if weights.shape != (rows,):
                raise ValueError(
                    f"combine needs {rows} weights, one a row; not {weights.shape}."
                )
            used = used * weights
        elif reduction == "mean":
            used = used / jnp.maximum(jnp.sum(used), 1)
        return jnp.sum(used[:, None] * coefficients, axis=0, keepdims=True), state

    return Step(init, update)
