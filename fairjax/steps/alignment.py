"""Aligning the update with the rows, in closed form."""

from jaxtyping import Array, Bool, Float

from fairjax.solvers import alignment
from fairjax.steps._weighting import (
    Preference,
    check_preference,
    row_preference,
    weighting,
)
from fairjax.types import Scalar, Step, check_nonnegative


def imtl_g(
    *,
    normalization: alignment.Normalization = "sum",
    tolerance: Scalar | None = None,
) -> Step:
    r"""One row with equal projections on each unit row (IMTL-G).

    See :func:`fairjax.solvers.imtl_g` for the formula, and for what a negative sum of
    weights does.

    Args:
      normalization: ``"sum"`` (as published) makes the weights sum to 1;
        ``"absolute"`` their absolute values.
      tolerance: The share of the greatest eigenvalue up to which others count as 0;
        rounding's if None.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: An unknown normalization, or a tolerance below 0.

    References:
      Liu et al., *Towards Impartial Multi-task Learning*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.imtl_g()
      >>> step.update(jnp.eye(2), jnp.diag(jnp.array([1.0, 9.0])), step.init(2))[0]
      Array([[0.75, 0.25]], dtype=float32)
    """
    if normalization not in ("sum", "absolute"):
        raise ValueError(
            f"normalization is 'sum' or 'absolute', not {normalization!r}."
        )
    if tolerance is not None:
        check_nonnegative("tolerance", tolerance)

    def weigh(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Array:
        return alignment.imtl_g(
            own, normalization=normalization, tolerance=tolerance, mask=used
        )

    return weighting(weigh)


def aligned_mtl(
    *,
    scale: alignment.Scale = "min",
    preference: Preference = None,
    tolerance: Scalar | None = None,
) -> Step:
    r"""One row from principal components of equal length (Aligned-MTL).

    See :func:`fairjax.solvers.aligned_mtl` for the formula.

    Args:
      scale: ``"min"``, ``"median"`` or ``"rmse"``: which eigenvalue is everyone's.
      preference: Weights ≥ 0 of the aligned rows, one a row; the mean of the rows in
        use if None.
      tolerance: The share of the greatest eigenvalue up to which others count as 0;
        rounding's if None. The least of those that do not sets the update's length.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: An unknown scale, a negative preference or tolerance; at the update, a
        preference that does not fit the rows.

    References:
      Senushkin et al., *Independent Component Alignment for Multi-Task Learning*, CVPR
      2023.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.aligned_mtl()
      >>> step.update(jnp.eye(2), jnp.diag(jnp.array([1.0, 4.0])), step.init(2))[0]
      Array([[0.5 , 0.25]], dtype=float32)
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"scale is 'min', 'median' or 'rmse', not {scale!r}.")
    check_preference(preference)
    if tolerance is not None:
        check_nonnegative("tolerance", tolerance)

    def weigh(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Array:
        return alignment.aligned_mtl(
            own,
            scale=scale,
            preference=row_preference(preference, own),
            tolerance=tolerance,
            mask=used,
        )

    return weighting(weigh)


def config(*, preference: Preference = None, tolerance: Scalar | None = None) -> Step:
    r"""One row that no unit row conflicts with, as long as their projections (ConFIG).

    See :func:`fairjax.solvers.config` for the formula.

    Args:
      preference: The proportions ≥ 0 of the projections on the unit rows, one a row;
        equal if None.
      tolerance: The share of the greatest eigenvalue up to which others count as 0;
        rounding's if None.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: A negative preference or tolerance; at the update, a preference that
        does not fit the rows.

    References:
      Liu, Chu and Thuerey, *ConFIG: Towards Conflict-free Training of Physics Informed
      Neural Networks*, ICLR 2025.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.config()
      >>> step.update(jnp.eye(2), jnp.diag(jnp.array([1.0, 4.0])), step.init(2))[0]
      Array([[1.5 , 0.75]], dtype=float32)
    """
    check_preference(preference)
    if tolerance is not None:
        check_nonnegative("tolerance", tolerance)

    def weigh(own: Float[Array, "R R"], used: Bool[Array, " R"]) -> Array:
        return alignment.config(
            own,
            preference=row_preference(preference, own),
            tolerance=tolerance,
            mask=used,
        )

    return weighting(weigh)
