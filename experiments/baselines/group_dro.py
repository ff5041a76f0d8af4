r"""GroupDRO as a coefficient step: gradient ascent on the groups' weights."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from fairjax.types import Coefficients, Gramian, Mask, Scalar, Step


class GroupDROState(NamedTuple):
    """Carried by :func:`group_dro`.

    Attributes:
      weights: ``[K]``, the groups' weights; they sum to 1.
    """

    weights: Float[Array, " K"]


def group_dro(step_size: Scalar) -> Step:
    r"""Weigh the groups' losses by exponentiated ascent on the worst-case loss.

    .. math:: q_k \propto q_k\, e^{\eta\, \ell_k}, \qquad d = \sum_k q_k\, g_k.

    Args:
      step_size: :math:`\eta` ≥ 0; may be traced. 0 gives equal weights.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. Masked groups (those
      without an example in the batch) keep their weight and add nothing.

    References:
      Sagawa et al., *Distributionally Robust Neural Networks for Group Shifts*, ICLR
      2020, algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> step = group_dro(jnp.log(3.0))
      >>> losses = jnp.array([1.0, 0.0])
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2), losses=losses)[0]
      Array([[0.75, 0.25]], dtype=float32)
    """

    def init(num_objectives: int) -> GroupDROState:
        return GroupDROState(jnp.full(num_objectives, 1 / num_objectives, jnp.float32))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: GroupDROState,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Coefficients, GroupDROState]:
        del gramian, extra
        if losses is None:
            raise ValueError(
                "group_dro needs the losses: pass losses=values to update."
            )
        present = jnp.ones(losses.shape, bool) if mask is None else mask
        grown = state.weights * jnp.exp(step_size * jnp.where(present, losses, 0.0))
        # Only the weights present share what they had, so that absence costs nothing.
        share = jnp.sum(jnp.where(present, state.weights, 0.0))
        total = jnp.sum(jnp.where(present, grown, 0.0))
        scale = share / jnp.where(total > 0, total, 1.0)
        weights = jnp.where(present, grown * scale, state.weights)
        used = jnp.where(present, weights, 0.0)
        return used[None] @ coefficients, GroupDROState(weights)

    return Step(init, update)
