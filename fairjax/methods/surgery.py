"""Gradient surgery: methods that project conflicting gradients off each other."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import optax
from jaxtyping import Array, Int

from fairjax import steps
from fairjax.reconcile import reconcile
from fairjax.solvers import projection
from fairjax.steps import Order
from fairjax.types import Scalar

PCGRAD_VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": MappingProxyType({}),
        "tensorflow": MappingProxyType({"order": "numbered", "include_self": True}),
        "pytorch": MappingProxyType({"include_self": True, "reduction": "mean"}),
        "libmtl": MappingProxyType({"include_self": True}),
        "torchjd": MappingProxyType({}),
    }
)
"""Options of :func:`pcgrad` under which it does what a published version does.

``fairjax.pcgrad(num_objectives=3, **fairjax.PCGRAD_VARIANTS["libmtl"])``.

- ``"paper"``: algorithm 1 of Yu et al. (2020): a random order for each objective, the
  objective itself left out, the sum. The defaults.
- ``"tensorflow"``: the authors' code (github.com/tianheyu927/PCGrad, commit 56b661f).
  It shuffles, but drops the result, so that objectives are met in the order of their
  numbers; each also meets its own gradient; the sum.
- ``"pytorch"``: github.com/WeiChengTseng/Pytorch-PCGrad (commit 7b8860f): random orders
  with the objective itself among them; the mean.
- ``"libmtl"``: LibMTL's ``PCGrad`` (commit 2d842d6): likewise, but the sum.
- ``"torchjd"``: TorchJD 0.18's ``PCGrad``: as the paper.

From three objectives on, a row that has been projected can conflict with the gradient
that it started as, so ``include_self`` changes a few updates.
"""


def pcgrad(
    *,
    num_objectives: int,
    reduction: Literal["sum", "mean"] = "sum",
    condition: projection.Condition = "conflict",
    order: Order | Sequence[int] | Int[Array, "K K"] = "random",
    include_self: bool = False,
    epsilon: Scalar = 0.0,
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Gradient surgery: project conflicting gradients off each other, then add up.

    ``reconcile(steps.project_conflicts(...), steps.combine(reduction))``; for the
    formula, the arguments and the errors see :func:`fairjax.steps.project_conflicts`.
    Published implementations differ; :data:`fairjax.PCGRAD_VARIANTS` has their options.

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
        steps.project_conflicts(
            condition=condition,
            order=order,
            include_self=include_self,
            epsilon=epsilon,
            key=key,
        ),
        steps.combine(reduction),
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
    include_self: bool = False,
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
      include_self: Likewise.
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
    chain = [
        steps.project_conflicts(
            condition=condition,
            order=order,
            include_self=include_self,
            epsilon=epsilon,
            key=key,
        ),
        steps.combine(reduction),
    ]
    if strength is None and limit is not None:
        raise ValueError("a limit is of what a strength scales: give a strength too.")
    if strength is not None:
        clamp = None if limit is None else (0.0, limit)
        balance = steps.balance_magnitudes(reference=0, strength=strength, clamp=clamp)
        chain.insert(0, balance)
    return reconcile(*chain, num_objectives=num_objectives)


def gradvac(
    *,
    num_objectives: int,
    beta: Scalar = 0.01,
    order: Order | Sequence[int] | Int[Array, "K K"] = "random",
    reduction: Literal["sum", "mean"] = "sum",
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    """GradVac: raise the gradients' cosines to running means of them, then add up.

    ``reconcile(steps.gradvac(...), steps.combine(reduction))``; for the formula, the
    arguments and the errors see :func:`fairjax.steps.gradvac`.

    References:
      Wang et al., *Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.gradvac(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, -1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([ 0.5, -1.5], dtype=float32)
    """
    return reconcile(
        steps.gradvac(beta=beta, order=order, key=key),
        steps.combine(reduction),
        num_objectives=num_objectives,
    )
