r"""Nash-MTL and the alpha-fair FairGrad: the update is divided by a bargain.

Nash-MTL and the alpha-fair FairGrad ask for positive weights with
:math:`G w = w^{-p}`, entry by entry: the point where the gradient of

.. math:: f(w) = \tfrac12 w^\top G w - \sum_i \varphi_p(w_i),
    \qquad \varphi_p' (w) = w^{-p},\quad p > 0,

is 0. The function is convex on :math:`w > 0`, whatever positive semi-definite
:math:`G`, and it has a minimum exactly where some direction descends all objectives;
the gradients need not be independent. Newton's method finds it, in weights relative to
those of unrelated gradients, :math:`G_{ii}^{-1/(1+p)}`, and with a line search over
relative steps, which keeps all weights positive.
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
from fairjax.types import Scalar, check_positive, check_whole

MAX_ITERATIONS = 64
"""The most Newton steps that are taken."""

_BISECTIONS = 20
# The greatest relative step, and the share of the way to a weight of 0.
_LONGEST, _TO_BOUNDARY = 100.0, 0.99
# Relative steps shorter than this are taken whole: Newton's method converges there.
_LOCAL = 0.3


class Bargain(NamedTuple):
    """Weights of a bargain, and how well they keep it.

    Attributes:
      weights: ``[R]``; positive for rows in use, else 0.
      residual: ``[]``, the greatest relative departure from the fixed point,
        :math:`|(G w)_i / w_i^{-p} - 1|`, over the rows in use, and what rounding in
        :math:`G w` may add to it; about 1 or more where no bargain exists.
      iterations: ``[]``, the number of Newton steps.
    """

    weights: Float[Array, " R"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


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


class _Search(NamedTuple):
    """Where a search is: the weights, whether they will do, and the best so far."""

    current: Float[Array, " R"]
    converged: Bool[Array, ""]
    best: Float[Array, " R"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


@jax.jit
def solve_nash_mtl(
    gramian: Float[Array, "R R"], *, mask: Bool[Array, " R"] | None = None
) -> Bargain:
    r"""Find the weights of the Nash bargain between the objectives (Nash-MTL).

    .. math:: G w = 1 / w, \qquad w > 0.

    The update :math:`J^\top w` then has the length :math:`\sqrt m` for m rows in use,
    whatever the lengths of the gradients: scaling one row leaves the update as it is.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      mask: ``[R]``; a row where it is False gets weight 0.

    Returns:
      A :class:`Bargain`, found in at most ``MAX_ITERATIONS`` steps. Where no direction
      descends all objectives there is no bargain: the weights stay bounded (by some 10⁴
      times those of unrelated gradients, in float32), and the residual is about 1 or
      more.

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
    r"""Find the weights of the alpha-fair allocation between the objectives.

    .. math:: G w = w^{-1/\alpha}, \qquad w > 0.

    It maximises :math:`\sum_i (d \cdot g_i)^{1-\alpha} / (1-\alpha)` over directions of
    one length: :math:`\alpha \to 0` is the plain sum, 1 is Nash-MTL's proportional
    fairness, 2 minimal potential delay, :math:`\alpha \to \infty` max-min fairness.
    This is not :func:`fairjax.fairgrad`, which is another method of the same name.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      alpha: :math:`\alpha > 0`; may be traced. From about ½ to 20 float32 is enough for
        a residual below 1e-3; below, ever more resolution is needed.
      mask: ``[R]``; a row where it is False gets weight 0.

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
    r"""Weigh rows as the objectives would agree on in a Nash bargain (Nash-MTL).

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
                    f"{len(state.solution)} weights; there are {len(used)} rows. "
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
    r"""Weigh rows by an alpha-fair allocation between the objectives.

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
    r"""Minimise ½ vᵀAv − Σ c φ(v), where diag(A) = c."""
    dtype = matrix.dtype
    size = matrix.shape[0]
    eps = jnp.asarray(jnp.finfo(dtype).eps, dtype)
    # So slight that weights a hundred times those of unrelated rows do not feel it, it
    # bounds them where no bargain exists.
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
        low, high = bisect(is_falling, jnp.zeros((), dtype), most, _BISECTIONS)
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

    # The best of all equal weights, were there none of the greatest conflicts.
    total = jnp.maximum(jnp.sum(matrix), 1e-3 * jnp.sum(shares))
    level = (jnp.sum(shares) / total) ** (1.0 / (1.0 + power))
    first = jnp.full(size, 1.0, dtype) * level
    residual, converged = measure(first)
    start = _Search(first, converged, first, residual, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, step, start)


def _newton_direction(
    hessian: Float[Array, "R R"], gradient: Float[Array, " R"]
) -> Float[Array, " R"]:
    """Solve with the Hessian in unit scale, a resolution added to its diagonal."""
    size = hessian.shape[0]
    eps = jnp.finfo(hessian.dtype).eps
    scale = 1.0 / jnp.sqrt(jnp.diagonal(hessian))
    unit = hessian * scale[:, None] * scale[None, :]
    factor = jnp.linalg.cholesky(unit + size * eps * jnp.eye(size, dtype=unit.dtype))
    solved = scale * jax.scipy.linalg.cho_solve((factor, True), scale * gradient)
    # A factor that rounding has spoilt is not finite.
    return jnp.where(jnp.all(jnp.isfinite(solved)), solved, scale**2 * gradient)
