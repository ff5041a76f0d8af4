r"""Quadratic programs over the non-negative orthant, from a Gram matrix alone.

Every method of this package that solves a constrained problem reduces to

.. math:: \min_{z \ge 0} \tfrac12 z^\top G z + q^\top z

with a Gram matrix :math:`G`. The matrix may be singular and, rounded to float32, may
have slightly negative eigenvalues.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fairjax.reconcilers._units import matmul, usable_rows
from fairjax.types import vary_like

MAX_ITERATIONS = 100
# Factors that shorten Newton directions. The least is very small, since on dependent
# rows a direction may be a million times too long.
_SHARES = 2.0 ** -np.array([0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 22])
# Iterations without a decrease of the objective before the solver gives up.
_PATIENCE = 6
# Problems that take more steps are degenerate, and may stop at a greater residual.
_EXACT = 8
# From this step on, steps of degenerate problems are damped more.
_EASY = 12
# Most steps of each kind in a round, and in all rounds, of problems with one matrix.
_GRADIENT_STEPS, _SPLITTING_STEPS, _MOST_STEPS = 200, 300, 1700
# The penalty of the splitting: a smaller one finds short directions sooner, and others
# later.
_PENALTY = 0.003


class NonnegativeQP(NamedTuple):
    """Solution of :func:`nonnegative_qp`.

    Attributes:
      solution: ``z [*batch, K]``, ≥ 0.
      residual: ``[*batch]``, the greatest ``|min(z, G z + q)|``, divided by the
        greatest ``|q|``.
      iterations: ``[*batch]``, number of Newton steps, at most 100.
    """

    solution: Float[Array, "*batch K"]
    residual: Float[Array, "*batch"]
    iterations: Int[Array, "*batch"]


class Rows(NamedTuple):
    """A Gram matrix of rows scaled to about one length.

    Attributes:
      gramian: ``[K, K]`` inner products of the scaled rows, whose lengths are from 1/2
        to 1. An unused row has length 1 and is orthogonal to all others.
      lengths: ``[K]``, lengths of the scaled rows.
      scales: ``[K]``, the powers of two that divided the rows; 1 for an unused row.
      used: ``[K]``, whether a row is neither masked nor zero.
    """

    gramian: Float[Array, "K K"]
    lengths: Float[Array, " K"]
    scales: Float[Array, " K"]
    used: Bool[Array, " K"]


def scale_rows(
    gramian: Float[Array, "K K"], mask: Bool[Array, " K"] | None = None
) -> Rows:
    """Scales the rows of a Gram matrix to about one length, without rounding.

    With ``z`` scaled accordingly, a problem over ``z ≥ 0`` stays the same, and is about
    as well conditioned as scaling can make it. Division by the rows' norms would round
    the inner products, which changes the problem where rows nearly cancel each other.

    Example:
      >>> import jax.numpy as jnp
      >>> scale_rows(jnp.array([[4.0, -3.0], [-3.0, 9.0]])).gramian
      Array([[ 0.25  , -0.1875],
             [-0.1875,  0.5625]], dtype=float32)
    """
    used = usable_rows(gramian, mask)
    norms = jnp.sqrt(jnp.where(used, jnp.diagonal(gramian), 1.0))
    scales = jnp.ldexp(jnp.ones_like(norms), jnp.frexp(norms)[1])
    scales = jnp.where(used, scales, 1.0)
    scaled = gramian / scales[:, None] / scales[None, :]
    scaled = jnp.where(used[:, None] & used[None, :], scaled, 0.0)
    scaled = scaled + jnp.diag(jnp.where(used, 0.0, 1.0).astype(gramian.dtype))
    return Rows(scaled, norms / scales, scales, used)


@jax.jit
def nonnegative_qp(
    gramian: Float[Array, "K K"],
    linear: Float[Array, " K"],
    start: Float[Array, " K"] | None = None,
) -> NonnegativeQP:
    r"""Minimises :math:`\tfrac12 z^\top G z + q^\top z` over :math:`z \ge 0`.

    The solver takes projected Newton steps (Bertsekas). With :math:`w = G z + q`,
    coordinates at zero whose :math:`w` is positive stay at zero, and the others move by
    :math:`-(G + \delta I)^{-1} w`. A step tries twelve lengths, each projected, and
    takes the length with the least objective. The damping :math:`\delta` grows while
    steps are shortened, and shrinks again to a few units of rounding, as in Levenberg
    and Marquardt's method. The damping affects the step, not the solution: :math:`w` is
    computed from the undamped :math:`G`, in about twice the precision, so that the
    steps also refine the solution.

    The optimum exists if :math:`q` is ``G u`` or :math:`G` is positive definite.
    Otherwise the objective may have no minimum; ``z`` then grows, and the residual
    stays large.

    Args:
      gramian: ``G [K, K]``, symmetric, with a diagonal of at most about 1; see
        :func:`scale_rows`.
      linear: ``q [K]``.
      start: ``[K]``, ≥ 0, the starting point; zero by default.

    Returns:
      ``z``, its residual, and the number of steps.

    References:
      Bertsekas, *Projected Newton methods for optimization problems with simple
      constraints*, SIAM J. Control and Optimization, 1982.

    Example:
      >>> import jax.numpy as jnp
      >>> gram = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
      >>> nonnegative_qp(gram, jnp.array([1.0, -0.5])).solution
      Array([0. , 0.5], dtype=float32)
    """
    size = gramian.shape[0]
    dtype = gramian.dtype
    unit = jnp.finfo(dtype).eps
    identity = jnp.eye(size, dtype=dtype)
    shares = jnp.asarray(_SHARES, dtype)
    least_damping = unit * (8 + size / 4)
    scale = jnp.max(jnp.abs(linear))
    scale = jnp.where(scale > 0, scale, 1.0)
    linear = linear / scale
    bits = _slice_bits(size, dtype)
    parts = jnp.stack(_slices(gramian, bits))

    def gradient(z: Array) -> Array:
        return _product(parts, z, bits) + linear

    def error(z: Array, w: Array) -> Array:
        return jnp.max(jnp.abs(jnp.minimum(z, w)))

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        count, z, w, residual, damping, idle, best_z, least = carry
        floor = jnp.where(count < _EASY, 0.0, residual / 10)
        added = jnp.maximum(damping, floor) * identity
        free = (z > jnp.minimum(1e-3, residual)) | (w <= 0)
        system = jnp.where(free[:, None] & free[None, :], gramian + added, identity)
        newton = _solve(system, jnp.where(free, -w, 0.0)[:, None])[:, 0]
        solved = jnp.all(jnp.isfinite(newton))
        direction = jnp.where(free, newton, -jnp.maximum(w, z))
        direction = jnp.where(solved, direction, 0.0)
        moves = jnp.maximum(z + shares[:, None] * direction, 0.0) - z
        # Damping in the objective, so that the search does not descend along rounding.
        change = jnp.sum(
            moves * (w + matmul(moves, gramian) / 2 + least_damping * moves / 2),
            axis=1,
        )
        best = jnp.argmin(change)
        z = jnp.where(change[best] < 0, z + moves[best], z)
        w = gradient(z)
        residual = error(z, w)
        best_z = jnp.where(residual < least, z, best_z)
        least = jnp.minimum(residual, least)
        whole = solved & (shares[best] > 0.3)
        damping = jnp.where(whole, jnp.maximum(damping / 4, least_damping), 4 * damping)
        idle = jnp.where(change[best] < -100 * unit**2, 0, idle + 1)
        return count + 1, z, w, residual, damping, idle, best_z, least

    def unfinished(carry: tuple[Array, ...]) -> Array:
        count, _, _, residual, _, idle, _, _ = carry
        enough = jnp.where(count < _EXACT, 2 * unit, 8 * unit)
        unsolved = (residual > enough) & (idle < _PATIENCE)
        return unsolved & (count < MAX_ITERATIONS)

    z = jnp.zeros_like(linear) if start is None else start / scale
    w = linear if start is None else gradient(z)
    residual = error(z, w)
    damping = jnp.asarray(least_damping, dtype)
    zero = jnp.zeros((), jnp.int32)
    first = zero, z, w, residual, damping, zero, z, residual
    last = jax.lax.while_loop(unfinished, step, vary_like(first, gramian))
    # The last iterate may be worse, if rounding made the matrix indefinite.
    return NonnegativeQP(last[6] * scale, last[7], last[0])


@jax.jit
def nonnegative_qps(
    gramian: Float[Array, "K K"], linear: Float[Array, "N K"]
) -> NonnegativeQP:
    r"""Minimises :math:`\tfrac12 z^\top G z + q_n^\top z` over :math:`z \ge 0`, each n.

    A Newton step of :func:`nonnegative_qp` factorizes a matrix for each problem. Here
    all problems share one factorization, and a step is a product ``[N, K] [K, K]``.

    The problems take accelerated projected gradient steps (FISTA, with restarts). If a
    residual stays above 8 units of rounding, all problems take steps of an operator
    splitting (ADMM), which finds combinations of rows that nearly cancel each other,
    and then gradient steps again. A problem keeps the best of its solutions. After
    three rounds, a problem whose residual is above 100 units takes Newton steps.

    Args:
      gramian: ``G [K, K]`` as in :func:`nonnegative_qp`. In float64 few problems reach
        8 units, and most take Newton steps.
      linear: ``q [N, K]``, each with a minimum.

    Returns:
      ``z [N, K]``, the residuals ``[N]``, and ``[N]`` times the number of steps that
      all problems took, at most 1,700; Newton steps are not counted.

    References:
      Beck and Teboulle, *A fast iterative shrinkage-thresholding algorithm for linear
      inverse problems*, SIAM J. Imaging Sciences, 2009; O'Donoghue and Candès,
      *Adaptive restart for accelerated gradient schemes*, Foundations of Computational
      Mathematics, 2015; Boyd et al., *Distributed optimization and statistical learning
      via the alternating direction method of multipliers*, 2011.

    Example:
      >>> import jax.numpy as jnp
      >>> gram = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
      >>> linear = jnp.array([[1.0, -0.5], [0.0, -0.75]])
      >>> nonnegative_qps(gram, linear).solution.round(3)
      Array([[0. , 0.5],
             [0.5, 1. ]], dtype=float32)
    """
    unit = jnp.finfo(gramian.dtype).eps
    scale = jnp.max(jnp.abs(linear), axis=1, keepdims=True)
    scale = jnp.where(scale > 0, scale, 1.0)
    linear = linear / scale
    steepest = _eigenvalue_bound(gramian)

    def gradient(z: Array) -> Array:
        return matmul(z, gramian) + linear

    def errors(z: Array) -> Array:
        return jnp.max(jnp.abs(jnp.minimum(z, gradient(z))), axis=1)

    def descend(start: Array) -> tuple[Array, Array]:
        def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            count, z, ahead, weight, _ = carry
            after = jnp.maximum(ahead - gradient(ahead) / steepest, 0.0)
            # A restart where the momentum points uphill.
            uphill = jnp.sum((ahead - after) * (after - z), axis=1, keepdims=True) > 0
            weight = jnp.where(uphill, 1.0, weight)
            heavier = (1 + jnp.sqrt(1 + 4 * weight**2)) / 2
            move = jnp.max(jnp.abs(after - ahead))
            ahead = after + (weight - 1) / heavier * (after - z)
            return count + 1, after, ahead, heavier, move

        def unfinished(carry: tuple[Array, ...]) -> Array:
            return (carry[-1] * steepest > 2 * unit) & (carry[0] < _GRADIENT_STEPS)

        first = jnp.zeros((), jnp.int32), start, start, jnp.ones_like(scale)
        infinite = jnp.full((), jnp.inf, scale.dtype)
        first = vary_like((*first, infinite), gramian)
        count, z, *_ = jax.lax.while_loop(unfinished, step, first)
        return z, count

    def split(start: Array) -> Array:
        identity = jnp.eye(len(gramian), dtype=gramian.dtype)
        inverse = _solve(gramian + _PENALTY * identity, identity)

        def step(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            z, dual = carry
            # From the residual of z, so that the inverse's rounding does not matter.
            move = matmul(gradient(z) + _PENALTY * dual, inverse)
            relaxed = z + dual - 1.6 * move
            after = jnp.maximum(relaxed, 0.0)
            return after, relaxed - after

        dual = -jnp.maximum(gradient(start), 0.0) / _PENALTY
        first = vary_like((start, dual), gramian)
        return jax.lax.fori_loop(0, _SPLITTING_STEPS, step, first)[0]

    def again(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        count, z, residual = carry
        other, steps = descend(split(z))
        error = errors(other)
        z = jnp.where((error < residual)[:, None], other, z)
        count = count + _SPLITTING_STEPS + steps
        return count, z, jnp.minimum(error, residual)

    def unsolved(carry: tuple[Array, ...]) -> Array:
        count, _, residual = carry
        enough = jnp.where(count <= _GRADIENT_STEPS, 8 * unit, 100 * unit)
        return (jnp.max(residual) > enough) & (count < _MOST_STEPS)

    def finish(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        z, residual, left = carry
        worst = jnp.argmax(jnp.where(left, residual, -1.0))
        found = nonnegative_qp(gramian, linear[worst], z[worst])
        better = found.residual < residual[worst]
        z = z.at[worst].set(jnp.where(better, found.solution, z[worst]))
        residual = residual.at[worst].min(found.residual)
        return z, residual, left.at[worst].set(False)

    z, count = descend(jnp.zeros_like(linear))
    first = vary_like((count, z, errors(z)), gramian)
    count, z, residual = jax.lax.while_loop(unsolved, again, first)
    first = z, residual, residual > 100 * unit
    z, residual, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[2]), finish, first)
    return NonnegativeQP(z * scale, residual, jnp.full_like(residual, count, jnp.int32))


def _eigenvalue_bound(matrix: Array) -> Array:
    """Bounds the greatest eigenvalue by the 32nd root of the Frobenius norm of G³²."""
    norm = jnp.linalg.norm(matrix)
    bound = norm
    for squarings in range(1, 6):
        matrix = matmul(matrix / norm, matrix / norm)
        norm = jnp.linalg.norm(matrix)
        bound = bound * norm ** (0.5**squarings)
    return bound


def _solve(matrix: Array, right: Array) -> Array:
    """Solves linear systems; returns NaNs if the matrix is not positive definite."""
    factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    half = jax.lax.linalg.triangular_solve(factor, right, left_side=True, lower=True)
    return jax.lax.linalg.triangular_solve(
        factor, half, left_side=True, lower=True, transpose_a=True
    )


def _slice_bits(size: int, dtype: np.dtype) -> int:
    """Returns the most bits of slices whose sums of products are exact."""
    return max((jnp.finfo(dtype).nmant + 1 - max(size - 1, 1).bit_length()) // 2, 1)


def _slices(array: Array, bits: int) -> list[Array]:
    """Splits an array, |entries| ≲ 1, into three slices of ``bits`` and a rest."""
    parts = []
    for number in range(1, 4):
        scale = 2.0 ** (bits * number)
        parts.append(jnp.round(array * scale) / scale)
        array = array - parts[-1]
    return [*parts, array]


def _product(parts: Array, vector: Array, bits: int) -> Array:
    """Multiplies slices of ``G`` by ``v`` in about twice the precision (Ozaki)."""
    largest = jnp.max(jnp.abs(vector))
    # An exact power of two, so that the division does not round.
    scale = jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1])
    others = _slices(vector / scale, bits)
    # All products of slices at once: [slices of G, K, slices of v].
    products = matmul(parts, jnp.stack(others, axis=1))
    total = jnp.zeros_like(vector)
    for level in range(5):
        for number in range(len(others)):
            if 0 <= level - number < len(others):
                total = total + products[number, :, level - number]
    return total * scale
