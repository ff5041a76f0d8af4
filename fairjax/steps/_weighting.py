"""The steps of methods that are functions from the rows' Gram matrix to weights."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from fairjax.solvers._units import matmul
from fairjax.steps._rows import row_gramian, row_mask
from fairjax.types import Coefficients, Gramian, Mask, Numbers, Step, is_known

Preference = Numbers | None

Solved: TypeAlias = tuple[Float[Array, " R"], Float[Array, ""], Int[Array, ""]]
"""Weights, the residual and the iterations of a solver."""


class SolverState(NamedTuple):
    """How the last update's problem was solved.

    Attributes:
      residual: ``[]``, how far from optimal, free of scale; see each solver.
      iterations: ``[]``, how many steps the solver took.
    """

    residual: Float[Array, ""]
    iterations: Int[Array, ""]


def weighting(
    weigh: Callable[[Float[Array, "R R"], Bool[Array, " R"]], Float[Array, " R"]],
) -> Step:
    """A step without state: ``weigh(own_gramian, used) -> weights [R]``.

    Example:
      >>> import jax.numpy as jnp
      >>> step = weighting(lambda own, used: jnp.where(used, jnp.diagonal(own), 0.0))
      >>> step.update(jnp.eye(2), jnp.diag(jnp.array([3.0, 5.0])), step.init(2))[0]
      Array([[3., 5.]], dtype=float32)
    """

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
        del extra
        own = row_gramian(coefficients, gramian)
        return one_row(weigh(own, row_mask(coefficients, mask)), coefficients), state

    return Step(init, update)


def solving(
    solve: Callable[[Float[Array, "R R"], Bool[Array, " R"]], Solved],
) -> Step:
    """A step of state :class:`SolverState`: ``solve(own_gramian, used) -> Solved``.

    Example:
      >>> import jax.numpy as jnp
      >>> step = solving(lambda own, used: (jnp.ones(2), jnp.array(0.1), jnp.array(3)))
      >>> weights, state = step.update(jnp.eye(2), jnp.eye(2), step.init(2))
      >>> weights, int(state.iterations)
      (Array([[1., 1.]], dtype=float32), 3)
    """

    def init(num_objectives: int) -> SolverState:
        del num_objectives
        return SolverState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], SolverState]:
        del state, extra
        own = row_gramian(coefficients, gramian)
        weights, residual, iterations = solve(own, row_mask(coefficients, mask))
        solved = SolverState(residual.astype(jnp.float32), iterations)
        return one_row(weights, coefficients), solved

    return Step(init, update)


def one_row(
    weights: Float[Array, " R"], coefficients: Coefficients
) -> Float[Array, "1 K"]:
    """The rows' weighted sum; a row of weight 0 is left out whatever it holds.

    Example:
      >>> import jax.numpy as jnp
      >>> one_row(jnp.array([2.0, 1.0]), jnp.eye(2))
      Array([[2., 1.]], dtype=float32)
    """
    kept = jnp.where(weights[:, None] != 0, coefficients, 0.0)
    return matmul(weights[None].astype(coefficients.dtype), kept)


def check_preference(preference: Preference) -> None:
    """Refuse a preference with a negative or no positive entry.

    Example:
      >>> check_preference([1.0, 2.0])
    """
    if preference is None or not is_known(preference):
        return
    values = np.asarray(preference)
    if values.ndim != 1 or not (values >= 0).all() or not values.any():
        raise ValueError(
            "preference holds one number of 0 or more for each row, not all 0; not "
            f"{values.tolist()}."
        )


def row_preference(
    preference: Preference, own: Float[Array, "R R"]
) -> Float[Array, " R"] | None:
    """The preference as an array, if it fits the rows.

    Example:
      >>> import jax.numpy as jnp
      >>> row_preference([1.0, 2.0], jnp.eye(2))
      Array([1., 2.], dtype=float32)
    """
    if preference is None:
        return None
    given = jnp.asarray(preference, own.dtype)
    if given.shape != (len(own),):
        raise ValueError(
            f"preference has shape {given.shape}; one number for each of the "
            f"{len(own)} rows is needed."
        )
    return given
