r"""IMTL-G, Aligned-MTL and ConFIG: weights in closed form, from the gradients' angles.

IMTL-G and ConFIG use a pseudo-inverse of the Gram matrix of the unit gradients.
Aligned-MTL uses the eigenvalues of the Gram matrix of the gradients. Each needs one
symmetric eigen-decomposition. Directions whose eigenvalue is at most a tolerance times
the greatest eigenvalue are left out, so that gradients may be linearly dependent.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.reconcilers._units import matmul, normalised, unit_gramian, usable_rows
from fairjax.reconcilers.core import (
    Step,
    check_preference,
    row_preference,
    transformation,
    weighting,
)
from fairjax.types import Numbers, Scalar, check_choice, check_nonnegative

F = TypeVar("F", bound=Callable[..., Any])
Scale = Literal["min", "median", "rmse"]
Normalization = Literal["sum", "absolute"]


def solve_imtl_g(
    gramian: Float[Array, "R R"],
    *,
    normalization: Normalization = "sum",
    tolerance: Scalar | None = None,
    mask: Bool[Array, " R"] | None = None,
) -> Float[Array, " R"]:
    r"""Finds weights that give equal projections on each unit row (IMTL-G).

    With :math:`U` the Gram matrix of the unit rows :math:`u_i = g_i / \|g_i\|`,

    .. math:: w_i \propto \frac{(U^{+} \mathbf 1)_i}{\|g_i\|}, \qquad
        \sum_i w_i = 1 \ (\text{or } \textstyle\sum_i |w_i| = 1),

    so that :math:`d = \sum_i w_i g_i` has the same :math:`d \cdot u_i` for all rows, if
    their unit vectors allow it, and otherwise in the least-squares sense.

    The weights and their sum may be negative. Divided by a negative sum, as published,
    the update ascends every objective; near a sum of 0 the update is very long.
    ``"absolute"`` keeps the direction of common descent, and bounds the length.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      normalization: ``"sum"`` divides by :math:`\sum_i w_i`, as published;
        ``"absolute"`` divides by :math:`\sum_i |w_i|`.
      tolerance: Eigenvalues of :math:`U` up to this fraction of the greatest count as
        0. None is the number of rows times the dtype's resolution.
      mask: ``[R]``; rows where the mask is False get weight 0.

    Returns:
      ``[R]``; zeros if the sum is 0 up to rounding, or if no row is in use.

    References:
      Liu et al., *Towards Impartial Multi-task Learning*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> solvers.imtl_g(jnp.diag(jnp.array([1.0, 9.0])))
      Array([0.75, 0.25], dtype=float32)
    """
    check_choice("normalization", normalization, "sum", "absolute")
    used = usable_rows(gramian, mask)
    units, norms = unit_gramian(gramian, used)
    shortest = jnp.min(jnp.where(used, norms, jnp.inf))
    shares = _pseudo_solve(units, used.astype(gramian.dtype), tolerance, used)
    weights = jnp.where(used, shares * (shortest / norms), 0.0)
    size = jnp.sum(jnp.abs(weights))
    total = jnp.sum(weights) if normalization == "sum" else size
    lost = jnp.abs(total) <= gramian.shape[0] * jnp.finfo(gramian.dtype).eps * size
    return jnp.where(lost, 0.0, weights / jnp.where(lost, 1.0, total))


def solve_aligned_mtl(
    gramian: Float[Array, "R R"],
    *,
    scale: Scale = "min",
    preference: Float[Array, " R"] | None = None,
    tolerance: Scalar | None = None,
    mask: Bool[Array, " R"] | None = None,
) -> Float[Array, " R"]:
    r"""Finds weights that give all principal components one length (Aligned-MTL).

    With :math:`G = V \Lambda V^\top`, and with :math:`\sigma^2` the least, the (lower)
    median or the mean of the eigenvalues that are not 0,

    .. math:: w = \sigma\, V \Lambda^{-1/2} V^\top p.

    The aligned rows :math:`\sigma V \Lambda^{-1/2} V^\top J` are orthogonal to each
    other, so aligned rows do not conflict. The update may still conflict with an
    original row. ``"min"`` is as published, and shrinks with the least eigenvalue:
    nearly dependent gradients give a short update.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      scale: ``"min"``, ``"median"`` or ``"rmse"``, the root of the mean.
      preference: ``[R]``, :math:`p`; by default 1/m for each of the m rows in use.
      tolerance: Eigenvalues up to this fraction of the greatest count as 0. None is the
        number of rows times the dtype's resolution.
      mask: ``[R]``; rows where the mask is False get weight 0.

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
    check_choice("scale", scale, "min", "median", "rmse")
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
        # Eigenvalues ascend, so the least one kept is at R − rank.
        position = gramian.shape[0] - rank
        position = position + (rank - 1) // 2 if scale == "median" else position
        level = values[jnp.clip(position, 0, gramian.shape[0] - 1)]
    roots = jnp.where(kept, jnp.sqrt(level / jnp.where(kept, values, 1.0)), 0.0)
    asked = jnp.where(used, preference, 0.0).astype(gramian.dtype)
    weights = matmul(vectors, roots * matmul(vectors.T, asked))
    return jnp.where(used, weights, 0.0)


def solve_conflict_free(
    gramian: Float[Array, "R R"],
    *,
    preference: Float[Array, " R"] | None = None,
    tolerance: Scalar | None = None,
    mask: Bool[Array, " R"] | None = None,
) -> Float[Array, " R"]:
    r"""Finds the weights of the conflict-free update of the unit rows (ConFIG).

    With unit rows :math:`u_i` stacked in :math:`\hat J`, and :math:`U = \hat J
    \hat J^\top`,

    .. math:: \hat d \propto \hat J^{+} p = \hat J^\top U^{+} p, \qquad
        d = \Big(\sum_i g_i \cdot \hat d\Big)\, \hat d, \qquad \|\hat d\| = 1.

    With :math:`p = \mathbf 1` the direction is IMTL-G's. The length is the sum of the
    rows' projections on the direction.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      preference: ``[R]``, :math:`p`; ones if None. Only its proportions matter.
      tolerance: Eigenvalues of :math:`U` up to this fraction of the greatest count as
        0. None is the number of rows times the dtype's resolution.
      mask: ``[R]``; rows where the mask is False get weight 0.

    Returns:
      ``[R]``; zeros if the unit rows allow no such direction, or if no row is in use.

    References:
      Liu, Chu and Thuerey, *ConFIG: Towards Conflict-free Training of Physics Informed
      Neural Networks*, ICLR 2025, equation 2.

    Example:
      Two orthogonal rows of the lengths 1 and 3 become :math:`2 u_0 + 2 u_1`:

      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> solvers.conflict_free(jnp.diag(jnp.array([1.0, 9.0])))
      Array([2.       , 0.6666667], dtype=float32)
    """
    used = usable_rows(gramian, mask)
    units, norms = unit_gramian(gramian, used)
    if preference is None:
        preference = jnp.ones_like(norms)
    asked = jnp.where(used, preference, 0.0).astype(gramian.dtype)
    shares = _pseudo_solve(units, asked, tolerance, used)
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


def imtl_g_step(
    *,
    normalization: Normalization = "sum",
    tolerance: Scalar | None = None,
) -> Step:
    r"""Weighs rows so that projections on all unit rows are equal (IMTL-G).

    See :func:`fairjax.solvers.imtl_g` for the formula, and for the effect of a negative
    sum of weights.

    Args:
      normalization: ``"sum"`` (as published) makes the weights sum to 1;
        ``"absolute"`` makes their absolute values sum to 1.
      tolerance: Eigenvalues up to this fraction of the greatest count as 0. None
        excludes eigenvalues that are 0 up to rounding.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: The normalization is unknown, or the tolerance is below 0.

    References:
      Liu et al., *Towards Impartial Multi-task Learning*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.imtl_g()
      >>> step.update(jnp.eye(2), jnp.diag(jnp.array([1.0, 9.0])), step.init(2))[0]
      Array([[0.75, 0.25]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.imtl_g(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([0.75, 0.75], dtype=float32)
    """
    check_choice("normalization", normalization, "sum", "absolute")
    return _closed_form(solve_imtl_g, tolerance, normalization=normalization)


def aligned_mtl_step(
    *,
    scale: Scale = "min",
    preference: Numbers | None = None,
    tolerance: Scalar | None = None,
) -> Step:
    r"""Combines the rows' principal components at one length (Aligned-MTL).

    See :func:`fairjax.solvers.aligned_mtl` for the formula.

    Args:
      scale: ``"min"``, ``"median"`` or ``"rmse"``: the eigenvalue that sets the length.
      preference: Weights ≥ 0 of the aligned rows, one for each row; the mean of the
        rows in use if None.
      tolerance: Eigenvalues up to this fraction of the greatest count as 0. None
        excludes eigenvalues that are 0 up to rounding. With ``scale="min"``, the least
        eigenvalue above the tolerance sets the update's length.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: The scale is unknown; the preference or the tolerance is negative. At
        the update: the preference does not fit the rows.

    References:
      Senushkin et al., *Independent Component Alignment for Multi-Task Learning*, CVPR
      2023.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.aligned_mtl()
      >>> step.update(jnp.eye(2), jnp.diag(jnp.array([1.0, 4.0])), step.init(2))[0]
      Array([[0.5 , 0.25]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.aligned_mtl(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([0.5, 0.5], dtype=float32)
    """
    check_choice("scale", scale, "min", "median", "rmse")
    return _closed_form(
        solve_aligned_mtl, tolerance, preference=preference, scale=scale
    )


def conflict_free_step(
    *, preference: Numbers | None = None, tolerance: Scalar | None = None
) -> Step:
    r"""Finds an update that does not conflict with any unit row (ConFIG).

    Its length is the sum of the rows' projections. See
    :func:`fairjax.solvers.conflict_free` for the formula.

    Args:
      preference: The proportions ≥ 0 of the projections on the unit rows, one for each
        row; equal if None.
      tolerance: Eigenvalues up to this fraction of the greatest count as 0. None
        excludes eigenvalues that are 0 up to rounding.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: The preference or the tolerance is negative. At the update: the
        preference does not fit the rows.

    References:
      Liu, Chu and Thuerey, *ConFIG: Towards Conflict-free Training of Physics Informed
      Neural Networks*, ICLR 2025.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.conflict_free()
      >>> step.update(jnp.eye(2), jnp.diag(jnp.array([1.0, 4.0])), step.init(2))[0]
      Array([[1.5 , 0.75]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.conflict_free(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> update, _ = tx.update(rows, tx.init(jnp.zeros(2)))
      >>> [round(float(entry), 3) for entry in update]
      [2.0, 2.0]
    """
    return _closed_form(solve_conflict_free, tolerance, preference=preference)


imtl_g = transformation(imtl_g_step)
aligned_mtl = transformation(aligned_mtl_step)
conflict_free = transformation(conflict_free_step)


def _renamed(function: F, name: str) -> F:
    """Returns the function under its old name, for one release, with a warning."""

    @functools.wraps(function)
    def old(*args: Any, **options: Any) -> Any:
        message = "config is now called conflict_free; the next release drops config."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return function(*args, **options)

    old.__name__ = old.__qualname__ = name
    old.__doc__ = "Deprecated: the old name of ``conflict_free``, for one release."
    return cast(F, old)


solve_config = _renamed(solve_conflict_free, "solve_config")
config_step = _renamed(conflict_free_step, "config_step")
config = _renamed(conflict_free, "config")


def _closed_form(
    solve: Callable[..., Float[Array, " R"]], tolerance: Scalar | None, **options: Any
) -> Step:
    preference = options.get("preference")
    check_preference(preference)
    if tolerance is not None:
        check_nonnegative("tolerance", tolerance)

    def weigh(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Array:
        given = dict(options)
        if preference is not None:
            given["preference"] = row_preference(preference, own)
        return solve(own, tolerance=tolerance, mask=used, **given)

    return weighting(weigh)


def _spectrum(
    matrix: Float[Array, "R R"],
    tolerance: Scalar | None,
    used: Bool[Array, " R"],
) -> tuple[Float[Array, " R"], Float[Array, "R R"], Bool[Array, " R"]]:
    """Returns ascending eigenvalues, eigenvectors, and which eigenvalues are not 0."""
    values, vectors = jnp.linalg.eigh(matrix)
    if tolerance is None:
        tolerance = jnp.sum(used) * jnp.finfo(matrix.dtype).eps
    return values, vectors, values > jnp.maximum(tolerance * values[-1], 0.0)


def _pseudo_solve(
    matrix: Float[Array, "R R"],
    target: Float[Array, " R"],
    tolerance: Scalar | None,
    used: Bool[Array, " R"],
) -> Float[Array, " R"]:
    """Multiplies the pseudo-inverse of a symmetric matrix by a vector."""
    values, vectors, kept = _spectrum(matrix, tolerance, used)
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, values, 1.0), 0.0)
    return matmul(vectors, inverse * matmul(vectors.T, target))
