"""Projecting rows off those that they conflict with."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, UInt

from fairjax.keys import as_key
from fairjax.solvers import projection
from fairjax.solvers._units import matmul
from fairjax.steps._orders import Order, check_order, is_drawn, row_orders
from fairjax.steps._rows import row_gramian, row_mask
from fairjax.types import Coefficients, Gramian, Mask, Scalar, Step, check_nonnegative


class ProjectConflictsState(NamedTuple):
    """Carried by :func:`project_conflicts`.

    Attributes:
      key_data: The data of the key from which the next order is drawn.
    """

    key_data: UInt[Array, " words"]


def project_conflicts(
    *,
    condition: projection.Condition = "conflict",
    order: Order | Sequence[int] | Int[Array, "R R"] = "random",
    include_self: bool = False,
    epsilon: Scalar = 0.0,
    key: Array | int = 0,
) -> Step:
    r"""Project each row off the rows that it conflicts with.

    See :func:`fairjax.solvers.project_conflicts` for the formula.

    Args:
      condition: ``"conflict"`` (the default, as PCGrad) or ``"always"``.
      order: In which order a row meets the others. ``"random"`` (default) draws one
        for each row, ``"shared"`` one for all rows; ``"numbered"`` is from
        row 0 on; a sequence of the rows' numbers is an order for all rows; ``[R, R]``
        gives each row its own.
      include_self: Whether a row also meets itself, as it was at the start. Not so in
        the paper, but in some of its implementations.
      epsilon: A share ε ≥ 0 of the greatest squared norm among the rows in use, added
        to the squared norms that are divided by; may be traced. A row that is short
        beside the others (a fairness gradient near parity is mostly noise) is then
        projected off in part only, and the step stays equivariant to scale.
      key: A key, or a seed, from which random orders are drawn; may be traced.

    Returns:
      A step ``[R, K] -> [R, K]``.

    Raises:
      ValueError: An unknown condition; an order that is unknown, or in which a row's
        number is missing; an epsilon below 0; at the update, an order of another
        length.

    References:
      Yu et al., *Gradient Surgery for Multi-Task Learning*, NeurIPS 2020.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.project_conflicts(order=[0, 1])
      >>> gram = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0]
      Array([[1. , 0.5],
             [1. , 1. ]], dtype=float32)
    """
    if condition not in ("conflict", "always"):
        raise ValueError(f"condition is 'conflict' or 'always', not {condition!r}.")
    check_nonnegative("epsilon", epsilon)
    check_order(order)
    drawn = is_drawn(order)

    def init(num_objectives: int) -> ProjectConflictsState | optax.EmptyState:
        del num_objectives
        if not drawn:
            return optax.EmptyState()
        # Raw key data: optax's tree arithmetic cannot handle typed keys.
        return ProjectConflictsState(jax.random.key_data(as_key(key)))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Coefficients, Any]:
        del extra
        rows = coefficients.shape[0]
        orders, key_data = row_orders(order, rows, state.key_data if drawn else None)
        if key_data is not None:
            state = ProjectConflictsState(key_data)
        own = row_gramian(coefficients, gramian)
        used = row_mask(coefficients, mask)
        longest = jnp.max(jnp.where(used, jnp.diagonal(own), 0.0))
        projected = projection.project_conflicts(
            own,
            orders,
            condition=condition,
            include_self=include_self,
            epsilon=jnp.asarray(epsilon) * longest,
            mask=used,
        )
        return matmul(projected, coefficients), state

    return Step(init, update)
