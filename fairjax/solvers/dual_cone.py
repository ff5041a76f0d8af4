r"""Projection onto the dual cone of gradients: updates that harm no objective.

The dual cone of the rows :math:`g_k` of :math:`J` holds the vectors :math:`x` with
:math:`g_k \cdot x \ge 0` for all :math:`k`: to first order, a step against such an
:math:`x` increases no loss.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax.solvers._units import matmul
from fairjax.solvers.quadratic import nonnegative_qp, scale_rows

_FEASIBLE = 1e-3


class DualCone(NamedTuple):
    """What :func:`dual_cone` found.

    Attributes:
      weights: ``v [*batch, K]``; the projection is ``Jᵀ v``.
      residual: ``[*batch]``, the greatest violation of the KKT conditions of rows
        scaled to about one length, over the greatest inner product of such a row and
        ``Jᵀ u``.
      iterations: ``[*batch]``, Newton steps, at most 100.
    """

    weights: Float[Array, "*batch K"]
    residual: Float[Array, "*batch"]
    iterations: Int[Array, "*batch"]


class ClosestUpdate(NamedTuple):
    """What :func:`closest_update` found.

    Attributes:
      weights: ``[K]``; the update is ``Jᵀ weights``.
      residual: ``[]``, as that of :class:`DualCone`.
      iterations: ``[]``, Newton steps, at most 200.
      feasible: ``[]``, whether an update with the margins asked for was found; if not,
        the weights are those for margins of 0.
    """

    weights: Float[Array, " K"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]
    feasible: Bool[Array, ""]


@jax.jit
def dual_cone(
    gramian: Float[Array, "K K"],
    preference: Float[Array, "*batch K"],
    *,
    mask: Bool[Array, " K"] | None = None,
) -> DualCone:
    r"""Project combinations of gradients onto the dual cone of all of them.

    .. math:: \min_v\; v^\top G v \quad\text{subject to } v \ge u .

    The constraints are dual to those of the cone: :math:`x = J^\top v` is the point of
    the cone :math:`\{x : J x \ge 0\}` closest to :math:`J^\top u`. With
    :math:`z = v - u`, the KKT conditions are :math:`z \ge 0`, :math:`J x \ge 0` and
    :math:`z_k\, g_k \cdot x = 0`. The point :math:`x` is unique; where rows depend on
    each other, :math:`v` is not.

    In float32 the error of :math:`x` is below 1e-4 of :math:`\|J^\top u\|`, and mostly
    below 1e-6, for rows that depend on each other too. The exception are rows that
    nearly cancel each other: where a combination of them with weights of about 1 is
    shorter than about .01 of the rows, the rounding of :math:`G` hides its length, and
    the error is up to 2e-3 of the rows' lengths. Below 1e-3 the direction of that
    combination is lost too, and what :math:`x` owes to it. There, a float64
    ``gramian``, which is solved in float64, or a ridge on its diagonal helps.

    Args:
      gramian: ``G [K, K]`` inner products of the gradients. Their scales may differ.
      preference: ``u [*batch, K]``, ≥ 0 usually. All are solved side by side.
      mask: ``[K]``; rows where it is False, and rows that are zero, do not constrain
        the others and have the weight 0.

    Returns:
      ``v``, the residual and the number of steps of each problem.

    References:
      Quinton and Rey, *Jacobian Descent for Multi-Objective Optimization*, 2024,
      proposition 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> gram = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
      >>> solvers.dual_cone(gram, jnp.array([1.0, 0.0])).weights.round(2)
      Array([1. , 0.5], dtype=float32)
    """
    rows = scale_rows(gramian, mask)
    # Divided by the longest, so that squares of the norms do not overflow.
    longest = jnp.max(jnp.where(rows.used, rows.scales, 0.0))
    longest = jnp.where(longest > 0, longest, 1.0)
    scales = jnp.where(rows.used, rows.scales / longest, 0.0)

    def project(chosen: Array) -> tuple[Array, Array, Array]:
        scaled = chosen * scales
        linear = jnp.where(rows.used, matmul(rows.gramian, scaled), 0.0)
        found = nonnegative_qp(rows.gramian, linear)
        raised = found.solution * longest / rows.scales
        weights = jnp.where(rows.used, chosen + raised, 0.0)
        return weights, found.residual, found.iterations

    for _ in range(preference.ndim - 1):
        project = jax.vmap(project)
    return DualCone(*project(preference.astype(gramian.dtype)))


@functools.partial(jax.jit, static_argnames="reference")
def closest_update(
    gramian: Float[Array, "K K"],
    margins: Float[Array, " K"] | None = None,
    *,
    reference: int = 0,
    limit: float | Float[Array, ""] = 1e3,
    mask: Bool[Array, " K"] | None = None,
) -> ClosestUpdate:
    r"""The update closest to one gradient that leaves every other a margin.

    With :math:`g_0` the gradient of row ``reference``, and the cosine margins
    :math:`\kappa_k`,

    .. math:: \min_d\; \tfrac12 \|d - g_0\|^2
        \quad\text{subject to } d \cdot g_k \ge m_k = \kappa_k \|g_0\| \|g_k\|,
        \quad k \ne 0 .

    The Lagrangian :math:`\tfrac12\|d - g_0\|^2 - \sum_k \lambda_k (d \cdot g_k - m_k)`
    is least at :math:`d = g_0 + \sum_k \lambda_k g_k`. Put in, that leaves the dual
    problem

    .. math:: \min_{\lambda \ge 0}\; \tfrac12 \lambda^\top G \lambda
        + \sum_k \lambda_k (g_0 \cdot g_k - m_k),

    and the KKT conditions :math:`\lambda_k \ge 0`, :math:`d \cdot g_k \ge m_k`,
    :math:`\lambda_k (d \cdot g_k - m_k) = 0`. The primal problem is strictly convex, so
    :math:`d` is unique.

    With margins of 0 it is always feasible (:math:`d = 0`), and :math:`d` is the
    projection of :math:`g_0` onto a cone, so that
    :math:`d \cdot g_0 = \|d\|^2 \ge 0`: the reference is not harmed either. With
    positive margins :math:`d \cdot g_0 = \|d\|^2 - \sum_k \lambda_k m_k` may be
    negative, and margins may contradict each other: if and only if some
    :math:`\lambda \ge 0` has :math:`\sum_k \lambda_k g_k = 0` and
    :math:`\lambda^\top m > 0` (Farkas), and the dual is then unbounded. The problem is
    taken as infeasible where a :math:`\lambda_k \|g_k\|` exceeds ``limit``
    :math:`\|g_0\|` or a margin is missed by a cosine of more than 1e-3, and is solved
    once more with margins of 0.

    Args:
      gramian: ``G [K, K]`` inner products of the gradients.
      margins: ``κ [K]``; entry ``reference`` is not read. 0 by default.
      reference: The row of :math:`g_0`.
      limit: See above, > 0.
      mask: ``[K]``; rows where it is False, and rows that are zero, are left out. If
        the reference is, all weights are 0.

    Returns:
      Weights 1 for the reference and :math:`\lambda_k` for the others, the residual,
      the number of steps and whether the margins were feasible.

    Example:
      The gradients (1, 0) and (−1, 1): the closest update without harm to the second
      is (.5, .5).

      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> gram = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
      >>> solvers.closest_update(gram).weights.round(2)
      Array([1. , 0.5], dtype=float32)
    """
    rows = scale_rows(gramian, mask)
    row = jnp.arange(gramian.shape[0])
    bound = rows.used & (row != reference) & rows.used[reference]
    inner = jnp.where(bound, rows.gramian[:, reference], 0.0)
    pairs = bound[:, None] & bound[None, :]
    diagonal = row[:, None] == row[None, :]
    others = jnp.where(pairs | diagonal, rows.gramian, 0.0)
    first = nonnegative_qp(others, inner)
    second = first
    feasible = jnp.ones((), bool)
    if margins is not None:
        lengths = rows.lengths * rows.lengths[reference]
        asked = jnp.where(bound, margins, 0.0).astype(gramian.dtype)
        first = nonnegative_qp(others, inner - asked * lengths)
        reached = matmul(others, first.solution) + inner
        met = jnp.all(reached >= (asked - _FEASIBLE) * lengths)
        pulls = first.solution * rows.lengths
        feasible = met & (jnp.max(pulls) <= limit * rows.lengths[reference])
        # Where feasible there is nothing left to solve, so it takes no steps.
        second = nonnegative_qp(others, jnp.where(feasible, 0.0, inner))
    chosen = jnp.where(feasible, first.solution, second.solution)
    raised = chosen * rows.scales[reference] / rows.scales
    weights = jnp.where(row == reference, rows.used[reference], raised)
    iterations = first.iterations
    if margins is not None:
        iterations = iterations + second.iterations
    return ClosestUpdate(
        jnp.where(rows.used, weights, 0.0).astype(gramian.dtype),
        jnp.where(feasible, first.residual, second.residual),
        iterations,
        feasible,
    )
