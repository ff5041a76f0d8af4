r"""MGDA and CAGrad: combinations of gradients from problems on the simplex."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax.reconcilers._units import matmul
from fairjax.reconcilers.core import Step, solving, transformation
from fairjax.reconcilers.quadratic import (
    NonnegativeQP,
    Rows,
    nonnegative_qp,
    scale_rows,
)
from fairjax.types import Scalar, check_nonnegative

MAX_SEARCHES = 40
# Tolerance of the radius of CAGrad's ball, as a fraction of the radius.
_RADIUS_TOLERANCE = 1e-5
# CAGrad's search for a margin stops here: 0 is then in the gradients' hull, or so near
# that float32 does not show a difference.
_MOST = 1e4


class SimplexPoint(NamedTuple):
    """Solution of a problem over the simplex.

    Attributes:
      weights: ``[K]``; the update is ``Jᵀ weights``.
      simplex: ``w [K]``, the point of the simplex: ≥ 0, with sum 1.
      residual: ``[]``, scale-free distance from the optimum; see each solver.
      iterations: ``[]``, total number of Newton steps.
    """

    weights: Float[Array, " K"]
    simplex: Float[Array, " K"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


@jax.jit
def min_norm(
    gramian: Float[Array, "K K"], *, mask: Bool[Array, " K"] | None = None
) -> SimplexPoint:
    r"""Finds the shortest convex combination of gradients (MGDA).

    .. math:: \min_w\; w^\top G w \quad\text{subject to } w \ge 0,\; 1^\top w = 1 .

    For any :math:`\rho > 0`, the minimum of
    :math:`z^\top G z + \rho (1^\top z - 1)^2` over :math:`z \ge 0` is a multiple of
    the minimum over the simplex: with the sum held at :math:`t`, the first term is
    :math:`t^2` times its least value on the simplex. So the solver of non-negative
    problems solves this problem too.

    At the optimum every gradient has :math:`g_i \cdot g_w \ge \|g_w\|^2`. The residual
    is the greatest violation of this inequality, divided by :math:`\|g_i\|` times the
    length of the shortest gradient.

    Args:
      gramian: ``G [K, K]`` inner products of the gradients.
      mask: ``[K]``; rows where the mask is False, and rows that are zero, are left out
        and have the weight 0. If no row is left, all weights are 0.

    References:
      Désidéri, *Multiple-gradient descent algorithm*, 2012; Sener and Koltun,
      *Multi-Task Learning as Multi-Objective Optimization*, NeurIPS 2018.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
      >>> solvers.min_norm(gram).weights.round(1)
      Array([0.6, 0.4], dtype=float32)
    """
    rows = scale_rows(gramian, mask)
    shares, shortest = _shares(rows)
    found = nonnegative_qp(_penalised(rows, shares), -shares)
    simplex = _to_simplex(found.solution * shares)
    # In units of the shortest row, so that nothing overflows.
    lengths = jnp.where(rows.used, simplex * rows.scales / shortest, 0.0)
    inner = matmul(rows.gramian, lengths)
    gap = _gap(rows, jnp.sum(lengths * inner) * shares, inner)
    least = jnp.min(jnp.where(rows.used, rows.lengths / shares, jnp.inf))
    gap = jnp.where(jnp.any(rows.used), gap / least, 0.0)
    return SimplexPoint(simplex, simplex, gap, found.iterations)


@jax.jit
def conflict_averse(
    gramian: Float[Array, "K K"],
    c: float | Float[Array, ""] = 0.5,
    *,
    mask: Bool[Array, " K"] | None = None,
) -> SimplexPoint:
    r"""Finds the best worst case within a ball around the mean gradient (CAGrad).

    .. math:: \max_d \min_i\; g_i \cdot d
        \quad\text{subject to } \|d - \bar g\| \le c \|\bar g\| .

    Its dual is :math:`w^* = \arg\min_w\; \bar g \cdot g_w + c \|\bar g\| \|g_w\|` over
    the simplex, with :math:`g_w = J^\top w`, and
    :math:`d = \bar g + c \|\bar g\|\, g_{w^*} / \|g_{w^*}\|`.

    The solver searches for the largest margin :math:`\mu` such that the point closest
    to :math:`\bar g` with :math:`g_i \cdot d \ge \mu` for all :math:`i` is in the ball.
    This point is :math:`\bar g + J^\top z` with :math:`z \ge 0` minimising
    :math:`\tfrac12 z^\top G z + z^\top (G 1/m - \mu)`. Its distance grows with
    :math:`\mu`, so :math:`\mu` is found by bracketing. A penalty
    :math:`\tfrac12 (1^\top z - s)^2` replaces :math:`\mu`, so that every problem has a
    minimum; then :math:`\mu = s - 1^\top z`. If the gradients have 0 in their convex
    hull, the published formula divides by :math:`\|g_{w^*}\| = 0`. The update is then
    the projection of :math:`\bar g` onto the dual cone, if it is in the ball.

    At the optimum every gradient has :math:`g_i \cdot d \ge \sum_j w_j\, g_j \cdot d`.
    The residual is the greatest violation of this inequality, divided by
    :math:`\|g_i\| \|\bar g\|`.

    Args:
      gramian: ``G [K, K]`` inner products of the gradients.
      c: ``c`` ≥ 0, below 1 for convergence to a stationary point of the mean loss.
      mask: ``[K]``; rows where the mask is False, and rows that are zero, are left out,
        also of the mean, and have the weight 0.

    References:
      Liu et al., *Conflict-Averse Gradient Descent for Multi-task Learning*, NeurIPS
      2021.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> solvers.conflict_averse(rows @ rows.T).weights.round(1)
      Array([0.7, 0.5], dtype=float32)
    """
    rows = scale_rows(gramian, mask)
    dtype = gramian.dtype
    shares, _ = _shares(rows)
    number = jnp.maximum(jnp.sum(rows.used), 1).astype(dtype)
    longest = jnp.max(jnp.where(rows.used, rows.scales, 0.0))
    longest = jnp.where(longest > 0, longest, 1.0)
    # Lengths below are in units of the longest row.
    mean = jnp.where(rows.used, rows.scales / longest, 0.0) / number
    towards = jnp.where(rows.used, matmul(rows.gramian, mean), 0.0)
    length = _norm(rows, mean)
    radius = jnp.asarray(c, dtype) * length
    matrix = _penalised(rows, shares)

    def closest(s: Array, start: Array) -> NonnegativeQP:
        return nonnegative_qp(matrix, towards - s * shares, start)

    # At this s, all margins are met and the distance is 0.
    ratio = jnp.where(rows.used, towards / jnp.where(rows.used, shares, 1.0), jnp.inf)
    low = jnp.min(ratio)
    low = jnp.where(jnp.isfinite(low), low, 0.0)
    unit = jnp.maximum(jnp.maximum(radius, length), jnp.finfo(dtype).tiny)

    def search(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        (count, steps), (low, high, below, above), z, _, _, side = carry
        bracketed = jnp.isfinite(above)
        # Expand until the distance exceeds the radius; then use false position, and
        # halve the weight of an end that stays (the Illinois rule).
        slope = (radius - below) / jnp.maximum(above - below, jnp.finfo(dtype).tiny)
        inside = low + jnp.clip(slope, 0.01, 0.99) * (high - low)
        s = jnp.where(bracketed, inside, high)
        found = closest(s, z)
        distance = _norm(rows, found.solution)
        beyond = distance >= radius
        close = jnp.abs(distance - radius) <= _RADIUS_TOLERANCE * radius
        stays = jnp.where(beyond, side > 0, side < 0)
        left, right = (jnp.where(stays, (d + radius) / 2, d) for d in (below, above))
        above = jnp.where(beyond, distance, right)
        below = jnp.where(beyond, left, distance)
        grown = jnp.where(bracketed, high, low + 4 * (high - low))
        high = jnp.where(beyond, s, grown)
        low = jnp.where(beyond | ~bracketed, low, s)
        given_up = ~jnp.isfinite(above) & (high - low > _MOST * unit)
        side = jnp.where(beyond, 1, -1).astype(jnp.int32)
        counts = count + 1, steps + found.iterations
        ends = low, high, below, above
        return counts, ends, found.solution, distance, close | given_up, side

    def unfinished(carry: tuple[Any, ...]) -> Array:
        (count, _), *_, done, _ = carry
        return ~done & (count < MAX_SEARCHES)

    zero = jnp.zeros((), jnp.int32)
    nothing = jnp.zeros((), dtype)
    ends = low, jnp.maximum(low, 0.0) + unit, nothing, jnp.full((), jnp.inf, dtype)
    start = (zero, zero), ends, jnp.zeros_like(mean), nothing, radius <= 0, zero
    found = jax.lax.while_loop(unfinished, search, start)
    (_, steps), (_, _, _, above), z, distance, _, _ = found
    # Scale to exactly the radius, if the ball's surface was reached.
    reached = jnp.isfinite(above) & (distance > 0)
    z = jnp.where(reached, z * radius / jnp.where(reached, distance, 1.0), z)
    simplex = _to_simplex(z * shares)
    inner = towards + matmul(rows.gramian, z)
    margin = jnp.sum(simplex * inner * rows.scales)
    gap = _gap(rows, margin / rows.scales, inner) / jnp.where(length > 0, length, 1.0)
    weights = jnp.where(rows.used, 1 / number + z * longest / rows.scales, 0.0)
    gap = jnp.where(radius <= 0, 0.0, gap)
    # A comparison with NaN is False, so NaN would count as a solution.
    gap = jnp.where(jnp.isfinite(length + jnp.sum(z)), gap, jnp.nan)
    return SimplexPoint(weights, simplex, gap, steps)


def mgda_step() -> Step:
    r"""Finds the shortest convex combination of the rows (MGDA).

    .. math:: w = \arg\min_w w^\top G w
        \quad\text{subject to } w \ge 0,\; 1^\top w = 1 .

    The update does not conflict with any row, and is zero where the rows are
    Pareto-stationary. It is at most as long as the shortest row, so one objective near
    its optimum slows all objectives. See :func:`fairjax.solvers.min_norm`.

    Returns:
      A step ``[R, K] -> [1, K]`` with a ``SolverState``.

    References:
      Désidéri, *Multiple-gradient descent algorithm*, 2012; Sener and Koltun,
      *Multi-Task Learning as Multi-Objective Optimization*, NeurIPS 2018.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.mgda()
      >>> gram = jnp.diag(jnp.array([1.0, 4.0]))
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(3)
      Array([[0.8, 0.2]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.mgda(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [0.8, 0.4]
    """
    return solving(lambda own, used: min_norm(own, mask=used))


def cagrad_step(c: Scalar = 0.5, *, rescale: bool = False) -> Step:
    r"""Finds the best worst case in a ball around the mean of the rows (CAGrad).

    .. math:: d = \arg\max_d \min_i\; g_i \cdot d
        \quad\text{subject to } \|d - \bar g\| \le c \|\bar g\| .

    With ``c=0`` the update is the mean of the rows in use. A single row :math:`g`
    becomes :math:`(1 + c) g`, as published. See
    :func:`fairjax.solvers.conflict_averse`.

    Args:
      c: The ball's radius relative to the mean's length, ≥ 0; may be traced. Below 1,
        the mean of the losses converges.
      rescale: Whether to divide by :math:`1 + c^2`, as the authors' code does.

    Returns:
      A step ``[R, K] -> [1, K]`` with a ``SolverState``.

    Raises:
      ValueError: ``c`` is below 0.

    References:
      Liu et al., *Conflict-Averse Gradient Descent for Multi-task Learning*, NeurIPS
      2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.cagrad(c=0.5)
      >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(1)
      Array([[0.7, 0.5]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.cagrad(num_objectives=2, c=0.5)
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(3)))
      >>> [round(float(entry), 3) for entry in update]
      [0.184, 1.204, 1.204]
    """
    check_nonnegative("c", c)

    def solve(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> SimplexPoint:
        radius = jnp.asarray(c, own.dtype)
        found = conflict_averse(own, radius, mask=used)
        if not rescale:
            return found
        return found._replace(weights=found.weights / (1 + radius**2))

    return solving(solve)


mgda = transformation(mgda_step)
cagrad = transformation(cagrad_step)


def _shares(rows: Rows) -> tuple[Array, Array]:
    """Returns each row's 1/scale as a fraction of the greatest, and the least scale."""
    shortest = jnp.min(jnp.where(rows.used, rows.scales, jnp.inf))
    shortest = jnp.where(jnp.isfinite(shortest), shortest, 1.0)
    return jnp.where(rows.used, shortest / rows.scales, 0.0), shortest


def _gap(rows: Rows, margin: Array, inner: Array) -> Array:
    """Returns the greatest shortfall of a row in use from the combination's margin."""
    missed = (margin - inner) / rows.lengths
    return jnp.max(jnp.where(rows.used, missed, 0.0), initial=0.0)


def _penalised(rows: Rows, shares: Array) -> Array:
    """Returns the matrix of ``zᵀ G z + (shares · z)²``."""
    return rows.gramian + shares[:, None] * shares[None, :]


def _to_simplex(weights: Array) -> Array:
    total = jnp.sum(weights)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 0.0)


def _norm(rows: Rows, weights: Array) -> Array:
    """Returns the length of a combination of the scaled rows."""
    square = jnp.sum(weights * matmul(rows.gramian, weights))
    return jnp.sqrt(jnp.maximum(square, 0.0))
