r"""Weights that divide the update between the objectives by a bargain.

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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax.solvers._units import matmul, normalised, usable_rows

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


class _Search(NamedTuple):
    """Where a search is: the weights, whether they will do, and the best so far."""

    current: Float[Array, " R"]
    converged: Bool[Array, ""]
    best: Float[Array, " R"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


@jax.jit
def nash_mtl(
    gramian: Float[Array, "R R"], *, mask: Bool[Array, " R"] | None = None
) -> Bargain:
    r"""Weights of the Nash bargain between the objectives (Nash-MTL).

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
    return fairgrad_alpha(gramian, alpha=1.0, mask=mask)


@jax.jit
def fairgrad_alpha(
    gramian: Float[Array, "R R"],
    *,
    alpha: float | Float[Array, ""] = 1.0,
    mask: Bool[Array, " R"] | None = None,
) -> Bargain:
    r"""Weights of the alpha-fair allocation between the objectives.

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
      A :class:`Bargain`; see :func:`nash_mtl`.

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

        def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low + high) / 2
            gained = shares * (weights * (1 + middle * relative)) ** -power
            rising = slope + bend * middle > jnp.sum(direction * gained)
            return jnp.where(rising, low, middle), jnp.where(rising, middle, high)

        shrinking = jnp.max(-relative)
        most = _TO_BOUNDARY / jnp.maximum(shrinking, _TO_BOUNDARY / _LONGEST)
        low, high = jax.lax.fori_loop(
            0, _BISECTIONS, halve, (jnp.zeros((), dtype), most)
        )
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
