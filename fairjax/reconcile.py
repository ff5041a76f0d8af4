r"""Gradient reconciliation as optax transformations.

A reconciler takes stacked updates ``[K, *param]``, one row for each objective, and
returns updates ``[*param]``: it stands wherever an optax transformation does, before
AdamW in a chain, say. It reads the rows twice: once for their Gram matrix, once for
the weighted sum that the steps arrive at.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fairjax import steps as coefficient_steps
from fairjax.gramian import combine, gramian
from fairjax.gramian import num_objectives as _rows
from fairjax.solvers import projection
from fairjax.steps import Order
from fairjax.types import Gramian, Jacobian, Params, Scalar, Step


class ReconcileState(NamedTuple):
    """State and diagnostics of :func:`reconcile`; read with ``optax.tree.get``.

    All but ``steps``, ``nonfinite`` and ``zero`` describe the last update.

    Attributes:
      steps: The steps' own states.
      weights: ``[K]``, the weight of each objective's gradient in the update.
      norms: ``[K]``, norms of the gradients that came in; NaN where not finite.
      cosines: ``[K, K]``, cosines between them; 0 where one is excluded.
      conflict_share: ``[]``, share of the pairs in use whose cosine is negative.
      nonfinite: ``[K]``, how often an objective was left out for a gradient (or a
        loss, where losses are passed) that was not finite.
      zero: ``[K]``, how often for a gradient that was zero.
    """

    steps: tuple[Any, ...]
    weights: Float[Array, " K"]
    norms: Float[Array, " K"]
    cosines: Float[Array, "K K"]
    conflict_share: Float[Array, ""]
    nonfinite: Int[Array, " K"]
    zero: Int[Array, " K"]


def reconcile(
    *steps: Step, num_objectives: int
) -> optax.GradientTransformationExtraArgs:
    r"""Chain coefficient steps into one optax transformation.

    With :math:`J` the stacked gradients and :math:`G = J J^\top`, the steps take
    :math:`C = I` to one row :math:`w^\top`, and the update is :math:`J^\top w`.

    Args:
      *steps: Steps of :mod:`fairjax.steps`; the last leaves one row, as
        ``steps.combine`` does.
      num_objectives: K. State shapes follow from it, so that the transformation scans,
        vmaps and checkpoints.

    Returns:
      A transformation of ``[K, *param]`` into ``[*param]``. Its ``update`` accepts
      the extra arguments ``losses=[K]`` (some steps need them; an objective whose
      loss is not finite is left out) and ``mask=[K]`` (False leaves an objective
      out), hands others to the steps and passes over what they do not know.
      Objectives whose gradient is not finite or is exactly zero are left out and
      counted. If all are left out the update is zero. Squared norms are float32:
      gradients longer than about 1e19 count as not finite, and those shorter than
      about 1e-19 as zero.

    Raises:
      ValueError: No steps, or ``num_objectives`` below 1; at the update, gradients,
        losses or a mask without K rows, or steps that do not end in one row.

    Example:
      >>> import jax.numpy as jnp, optax, fairjax
      >>> from fairjax import steps
      >>> balanced = fairjax.reconcile(
      ...     steps.balance_magnitudes(reference=0, strength=0.5),
      ...     steps.project_conflicts(),
      ...     steps.combine("sum"),
      ...     num_objectives=2,
      ... )
      >>> tx = optax.chain(balanced, optax.sgd(1.0))
      >>> params = {"w": jnp.zeros(2)}
      >>> state = tx.init(params)
      >>> rows = {"w": jnp.array([[1.0, 0.0], [0.0, 9.0]])}
      >>> updates, state = tx.update(rows, state, params)
      >>> updates["w"]
      Array([-1. , -0.5], dtype=float32)
      >>> optax.tree.get(state, "conflict_share")
      Array(0., dtype=float32)
    """
    if not steps:
        raise ValueError(
            "reconcile needs at least one step, such as steps.combine('sum')."
        )
    if num_objectives < 1:
        raise ValueError(f"num_objectives is at least 1, not {num_objectives}.")

    def init(params: Params) -> ReconcileState:
        del params
        # Each its own buffer, so that the state can be donated.
        return ReconcileState(
            steps=tuple(step.init(num_objectives) for step in steps),
            weights=jnp.zeros(num_objectives, jnp.float32),
            norms=jnp.zeros(num_objectives, jnp.float32),
            cosines=jnp.zeros((num_objectives, num_objectives), jnp.float32),
            conflict_share=jnp.zeros((), jnp.float32),
            nonfinite=jnp.zeros(num_objectives, jnp.int32),
            zero=jnp.zeros(num_objectives, jnp.int32),
        )

    def update(
        updates: Jacobian,
        state: Any,
        params: Params | None = None,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Bool[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[Params, ReconcileState]:
        del params
        _check_rows(updates, num_objectives, "this reconciler")
        for name, given in (("losses", losses), ("mask", mask)):
            if given is not None and jnp.shape(given) != (num_objectives,):
                raise ValueError(
                    f"{name} has shape {jnp.shape(given)}; one value per objective is "
                    f"needed, shape ({num_objectives},)."
                )
        gram = gramian(updates)
        squares = jnp.diagonal(gram)
        finite = jnp.isfinite(squares)
        norms = jnp.sqrt(jnp.where(finite, squares, jnp.nan))
        if losses is not None:
            finite &= jnp.isfinite(losses)
        asked = jnp.ones_like(finite) if mask is None else jnp.asarray(mask, bool)
        used = finite & (squares > 0) & asked
        gram = jnp.where(used[:, None] & used[None, :], gram, 0.0)
        coefficients = jnp.diag(used.astype(gram.dtype))
        states = []
        for step, step_state in zip(steps, state.steps, strict=True):
            coefficients, step_state = step.update(
                coefficients, gram, step_state, losses=losses, mask=used, **extra
            )
            states.append(step_state)
        if coefficients.shape[0] != 1:
            raise ValueError(
                f"the steps end with {coefficients.shape[0]} rows, not one: finish "
                "with steps.combine('sum') or another step that leaves one row."
            )
        weights = jnp.where(used, coefficients[0], 0.0)
        cosines, conflict_share = _conflicts(gram, used)
        new_state = ReconcileState(
            steps=tuple(states),
            weights=weights.astype(jnp.float32),
            norms=norms.astype(jnp.float32),
            cosines=cosines.astype(jnp.float32),
            conflict_share=conflict_share.astype(jnp.float32),
            nonfinite=state.nonfinite + (asked & ~finite),
            zero=state.zero + (asked & (squares == 0)),
        )
        return combine(weights, updates), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def pcgrad(
    *,
    num_objectives: int,
    reduction: Literal["sum", "mean"] = "sum",
    condition: projection.Condition = "conflict",
    order: Order | Sequence[int] | Int[Array, "K K"] = "random",
    epsilon: Scalar = 0.0,
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Gradient surgery: project conflicting gradients off each other, then add up.

    ``reconcile(steps.project_conflicts(...), steps.combine(reduction))``; the
    arguments are theirs.

    References:
      Yu et al., *Gradient Surgery for Multi-Task Learning*, NeurIPS 2020.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.pcgrad(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, -1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([ 0.5, -1.5], dtype=float32)
    """
    return reconcile(
        coefficient_steps.project_conflicts(
            condition=condition, order=order, epsilon=epsilon, key=key
        ),
        coefficient_steps.combine(reduction),
        num_objectives=num_objectives,
    )


def fairgrad(
    *,
    num_objectives: int,
    strength: Scalar | None = None,
    limit: Scalar | None = None,
    reduction: Literal["sum", "mean"] = "sum",
    condition: projection.Condition = "conflict",
    order: Order | Sequence[int] | Int[Array, "K K"] = "random",
    epsilon: Scalar = 0.0,
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""FairGrad: reconcile the task's gradient with one of each sensitive attribute.

    Objective 0 is the task's loss, the others fairness losses, such as
    :func:`fairjax.losses.equalized_odds` of each attribute. Every gradient is projected
    onto the orthogonal plane of the others (:func:`fairjax.pcgrad`), and they are added
    up. With a ``strength`` :math:`\beta`, each fairness gradient is first scaled to
    :math:`\beta` times the length of the task's gradient, by a factor of ``limit`` at
    most: that is ours, not the paper's. It keeps a fairness gradient whose surrogate
    happens to be small from being lost, and one that is large from taking over; the
    limit keeps the noise that is left near parity from being scaled up to a gradient.

    The paper leaves the condition, the order and the reduction open; ours are
    arguments, with PCGrad's as defaults.

    Args:
      num_objectives: K: the task and K − 1 fairness losses.
      strength: None (as published) or :math:`\beta` ≥ 0; may be traced.
      limit: The greatest factor that a fairness gradient is scaled by, if any; with a
        strength only; may be traced.
      reduction: ``"sum"`` or ``"mean"``.
      condition: ``"conflict"`` or ``"always"`` (unconditional projection).
      order: See :func:`fairjax.steps.project_conflicts`.
      epsilon: Likewise.
      key: Likewise.

    Raises:
      ValueError: A negative strength or limit, a limit without a strength, and as the
        steps do.

    References:
      Wang and Yang, *Balancing Fairness and Performance in Healthcare AI: A Gradient
      Reconciliation Approach*, 2025. Not the alpha-fair FairGrad of Ban and Ji (2024),
      nor the reweighting FairGrad of Maheshwari and Perrot (2022).

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.fairgrad(num_objectives=2, strength=0.5)
      >>> rows = jnp.array([[2.0, 0.0], [0.0, 10.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([2., 1.], dtype=float32)
    """
    steps = [
        coefficient_steps.project_conflicts(
            condition=condition, order=order, epsilon=epsilon, key=key
        ),
        coefficient_steps.combine(reduction),
    ]
    if strength is None and limit is not None:
        raise ValueError("a limit is of what a strength scales: give a strength too.")
    if strength is not None:
        clamp = None if limit is None else (0.0, limit)
        balance = coefficient_steps.balance_magnitudes(
            reference=0, strength=strength, clamp=clamp
        )
        steps.insert(0, balance)
    return reconcile(*steps, num_objectives=num_objectives)


def per_objective(
    transform: optax.GradientTransformation, *, num_objectives: int
) -> optax.GradientTransformationExtraArgs:
    """Run an optax transformation on each objective's row by itself.

    ``optax.clip_by_global_norm`` on stacked gradients clips all rows as one vector;
    ``per_objective`` of it clips each row. Each row has its own state.

    Args:
      transform: Any optax transformation of ``[*param]``.
      num_objectives: K.

    Returns:
      A transformation of ``[K, *param]`` into ``[K, *param]``, to stand before a
      reconciler. Extra arguments reach ``transform`` as they are.

    Raises:
      ValueError: At the update, gradients without K rows.

    Example:
      >>> import jax.numpy as jnp, optax, fairjax
      >>> clip = fairjax.per_objective(optax.clip_by_global_norm(1.0), num_objectives=2)
      >>> rows = jnp.array([[3.0, 4.0], [0.3, 0.4]])
      >>> clip.update(rows, clip.init(jnp.zeros(2)))[0]
      Array([[0.6, 0.8],
             [0.3, 0.4]], dtype=float32)
    """
    transform = optax.with_extra_args_support(transform)

    def init(params: Params) -> Any:
        return jax.vmap(lambda _: transform.init(params))(jnp.arange(num_objectives))

    def update(
        updates: Jacobian, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Jacobian, Any]:
        _check_rows(updates, num_objectives, "per_objective")

        def update_row(row: Params, row_state: Any) -> tuple[Params, Any]:
            return transform.update(row, row_state, params, **extra)

        return jax.vmap(update_row)(updates, state)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_rows(updates: Jacobian, num_objectives: int, what: str) -> None:
    if _rows(updates) != num_objectives:
        raise ValueError(
            f"{what} was made for {num_objectives} objectives; the gradients have "
            f"{_rows(updates)} rows."
        )


def _conflicts(
    gram: Gramian, used: Bool[Array, " K"]
) -> tuple[Float[Array, "K K"], Float[Array, ""]]:
    """Cosines between the rows in use, and the share of their pairs in conflict."""
    norms = jnp.sqrt(jnp.where(used, jnp.diagonal(gram), 1.0))
    cosines = gram / norms[:, None] / norms[None, :]
    pairs = jnp.triu(used[:, None] & used[None, :], k=1)
    number = jnp.maximum(jnp.sum(pairs), 1)
    return cosines, jnp.sum(pairs & (cosines < 0)) / number
