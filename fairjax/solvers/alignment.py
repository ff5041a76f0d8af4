r"""Weights in closed form that align the update with the gradients.

IMTL-G and ConFIG solve with the Gram matrix of the unit gradients, Aligned-MTL with
the eigenvalues of the gradients' own. Directions whose eigenvalue is at most a
tolerance times the greatest are left out, so that linearly dependent gradients are no
exception: a pseudo-inverse, from one symmetric eigen-decomposition.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.solvers._units import matmul, normalised, unit_gramian, usable_rows
from fairjax.types import Scalar

Scale = Literal["min", "median", "rmse"]
Normalization = Literal["sum", "absolute"]


def imtl_g(
    gramian: Float[Array, "R R"],
    *,
    normalization: Normalization = "sum",
    tolerance: Scalar | None = None,
    mask: Bool[Array, " R"] | None = None,
) -> Float[Array, " R"]:
    r"""Weights whose sum of rows has equal projections on each unit row (IMTL-G).

    With :math:`U` the Gram matrix of the unit rows :math:`u_i = g_i / \|g_i\|`,

    .. math:: w_i \propto \frac{(U^{+} \mathbf 1)_i}{\|g_i\|}, \qquad
        \sum_i w_i = 1 \ (\text{or } \textstyle\sum_i |w_i| = 1),

    so that :math:`d = \sum_i w_i g_i` has the same :math:`d \cdot u_i` for all rows,
    where their unit vectors allow it; otherwise in the least-squares sense.

    The weights may be negative, and so may be their sum. Divided by a negative sum, as
    published, the update ascends every objective; near a sum of 0 it is very long.
    ``"absolute"`` keeps the direction of common descent, and the length bounded.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      normalization: ``"sum"`` divides by :math:`\sum_i w_i`, as published;
        ``"absolute"`` by :math:`\sum_i |w_i|`.
      tolerance: Eigenvalues of :math:`U` at most this share of the greatest count as
        0; the number of rows times the dtype's resolution if None.
      mask: ``[R]``; a row where it is False gets weight 0.

    Returns:
      ``[R]``; zeros where the sum is 0 up to rounding, or no row is in use.

    References:
      Liu et al., *Towards Impartial Multi-task Learning*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> solvers.imtl_g(jnp.diag(jnp.array([1.0, 9.0])))
      Array([0.75, 0.25], dtype=float32)
    """
    if normalization not in ("sum", "absolute"):
        raise ValueError(
            f"normalization is 'sum' or 'absolute', not {normalization!r}."
        )
    used = usable_rows(gramian, mask)
    units, norms = unit_gramian(gramian, used)
    shortest = jnp.min(jnp.where(used, norms, jnp.inf))
    shares = _solve(units, used.astype(gramian.dtype), tolerance, used)
    weights = jnp.where(used, shares * (shortest / norms), 0.0)
    size = jnp.sum(jnp.abs(weights))
    total = jnp.sum(weights) if normalization == "sum" else size
    lost = jnp.abs(total) <= gramian.shape[0] * jnp.finfo(gramian.dtype).eps * size
    return jnp.where(lost, 0.0, weights / jnp.where(lost, 1.0, total))


def aligned_mtl(
    gramian: Float[Array, "R R"],
    *,
    scale: Scale = "min",
    preference: Float[Array, " R"] | None = None,
    tolerance: Scalar | None = None,
    mask: Bool[Array, " R"] | None = None,
) -> Float[Array, " R"]:
    r"""Weights that give all principal components of the rows one length (Aligned-MTL).

    With :math:`G = V \Lambda V^\top` and :math:`\sigma^2` the least, the (lower) median
    or the mean of the eigenvalues that are not 0,

    .. math:: w = \sigma\, V \Lambda^{-1/2} V^\top p.

    The aligned rows :math:`\sigma V \Lambda^{-1/2} V^\top J` are orthogonal to each
    other, so that no aligned row conflicts with another; the update may still conflict
    with a row as it was. ``"min"`` is as the paper has it, and fades with the least
    eigenvalue: nearly dependent gradients give a short update.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      scale: ``"min"``, ``"median"`` or ``"rmse"``, the root of the mean.
      preference: ``[R]``, :math:`p`; equal shares 1/m of the rows in use if None.
      tolerance: Eigenvalues at most this share of the greatest count as 0; the number
        of rows times the dtype's resolution if None.
      mask: ``[R]``; a row where it is False gets weight 0.

    Returns:
      ``[R]``; zeros if no row is in use.

    References:
      Senushkin et al., *Independent Component Alignment for Multi-Task Learning*, CVPR
      2023.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> solvers.aligned_mtl(jnp.diag(jnp.array([1.0, 4.0])))
      Array([0.5 , 0.25], dtype=float32)
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"scale is 'min', 'median' or 'rmse', not {scale!r}.")
    used = usable_rows(gramian, mask)
    number = jnp.sum(used)
    if preference is None:
        preference = jnp.where(used, 1.0 / jnp.maximum(number, 1), 0.0)
    own, _ = normalised(gramian, used)
    values, vectors, kept = _spectrum(own, tolerance, used)
    rank = jnp.sum(kept)
    if scale == "rmse":
        level = jnp.sum(jnp.where(kept, values, 0.0)) / jnp.maximum(rank, 1)
    else:
        # Ascending, those kept last: the least is at R − rank.
        place = gramian.shape[0] - rank
        place = place + (rank - 1) // 2 if scale == "median" else place
        level = values[jnp.clip(place, 0, gramian.shape[0] - 1)]
    roots = jnp.where(kept, jnp.sqrt(level / jnp.where(kept, values, 1.0)), 0.0)
    asked = jnp.where(used, preference, 0.0).astype(gramian.dtype)
    weights = matmul(vectors, roots * matmul(vectors.T, asked))
    return jnp.where(used, weights, 0.0)


def config(
    gramian: Float[Array, "R R"],
    *,
    preference: Float[Array, " R"] | None = None,
    tolerance: Scalar | None = None,
    mask: Bool[Array, " R"] | None = None,
) -> Float[Array, " R"]:
    r"""Weights of the conflict-free update of the unit rows (ConFIG).

    With unit rows :math:`u_i` stacked in :math:`\hat J`, and :math:`U = \hat J
    \hat J^\top`,

    .. math:: \hat d \propto \hat J^{+} p = \hat J^\top U^{+} p, \qquad
        d = \Big(\sum_i g_i \cdot \hat d\Big)\, \hat d, \qquad \|\hat d\| = 1.

    With :math:`p = \mathbf 1` the direction is IMTL-G's; the length is the sum of the
    rows' projections on it.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      preference: ``[R]``, :math:`p`; ones if None. Only its proportions matter.
      tolerance: Eigenvalues of :math:`U` at most this share of the greatest count as
        0; the number of rows times the dtype's resolution if None.
      mask: ``[R]``; a row where it is False gets weight 0.

    Returns:
      ``[R]``; zeros where the unit rows allow no such direction, or none is in use.

    References:
      Liu, Chu and Thuerey, *ConFIG: Towards Conflict-free Training of Physics Informed
      Neural Networks*, ICLR 2025, equation 2.

    Example:
      Two orthogonal rows of the lengths 1 and 3 become :math:`2 u_0 + 2 u_1`:

      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> solvers.config(jnp.diag(jnp.array([1.0, 9.0])))
      Array([2.       , 0.6666667], dtype=float32)
    """
    used = usable_rows(gramian, mask)
    units, norms = unit_gramian(gramian, used)
    if preference is None:
        preference = jnp.ones_like(norms)
    asked = jnp.where(used, preference, 0.0).astype(gramian.dtype)
    shares = _solve(units, asked, tolerance, used)
    # Inner products of the direction, not yet of unit length, with the unit rows.
    inner = matmul(units, shares)
    square = jnp.sum(shares * inner)
    size = jnp.sum(jnp.abs(shares)) ** 2
    found = square > gramian.shape[0] * jnp.finfo(gramian.dtype).eps * size
    longest = jnp.max(jnp.where(used, norms, 0.0))
    relative = jnp.where(used, norms / jnp.where(longest > 0, longest, 1.0), 1.0)
    length = jnp.sum(jnp.where(used, relative * inner, 0.0))
    weights = length * shares / relative / jnp.where(found, square, 1.0)
    return jnp.where(used & found, weights, 0.0)


def _spectrum(
    matrix: Float[Array, "R R"],
    tolerance: Scalar | None,
    used: Bool[Array, " R"],
) -> tuple[Float[Array, " R"], Float[Array, "R R"], Bool[Array, " R"]]:
    """Eigenvalues in ascending order, eigenvectors, and which are not 0."""
    values, vectors = jnp.linalg.eigh(matrix)
    if tolerance is None:
        tolerance = jnp.sum(used) * jnp.finfo(matrix.dtype).eps
    return values, vectors, values > jnp.maximum(tolerance * values[-1], 0.0)


def _solve(
    matrix: Float[Array, "R R"],
    target: Float[Array, " R"],
    tolerance: Scalar | None,
    used: Bool[Array, " R"],
) -> Float[Array, " R"]:
    """The pseudo-inverse of a symmetric matrix, times a vector."""
    values, vectors, kept = _spectrum(matrix, tolerance, used)
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, values, 1.0), 0.0)
    return matmul(vectors, inverse * matmul(vectors.T, target))
