"""Methods in closed form, from the angles between the gradients."""

import optax

from fairjax import steps
from fairjax.reconcile import reconcile
from fairjax.solvers import alignment
from fairjax.types import Numbers, Scalar


def imtl_g(
    *,
    num_objectives: int,
    normalization: alignment.Normalization = "sum",
    tolerance: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """IMTL-G: the update with equal projections on each unit gradient.

    ``reconcile(steps.imtl_g(...))``; for the formula, the arguments and the errors see
    :func:`fairjax.steps.imtl_g`.

    References:
      Liu et al., *Towards Impartial Multi-task Learning*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.imtl_g(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([0.75, 0.75], dtype=float32)
    """
    step = steps.imtl_g(normalization=normalization, tolerance=tolerance)
    return reconcile(step, num_objectives=num_objectives)


def aligned_mtl(
    *,
    num_objectives: int,
    scale: alignment.Scale = "min",
    preference: Numbers | None = None,
    tolerance: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Aligned-MTL: the mean of gradients whose principal components are equally long.

    ``reconcile(steps.aligned_mtl(...))``; for the formula, the arguments and the errors
    see :func:`fairjax.steps.aligned_mtl`.

    References:
      Senushkin et al., *Independent Component Alignment for Multi-Task Learning*, CVPR
      2023.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.aligned_mtl(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([0.5, 0.5], dtype=float32)
    """
    step = steps.aligned_mtl(scale=scale, preference=preference, tolerance=tolerance)
    return reconcile(step, num_objectives=num_objectives)


def config(
    *,
    num_objectives: int,
    preference: Numbers | None = None,
    tolerance: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """ConFIG: the conflict-free direction of equal cosines with every gradient.

    ``reconcile(steps.config(...))``; for the formula, the arguments and the errors see
    :func:`fairjax.steps.config`.

    References:
      Liu, Chu and Thuerey, *ConFIG: Towards Conflict-free Training of Physics Informed
      Neural Networks*, ICLR 2025.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.config(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [2.0, 2.0]
    """
    step = steps.config(preference=preference, tolerance=tolerance)
    return reconcile(step, num_objectives=num_objectives)
