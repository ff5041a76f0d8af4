"""What the steps that read the losses ask of them."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.steps._rows import row_mask
from fairjax.types import Coefficients, Mask


def require_losses(
    name: str, losses: Float[Array, " K"] | None, coefficients: Coefficients
) -> Float[Array, " K"]:
    """The losses, if there is one for each row.

    Raises:
      ValueError: No losses, or another number of rows than of losses.

    Example:
      >>> import jax.numpy as jnp
      >>> require_losses("dwa", jnp.ones(2), jnp.eye(2))
      Array([1., 1.], dtype=float32)
    """
    if losses is None:
        raise ValueError(f"{name} needs the losses: pass losses=values to update.")
    rows = coefficients.shape[0]
    if losses.shape != (rows,):
        raise ValueError(
            f"{name} needs one loss for each row: {rows} rows, losses of shape "
            f"{losses.shape}. Put it before steps that change the number of rows."
        )
    return losses


def present_rows(
    losses: Float[Array, " K"], coefficients: Coefficients, mask: Mask | None
) -> Bool[Array, " K"]:
    """Which rows are in use and have a finite loss.

    Example:
      >>> import jax.numpy as jnp
      >>> present_rows(jnp.array([1.0, jnp.nan]), jnp.eye(2), None)
      Array([ True, False], dtype=bool)
    """
    return row_mask(coefficients, mask) & jnp.isfinite(losses)


def loss_ratios(
    losses: Float[Array, " K"],
    initial: Float[Array, " K"],
    used: Bool[Array, " K"],
) -> tuple[Float[Array, " K"], Float[Array, " K"], Bool[Array, " K"]]:
    """Losses over the first usable ones, over the mean; those first; which are known.

    Example:
      >>> import jax.numpy as jnp
      >>> used = jnp.array([True, True])
      >>> loss_ratios(jnp.array([1.0, 6.0]), jnp.array([2.0, 4.0]), used)[0]
      Array([0.5, 1.5], dtype=float32)
    """
    usable = jnp.isfinite(losses) & (losses > 0) & used
    fresh = (initial == 0) & usable
    initial = jnp.where(fresh, losses, initial)
    known = usable & (initial > 0)
    ratios = jnp.where(known, losses / jnp.where(known, initial, 1.0), 0.0)
    mean = jnp.sum(ratios) / jnp.maximum(jnp.sum(known), 1)
    return ratios / jnp.where(mean > 0, mean, 1.0), initial, known
