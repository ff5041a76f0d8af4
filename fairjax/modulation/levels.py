"""Reconcile objectives of modalities and of groups, in one Gram matrix."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from fairjax import steps
from fairjax.reconcilers.core import Step, reconcile
from fairjax.steps import Order
from fairjax.types import Scalar, check_nonnegative, check_whole

_NONE = 1e30


def modality_group_levels(num_modalities: int, num_groups: int) -> list[list[int]]:
    """Lists the rows of each modality among M · G objectives.

    Row ``m · G + g`` is the objective of modality m and group g. With this list,
    :func:`fairjax.steps.by_level` reconciles groups within each modality, and then the
    modalities.

    Args:
      num_modalities: Number of modalities, M.
      num_groups: Number of groups, G.

    Returns:
      The row numbers of each modality.

    Raises:
      ValueError: If a number is not an integer or is below 1.

    Example:
      >>> from fairjax import modulation
      >>> modulation.modality_group_levels(2, 3)
      [[0, 1, 2], [3, 4, 5]]
    """
    check_whole("num_modalities", num_modalities)
    check_whole("num_groups", num_groups)
    return [
        list(range(m * num_groups, (m + 1) * num_groups)) for m in range(num_modalities)
    ]


def dual_level(
    *,
    num_modalities: int,
    num_groups: int,
    group_direction: bool | Bool[Array, ""] = True,
    group_magnitude: bool | Bool[Array, ""] = True,
    modality_direction: bool | Bool[Array, ""] = True,
    modality_magnitude: bool | Bool[Array, ""] = True,
    limit: Scalar | None = None,
    order: Order | Sequence[int] = "random",
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Reconciles direction and magnitude, first among groups, then among modalities.

    There are M · G objectives: :math:`L_{m,g}` is the part of modality m's loss that
    comes from group g's patients. The objectives of each modality are reconciled into
    one row, and then the modalities' rows are reconciled, all in one [M·G, M·G] Gram
    matrix. At each of the two levels,

    - *magnitude*: rows are scaled to the mean norm of the level's rows
      (:func:`fairjax.steps.balance_magnitudes`), so that small groups and slowly
      learning modalities keep their weight;
    - *direction*: conflicting rows are projected off each other
      (:func:`fairjax.steps.project_conflicts`);

    and the rows are added up. With all four switches off, the result is the plain sum.
    It is best to include the fused loss as one of the "modalities". The unimodal losses
    conflict with the fused loss, but may share no parameters with each other.

    Args:
      num_modalities: Number of modalities, M, which are blocks of objectives.
      num_groups: Number of groups, G.
      group_direction: Whether to project groups' rows within each modality. Each of the
        four switches may be a traced boolean, so that a grid of settings compiles once.
      group_magnitude: Whether to balance groups' rows within each modality.
      modality_direction: Whether to project the modalities' rows.
      modality_magnitude: Whether to balance the modalities' rows.
      limit: The largest factor by which a row is lengthened; None: no limit.
      order: The order of projections at both levels, as in
        :func:`fairjax.steps.project_conflicts`. A sequence of row numbers requires as
        many groups as modalities.
      key: The random key for random orders.

    Returns:
      A transformation of stacked gradients ``[M · G, *param]``, row ``m · G + g``,
      into ``[*param]``. ``mask=[M · G]`` leaves objectives out, such as the objective
      of a modality that no patient of a group has.

    Raises:
      ValueError: If there is no modality or no group, or ``limit`` is below 0; at the
        update, as :func:`fairjax.reconcile`.

    References:
      Yu et al., *Gradient Surgery for Multi-Task Learning*, NeurIPS 2020 (the
      projections); the levels and their common Gram matrix are ours.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fairjax import modulation
      >>> tx = modulation.dual_level(
      ...     num_modalities=2, num_groups=2,
      ...     group_direction=False, modality_direction=False, modality_magnitude=False)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, 2.0]])
      >>> jax.jit(tx.update)(rows, tx.init(rows[0]))[0]
      Array([4., 4.], dtype=float32)
    """
    if limit is not None:
        check_nonnegative("limit", limit)

    def level(direction: bool | Array, magnitude: bool | Array) -> list[Step]:
        most = jnp.inf if limit is None else limit
        factors = (jnp.where(magnitude, 0.0, 1.0), jnp.where(magnitude, most, 1.0))
        return [
            steps.balance_magnitudes(clamp=factors),
            # So large an epsilon makes projections vanish. An infinite epsilon would
            # give NaN for rows that are all zero.
            steps.project_conflicts(
                order=order, epsilon=jnp.where(direction, 0.0, _NONE), key=key
            ),
            steps.combine("sum"),
        ]

    return reconcile(
        steps.by_level(
            modality_group_levels(num_modalities, num_groups),
            level(group_direction, group_magnitude),
            level(modality_direction, modality_magnitude),
        ),
        num_objectives=num_modalities * num_groups,
    )
