r"""Variance and covariance of AUROCs: DeLong's, and Obuchowski's for clustered rows.

The placement of a positive is the fraction of negatives ranked below the positive. The
placement of a negative is the fraction of positives ranked above the negative. A tie
counts half. The mean of either kind of placement is the AUROC :math:`\theta`, and the
variance of the placements gives the variance of the AUROC. Placements come from one
sort for each model, not from all pairs (Sun and Xu 2014).

Over models :math:`r, s` of one group with :math:`M` positives and :math:`N` negatives,
and with :math:`X^r_i`, :math:`Y^r_j` the placements less :math:`\theta_r`,

.. math:: \frac{1}{M(M-1)} \sum_i X^r_i X^s_i + \frac{1}{N(N-1)} \sum_j Y^r_j Y^s_j

(DeLong). The rows of one patient are dependent. Let :math:`X^r_p`, :math:`Y^r_p` be the
sums of placements over the rows of patient :math:`p`. Let :math:`I_1`, :math:`I_0`,
:math:`I` be the number of patients with a positive, a negative or either row. Then the
covariance is

.. math:: \frac{I_1}{I_1-1} \frac{\sum_p X^r_p X^s_p}{M^2}
          + \frac{I_0}{I_0-1} \frac{\sum_p Y^r_p Y^s_p}{N^2}
          + \frac{I}{I-1} \frac{\sum_p (X^r_p Y^s_p + Y^r_p X^s_p)}{MN}

(Obuchowski), which equals DeLong's covariance if every patient has one row.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fairjax.metrics._placement import before_and_through, mean_fraction, sorted_mass
from fairjax.metrics._rows import (
    PatientRows,
    as_rows,
    check_columns,
    compiled,
    unknown_codes,
)
from fairjax.metrics._segments import group_sums
from fairjax.metrics.counts import BinaryRows, GroupRows
from fairjax.metrics.order import grouped_score_order
from fairjax.types import gathered

ModelScores: TypeAlias = (
    Float[Array | np.ndarray, "models rows"] | Float[Array | np.ndarray, " rows"]
)


class DeLong(NamedTuple):
    """AUROCs of every model in every group, with their covariance over models.

    Attributes:
      auroc: ``[m, G]``.
      covariance: ``[G, m, m]``. A perfect AUROC, 0 or 1, has variance 0, which does not
        mean certainty: use ``auroc_interval`` there.
    """

    auroc: Float[Array, "models groups"]
    covariance: Float[Array, "groups models models"]


class JointDeLong(NamedTuple):
    """AUROCs of every model in every group, with their joint covariance.

    Attributes:
      auroc: ``[m, G]``.
      covariance: ``[m, G, m, G]``; reshaped to ``[mG, mG]`` the covariance of
        ``auroc.ravel()``.
    """

    auroc: Float[Array, "models groups"]
    covariance: Float[Array, "models groups models groups"]


@compiled("num_groups", "num_patients")
def delong(
    labels: BinaryRows,
    scores: ModelScores,
    groups: GroupRows,
    *,
    num_groups: int,
    patients: PatientRows | None = None,
    num_patients: int | None = None,
) -> DeLong:
    """Computes AUROCs by group with DeLong's covariance over models, in O(n log n).

    The variance of the difference of models 0 and 1 is ``c[g, 0, 0] + c[g, 1, 1] -
    2 c[g, 0, 1]``. Groups are independent, so the variances of their AUROCs add, unless
    a patient has rows in several groups: see ``delong_joint``.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[m, rows]``, scores of several models, or ``[rows]`` of one model.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      patients: ``[rows]``, codes in ``0 .. num_patients - 1``, equal for dependent
        rows: the covariance is then Obuchowski's. Rows are independent by default.
      num_patients: Number of codes; needed with ``patients``.

    Returns:
      Estimates and covariance. Both are NaN for a group that lacks a class or has a NaN
      score; a NaN score of any model makes the group's covariance NaN. The covariance
      is also NaN where a class has one row, or the rows of one patient, or where a
      traced code is outside the range.

    Raises:
      ValueError: If ``num_groups`` is below 1, the columns differ in length, only one
        of ``patients`` and ``num_patients`` is given, or a code is outside the range.

    References:
      DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more
      correlated receiver operating characteristic curves: a nonparametric approach",
      Biometrics 44 (1988); Sun and Xu, "Fast implementation of DeLong's algorithm for
      comparing the areas under correlated receiver operating characteristic curves",
      IEEE Signal Processing Letters 21 (2014); Obuchowski, "Nonparametric analysis of
      clustered ROC curve data", Biometrics 53 (1997).

    Example:
      >>> import jax.numpy as jnp
      >>> result = delong(
      ...     jnp.array([0, 0, 1, 1]), jnp.array([0.1, 0.4, 0.35, 0.8]),
      ...     jnp.zeros(4, int), num_groups=1,
      ... )
      >>> result.auroc.item(), result.covariance.item()
      (0.75, 0.125)
    """
    table = _placements(labels, scores, groups, num_groups)
    if patients is not None:
        joint = _clustered(table, patients, num_groups, num_patients, across=False)
        return DeLong(table.auroc, joint)

    def within(label, size):
        part = jnp.where(table.labels == label, table.centred, 0)
        products = _products(part, part, table.groups, num_groups)
        scale = jnp.where(size > 1, size * (size - 1.0), jnp.nan)
        return products / scale[:, None, None]

    return DeLong(table.auroc, within(1, table.positives) + within(0, table.negatives))


@compiled("num_groups", "num_patients")
def delong_joint(
    labels: BinaryRows,
    scores: ModelScores,
    groups: GroupRows,
    patients: PatientRows,
    *,
    num_groups: int,
    num_patients: int,
) -> JointDeLong:
    """Computes AUROCs with their covariance over models and groups that share patients.

    Groups share patients if an attribute varies within a patient, such as the site or
    the scanner. Between two groups, each small-sample factor of Obuchowski's formula is
    the geometric mean of the two groups' factors. The matrix is symmetric. An
    eigenvalue may be negative, by a fraction of about one over the number of patients.

    Time is O(n log n + nGm²) and memory O(nm).

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[m, rows]``, scores of several models, or ``[rows]`` of one model.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      patients: ``[rows]``, codes in ``0 .. num_patients - 1``, equal for dependent
        rows, in one group or in several.
      num_groups: Number of groups declared, ``G``.
      num_patients: Number of codes.

    Returns:
      Estimates and covariance. The blocks within groups equal the result of ``delong``
      with patients.

    Raises:
      ValueError: If a number is below 1, the columns differ in length, or a patient has
        a code outside the range.

    Example:
      >>> import jax.numpy as jnp
      >>> result = delong_joint(
      ...     jnp.array([0, 0, 1, 1] * 2),
      ...     jnp.array([0.1, 0.4, 0.35, 0.8, 0.1, 0.3, 0.3, 0.8]),
      ...     jnp.array([0] * 4 + [1] * 4), jnp.array([0, 1, 2, 3] * 2), num_groups=2,
      ...     num_patients=4,
      ... )
      >>> result.covariance.reshape(2, 2).tolist()
      [[0.125, 0.0625], [0.0625, 0.03125]]
    """
    table = _placements(labels, scores, groups, num_groups)
    joint = _clustered(table, patients, num_groups, num_patients, across=True)
    return JointDeLong(table.auroc, joint)


class _Placements(NamedTuple):
    """Placements of rows minus their AUROC, ``[m, rows]``, and sizes of the groups."""

    auroc: Array
    centred: Array
    labels: Array
    groups: Array
    positives: Array
    negatives: Array


def _placements(labels, scores, groups, num_groups: int) -> _Placements:
    scores = gathered(scores)
    scores = scores[None] if scores.ndim == 1 else scores
    labels, _, groups = as_rows(
        num_groups, labels=labels, scores=scores[0], groups=groups
    )
    groups = groups.astype(jnp.int32)
    member = (groups >= 0) & (groups < num_groups) & ((labels == 0) | (labels == 1))
    groups = jnp.where(member, groups, -1)
    labels = (labels == 1).astype(jnp.int32)
    positives = group_sums(member & (labels == 1), groups, num_groups)
    negatives = group_sums(member & (labels == 0), groups, num_groups)
    defined = (positives > 0) & (negatives > 0)

    def place(column):
        order = grouped_score_order(column, groups, num_groups=num_groups)
        mass = sorted_mass(order, labels)

        def below(mass, size):
            size = jnp.append(size, 0)[order.group]
            return mean_fraction(*before_and_through(order, mass), size)

        # Fractions below a score are exact sums. Fractions above are 1 minus the
        # fraction below, a difference of numbers of similar size.
        above = 1 - below(mass.positive, positives)
        ranks = jnp.where(mass.positive > 0, below(mass.negative, negatives), above)
        ranks = jnp.where(mass.undefined, jnp.nan, ranks)
        won = jnp.where(mass.undefined | (mass.positive > 0), ranks, 0)
        total = group_sums(won, order.group, num_groups)
        theta = jnp.where(defined, total / jnp.where(defined, positives, 1), jnp.nan)
        theta = theta.astype(ranks.dtype)
        centred = ranks - jnp.append(theta, 0)[order.group]
        back = jnp.zeros_like(centred).at[order.order].set(centred, unique_indices=True)
        return theta, jnp.where(groups >= 0, back, 0)

    auroc, centred = jax.lax.map(place, scores)
    return _Placements(auroc, centred, labels, groups, positives, negatives)


def _products(left, right, ids, num_ids: int) -> Float[Array, "ids left right"]:
    """Sums the products of two stacks ``[k, rows]`` over rows, by id."""
    pairs = jnp.stack(
        jnp.meshgrid(jnp.arange(len(left)), jnp.arange(len(right)), indexing="ij"), -1
    )
    sums = jax.lax.map(
        lambda pair: group_sums(left[pair[0]] * right[pair[1]], ids, num_ids),
        pairs.reshape(-1, 2),
    )
    return jnp.moveaxis(sums.reshape(len(left), len(right), num_ids), -1, 0)


def _clustered(table: _Placements, patients, num_groups, number, *, across):
    """Computes Obuchowski's covariance ``[G, m, m]``, or ``[m, G, m, G]`` across."""
    check_columns(labels=table.labels, patients=patients)
    patients = gathered(patients)
    models, dtype = len(table.centred), table.centred.dtype
    # Division by the group's size keeps the sums below near 1.
    size = jnp.stack([table.negatives, table.positives])
    size = jnp.where(size > 0, size, 1)
    row_size = size[table.labels, jnp.maximum(table.groups, 0)]
    scaled = table.centred / row_size

    def by_patient(group):
        """Returns patients' sums in a group, ``[label, m, patients]``, and factors."""

        def of_label(label):
            mine = (table.groups == group) & (table.labels == label)
            ids = jnp.where(mine, patients, -1)
            sums = jax.lax.map(lambda column: group_sums(column, ids, number), scaled)
            return sums, group_sums(mine, ids, number) > 0

        (negative, has_0), (positive, has_1) = of_label(0), of_label(1)
        # A patient with an unknown code makes the variance unknown, as with 1 patient.
        lost = jnp.any((table.groups == group) & unknown_codes(patients, number))
        counts = [
            jnp.where(lost, 1, jnp.sum(has, dtype=dtype))
            for has in (has_0, has_1, has_0 | has_1)
        ]
        factor_0, factor_1, factor = (
            jnp.where(n > 1, n / jnp.where(n > 1, n - 1, 1), jnp.nan) for n in counts
        )
        factors = jnp.array([[factor_0, factor], [factor, factor_1]])
        return jnp.stack([negative, positive]), factors

    def block(group):
        sums, factors = by_patient(group)
        if not across:
            inner = jnp.einsum("amp,bnp->abmn", sums, sums, precision="highest")
            return jnp.einsum("ab,abmn->mn", factors, inner), factors
        flat = sums.reshape(2 * models, number)[:, patients]
        ids = jnp.where(table.groups >= 0, 2 * table.groups + table.labels, -1)
        inner = _products(flat, scaled, ids, 2 * num_groups)
        return inner.reshape(num_groups, 2, 2, models, models), factors

    inner, factors = jax.lax.map(block, jnp.arange(num_groups))
    if not across:
        return inner
    # inner is [g, h, label in h, label in g, model in g, model in h].
    factors = jnp.sqrt(factors[:, None] * factors[None, :])
    joint = jnp.einsum("ghbamn,ghab->mgnh", inner, factors, precision="highest")
    # Makes the matrix exactly symmetric in spite of rounding.
    return (joint + jnp.transpose(joint, (2, 3, 0, 1))) / 2
