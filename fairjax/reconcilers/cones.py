r"""UPGrad, DualProj, positive-sum, PCD: projection onto the dual cone of the gradients.

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
from fairjax.reconcilers.quadratic import nonnegative_qp, nonnegative_qps, scale_rows
from fairjax.types import (
    Numbers,
    Scalar,
    check_choice,
    check_decay,
    check_nonnegative,
    check_positive,
    check_whole,
    known_number,
)

_FEASIBLE = 1e-3
# From this number of entries on, projections take shared steps.
_TOGETHER = 64 * 64


class DualCone(NamedTuple):
    """Solution of :func:`dual_cone`.

    Attributes:
      weights: ``v [*batch, K]``; the projection is ``Jᵀ v``.
      residual: ``[*batch]``, the greatest violation of the KKT conditions, divided by
        the greatest inner product of a row and ``Jᵀ u``. Rows are scaled to about one
        length.
      iterations: ``[*batch]``, number of Newton steps, at most 100; or the number of
        steps that all problems shared, at most 1,700.
    """

    weights: Float[Array, "*batch K"]
    residual: Float[Array, "*batch"]
    iterations: Int[Array, "*batch"]


class ClosestUpdate(NamedTuple):
    """Solution of :func:`closest_update`.

    Attributes:
      weights: ``[K]``; the update is ``Jᵀ weights``.
      residual: ``[]``, as the residual of :class:`DualCone`.
      iterations: ``[]``, number of Newton steps, at most 200.
      feasible: ``[]``, whether an update with the given margins was found; if not, the
        weights are those for margins of 0.
    """

    weights: Float[Array, " K"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]
    feasible: Bool[Array, ""]


class PositiveSumState(NamedTuple):
    """State of :func:`positive_sum`.

    Attributes:
      residual: ``[]``, the solver's residual at the last update.
      iterations: ``[]``, the solver's iterations at the last update.
      fallbacks: ``[]``, the number of updates at which margins contradicted each other.
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
    r"""Projects combinations of gradients onto the dual cone of all gradients.

    .. math:: \min_v\; v^\top G v \quad\text{subject to } v \ge u .

    The constraints are dual to those of the cone: :math:`x = J^\top v` is the point of
    the cone :math:`\{x : J x \ge 0\}` closest to :math:`J^\top u`. With
    :math:`z = v - u`, the KKT conditions are :math:`z \ge 0`, :math:`J x \ge 0` and
    :math:`z_k\, g_k \cdot x = 0`. The point :math:`x` is unique; where rows depend on
    each other, :math:`v` is not.

    In float32 the error of :math:`x` is below 1e-4 of :math:`\|J^\top u\|`, and mostly
    below 1e-6, also for linearly dependent rows. Rows that nearly cancel each other are
    the exception. Suppose that a combination of rows with weights of about 1 is shorter
    than about .01 of the rows. Then the rounding of :math:`G` hides the combination's
    length, and the error is up to 2e-3 of the rows' lengths. Below 1e-3 the
    combination's direction is lost too, and its part in :math:`x`. Then a float64
    ``gramian``, which is solved in float64, or a ridge on its diagonal helps.

    Args:
      gramian: ``G [K, K]`` inner products of the gradients. The gradients' scales may
        differ.
      preference: ``u [*batch, K]``, ≥ 0 usually. All problems are solved in parallel.
        Float32 problems with 64 × 64 entries or more share their steps, whose work is
        that of matrix products; fewer problems take Newton steps.
      mask: ``[K]``; rows where the mask is False, and rows that are zero, do not
        constrain the others and have the weight 0.

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
    # Division by the greatest scale keeps squares of norms from overflowing.
    longest = jnp.max(jnp.where(rows.used, rows.scales, 0.0))
    longest = jnp.where(longest > 0, longest, 1.0)
    scales = jnp.where(rows.used, rows.scales / longest, 0.0)

    def project(chosen: Array) -> tuple[Array, Array, Array]:
        linear = matmul(chosen * scales, rows.gramian)
        linear = jnp.where(rows.used, linear, 0.0)
        together = gramian.dtype == jnp.float32 and chosen.size >= _TOGETHER
        solve = nonnegative_qps if together else jax.vmap(nonnegative_qp, (None, 0))
        found = solve(rows.gramian, linear)
        raised = found.solution * longest / rows.scales
        weights = jnp.where(rows.used, chosen + raised, 0.0)
        return weights, found.residual, found.iterations

    *batch, size = preference.shape
    chosen = preference.astype(gramian.dtype).reshape(-1, size)
    weights, residual, iterations = project(chosen)
    return DualCone(
        weights.reshape(*batch, size),
        residual.reshape(batch),
        iterations.reshape(batch),
    )


@functools.partial(jax.jit, static_argnames="reference")
def closest_update(
    gramian: Float[Array, "K K"],
    margins: Float[Array, " K"] | None = None,
    *,
    reference: int = 0,
    limit: float | Float[Array, ""] = 1e3,
    mask: Bool[Array, " K"] | None = None,
) -> ClosestUpdate:
    r"""Finds the update closest to one gradient, subject to margins for the others.

    With :math:`g_0` the gradient of row ``reference``, and the cosine margins
    :math:`\kappa_k`,

    .. math:: \min_d\; \tfrac12 \|d - g_0\|^2
        \quad\text{subject to } d \cdot g_k \ge m_k = \kappa_k \|g_0\| \|g_k\|,
        \quad k \ne 0 .

    The Lagrangian :math:`\tfrac12\|d - g_0\|^2 - \sum_k \lambda_k (d \cdot g_k - m_k)`
    is least at :math:`d = g_0 + \sum_k \lambda_k g_k`. Substitution leaves the dual
    problem

    .. math:: \min_{\lambda \ge 0}\; \tfrac12 \lambda^\top G \lambda
        + \sum_k \lambda_k (g_0 \cdot g_k - m_k),

    and the KKT conditions :math:`\lambda_k \ge 0`, :math:`d \cdot g_k \ge m_k`,
    :math:`\lambda_k (d \cdot g_k - m_k) = 0`. The primal problem is strictly convex, so
    :math:`d` is unique.

    With margins of 0 the problem is always feasible (:math:`d = 0`), and :math:`d` is
    the projection of :math:`g_0` onto a cone. Then
    :math:`d \cdot g_0 = \|d\|^2 \ge 0`, so the reference is not harmed either. With
    positive margins, :math:`d \cdot g_0 = \|d\|^2 - \sum_k \lambda_k m_k` may be
    negative, and margins may contradict each other. They do if and only if some
    :math:`\lambda \ge 0` has :math:`\sum_k \lambda_k g_k = 0` and
    :math:`\lambda^\top m > 0` (Farkas); the dual is then unbounded. The problem counts
    as infeasible if a :math:`\lambda_k \|g_k\|` exceeds ``limit`` :math:`\|g_0\|`, or
    if a margin is missed by a cosine of more than 1e-3. An infeasible problem is solved
    again with margins of 0.

    Args:
      gramian: ``G [K, K]`` inner products of the gradients.
      margins: ``κ [K]``; entry ``reference`` is not read. 0 by default.
      reference: The row of :math:`g_0`.
      limit: See above, > 0.
      mask: ``[K]``; rows where the mask is False, and rows that are zero, are left out.
        If the reference is left out, all weights are 0.

    Returns:
      Weights 1 for the reference and :math:`\lambda_k` for the others, the residual,
      the number of steps, and whether the margins were feasible.

    Example:
      The gradients are (1, 0) and (−1, 1). The closest update that does not harm the
      second is (.5, .5).

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
        # If the margins are feasible, this problem is already solved in 0 steps.
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
    r"""Projects each row onto the dual cone of all rows, then adds up (UPGrad).

    .. math:: w = \sum_i \arg\min_{v \ge u_i} v^\top G v

    with :math:`u_i = e_i / m` (``"mean"``, over the :math:`m` rows in use, as
    published), :math:`u_i = e_i` (``"sum"``) or :math:`u_i = p_i e_i` with a
    ``preference`` :math:`p`. The update does not conflict with any row. If no rows
    conflict with each other, the update is their mean or their sum. See
    :func:`fairjax.solvers.dual_cone` for the problem and the precision of its solution.

    Args:
      reduction: See above; not read with a preference.
      preference: Weights ≥ 0 of the projected rows, one for each row. A row of weight 0
        adds nothing, but is not harmed.
      ridge: A fraction ≥ 0 of the trace of G, added to the diagonal of G; may be
        traced. 0 is exact. TorchJD's default is 1e-4, which leaves a little conflict,
        but is more stable between updates where rows are nearly dependent.

    Returns:
      A step ``[R, K] -> [1, K]`` with a ``SolverState``.

    Raises:
      ValueError: The reduction is unknown; the ridge is below 0; or the preference is
        negative, all 0, or does not fit the rows.

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
    r"""Projects the mean of the rows onto their dual cone (DualProj).

    .. math:: w = \arg\min_{v \ge 1/m} v^\top G v .

    So the update is closest to the mean, over the :math:`m` rows in use, among the
    updates that do not conflict with any row.

    Args:
      preference: Weights ≥ 0 of the rows instead of :math:`1/m`, one for each row.
      ridge: As in :func:`fairjax.steps.upgrad`.

    Returns:
      A step ``[R, K] -> [1, K]`` with a ``SolverState``.

    Raises:
      ValueError: The ridge is below 0; or the preference is negative, all 0, or does
        not fit the rows.

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
    r"""Finds the update closest to the task's gradient that harms no subgroup.

    With :math:`g_0` the task's gradient, row ``reference``, and a subgroup's gradient
    :math:`g_k` in every other row,

    .. math:: \min_d\; \tfrac12 \|d - g_0\|^2
        \quad\text{subject to } d \cdot g_k \ge m_k , \quad k \ne 0 .

    A step against :math:`d` lowers the loss of subgroup :math:`k` by
    :math:`d \cdot g_k` for each unit of learning rate, to first order. So with margins
    :math:`m_k = 0`, the default, no subgroup is harmed, and the task's gradient changes
    as little as possible. If no subgroup conflicts with the task's gradient, it stays
    as it is.

    ``baseline_losses`` are the subgroups' losses under a model that the new model must
    not fall behind. A subgroup whose loss is above its baseline has the margin
    :math:`m_k = \text{strength} \cdot \|g_0\| \|g_k\|`, which lowers its loss until the
    baseline is reached; the other subgroups have the margin 0.

    **Derivation.** The Lagrangian
    :math:`\tfrac12\|d - g_0\|^2 - \sum_k \lambda_k (d \cdot g_k - m_k)` is least at
    :math:`d = g_0 + \sum_k \lambda_k g_k`. Substitution leaves the dual problem

    .. math:: \min_{\lambda \ge 0}\; \tfrac12 \lambda^\top G \lambda
        + \sum_k \lambda_k (g_0 \cdot g_k - m_k)

    over the subgroups' Gram matrix. The KKT conditions, necessary and sufficient, are
    :math:`\lambda_k \ge 0`, :math:`d \cdot g_k \ge m_k` and
    :math:`\lambda_k (d \cdot g_k - m_k) = 0`. So only a subgroup exactly at its margin
    contributes to the update.

    **The task.** With margins of 0, :math:`d` is the projection of :math:`g_0` onto a
    cone, and :math:`d \cdot g_0 = \|d\|^2`: the task is not harmed either. With
    positive margins :math:`d \cdot g_0 = \|d\|^2 - \sum_k \lambda_k m_k`, which may be
    negative: subgroups above their baselines may be helped at the task's cost.

    **When no such update exists.** With margins of 0 an update always exists, at least
    :math:`d = 0`, which means that the task cannot improve without harm. Positive
    margins may contradict each other. The update then uses margins of 0 for all
    subgroups, and ``fallbacks`` in the state increases by 1. Margins count as
    contradictory if a :math:`\lambda_k \|g_k\|` exceeds ``limit`` :math:`\|g_0\|`, or
    if a margin is missed by more than .001 of :math:`\|g_0\| \|g_k\|`.

    A subgroup that is masked, or whose gradient is zero, is left out. If the task is
    masked, or its gradient is zero, the update is zero.

    Args:
      reference: The task's row.
      baseline_losses: ``[K]``, one for each objective (the reference's value is not
        read); may be traced. Needs ``losses`` at the update.
      strength: The margin as a cosine with the subgroup's gradient, 0 to 1; may be
        traced. Read with ``baseline_losses`` only.
      limit: See above, > 0; may be traced.

    Returns:
      A step ``[R, K] -> [1, K]`` with a ``PositiveSumState``.

    Raises:
      ValueError: The strength lies outside 0 to 1, or the limit is 0 or less. At the
        update: the reference is not a row; with baselines, there is not one loss and
        one baseline for each row.

    References:
      Without margins this is the projection of Lopez-Paz and Ranzato, *Gradient
      Episodic Memory for Continual Learning*, NeurIPS 2017, with subgroups in place of
      past tasks. *Priority-Constrained Descent* (TMLR 2026, arXiv 2606.29521) solves
      the same program with other margins. Margins by baseline losses are ours.

    Example:
      The task's gradient (1, 0), and a subgroup's gradient (−1, 1), which conflict:

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
    number = known_number("strength", strength)
    if number is not None and not 0 <= number <= 1:
        raise ValueError(f"strength must be a cosine from 0 to 1; got {strength}.")
    check_positive("limit", limit)

    def init(number: int) -> PositiveSumState:
        del number
        # Separate buffers, so that the state can be donated.
        return PositiveSumState(*unsolved(), jnp.zeros((), jnp.int32))

    def update(rows: CurrentRows, state: Any) -> tuple[Array, PositiveSumState]:
        number, dtype = len(rows.coefficients), rows.gramian.dtype
        if not 0 <= reference < number:
            raise ValueError(
                f"reference must be a row, 0 to {number - 1}; got {reference}."
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


class PCDState(NamedTuple):
    """State of :func:`pcd`.

    Attributes:
      residual: ``[]``, the solver's residual at the last update.
      iterations: ``[]``, the solver's iterations at the last update.
      fallbacks: ``[]``, the number of updates at which margins contradicted each other.
      squares: ``[K]``, the moving average of each gradient's squared norm.
      counts: ``[K]``, the number of updates in each average.
    """

    residual: Float[Array, ""]
    iterations: Int[Array, ""]
    fallbacks: Int[Array, ""]
    squares: Float[Array, " K"]
    counts: Int[Array, " K"]


def pcd_step(
    reference: int = 0, *, progress: Scalar = 0.02, decay: Scalar = 0.999
) -> Step:
    r"""Follows the first objective, with progress for the others (PCD).

    Gradients are normalised by an average of their squared norms,
    :math:`\tilde g_k = g_k / \sqrt{v_k + 10^{-8}}`, with :math:`v_k` the moving average
    without its bias. With :math:`\tilde g_0` that of row ``reference``,

    .. math:: \tilde d = \arg\min_d\; \tfrac12 \|d - \tilde g_0\|^2
        \quad\text{subject to } d \cdot \tilde g_k \ge \tau \|\tilde g_k\|^2,
        \quad k \ne 0, \qquad d = \frac{\|g_0\|}{\|\tilde d\|}\, \tilde d .

    If the constraints contradict each other, the update is :math:`g_0`, and
    ``fallbacks`` in the state increases by 1. For margins that depend on baseline
    losses, see :func:`fairjax.steps.positive_sum`.

    Args:
      reference: The row of the primary objective.
      progress: :math:`\tau`, the share of its normalised progress that each other
        objective is promised, 0 to 1; may be traced.
      decay: The decay of the moving average, in [0, 1); may be traced.

    Returns:
      A step ``[R, K] -> [1, K]`` with a ``PCDState``. A masked objective keeps its
      average.

    Raises:
      ValueError: ``progress`` or ``decay`` is out of range. At the update: the
        reference is not a row.

    References:
      *Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical
      Multi-Objective Optimization*, TMLR 2026, arXiv 2606.29521.

    Example:
      The closest direction that does not harm the second is (.5, .5), here at the
      length of the first.

      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.pcd(num_objectives=2, progress=0.0)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0].round(3)
      Array([0.707, 0.707], dtype=float32)
      >>> gram = rows @ rows.T
      >>> step = fairjax.steps.pcd(progress=0.0)
      >>> step.update(jnp.eye(2), gram, step.init(2))[0].round(3)
      Array([[1.414, 0.707]], dtype=float32)
    """
    check_whole("reference", reference, 0)
    number = known_number("progress", progress)
    if number is not None and not 0 <= number <= 1:
        raise ValueError(f"progress must be from 0 to 1; got {progress}.")
    check_decay(decay)

    def init(number: int) -> PCDState:
        squares, counts = jnp.zeros(number, jnp.float32), jnp.zeros(number, jnp.int32)
        return PCDState(*unsolved(), jnp.zeros((), jnp.int32), squares, counts)

    def update(rows: CurrentRows, state: PCDState) -> tuple[Array, PCDState]:
        own, used = rows.own, rows.used
        if reference >= len(own):
            raise ValueError(
                f"reference must be a row, 0 to {len(own) - 1}; got {reference}."
            )
        squares = jnp.diagonal(own)
        mean = decay * state.squares + (1 - decay) * squares
        mean = jnp.where(used, mean, state.squares)
        counts = state.counts + used
        unbiased = mean / (1 - jnp.asarray(decay, mean.dtype) ** counts)
        scales = jnp.where(used, jax.lax.rsqrt(unbiased + 1e-8), 0.0)
        scaled = own * scales * scales[:, None]
        lengths = jnp.sqrt(jnp.diagonal(scaled))
        first = lengths[reference]
        margins = progress * lengths / jnp.where(first > 0, first, 1.0)
        found = closest_update(scaled, margins, reference=reference, mask=used)
        alone = (jnp.arange(len(own)) == reference) & used
        weights = jnp.where(found.feasible, found.weights, alone)
        length = matmul(weights, matmul(scaled, weights))
        rounding = 10 * jnp.finfo(own.dtype).eps * jnp.dot(weights, lengths) ** 2
        # A direction that is zero up to rounding is not lengthened.
        known = length > rounding
        whole = jnp.sqrt(squares[reference] / jnp.where(known, length, 1.0))
        weights = weights * scales * jnp.where(known, whole, 0.0)
        return rows.weighted(weights), PCDState(
            found.residual.astype(jnp.float32),
            found.iterations,
            state.fallbacks + ~found.feasible,
            mean.astype(jnp.float32),
            counts,
        )

    return make_step(update, init)


upgrad = transformation(upgrad_step)
dualproj = transformation(dualproj_step)
positive_sum = transformation(positive_sum_step)
pcd = transformation(pcd_step)


def _projected(
    spread: Callable[[Array], Array],
    preference: Numbers | None,
    ridge: Scalar,
    *,
    mean: bool,
) -> Step:
    """Makes a step that projects combinations of rows on the dual cone, and adds up."""
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
