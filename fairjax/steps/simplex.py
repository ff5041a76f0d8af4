"""Updates from the best convex combination of the rows: MGDA and CAGrad."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.solvers.simplex import conflict_averse, min_norm
from fairjax.steps._weighting import Solved, solving
from fairjax.types import Scalar, Step, check_nonnegative


def mgda() -> Step:
    r"""The shortest convex combination of the rows (MGDA).

    .. math:: w = \arg\min_w w^\top G w
        \quad\text{subject to } w \ge 0,\; 1^\top w = 1 .

    It conflicts with no row, is zero where the rows are Pareto-stationary, and is at
    most as long as the shortest row: one objective near its optimum slows all. See
    :func:`fairjax.solvers.min_norm`.

    Returns:
      A step ``[R, K] -> [1, K]``, of state ``SolverState``.

    References:
      Désidéri, *Multiple-gradient descent algorithm*, 2012; Sener and Koltun,
      *Multi-Task Learning as Multi-Objective Optimization*, NeurIPS 2018.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.mgda()
      >>> gram = jnp.diag(jnp.array([1.0, 4.0]))
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(3)
      Array([[0.8, 0.2]], dtype=float32)
    """

    def solve(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Solved:
        found = min_norm(own, mask=used)
        return found.weights, found.residual, found.iterations

    return solving(solve)


def cagrad(c: Scalar = 0.5, *, rescale: bool = False) -> Step:
    r"""The best worst case in a ball around the mean of the rows (CAGrad).

    .. math:: d = \arg\max_d \min_i\; g_i \cdot d
        \quad\text{subject to } \|d - \bar g\| \le c \|\bar g\| .

    With ``c=0`` it is the mean of the rows in use. A single row :math:`g` becomes
    :math:`(1 + c) g`, as published. See :func:`fairjax.solvers.conflict_averse`.

    Args:
      c: ≥ 0; may be traced. Below 1, the mean of the losses converges.
      rescale: Whether to divide by :math:`1 + c^2`, as the authors' code does.

    Returns:
      A step ``[R, K] -> [1, K]``, of state ``SolverState``.

    Raises:
      ValueError: A ``c`` below 0.

    References:
      Liu et al., *Conflict-Averse Gradient Descent for Multi-task Learning*, NeurIPS
      2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.cagrad(c=0.5)
      >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(1)
      Array([[0.7, 0.5]], dtype=float32)
    """
    check_nonnegative("c", c)

    def solve(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Solved:
        radius = jnp.asarray(c, own.dtype)
        found = conflict_averse(own, radius, mask=used)
        weights = found.weights / (1 + radius**2) if rescale else found.weights
        return weights, found.residual, found.iterations

    return solving(solve)
