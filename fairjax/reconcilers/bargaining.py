r"""Nash-MTL and the alpha-fair FairGrad: weights from a bargain between objectives.

Both methods need positive weights with :math:`G w = w^{-p}`, entry by entry. At these
weights the gradient of

.. math:: f(w) = \tfrac12 w^\top G w - \sum_i \varphi_p(w_i),
    \qquad \varphi_p' (w) = w^{-p},\quad p > 0,

is 0. The function is convex on :math:`w > 0` for every positive semi-definite
:math:`G`. It has a minimum if and only if a direction descends all objectives; the
gradients may be linearly dependent. Newton's method finds the minimum, in weights
relative to the weights of orthogonal gradients, :math:`G_{ii}^{-1/(1+p)}`. A line
search over relative steps keeps all weights positive.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax._bisection import bisect
from fairjax.reconcilers._units import matmul, normalised, usable_rows
from fairjax.reconcilers.core import (
    CurrentRows,
    Step,
    make_step,
    solving,
    transformation,
    unsolved,
)
from fairjax.types import Scalar, check_positive, check_whole, vary_like

MAX_ITERATIONS = 64
"""The greatest number of Newton steps."""

_BISECTIONS = 20
# The greatest relative step, and the greatest fraction of the way to a weight of 0.
_LONGEST, _TO_BOUNDARY = 100.0, 0.99
# Shorter relative steps need no line search: Newton's method converges there.
_LOCAL = 0.3


class Bargain(NamedTuple):
    """Weights of a bargain, and the error of the solution.

    Attributes:
      weights: ``[R]``; positive for rows in use, else 0.
      residual: ``[]``, the greatest relative error of the fixed point,
        :math:`|(G w)_i / w_i^{-p} - 1|`, over the rows in use, plus a bound for
        rounding in :math:`G w`; about 1 or more where no bargain exists.
      iterations: ``[]``, the number of Newton steps.
    """

    weights: Float[Array, " R"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


class NashMTLState(NamedTuple):
    """State of :func:`nash_mtl`.

    Attributes:
      solution: ``[K]``, the last solution, before the limit of the norm; None if every
        update solves for weights.
      count: ``[]``, the number of updates since the last solution; None if every update
        solves for weights.
      residual: ``[]``, residual of the last solution; see
        :class:`fairjax.solvers.Bargain`.
      iterations: ``[]``, number of Newton steps of the last solution.
    """

    solution: Float[Array, " K"] | None
    count: Int[Array, ""] | None
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


class _Search(NamedTuple):
    """State of a search: current weights, whether they converged, and the best."""

    current: Float[Array, " R"]
    converged: Bool[Array, ""]
    best: Float[Array, " R"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


@jax.jit
def solve_nash_mtl(
    gramian: Float[Array, "R R"], *, mask: Bool[Array, " R"] | None = None
) -> Bargain:
    r"""Finds the weights of the Nash bargain between the objectives (Nash-MTL).

    .. math:: G w = 1 / w, \qquad w > 0.

    The update :math:`J^\top w` then has the length :math:`\sqrt m` for m rows in use.
    Its length does not depend on the gradients' lengths: scaling one row does not
    change the update.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      mask: ``[R]``; rows where the mask is False get weight 0.

    Returns:
      A :class:`Bargain`, found in at most ``MAX_ITERATIONS`` steps. If no direction
      descends all objectives, there is no bargain. The residual is then about 1 or
      more, and the weights stay bounded: in float32, by some 10⁴ times the weights of
      orthogonal gradients.

    References:
      Navon et al., *Multi-Task Learning as a Bargaining Game*, ICML 2022.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> solvers.nash_mtl(jnp.diag(jnp.array([1.0, 4.0]))).weights
      Array([1. , 0.5], dtype=float32)
    """
    return solve_fairgrad_alpha(gramian, alpha=1.0, mask=mask)


@jax.jit
def solve_fairgrad_alpha(
    gramian: Float[Array, "R R"],
    *,
    alpha: float | Float[Array, ""] = 1.0,
    mask: Bool[Array, " R"] | None = None,
) -> Bargain:
    r"""Finds the weights of the alpha-fair allocation between the objectives.

    .. math:: G w = w^{-1/\alpha}, \qquad w > 0.

    The update maximises :math:`\sum_i (d \cdot g_i)^{1-\alpha} / (1-\alpha)` over
    directions :math:`d` of one length. :math:`\alpha \to 0` is the plain sum, 1 is
    Nash-MTL's proportional fairness, 2 is minimal potential delay, and
    :math:`\alpha \to \infty` is max-min fairness. This is not :func:`fairjax.fairgrad`,
    which is another method of the same name.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      alpha: :math:`\alpha > 0`; may be traced. From about ½ to 20, float32 is enough
        for a residual below 1e-3; a smaller :math:`\alpha` needs more precision.
      mask: ``[R]``; rows where the mask is False get weight 0.

    Returns:
      A :class:`Bargain`; see :func:`fairjax.solvers.nash_mtl`.

    References:
      Ban and Ji, *Fair Resource Allocation in Multi-Task Learning*, ICML 2024.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> solvers.fairgrad_alpha(jnp.diag(jnp.array([1.0, 8.0])), alpha=0.5).weights
      Array([1. , 0.5], dtype=float32)
    """
    dtype = gramian.dtype
    power = 1.0 / jnp.asarray(alpha, dtype)
    used = usable_rows(gramian, mask)
    own, greatest = normalised(gramian, used)
    squares = jnp.where(used, jnp.diagonal(own), 1.0)
    # With w = start · v, the equation is A v = c v^{−p}, where diag(A) = c.
    start = squares ** (-1.0 / (1.0 + power))
    matrix = own * start[:, None] * start[None, :]
    shares = start ** (1.0 - power)
    matrix = jnp.where(jnp.eye(len(start), dtype=bool), jnp.diag(shares), matrix)
    found = _minimise(matrix, shares, power, used)
    weights = found.best * start * greatest ** (-1.0 / (1.0 + power))
    return Bargain(
        jnp.where(used, weights, 0.0),
        found.residual.astype(jnp.float32),
        found.iterations,
    )


def nash_mtl_step(
    *,
    normalize: bool = False,
    max_norm: Scalar | None = None,
    update_every: int = 1,
) -> Step:
    r"""Weighs rows by a Nash bargain between the objectives (Nash-MTL).

    The weights solve :math:`G w = 1 / w` with :math:`w > 0`. See
    :func:`fairjax.solvers.nash_mtl`, also for the case that no bargain exists.

    Args:
      normalize: False, as published, makes every update of m rows :math:`\sqrt m` long,
        for gradients of any length. True, which is ours, divides :math:`G` by its
        Frobenius norm first, so that the update grows with the gradients; a single
        objective's gradient then stays as it is.
      max_norm: The greatest length of the update, or None; 1 in the authors' code. May
        be traced.
      update_every: The step solves for weights at the first of this number of updates,
        and keeps the weights for the others. The paper has 1 to 100, by task. A row
        that is not in use when the step solves has weight 0 until the next solution.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: ``update_every`` is below 1, or ``max_norm`` is not positive. At the
        update, with ``update_every`` above 1: a previous step changed the number of
        rows.

    References:
      Navon et al., *Multi-Task Learning as a Bargaining Game*, ICML 2022.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.nash_mtl()
      >>> gram = jnp.diag(jnp.array([1.0, 4.0]))
      >>> step.update(jnp.eye(2), gram, step.init(2))[0]
      Array([[1. , 0.5]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.nash_mtl(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([1., 1.], dtype=float32)
    """
    check_whole("update_every", update_every)
    if max_norm is not None:
        check_positive("max_norm", max_norm)

    def init(number: int) -> NashMTLState:
        kept = update_every > 1
        return NashMTLState(
            jnp.zeros(number, jnp.float32) if kept else None,
            jnp.zeros((), jnp.int32) if kept else None,
            *unsolved(),
        )

    def update(rows: CurrentRows, state: NashMTLState) -> tuple[Array, NashMTLState]:
        own, used = rows.own, rows.used

        def solve() -> Bargain:
            return _bargain(own, used, 1.0, normalize)

        if state.solution is None or state.count is None:
            found = solve()
            state = state._replace(residual=found.residual, iterations=found.iterations)
            weights = found.weights
        else:
            if state.solution.shape != used.shape:
                raise ValueError(
                    f"nash_mtl(update_every={update_every}) keeps "
                    f"{len(state.solution)} weights; got {len(used)} rows. "
                    "Put it before steps that change the number of rows."
                )
            solution = state.solution.astype(own.dtype)
            kept = Bargain(solution, state.residual, state.iterations)
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
        return rows.weighted(weights), state

    return make_step(update, init)


def fairgrad_alpha_step(alpha: Scalar = 1.0, *, normalize: bool = False) -> Step:
    r"""Weighs rows by an alpha-fair allocation between the objectives.

    The weights solve :math:`G w = w^{-1/\alpha}` with :math:`w > 0`; see
    :func:`fairjax.solvers.fairgrad_alpha`. The authors call this method FairGrad. It
    differs from :func:`fairjax.fairgrad`, which projects fairness gradients.

    Args:
      alpha: :math:`\alpha > 0`; may be traced. 1 is Nash-MTL's bargain.
      normalize: False is as published. True, which is ours, divides :math:`G` by its
        Frobenius norm first, so that the update grows in proportion to the gradients; a
        single objective's gradient then stays as it is.

    Returns:
      A step ``[R, K] -> [1, K]`` with a ``SolverState``.

    Raises:
      ValueError: ``alpha`` is not positive.

    References:
      Ban and Ji, *Fair Resource Allocation in Multi-Task Learning*, ICML 2024.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.fairgrad_alpha(0.5)
      >>> gram = jnp.diag(jnp.array([1.0, 8.0]))
      >>> step.update(jnp.eye(2), gram, step.init(2))[0]
      Array([[1. , 0.5]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.fairgrad_alpha(num_objectives=2, alpha=0.5)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 8.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [1.0, 2.0]
    """
    check_positive("alpha", alpha)
    return solving(lambda own, used: _bargain(own, used, alpha, normalize))


nash_mtl = transformation(nash_mtl_step)
fairgrad_alpha = transformation(fairgrad_alpha_step)


def _bargain(
    own: Float[Array, "R R"], used: Bool[Array, " R"], alpha: Scalar, normalize: bool
) -> Bargain:
    alpha = jnp.asarray(alpha, own.dtype)
    found = solve_fairgrad_alpha(own, alpha=alpha, mask=used)
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


def _minimise(
    matrix: Float[Array, "R R"],
    shares: Float[Array, " R"],
    power: Float[Array, ""],
    used: Bool[Array, " R"],
) -> _Search:
    r"""Minimises ½ vᵀAv − Σ c φ(v), where diag(A) = c."""
    dtype = matrix.dtype
    size = matrix.shape[0]
    eps = jnp.asarray(jnp.finfo(dtype).eps, dtype)
    # A ridge bounds the weights where no bargain exists. It is too small to affect
    # weights of up to a hundred times those of orthogonal rows.
    slight = eps / 16
    ridge = jnp.minimum(slight, slight ** ((1.0 + power) / 2)) * shares

    def measure(weights: Array) -> tuple[Array, Array]:
        wanted = weights**-power * shares
        departures = jnp.abs(matmul(matrix, weights) / wanted - 1.0)
        terms = jnp.sqrt(matmul(matrix**2, weights**2)) / wanted
        departure = jnp.max(jnp.where(used, departures, 0.0))
        rounding = eps * jnp.max(jnp.where(used, terms, 0.0))
        return departure + rounding, departure <= jnp.maximum(50 * eps, rounding / 2)

    def unfinished(search: _Search) -> Array:
        return ~search.converged & (search.iterations < MAX_ITERATIONS)

    def step(search: _Search) -> _Search:
        weights = search.current
        wanted = weights**-power * shares
        force = matmul(matrix, weights) + ridge * weights
        hessian = matrix + jnp.diag(ridge + power * wanted / weights)
        direction = _newton_direction(hessian, wanted - force)
        relative = direction / weights
        slope = jnp.sum(direction * force)
        bend = jnp.sum(direction * (matmul(matrix, direction) + ridge * direction))

        def is_falling(length: Array) -> Array:
            gained = shares * (weights * (1 + length * relative)) ** -power
            return ~(slope + bend * length > jnp.sum(direction * gained))

        shrinking = jnp.max(-relative)
        most = _TO_BOUNDARY / jnp.maximum(shrinking, _TO_BOUNDARY / _LONGEST)
        nothing = vary_like(jnp.zeros((), dtype), matrix)
        low, high = bisect(is_falling, nothing, most, _BISECTIONS)
        local = jnp.max(jnp.abs(relative)) * jnp.maximum(power, 1.0) < _LOCAL
        weights = weights * (1 + jnp.where(local, 1.0, (low + high) / 2) * relative)
        residual, converged = measure(weights)
        better = residual < search.residual
        return _Search(
            weights,
            converged,
            jnp.where(better, weights, search.best),
            jnp.where(better, residual, search.residual),
            search.iterations + 1,
        )

    # Start at the best equal weights, with a bound against the greatest conflicts.
    total = jnp.maximum(jnp.sum(matrix), 1e-3 * jnp.sum(shares))
    level = (jnp.sum(shares) / total) ** (1.0 / (1.0 + power))
    first = jnp.full(size, 1.0, dtype) * level
    residual, converged = measure(first)
    start = _Search(first, converged, first, residual, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, step, vary_like(start, matrix))


def _newton_direction(
    hessian: Float[Array, "R R"], gradient: Float[Array, " R"]
) -> Float[Array, " R"]:
    """Solves with the Hessian scaled to a unit diagonal plus a unit of rounding."""
    size = hessian.shape[0]
    eps = jnp.finfo(hessian.dtype).eps
    scale = 1.0 / jnp.sqrt(jnp.diagonal(hessian))
    unit = hessian * scale[:, None] * scale[None, :]
    factor = jnp.linalg.cholesky(unit + size * eps * jnp.eye(size, dtype=unit.dtype))
    solved = scale * jax.scipy.linalg.cho_solve((factor, True), scale * gradient)
    # Rounding can make the factor not finite; then take the diagonal's direction.
    return jnp.where(jnp.all(jnp.isfinite(solved)), solved, scale**2 * gradient)
