r"""Pairwise orthogonal projection of gradients, from their Gram matrix alone."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Condition = Literal["conflict", "always"]


@functools.partial(jax.jit, static_argnames=("condition", "include_self"))
def project_conflicts(
    gramian: Float[Array, "R R"],
    order: Int[Array, "R R"],
    *,
    condition: Condition = "conflict",
    include_self: bool = False,
    epsilon: float | Float[Array, ""] = 0.0,
    mask: Bool[Array, " R"] | None = None,
) -> Float[Array, "R R"]:
    r"""Project each row off the rows that it conflicts with (PCGrad).

    For each row :math:`i`, start from :math:`\tilde g_i = g_i` and go through the
    other rows :math:`j` in row :math:`i`'s own order:

    .. math:: \tilde g_i \leftarrow \tilde g_i
        - \frac{\tilde g_i \cdot g_j}{\|g_j\|^2 + \epsilon}\, g_j
        \quad\text{if } \tilde g_i \cdot g_j < 0,

    with :math:`g_j` as it was at the start. Only inner products enter, so the result
    is a matrix :math:`T` with :math:`\tilde g_i = \sum_j T_{ij} g_j`. The rows are
    projected side by side, so R steps of vector work do the R² projections.

    With three rows or more the result may still conflict with a row: a later
    projection can undo an earlier one.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      order: ``[R, R]``; row ``i`` names the order in which the others are met. The
        row itself is passed over wherever it stands, unless ``include_self``.
      condition: ``"conflict"`` projects where the inner product is negative;
        ``"always"`` projects off every other row.
      include_self: Whether a row also meets itself, as it was at the start: once
        projected, it may conflict with that. Some published code does so.
      epsilon: Added to the squared norm that is divided by.
      mask: ``[R]``; a row where it is False is neither projected nor projected off.

    Returns:
      ``T [R, R]``: row ``i`` holds the coefficients of the projected row ``i``.

    References:
      Yu et al., *Gradient Surgery for Multi-Task Learning*, NeurIPS 2020, algorithm 1.

    Example:
      Rows (1, 0) and (−1, −1) become (.5, −.5) and (0, −1):

      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> order = jnp.array([[0, 1], [0, 1]])
      >>> solvers.project_conflicts(jnp.array([[1.0, -1.0], [-1.0, 2.0]]), order)
      Array([[1. , 0.5],
             [1. , 1. ]], dtype=float32)
    """
    if condition not in ("conflict", "always"):
        raise ValueError(f"condition is 'conflict' or 'always', not {condition!r}.")
    rows = gramian.shape[0]
    row = jnp.arange(rows)
    norms = jnp.diagonal(gramian) + epsilon
    usable = jnp.diagonal(gramian) > 0
    if mask is not None:
        usable &= mask

    def project(step, carry):
        # products[i] = the inner products of the current row i with every row.
        coefficients, products = carry
        other = order[:, step]
        inner = products[row, other]
        applies = usable & usable[other]
        if not include_self:
            applies &= other != row
        if condition == "conflict":
            applies &= inner < 0
        share = jnp.where(applies, inner / jnp.where(applies, norms[other], 1.0), 0.0)
        coefficients = coefficients.at[row, other].add(-share)
        products = products - share[:, None] * gramian[other]
        return coefficients, products

    start = jnp.eye(rows, dtype=gramian.dtype), gramian
    return jax.lax.fori_loop(0, rows, project, start)[0]
