r"""UPGrad, DualProj, positive-sum: projection onto the dual cone of the gradients.

The dual cone of the rows :math:`g_k` of :math:`J` holds the vectors :math:`x` with
:math:`g_k \cdot x \ge 0` for all :math:`k`: to first order, a step against such an
:math:`x` increases no loss.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
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
    unsolved,
)
from fairjax.reconcilers.quadratic import nonnegative_qp, scale_rows
from fairjax.types import (
    Numbers,
    Scalar,
    check_choice,
    check_nonnegative,
    check_whole,
    is_known,
)

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


class PositiveSumState(NamedTuple):
    """Carried by :func:`positive_sum`.

    Attributes:
      residual: ``[]``, of the last update.
      iterations: ``[]``, of the last update.
      fallbacks: ``[]``, at how many updates the margins contradicted each other.
    """

    residual: Float[Array, ""]
    iterations: Int[Array, ""]
    fallbacks: Int[Array, ""]


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
    r"""Find the update closest to one gradient that leaves every other a margin.

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


def upgrad_step(
    reduction: Literal["mean", "sum"] = "mean",
    *,
    preference: Numbers | None = None,
    ridge: Scalar = 0.0,
) -> Step:
    r"""Project each row onto the dual cone of all rows, then add up (UPGrad).

    .. math:: w = \sum_i \arg\min_{v \ge u_i} v^\top G v

    with :math:`u_i = e_i / m` (``"mean"``, over the :math:`m` rows in use, as
    published), :math:`u_i = e_i` (``"sum"``) or :math:`u_i = p_i e_i` with a
    ``preference`` :math:`p`. The update conflicts with no row. Where
    no rows conflict it is their mean, or their sum. See
    :func:`fairjax.solvers.dual_cone` for what is solved, and how exactly.

    Args:
      reduction: See above; not read with a preference.
      preference: Weights ≥ 0 of the projected rows, one a row. A row of weight 0 adds
        nothing, but is not harmed.
      ridge: Added to the diagonal of G, as a share of its trace, ≥ 0; may be traced. 0
        is exact. TorchJD's default is 1e-4, which is more stable from one update to the
        next where rows nearly depend on each other, but leaves a little conflict.

    Returns:
      A step ``[R, K] -> [1, K]``, of state ``SolverState``.

    Raises:
      ValueError: An unknown reduction, a ridge below 0, or a preference that is
        negative, all 0 or does not fit the rows.

    References:
      Quinton and Rey, *Jacobian Descent for Multi-Objective Optimization*, 2024.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.upgrad("sum")
      >>> gram = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(2)
      Array([[2. , 1.5]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.upgrad(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [0.25, 0.75]
    """
    check_choice("reduction", reduction, "mean", "sum")
    return _projected(jnp.diag, preference, ridge, mean=reduction == "mean")


def dualproj_step(*, preference: Numbers | None = None, ridge: Scalar = 0.0) -> Step:
    r"""Project the mean of the rows onto their dual cone (DualProj).

    .. math:: w = \arg\min_{v \ge 1/m} v^\top G v ,

    so that the update is the closest to the mean, over the :math:`m` rows in use, that
    conflicts with no row.

    Args:
      preference: Weights ≥ 0 of the rows instead of :math:`1/m`, one a row.
      ridge: As in :func:`fairjax.steps.upgrad`.

    Returns:
      A step ``[R, K] -> [1, K]``, of state ``SolverState``.

    Raises:
      ValueError: A ridge below 0, or a preference that is negative, all 0 or does not
        fit the rows.

    References:
      Lopez-Paz and Ranzato, *Gradient Episodic Memory for Continual Learning*, NeurIPS
      2017.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.dualproj()
      >>> gram = jnp.array([[1.0, -2.0], [-2.0, 5.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(3)
      Array([[1. , 0.5]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.dualproj(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-2.0, 1.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [0.0, 0.5]
    """
    return _projected(lambda row: row[None], preference, ridge, mean=True)


def positive_sum_step(
    reference: int = 0,
    *,
    baseline_losses: Numbers | None = None,
    strength: Scalar = 0.1,
    limit: Scalar = 1e3,
) -> Step:
    r"""Find the update closest to the task's gradient that harms no subgroup. Ours.

    With :math:`g_0` the task's gradient, row ``reference``, and a subgroup's in every
    other row,

    .. math:: \min_d\; \tfrac12 \|d - g_0\|^2
        \quad\text{subject to } d \cdot g_k \ge m_k , \quad k \ne 0 .

    A step against :math:`d` lowers the loss of subgroup :math:`k` by
    :math:`d \cdot g_k` for each unit of learning rate, to first order. So with margins
    :math:`m_k = 0`, the default, no subgroup is harmed, and the task's gradient is
    changed no more than that takes: where no subgroup conflicts with it, not at all.

    With ``baseline_losses``, the subgroups' losses under a model that the new one must
    not fall behind, a subgroup whose loss is above its baseline has the margin
    :math:`m_k = \text{strength} \cdot \|g_0\| \|g_k\|`, the others 0: it is not only
    spared, but helped until it has caught up.

    **Derivation.** The Lagrangian
    :math:`\tfrac12\|d - g_0\|^2 - \sum_k \lambda_k (d \cdot g_k - m_k)` is least at
    :math:`d = g_0 + \sum_k \lambda_k g_k`. Put in, it leaves the dual problem

    .. math:: \min_{\lambda \ge 0}\; \tfrac12 \lambda^\top G \lambda
        + \sum_k \lambda_k (g_0 \cdot g_k - m_k)

    over the subgroups' Gram matrix. The KKT conditions, necessary and sufficient, are
    :math:`\lambda_k \ge 0`, :math:`d \cdot g_k \ge m_k` and
    :math:`\lambda_k (d \cdot g_k - m_k) = 0`: only a subgroup that is held exactly at
    its margin pulls at the update.

    **The task.** With margins of 0, :math:`d` is the projection of :math:`g_0` onto a
    cone, and :math:`d \cdot g_0 = \|d\|^2`: the task is not harmed either. With
    positive margins :math:`d \cdot g_0 = \|d\|^2 - \sum_k \lambda_k m_k`, which may be
    negative: subgroups that are behind may be helped at the task's cost.

    **When no such update exists.** With margins of 0 there always is one, if only
    :math:`d = 0`, which means that the task cannot improve without harm. Positive
    margins may contradict each other. Then they are all taken as 0 in this update,
    and ``fallbacks`` in the state counts one. They count as contradictory where a
    :math:`\lambda_k \|g_k\|` exceeds ``limit`` :math:`\|g_0\|`, or a margin is missed
    by more than .001 of :math:`\|g_0\| \|g_k\|`.

    A subgroup that is masked, or whose gradient is zero, has no say. If the task's
    gradient is, the update is zero.

    Args:
      reference: The task's row.
      baseline_losses: ``[K]``, one for each objective (that of the reference is not
        read); may be traced. Needs ``losses`` at the update.
      strength: The margin as a cosine with the subgroup's gradient, 0 to 1; may be
        traced. Read with ``baseline_losses`` only.
      limit: See above, > 0; may be traced.

    Returns:
      A step ``[R, K] -> [1, K]``, of state ``PositiveSumState``.

    Raises:
      ValueError: A strength outside 0 to 1, or a limit of 0 or less; at the update, a
        reference that is no row, or no losses, or losses or baselines other than one
        for each row.

    References:
      Without margins it is the projection of Lopez-Paz and Ranzato, *Gradient Episodic
      Memory for Continual Learning*, NeurIPS 2017, with subgroups for past tasks.

    Example:
      The task's gradient (1, 0), and a subgroup's, (−1, 1), that conflicts with it:

      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.positive_sum()
      >>> gram = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(3)
      Array([[1. , 0.5]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.positive_sum(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [0.5, 0.5]
    """
    check_whole("reference", reference, 0)
    if is_known(strength) and not 0 <= strength <= 1:
        raise ValueError(f"strength is a cosine from 0 to 1, not {strength}.")
    if is_known(limit) and not limit > 0:
        raise ValueError(f"limit must be above 0, not {limit}.")

    def init(number: int) -> PositiveSumState:
        del number
        # Each its own buffer, so that the state can be donated.
        return PositiveSumState(*unsolved(), jnp.zeros((), jnp.int32))

    def update(rows: CurrentRows, state: Any) -> tuple[Array, PositiveSumState]:
        number, dtype = len(rows.coefficients), rows.gramian.dtype
        if not 0 <= reference < number:
            raise ValueError(
                f"reference row {reference} does not exist: there are {number} rows, "
                "from 0."
            )
        margins = None
        if baseline_losses is not None:
            baselines, losses = jnp.asarray(baseline_losses, dtype), rows.losses
            if losses is None:
                raise ValueError(
                    "positive_sum with baseline_losses needs the losses: pass "
                    "losses=values to update."
                )
            if baselines.shape != (number,) or losses.shape != (number,):
                raise ValueError(
                    "positive_sum needs one loss and one baseline for each row: "
                    f"{number} rows, losses of shape {losses.shape}, baseline_losses "
                    f"of shape {baselines.shape}."
                )
            margins = jnp.where(losses > baselines, jnp.asarray(strength, dtype), 0.0)
        most = jnp.asarray(limit, dtype)
        found = closest_update(
            rows.own, margins, reference=reference, limit=most, mask=rows.used
        )
        residual = found.residual.astype(jnp.float32)
        fallbacks = state.fallbacks + ~found.feasible
        state = PositiveSumState(residual, found.iterations, fallbacks)
        return rows.weighted(found.weights), state

    return make_step(update, init)


upgrad = transformation(upgrad_step)
dualproj = transformation(dualproj_step)
positive_sum = transformation(positive_sum_step)


def _projected(
    spread: Callable[[Array], Array],
    preference: Numbers | None,
    ridge: Scalar,
    *,
    mean: bool,
) -> Step:
    """A step that projects what a preference spreads to onto the dual cone."""
    check_nonnegative("ridge", ridge)
    check_preference(preference)

    def solve(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> DualCone:
        squares = jnp.diagonal(own)
        used = used & (squares > 0)
        added = jnp.asarray(ridge, own.dtype) * jnp.sum(jnp.where(used, squares, 0.0))
        own = own + jnp.diag(jnp.where(used, added, 0.0))
        given = row_preference(preference, own)
        if given is None:
            given = used.astype(own.dtype)
            given = given / jnp.maximum(jnp.sum(used), 1) if mean else given
        found = dual_cone(own, spread(jnp.where(used, given, 0.0)), mask=used)
        weights = jnp.sum(found.weights, axis=0)
        return DualCone(weights, jnp.max(found.residual), jnp.max(found.iterations))

    return solving(solve)
