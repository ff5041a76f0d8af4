"""Methods that divide the update between the objectives by a bargain."""

import optax

from fairjax import steps
from fairjax.reconcile import reconcile
from fairjax.types import Scalar


def nash_mtl(
    *,
    num_objectives: int,
    normalize: bool = False,
    max_norm: Scalar | None = None,
    update_every: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Nash-MTL: the update that the objectives would agree on in a Nash bargain.

    ``reconcile(steps.nash_mtl(...))``; for the formula, the arguments and the errors
    see :func:`fairjax.steps.nash_mtl`. As published, the update of K objectives is
    :math:`\sqrt K` long, however long the gradients are.

    References:
      Navon et al., *Multi-Task Learning as a Bargaining Game*, ICML 2022.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.nash_mtl(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([1., 1.], dtype=float32)
    """
    step = steps.nash_mtl(
        normalize=normalize, max_norm=max_norm, update_every=update_every
    )
    return reconcile(step, num_objectives=num_objectives)


def fairgrad_alpha(
    *, num_objectives: int, alpha: Scalar = 1.0, normalize: bool = False
) -> optax.GradientTransformationExtraArgs:
    """FairGrad of Ban and Ji: an alpha-fair allocation between the objectives.

    ``reconcile(steps.fairgrad_alpha(...))``; for the formula, the arguments and the
    errors see :func:`fairjax.steps.fairgrad_alpha`. It is another method than
    :func:`fairjax.fairgrad`, which bears the same name in the literature.

    References:
      Ban and Ji, *Fair Resource Allocation in Multi-Task Learning*, ICML 2024.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.fairgrad_alpha(num_objectives=2, alpha=0.5)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 8.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [1.0, 2.0]
    """
    step = steps.fairgrad_alpha(alpha, normalize=normalize)
    return reconcile(step, num_objectives=num_objectives)
