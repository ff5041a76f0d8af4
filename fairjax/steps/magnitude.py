"""Scaling rows, so that no objective drowns another."""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from fairjax.steps._losses import loss_ratios
from fairjax.steps._rows import row_gramian, row_mask
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


class BalanceMagnitudesState(NamedTuple):
    """Carried by :func:`balance_magnitudes` in mode ``"loss_ratio"``.

    Attributes:
      initial_losses: ``[K]``, the first finite positive loss seen of each objective;
        0 until then.
    """

    initial_losses: Float[Array, " K"]


def balance_magnitudes(
    mode: Literal["equal_norms", "loss_ratio", "none"] = "equal_norms",
    *,
    reference: Literal["mean", "min", "max"] | int = "mean",
    strength: Scalar | Numbers = 1.0,
    clamp: tuple[Scalar, Scalar] | None = None,
) -> Step:
    r"""Scale each row by a positive factor, so that no objective drowns another.

    - ``"equal_norms"``: :math:`\alpha_i = \beta_i\, \nu / \|g_i\|`, where :math:`\nu`
      is the reference norm: the mean, least or greatest norm of the rows in use, or
      the norm of row ``reference``. That row itself keeps its length, so with
      ``reference=0, strength=0.3`` every other gradient gets 0.3 of the first's norm;
      where it is zero or masked there is no length to take, and all keep theirs.
    - ``"loss_ratio"``: :math:`\alpha_i = \beta_i\, r_i / \bar r` with
      :math:`r_i = \ell_i / \ell_i^0`: objectives whose loss has fallen less get more
      weight (the relative inverse training rate of GradNorm). Needs ``losses``.
    - ``"none"``: :math:`\alpha_i = \beta_i`.

    Args:
      mode: One of the above.
      reference: See above; read in mode ``"equal_norms"`` only.
      strength: :math:`\beta`, one number or one for each row, ≥ 0; may be traced.
      clamp: The least and the greatest factor allowed, if any; may be traced.

    Returns:
      A step ``[R, K] -> [R, K]``. Zero and masked rows keep the factor 1.

    Raises:
      ValueError: An unknown mode or reference; a negative strength, or limits that
        are negative or exchanged; at the update, mode ``"loss_ratio"``
        without losses, after a step that changed the number of rows, or a strength or
        reference that does not fit the number of rows.

    References:
      Chen et al., *GradNorm*, ICML 2018, for the ratio.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.balance_magnitudes(reference=0, strength=0.5)
      >>> gram = jnp.diag(jnp.array([4.0, 100.0]))
      >>> step.update(jnp.eye(2), gram, step.init(2))[0]
      Array([[1. , 0. ],
             [0. , 0.1]], dtype=float32)
    """
    if mode not in ("equal_norms", "loss_ratio", "none"):
        raise ValueError(
            f"mode is 'equal_norms', 'loss_ratio' or 'none', not {mode!r}."
        )
    if is_known(strength) and not np.all(np.asarray(strength) >= 0):
        raise ValueError(f"strength must be 0 or more, not {strength}.")
    if clamp is not None and is_known(clamp) and not 0 <= clamp[0] <= clamp[1]:
        raise ValueError(
            f"clamp is the least and the greatest factor, 0 or more, not {clamp}."
        )
    if isinstance(reference, str) and reference not in ("mean", "min", "max"):
        raise ValueError(
            f"reference is 'mean', 'min', 'max' or a row's number, not {reference!r}."
        )
    if not isinstance(reference, str):
        check_whole("reference", reference, 0)

    def init(num_objectives: int) -> BalanceMagnitudesState | optax.EmptyState:
        if mode != "loss_ratio":
            return optax.EmptyState()
        return BalanceMagnitudesState(jnp.zeros(num_objectives, jnp.float32))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Coefficients, Any]:
        del extra
        rows = coefficients.shape[0]
        beta = jnp.asarray(strength, coefficients.dtype)
        if beta.shape not in ((), (rows,)):
            raise ValueError(
                f"strength is one number or {rows}, one a row; not {beta.shape}."
            )
        factors = jnp.broadcast_to(beta, (rows,))
        used = row_mask(coefficients, mask)
        if mode == "equal_norms":
            squares = jnp.diagonal(row_gramian(coefficients, gramian))
            used &= squares > 0
            norms = jnp.sqrt(jnp.where(used, squares, 1.0))
            level = _reference_norm(reference, norms, used)
            factors = factors * level / norms
            if not isinstance(reference, str):
                used &= used[reference]
        elif mode == "loss_ratio":
            if losses is None:
                raise ValueError(
                    "balance_magnitudes('loss_ratio') needs the losses: pass "
                    "losses=values to update."
                )
            if state.initial_losses.shape != (rows,) or losses.shape != (rows,):
                raise ValueError(
                    "balance_magnitudes('loss_ratio') needs one loss for each row: "
                    f"{rows} rows, losses of shape {losses.shape}. Put it before "
                    "steps that change the number of rows."
                )
            ratios, initial, known = loss_ratios(losses, state.initial_losses, used)
            state = BalanceMagnitudesState(initial.astype(jnp.float32))
            factors = jnp.where(known, factors * ratios, factors)
        if clamp is not None:
            factors = jnp.clip(factors, clamp[0], clamp[1])
        if mode == "equal_norms" and not isinstance(reference, str):
            factors = factors.at[reference].set(1.0)
        return jnp.where(used, factors, 1.0)[:, None] * coefficients, state

    return Step(init, update)


def _reference_norm(
    reference: str | int, norms: Float[Array, " R"], used: Bool[Array, " R"]
) -> Float[Array, ""]:
    if not isinstance(reference, str):
        if not 0 <= reference < norms.shape[0]:
            raise ValueError(
                f"reference row {reference} does not exist: there are "
                f"{norms.shape[0]} rows, from 0."
            )
        return norms[reference]
    if reference == "min":
        return jnp.min(jnp.where(used, norms, jnp.inf))
    if reference == "max":
        return jnp.max(jnp.where(used, norms, 0.0))
    return jnp.sum(jnp.where(used, norms, 0.0)) / jnp.maximum(jnp.sum(used), 1)
