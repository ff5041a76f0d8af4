r"""Gradient sign dropout, the one method that needs more than the Gram matrix.

The method drops gradients at each coordinate, by their signs at that coordinate. It is
not a step, because :math:`K \times K` inner products do not contain these signs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt

from fairjax.keys import as_key
from fairjax.stacked import as_rows, check_rows, taking_part, within_range
from fairjax.types import Jacobian, Numbers, Params, Scalar, check_whole, is_known


class GradDropState(NamedTuple):
    """State of :func:`graddrop`.

    Attributes:
      key_data: The data of the key from which the next signs are drawn.
      nonfinite: ``[K]``, the number of updates that left an objective out because its
        gradient or its loss, if passed, was not finite; all of them for an update
        beyond the range of its type, which is zero.
    """

    key_data: UInt[Array, " words"]
    nonfinite: Int[Array, " K"]


def graddrop(
    *,
    num_objectives: int,
    leak: Scalar | Numbers = 0.0,
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps, at each coordinate, the gradients of one random sign (GradDrop).

    With :math:`g_k` the gradients and :math:`\ell_k` their leaks, at each coordinate

    .. math:: P = \tfrac12 \Big(1 + \frac{\sum_k g_k}{\sum_k |g_k|}\Big), \qquad
        d = \sum_k \big(\ell_k + (1 - \ell_k)\, [\operatorname{sign} g_k = s]\big)\, g_k

    where the sign :math:`s` is + with probability :math:`P`, else −. The paper drops
    gradients of activations; this function drops gradients of parameters, as TorchJD
    does.

    The method reads every coordinate of every gradient, and draws a number for each
    parameter. So its cost grows with the number of parameters rather than with K×K, and
    steps cannot follow or precede the method; optax transformations can.

    Args:
      num_objectives: The number of objectives, K.
      leak: The fraction of a dropped gradient that stays, 0 to 1: one number, or one
        for each objective; may be traced. 1 gives the plain sum.
      key: A key, or a seed; may be traced.

    Returns:
      A transformation of ``[K, *param]`` into ``[*param]``. Objectives that are masked
      (``mask=[K]``), or whose gradient or loss (``losses=[K]``) is not finite, are left
      out.

    Raises:
      ValueError: A leak lies outside 0 to 1, or there is not one for each objective;
        ``num_objectives`` is below 1. At the update: gradients, losses or a mask do not
        have K rows.

    References:
      Chen et al., *Just Pick a Sign: Optimizing Deep Multitask Models with Gradient
      Sign Dropout*, NeurIPS 2020, algorithm 1.

    Example:
      The first coordinate has no conflict:

      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.graddrop(num_objectives=2)
      >>> rows = jnp.array([[1.0, 4.0], [2.0, -4.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> update[0], abs(update[1])
      (Array(3., dtype=float32), Array(4., dtype=float32))
    """
    check_whole("num_objectives", num_objectives)
    shape = jnp.shape(jnp.asarray(leak))
    if shape not in ((), (num_objectives,)):
        raise ValueError(
            f"leak must be one number or {num_objectives}, one for each objective; got "
            f"shape {shape}."
        )
    if is_known(leak):
        given = np.asarray(leak)
        if not ((given >= 0) & (given <= 1)).all():
            raise ValueError(f"leak must lie in [0, 1]; got {leak}.")

    def init(params: Params) -> GradDropState:
        del params
        counts = jnp.zeros(num_objectives, jnp.int32)
        return GradDropState(jax.random.key_data(as_key(key)), counts)

    def update(
        updates: Jacobian,
        state: Any,
        params: Params | None = None,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Bool[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[Params, GradDropState]:
        del extra
        check_rows(updates, num_objectives, "graddrop", params)
        asked, finite = taking_part(updates, losses=losses, mask=mask)
        after, draw = jax.random.split(jax.random.wrap_key_data(state.key_data))
        leaves, tree = jax.tree.flatten(updates)
        keys = jax.random.split(draw, len(leaves))
        used = asked & finite
        kept = jnp.broadcast_to(jnp.asarray(leak, jnp.float32), used.shape)
        dropped = [
            _drop(leaf, used, kept, key) for leaf, key in zip(leaves, keys, strict=True)
        ]
        update, held = within_range(jax.tree.unflatten(tree, dropped))
        counts = state.nonfinite + (asked & ~(finite & held))
        return update, GradDropState(jax.random.key_data(after), counts)

    return optax.GradientTransformationExtraArgs(init, update)


def _drop(
    leaf: Float[Array, "K ..."],
    used: Bool[Array, " K"],
    leak: Float[Array, " K"],
    key: Array,
) -> Float[Array, "..."]:
    wide = jnp.promote_types(leaf.dtype, jnp.float32)
    rows = jnp.where(as_rows(used, leaf), leaf, 0).astype(wide)
    size = jnp.sum(jnp.abs(rows), axis=0)
    positive = 0.5 * (1 + jnp.sum(rows, axis=0) / jnp.where(size > 0, size, 1.0))
    chosen = jnp.where(jax.random.uniform(key, positive.shape) < positive, 1.0, -1.0)
    leak = as_rows(leak.astype(wide), leaf)
    shares = jnp.where(jnp.sign(rows) == chosen, 1.0, leak)
    return jnp.sum(shares * rows, axis=0).astype(leaf.dtype)
