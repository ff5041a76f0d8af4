"""Objectives of every modality and group, reconciled at both levels in one Gram."""

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
    """The levels of M · G objectives, row ``m · G + g`` for modality m and group g.

    For :func:`fairjax.steps.by_level`: groups within each modality, then modalities.

    Args:
      num_modalities: M.
      num_groups: G.

    Returns:
      For each modality the numbers of its rows.

    Raises:
      ValueError: A number that is not whole, or below 1.

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
    r"""Direction and magnitude at the levels of groups and of modalities.

    Of M · G objectives :math:`L_{m,g}`, the part of modality m's loss that group g's
    patients have, those of each modality are reconciled into one row, and then the
    modalities' rows, all in the one [M·G, M·G] Gram matrix. At each level,

    - *magnitude*: rows are scaled to the mean norm of the level's rows
      (:func:`fairjax.steps.balance_magnitudes`), so that no small group, and no
      modality that learns slowly, is drowned;
    - *direction*: conflicting rows are projected off each other
      (:func:`fairjax.steps.project_conflicts`);

    and the rows are added up. With all four off it is the plain sum. The fused loss is
    best one of the "modalities": it is what the unimodal losses conflict with, for
    these need share no parameters with each other.

    Args:
      num_modalities: M, blocks of objectives.
      num_groups: G.
      group_direction: Project groups' rows within each modality. A switch may be a
        traced boolean, so that a grid of them compiles once.
      group_magnitude: Balance groups' rows within each modality.
      modality_direction: Project the modalities' rows.
      modality_magnitude: Balance the modalities' rows.
      limit: The most that a row is lengthened; None: as much as it takes.
      order: Of projections, as in :func:`fairjax.steps.project_conflicts`, at both
        levels: a sequence of rows' numbers needs as many groups as modalities.
      key: Of random orders.

    Returns:
      A transformation of stacked gradients ``[M · G, *param]``, row ``m · G + g``,
      into ``[*param]``. ``mask=[M · G]`` leaves objectives out, such as those of a
      modality that no patient of a group has.

    Raises:
      ValueError: Fewer than one modality or group; a limit below 0; at the update, as
        :func:`fairjax.reconcile`.

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
            # Beside so large an epsilon nothing is left of a projection; an infinite
            # one would be NaN beside rows that are all zero.
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
