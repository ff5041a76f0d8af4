r"""MGDA, CAGrad, MoDo, SDMGrad: combinations of gradients from the simplex."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fairjax.reconcilers._units import matmul
from fairjax.reconcilers.core import (
    CurrentRows,
    Step,
    check_preference,
    make_step,
    row_preference,
    solving,
    transformation,
)
from fairjax.reconcilers.quadratic import (
    NonnegativeQP,
    Rows,
    nonnegative_qp,
    scale_rows,
)
from fairjax.types import Numbers, Scalar, check_nonnegative, check_whole, vary_like

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
    found = jax.lax.while_loop(unfinished, search, vary_like(start, gramian))
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


class CrossBatchState(NamedTuple):
    """State of :func:`modo` and :func:`sdmgrad`.

    Attributes:
      shares: ``[K]``, the objectives' weights, which sum to 1.
    """

    shares: Float[Array, " K"]


def modo_step(*, learning_rate: Scalar = 0.1, weight_decay: Scalar = 0.1) -> Step:
    r"""Moves weights towards MGDA's without the bias of one batch (MoDo).

    With gradients :math:`J, J'` on two independent batches, and :math:`\Pi` the
    projection onto the simplex,

    .. math:: w \leftarrow \Pi\left(w - \gamma (J J'^\top w + \rho w)\right) .

    The Gram matrix of one batch is biased: its diagonal contains the variance of the
    gradients, so that MGDA avoids noisy objectives. Pass
    ``cross_gramian=fairjax.gramian(J, J')`` to ``update``, and as gradients the mean of
    both batches, or those of a third batch. Without ``cross_gramian``, the step uses
    the gradients' Gram matrix, which is right for gradients without noise.

    Args:
      learning_rate: :math:`\gamma` ≥ 0; may be traced.
      weight_decay: :math:`\rho` ≥ 0; may be traced.

    Returns:
      A step ``[K, K] -> [1, K]``. The weights after the move make the update. A masked
      objective keeps its weight and adds nothing.

    Raises:
      ValueError: The learning rate or the weight decay is negative. At the update:
        ``cross_gramian`` is not ``[K, K]``, or there are not K rows.

    References:
      Chen et al., *Three-Way Trade-Off in Multi-Objective Learning: Optimization,
      Generalization and Conflict-Avoidance*, JMLR 2024.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.modo(learning_rate=0.5, weight_decay=0.0)
      >>> cross = jnp.diag(jnp.array([1.0, 2.0]))
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2), cross_gramian=cross)[0]
      Array([[0.625, 0.375]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.modo(num_objectives=2, learning_rate=0.5, weight_decay=0.0)
      >>> rows, other = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.eye(2)
      >>> cross, mean = fairjax.gramian(rows, other), (rows + other) / 2
      >>> tx.update(mean, tx.init(jnp.zeros(2)), cross_gramian=cross)[0]
      Array([0.625 , 0.5625], dtype=float32)
    """
    check_nonnegative("learning_rate", learning_rate)
    check_nonnegative("weight_decay", weight_decay)

    def update(rows: CurrentRows, state: CrossBatchState) -> tuple[Array, Any]:
        cross, used, shares = _across_batches("modo", rows, state.shares)
        slopes = matmul(cross, shares) + weight_decay * shares
        moved = _project(shares - learning_rate * slopes, used, jnp.sum(shares))
        kept = jnp.where(used, moved, state.shares).astype(jnp.float32)
        return rows.weighted(moved), CrossBatchState(kept)

    return make_step(update, _equal_shares)


def sdmgrad_step(
    *,
    strength: Scalar = 0.3,
    preference: Numbers | None = None,
    learning_rate: Scalar = 10.0,
    momentum: Scalar = 0.5,
    iterations: int = 20,
) -> Step:
    r"""Moves towards MGDA's weights near a preferred direction (SDMGrad).

    With gradients :math:`J, J'` on two independent batches and the preference
    :math:`\tilde w`, ``iterations`` projected gradient steps with momentum descend

    .. math:: \min_w\; \tfrac12 \|J^\top (w + \lambda \tilde w)\|^2
        \quad\text{subject to } w \ge 0,\; 1^\top w = 1

    by the slopes :math:`J J'^\top (w + \lambda \tilde w) / s^2`, where :math:`s` is the
    mean of :math:`\sqrt{g_k \cdot g'_k}` (0 for negative products). The update has the
    weights :math:`(w + \lambda \tilde w) / (1 + \lambda)`. For the two batches, see
    :func:`modo`. The next update starts from :math:`w`.

    Args:
      strength: :math:`\lambda` ≥ 0, the pull towards the preference; may be traced.
      preference: :math:`\tilde w`, ≥ 0; by default 1/m for m objectives in use.
      learning_rate: Learning rate of :math:`w` ≥ 0; may be traced.
      momentum: Momentum within one update, ≥ 0; may be traced.
      iterations: Steps of :math:`w` in one update, ≥ 1.

    Returns:
      A step ``[K, K] -> [1, K]``. A masked objective keeps its weight and adds nothing.

    Raises:
      ValueError: A setting is out of its range. At the update: ``cross_gramian`` is not
        ``[K, K]``, there are not K rows, or the preference does not fit them.

    References:
      Xiao, Ban and Ji, *Direction-oriented Multi-objective Learning: Simple and
      Provable Stochastic Algorithms*, NeurIPS 2023, algorithm 1 and section 6.1.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> options = {"strength": 1.0, "learning_rate": 0.1, "iterations": 1}
      >>> step = fairjax.steps.sdmgrad(**options)
      >>> cross = jnp.diag(jnp.array([1.0, 9.0]))
      >>> extra = {"cross_gramian": cross}
      >>> weights, _ = step.update(jnp.eye(2), jnp.eye(2), step.init(2), **extra)
      >>> [round(float(weight), 3) for weight in weights[0]]
      [0.55, 0.45]

      As an optax transformation:

      >>> tx = fairjax.sdmgrad(num_objectives=2, **options)
      >>> update, _ = tx.update(2 * jnp.eye(2), tx.init(jnp.zeros(2)), **extra)
      >>> [round(float(entry), 3) for entry in update]
      [1.1, 0.9]
    """
    check_nonnegative("strength", strength)
    check_preference(preference)
    check_nonnegative("learning_rate", learning_rate)
    check_nonnegative("momentum", momentum)
    check_whole("iterations", iterations)

    def update(rows: CurrentRows, state: CrossBatchState) -> tuple[Array, Any]:
        cross, used, shares = _across_batches("sdmgrad", rows, state.shares)
        number = jnp.maximum(jnp.sum(used), 1)
        given = row_preference(preference, cross)
        given = jnp.ones_like(shares) / number if given is None else given
        # Of one type, as a loop's carry must be.
        rate, inertia, pull = (
            jnp.asarray(value, cross.dtype)
            for value in (learning_rate, momentum, strength)
        )
        pull *= jnp.where(used, given, 0.0)
        scale = jnp.sum(jnp.sqrt(jnp.maximum(jnp.diagonal(cross), 0.0))) / number
        # A division by the square could overflow.
        scale = jnp.where(scale > 0, scale, 1.0)
        cross, total = cross / scale / scale, jnp.sum(shares)

        def move(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            shares, velocity = carry
            velocity = inertia * velocity + matmul(cross, shares + pull)
            return _project(shares - rate * velocity, used, total), velocity

        start = vary_like((shares, jnp.zeros_like(shares)), cross)
        moved, _ = jax.lax.fori_loop(0, iterations, move, start)
        kept = jnp.where(used, moved, state.shares).astype(jnp.float32)
        return rows.weighted((moved + pull) / (1 + strength)), CrossBatchState(kept)

    return make_step(update, _equal_shares)


mgda = transformation(mgda_step)
cagrad = transformation(cagrad_step)
modo = transformation(modo_step)
sdmgrad = transformation(sdmgrad_step)


def _equal_shares(number: int) -> CrossBatchState:
    return CrossBatchState(jnp.full(number, 1 / number, jnp.float32))


def _across_batches(
    name: str, rows: CurrentRows, shares: Array
) -> tuple[Array, Array, Array]:
    """Returns the rows' products across batches, which are in use, and their shares."""
    cross, number = rows.extra.get("cross_gramian", rows.gramian), len(shares)
    cross = jnp.asarray(cross, rows.gramian.dtype)
    if cross.shape != rows.gramian.shape or len(rows.coefficients) != number:
        raise ValueError(
            f"{name} needs a cross_gramian and rows for {number} objectives; got shape "
            f"{cross.shape} and {len(rows.coefficients)} rows. Pass cross_gramian="
            "fairjax.gramian(first, second), and put the step first."
        )
    known = jnp.isfinite(jnp.diagonal(cross))
    known = known if rows.mask is None else known & rows.mask
    cross = jnp.where(known[:, None] & known, cross, 0.0)
    rows = rows._replace(gramian=cross, mask=known)
    shares = jnp.where(rows.used, shares, 0.0).astype(cross.dtype)
    return rows.own, rows.used, shares


def _project(point: Array, used: Array, total: Array) -> Array:
    """Returns the closest point with entries ≥ 0 that sum to the total, 0 if unused."""
    # No entry this far below the greatest is positive after the projection.
    least = jnp.max(jnp.where(used, point, -jnp.inf)) - total
    whole = jnp.where(total > 0, total, 1.0)
    found = optax.projections.projection_simplex(jnp.where(used, point, least), whole)
    return jnp.where(used & (total > 0), found.astype(point.dtype), 0.0)


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
