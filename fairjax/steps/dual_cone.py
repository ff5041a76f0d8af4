"""Updates that conflict with no row: projections onto the dual cone of the rows."""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.solvers.dual_cone import dual_cone
from fairjax.steps._weighting import (
    Preference,
    Solved,
    check_preference,
    row_preference,
    solving,
)
from fairjax.types import Scalar, Step, check_nonnegative


def upgrad(
    reduction: Literal["mean", "sum"] = "mean",
    *,
    preference: Preference = None,
    ridge: Scalar = 0.0,
) -> Step:
    r"""Project each row onto the dual cone of all rows, then add up (UPGrad).

    .. math:: w = \sum_i \arg\min_{v \ge u_i} v^\top G v

    with :math:`u_i = e_i / m` (``"mean"``, over the :math:`m` rows in use, as
    published), :math:`u_i = e_i` (``"sum"``) or :math:`u_i = p_i e_i` with a
    ``preference`` :math:`p`. The update conflicts with no row. Where
    no rows conflict it is their mean, or their sum. See
    :func:`fairjax.solvers.dual_cone` for what is solved, and how exactly.

    Args:
      reduction: See above; not read with a preference.
      preference: Weights ≥ 0 of the projected rows, one a row. A row of weight 0 adds
        nothing, but is not harmed.
      ridge: Added to the diagonal of G, as a share of its trace, ≥ 0; may be traced. 0
        is exact. TorchJD's default is 1e-4, which is more stable from one update to the
        next where rows nearly depend on each other, but leaves a little conflict.

    Returns:
      A step ``[R, K] -> [1, K]``, of state ``SolverState``.

    Raises:
      ValueError: An unknown reduction, a ridge below 0, or a preference that is
        negative, all 0 or does not fit the rows.

    References:
      Quinton and Rey, *Jacobian Descent for Multi-Objective Optimization*, 2024.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.upgrad("sum")
      >>> gram = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(2)
      Array([[2. , 1.5]], dtype=float32)
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is 'mean' or 'sum', not {reduction!r}.")
    check_nonnegative("ridge", ridge)
    check_preference(preference)

    def preferences(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Array:
        given = row_preference(preference, own)
        if given is not None:
            return jnp.diag(jnp.where(used, given, 0.0))
        one_each = jnp.diag(used.astype(own.dtype))
        return one_each / _number(used) if reduction == "mean" else one_each

    return _dual_cone_step(preferences, ridge)


def dualproj(*, preference: Preference = None, ridge: Scalar = 0.0) -> Step:
    r"""Project the mean of the rows onto their dual cone (DualProj).

    .. math:: w = \arg\min_{v \ge 1/m} v^\top G v ,

    so that the update is the closest to the mean, over the :math:`m` rows in use, that
    conflicts with no row.

    Args:
      preference: Weights ≥ 0 of the rows instead of :math:`1/m`, one a row.
      ridge: As in :func:`upgrad`.

    Returns:
      A step ``[R, K] -> [1, K]``, of state ``SolverState``.

    Raises:
      ValueError: A ridge below 0, or a preference that is negative, all 0 or does not
        fit the rows.

    References:
      Lopez-Paz and Ranzato, *Gradient Episodic Memory for Continual Learning*, NeurIPS
      2017.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.dualproj()
      >>> gram = jnp.array([[1.0, -2.0], [-2.0, 5.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(3)
      Array([[1. , 0.5]], dtype=float32)
    """
    check_nonnegative("ridge", ridge)
    check_preference(preference)

    def preferences(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Array:
        given = row_preference(preference, own)
        if given is not None:
            return jnp.where(used, given, 0.0)[None]
        return used.astype(own.dtype)[None] / _number(used)

    return _dual_cone_step(preferences, ridge)


def _dual_cone_step(preferences: Any, ridge: Scalar) -> Step:
    def solve(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Solved:
        squares = jnp.diagonal(own)
        used = used & (squares > 0)
        added = jnp.asarray(ridge, own.dtype) * jnp.sum(jnp.where(used, squares, 0.0))
        own = own + jnp.diag(jnp.where(used, added, 0.0))
        found = dual_cone(own, preferences(own, used), mask=used)
        weights = jnp.sum(found.weights, axis=0)
        return weights, jnp.max(found.residual), jnp.max(found.iterations)

    return solving(solve)


def _number(used: Bool[Array, " R"]) -> Array:
    return jnp.maximum(jnp.sum(used), 1)
