r"""Gradient reconciliation as optax transformations.

A reconciler takes stacked updates ``[K, *param]``, one row for each objective, and
returns updates ``[*param]``: it stands wherever an optax transformation does, before
AdamW in a chain, say. It reads the rows twice: once for their Gram matrix, once for
the weighted sum that the steps arrive at.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fairjax.gramian import combine, gramian
from fairjax.stacked import check_per_objective, check_rows
from fairjax.types import Gramian, Jacobian, Params, Step, check_whole


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
    check_whole("num_objectives", num_objectives)

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
        check_rows(updates, num_objectives, "this reconciler", params)
        check_per_objective("losses", losses, num_objectives)
        check_per_objective("mask", mask, num_objectives)
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


def _conflicts(
    gram: Gramian, used: Bool[Array, " K"]
) -> tuple[Float[Array, "K K"], Float[Array, ""]]:
    """Cosines between the rows in use, and the share of their pairs in conflict."""
    norms = jnp.sqrt(jnp.where(used, jnp.diagonal(gram), 1.0))
    cosines = gram / norms[:, None] / norms[None, :]
    pairs = jnp.triu(used[:, None] & used[None, :], k=1)
    number = jnp.maximum(jnp.sum(pairs), 1)
    return cosines, jnp.sum(pairs & (cosines < 0)) / number
