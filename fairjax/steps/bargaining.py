"""Dividing the update between the objectives by a bargain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax.solvers import bargaining
from fairjax.solvers._units import matmul, normalised
from fairjax.steps._rows import row_gramian, row_mask
from fairjax.steps._weighting import Solved, one_row, solving
from fairjax.types import (
    Coefficients,
    Gramian,
    Mask,
    Scalar,
    Step,
    check_whole,
    is_known,
)


class NashMTLState(NamedTuple):
    """Carried by :func:`nash_mtl`.

    Attributes:
      solution: ``[K]``, the weights last solved for, before the limit of the norm; None
        where every update solves.
      count: ``[]``, the number of updates so far; None likewise.
      residual: ``[]``, of the last solution; see :class:`fairjax.solvers.Bargain`.
      iterations: ``[]``, likewise.
    """

    solution: Float[Array, " K"] | None
    count: Int[Array, ""] | None
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


def nash_mtl(
    *,
    normalize: bool = False,
    max_norm: Scalar | None = None,
    update_every: int = 1,
) -> Step:
    r"""One row that the objectives would agree on in a Nash bargain (Nash-MTL).

    :math:`G w = 1 / w` with :math:`w > 0`; see :func:`fairjax.solvers.nash_mtl`, also
    for what is returned where no bargain exists.

    Args:
      normalize: False, as published, makes every update of m rows :math:`\sqrt m`
        long, however long the gradients are. True, which is ours, divides :math:`G` by
        its Frobenius norm first, so that the update grows with the gradients; one
        objective is then left as it is.
      max_norm: The greatest length of the update, if any; the authors' code has 1.
        May be traced.
      update_every: The weights are solved for at the first of so many updates, and
        kept for the others (the paper has 1 to 100 by task). A row that was out of
        use at the first has weight 0 until the next.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: An ``update_every`` below 1 or a ``max_norm`` that is not positive; at
        the update, with ``update_every`` above 1, after a step that changed the number
        of rows.

    References:
      Navon et al., *Multi-Task Learning as a Bargaining Game*, ICML 2022.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.nash_mtl()
      >>> gram = jnp.diag(jnp.array([1.0, 4.0]))
      >>> step.update(jnp.eye(2), gram, step.init(2))[0]
      Array([[1. , 0.5]], dtype=float32)
    """
    check_whole("update_every", update_every)
    if max_norm is not None and is_known(max_norm) and not max_norm > 0:
        raise ValueError(f"max_norm must be positive, not {max_norm}.")

    def init(num_objectives: int) -> NashMTLState:
        kept = update_every > 1
        return NashMTLState(
            jnp.zeros(num_objectives, jnp.float32) if kept else None,
            jnp.zeros((), jnp.int32) if kept else None,
            jnp.zeros((), jnp.float32),
            jnp.zeros((), jnp.int32),
        )

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: NashMTLState,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], NashMTLState]:
        del extra
        own = row_gramian(coefficients, gramian)
        used = row_mask(coefficients, mask)

        def solve() -> bargaining.Bargain:
            return _solve(own, used, 1.0, normalize)

        if state.solution is None or state.count is None:
            found = solve()
            state = state._replace(residual=found.residual, iterations=found.iterations)
            weights = found.weights
        else:
            if state.solution.shape != used.shape:
                raise ValueError(
                    f"nash_mtl(update_every={update_every}) keeps "
                    f"{len(state.solution)} weights; there are {len(used)} rows. "
                    "Put it before steps that change the number of rows."
                )
            kept = bargaining.Bargain(
                state.solution.astype(own.dtype), state.residual, state.iterations
            )
            due = state.count % update_every == 0
            found = jax.lax.cond(due, solve, lambda: kept)
            state = NashMTLState(
                found.weights.astype(jnp.float32),
                (state.count + 1) % update_every,
                found.residual,
                found.iterations,
            )
            weights = jnp.where(used, found.weights, 0.0)
        if max_norm is not None:
            weights = _limit_norm(weights, own, used, max_norm)
        return one_row(weights, coefficients), state

    return Step(init, update)


def fairgrad_alpha(alpha: Scalar = 1.0, *, normalize: bool = False) -> Step:
    r"""One row that is an alpha-fair allocation between the objectives.

    :math:`G w = w^{-1/\alpha}` with :math:`w > 0`; see
    :func:`fairjax.solvers.fairgrad_alpha`. The authors call it FairGrad; it is not
    :func:`fairjax.fairgrad`, which projects fairness gradients and is another method.

    Args:
      alpha: :math:`\alpha > 0`; may be traced. 1 is Nash-MTL's bargain.
      normalize: False is as published. True, which is ours, divides :math:`G` by its
        Frobenius norm first, so that the update grows with the gradients as they do;
        one objective is then left as it is.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: An alpha that is not positive.

    References:
      Ban and Ji, *Fair Resource Allocation in Multi-Task Learning*, ICML 2024.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.fairgrad_alpha(0.5)
      >>> gram = jnp.diag(jnp.array([1.0, 8.0]))
      >>> step.update(jnp.eye(2), gram, step.init(2))[0]
      Array([[1. , 0.5]], dtype=float32)
    """
    if is_known(alpha) and not alpha > 0:
        raise ValueError(f"alpha must be positive, not {alpha}.")

    def solve(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Solved:
        found = _solve(own, used, alpha, normalize)
        return found.weights, found.residual, found.iterations

    return solving(solve)


def _solve(
    own: Float[Array, "R R"], used: Bool[Array, " R"], alpha: Scalar, normalize: bool
) -> bargaining.Bargain:
    alpha = jnp.asarray(alpha, own.dtype)
    found = bargaining.fairgrad_alpha(own, alpha=alpha, mask=used)
    if not normalize:
        return found
    # The fixed point of G / F is that of G times F^{1/(1+1/α)}.
    relative, greatest = normalised(own, used)
    norm = jnp.sqrt(jnp.sum(relative**2)) * greatest
    return found._replace(weights=found.weights * norm ** (alpha / (1.0 + alpha)))


def _limit_norm(
    weights: Float[Array, " R"],
    own: Float[Array, "R R"],
    used: Bool[Array, " R"],
    max_norm: Scalar,
) -> Float[Array, " R"]:
    relative, greatest = normalised(own, used)
    square = jnp.maximum(jnp.sum(weights * matmul(relative, weights)), 0.0)
    norm = jnp.sqrt(square) * jnp.sqrt(greatest)
    return weights * (max_norm / jnp.maximum(norm, max_norm))
