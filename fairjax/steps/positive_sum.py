"""The update closest to the task's gradient that harms no subgroup."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fairjax.solvers.dual_cone import closest_update
from fairjax.steps._rows import row_gramian, row_mask
from fairjax.steps._weighting import one_row
from fairjax.types import (
    Coefficients,
    Gramian,
    Mask,
    Numbers,
    Scalar,
    Step,
    check_whole,
    is_known,
)


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


def positive_sum(
    reference: int = 0,
    *,
    baseline_losses: Numbers | None = None,
    strength: Scalar = 0.1,
    limit: Scalar = 1e3,
) -> Step:
    r"""The update closest to the task's gradient that harms no subgroup. Ours.

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
      A step ``[R, K] -> [1, K]``, of state :class:`PositiveSumState`.

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
    """
    check_whole("reference", reference, 0)
    if is_known(strength) and not 0 <= strength <= 1:
        raise ValueError(f"strength is a cosine from 0 to 1, not {strength}.")
    if is_known(limit) and not limit > 0:
        raise ValueError(f"limit must be above 0, not {limit}.")

    def init(num_objectives: int) -> PositiveSumState:
        del num_objectives
        return PositiveSumState(
            jnp.zeros((), jnp.float32),
            jnp.zeros((), jnp.int32),
            jnp.zeros((), jnp.int32),
        )

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], PositiveSumState]:
        del extra
        rows = coefficients.shape[0]
        if not 0 <= reference < rows:
            raise ValueError(
                f"reference row {reference} does not exist: there are {rows} rows, "
                "from 0."
            )
        margins = None
        if baseline_losses is not None:
            baselines = jnp.asarray(baseline_losses, gramian.dtype)
            if losses is None:
                raise ValueError(
                    "positive_sum with baseline_losses needs the losses: pass "
                    "losses=values to update."
                )
            if baselines.shape != (rows,) or losses.shape != (rows,):
                raise ValueError(
                    "positive_sum needs one loss and one baseline for each row: "
                    f"{rows} rows, losses of shape {losses.shape}, baseline_losses of "
                    f"shape {baselines.shape}."
                )
            behind = losses > baselines
            margins = jnp.where(behind, jnp.asarray(strength, gramian.dtype), 0.0)
        found = closest_update(
            row_gramian(coefficients, gramian),
            margins,
            reference=reference,
            limit=jnp.asarray(limit, gramian.dtype),
            mask=row_mask(coefficients, mask),
        )
        state = PositiveSumState(
            found.residual.astype(jnp.float32),
            found.iterations,
            state.fallbacks + ~found.feasible,
        )
        return one_row(found.weights, coefficients), state

    return Step(init, update)
