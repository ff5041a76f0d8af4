"""Gradient vaccine: raising the rows' cosines to targets that follow them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from fairjax.keys import as_key
from fairjax.solvers import vaccine
from fairjax.solvers._units import matmul
from fairjax.steps._orders import Order, check_order, is_drawn, row_orders
from fairjax.steps._rows import row_gramian, row_mask
from fairjax.types import Coefficients, Gramian, Mask, Scalar, Step, is_known


class GradVacState(NamedTuple):
    """Carried by :func:`gradvac`.

    Attributes:
      targets: ``[K, K]``, the cosine that row ``i`` is to have with row ``j``; at
        first 0.
      key_data: The data of the key from which the next order is drawn; None where the
        order is given.
    """

    targets: Float[Array, "K K"]
    key_data: UInt[Array, " words"] | None


def gradvac(
    *,
    beta: Scalar = 0.01,
    order: Order | Sequence[int] | Int[Array, "R R"] = "random",
    key: Array | int = 0,
) -> Step:
    r"""Raise each row's cosines with the others to a running mean of them (GradVac).

    See :func:`fairjax.solvers.gradvac` for the formula. Like PCGrad it leaves as many
    rows as there were: ``steps.combine`` adds them up.

    Args:
      beta: The weight of the newest cosine in its running mean, in [0, 1]; may be
        traced. With 0 the targets stay 0, which is PCGrad.
      order: In which order a row meets the others; see
        :func:`fairjax.steps.project_conflicts`.
      key: A key, or a seed, from which random orders are drawn; may be traced.

    Returns:
      A step ``[K, K] -> [K, K]``. Rows that are zero or masked keep their targets.

    Raises:
      ValueError: A beta outside [0, 1], or an order that is unknown or misses a row; at
        the update, after a step that changed the number of rows.

    References:
      Wang et al., *Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.gradvac(order=[0, 1], beta=0.5)
      >>> gram = jnp.array([[1.0, -2.0], [-2.0, 16.0]])
      >>> rows, state = step.update(jnp.eye(2), gram, step.init(2))
      >>> rows
      Array([[1.   , 0.125],
             [2.   , 1.   ]], dtype=float32)
      >>> state.targets
      Array([[ 0.  , -0.25],
             [-0.25,  0.  ]], dtype=float32)
    """
    if is_known(beta) and not 0 <= beta <= 1:
        raise ValueError(f"beta lies in [0, 1], not {beta}.")
    check_order(order)
    drawn = is_drawn(order)

    def init(num_objectives: int) -> GradVacState:
        shape = (num_objectives, num_objectives)
        data = jax.random.key_data(as_key(key)) if drawn else None
        return GradVacState(jnp.zeros(shape, jnp.float32), data)

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: GradVacState,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Coefficients, GradVacState]:
        del extra
        rows = coefficients.shape[0]
        if state.targets.shape != (rows, rows):
            raise ValueError(
                f"gradvac keeps a target for each pair of {len(state.targets)} rows; "
                f"there are {rows} rows. Put it before steps that change their number."
            )
        orders, key_data = row_orders(order, rows, state.key_data)
        found, targets = vaccine.gradvac(
            row_gramian(coefficients, gramian),
            orders,
            state.targets,
            beta=jnp.asarray(beta),
            mask=row_mask(coefficients, mask),
        )
        return matmul(found, coefficients), GradVacState(targets, key_data)

    return Step(init, update)
