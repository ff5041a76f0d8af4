"""Methods that solve for the update under constraints: cones, hulls and balls."""

from typing import Literal

import optax

from fairjax import steps
from fairjax.reconcile import reconcile
from fairjax.types import Numbers, Scalar


def upgrad(
    *,
    num_objectives: int,
    reduction: Literal["mean", "sum"] = "mean",
    preference: Numbers | None = None,
    ridge: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """UPGrad: each gradient projected onto the cone that harms none, then averaged.

    ``reconcile(steps.upgrad(...))``; for the formula, the arguments and the errors see
    :func:`fairjax.steps.upgrad`.

    References:
      Quinton and Rey, *Jacobian Descent for Multi-Objective Optimization*, 2024.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.upgrad(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [0.25, 0.75]
    """
    step = steps.upgrad(reduction, preference=preference, ridge=ridge)
    return reconcile(step, num_objectives=num_objectives)


def dualproj(
    *, num_objectives: int, preference: Numbers | None = None, ridge: Scalar = 0.0
) -> optax.GradientTransformationExtraArgs:
    """DualProj: the update closest to the mean gradient that harms no objective.

    ``reconcile(steps.dualproj(...))``; for the formula, the arguments and the errors
    see :func:`fairjax.steps.dualproj`.

    References:
      Lopez-Paz and Ranzato, *Gradient Episodic Memory for Continual Learning*, NeurIPS
      2017.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.dualproj(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-2.0, 1.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [0.0, 0.5]
    """
    step = steps.dualproj(preference=preference, ridge=ridge)
    return reconcile(step, num_objectives=num_objectives)


def positive_sum(
    *,
    num_objectives: int,
    reference: int = 0,
    baseline_losses: Numbers | None = None,
    strength: Scalar = 0.1,
    limit: Scalar = 1e3,
) -> optax.GradientTransformationExtraArgs:
    """The update closest to the task's gradient that harms no subgroup. Ours.

    ``reconcile(steps.positive_sum(...))``; for the derivation, the arguments and the
    errors see :func:`fairjax.steps.positive_sum`. Objective ``reference`` is the task,
    the others are subgroups' losses.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.positive_sum(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [0.5, 0.5]
    """
    step = steps.positive_sum(
        reference, baseline_losses=baseline_losses, strength=strength, limit=limit
    )
    return reconcile(step, num_objectives=num_objectives)


def mgda(*, num_objectives: int) -> optax.GradientTransformationExtraArgs:
    """MGDA: the shortest convex combination of the gradients.

    ``reconcile(steps.mgda())``; for the formula see :func:`fairjax.steps.mgda`.

    References:
      Désidéri, *Multiple-gradient descent algorithm*, 2012; Sener and Koltun,
      *Multi-Task Learning as Multi-Objective Optimization*, NeurIPS 2018.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.mgda(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [0.8, 0.4]
    """
    return reconcile(steps.mgda(), num_objectives=num_objectives)


def cagrad(
    *, num_objectives: int, c: Scalar = 0.5, rescale: bool = False
) -> optax.GradientTransformationExtraArgs:
    """CAGrad: the best worst case within a ball around the mean gradient.

    ``reconcile(steps.cagrad(...))``; for the formula, the arguments and the errors see
    :func:`fairjax.steps.cagrad`.

    References:
      Liu et al., *Conflict-Averse Gradient Descent for Multi-task Learning*, NeurIPS
      2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.cagrad(num_objectives=2, c=0.5)
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(3)))
      >>> [round(float(entry), 3) for entry in update]
      [0.184, 1.204, 1.204]
    """
    return reconcile(steps.cagrad(c, rescale=rescale), num_objectives=num_objectives)
