"""Variance of an estimate from the influence of each row, or patient."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fairjax.metrics._rows import as_rows, compiled, float_type, unknown_codes
from fairjax.metrics._segments import group_sums
from fairjax.metrics.counts import GroupRows


@compiled("num_groups", "num_patients")
def influence_variance(
    influence: Float[Array | np.ndarray, " rows"],
    groups: GroupRows,
    *,
    num_groups: int,
    patients: Int[Array | np.ndarray, " rows"] | None = None,
    num_patients: int | None = None,
) -> Float[Array, " groups"]:
    r"""Computes the variance of each group's estimate, robust to clustered rows.

    .. math:: \widehat{\mathrm{Var}}(\hat\theta_g) = \frac{m_g}{m_g - 1}
              \sum_p \Big(\sum_{i \in g, p} u_i\Big)^2

    over the :math:`m_g` patients :math:`p` of the group, or the rows of the group
    without patients. :math:`u_i` is the influence of the row, the first-order
    contribution to the estimate's error: :math:`(x_i - \bar x_g) / n_g` for a mean, and
    the score times the inverse information for a maximum-likelihood estimate (the
    sandwich estimator).

    Args:
      influence: ``[rows]``; sums to about 0 in each group.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      patients: ``[rows]`` in ``0 .. num_patients - 1``; None if every row is a
        different patient.
      num_patients: Number of patients; needed with ``patients``.

    Returns:
      ``[G]``, at least 0; NaN for a group of fewer than two patients.

    Raises:
      ValueError: If ``num_groups`` is below 1, the columns differ in length, only one
        of ``patients`` and ``num_patients`` is given, or a code is outside the range.

    References:
      Huber, "The behavior of maximum likelihood estimates under nonstandard
      conditions", Proc. Fifth Berkeley Symposium 1 (1967); Liang and Zeger,
      "Longitudinal data analysis using generalized linear models", Biometrika 73
      (1986).

    Example:
      >>> import jax.numpy as jnp
      >>> values, one = jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3, int)
      >>> variance = influence_variance((values - 2) / 3, one, num_groups=1)
      >>> round(variance.item(), 4)  # the sample variance over the rows, 1 / 3
      0.3333
    """
    values, ids, people = as_rows(
        num_groups, influence=influence, groups=groups, patients=patients
    )
    values, ids = values.astype(float_type(values)), ids.astype(jnp.int32)
    if people is None or num_patients is None:
        members = group_sums(jnp.ones_like(ids), ids, num_groups)
        squares = group_sums(values**2, ids, num_groups)
    else:
        unknown = unknown_codes(people, num_patients)

        def of_group(group: Array) -> tuple[Array, Array]:
            inside = ids == group
            inner = jnp.where(inside, people, -1)
            squares = jnp.sum(group_sums(values, inner, num_patients) ** 2)
            members = jnp.sum(group_sums(inside, inner, num_patients) > 0)
            return members, jnp.where(jnp.any(inside & unknown), jnp.nan, squares)

        # One group at a time avoids an array [patients, groups].
        members, squares = jax.lax.map(of_group, jnp.arange(num_groups))
    factor = jnp.where(members > 1, members / jnp.maximum(members - 1, 1), jnp.nan)
    return factor * squares
