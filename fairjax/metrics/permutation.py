"""Permutation tests: is a gap more than noise?

Where predictions do not depend on the group, exchanging the groups of rows with equal
labels changes nothing, so the gaps of shuffled groups are what noise alone gives. The
tests are exact for any size of group, intervals (:mod:`fairjax.metrics.gap_intervals`)
nearly so; but they test only the hypothesis of no dependence at all, and say nothing
of how large a gap may be.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fairjax.metrics._rows import ScoreRows, check_rows
from fairjax.metrics._shuffling import exchangeable_units, shuffled_statistics
from fairjax.metrics.contingency import random_tables
from fairjax.metrics.counts import BinaryRows, GroupCounts, GroupRows, group_counts
from fairjax.metrics.gaps import difference, equalized_odds_difference
from fairjax.metrics.order import score_order
from fairjax.metrics.ranking import auroc_from_order

# Two tables whose statistics are equal in exact arithmetic may differ in the last bits.
_TIE = 1e-6


class PermutationNull(NamedTuple):
    """A statistic and its distribution where the attribute means nothing.

    Attributes:
      observed: Scalar, the statistic of the rows as they are.
      null: ``[num_permutations]``, the statistic with the attribute shuffled.
      mean: Scalar, the null's mean: the noise floor that a gap has without any
        disparity.
      p_value: Scalar in (0, 1], one-sided: how often noise does at least as much.
    """

    observed: Float[Array, ""]
    null: Float[Array, " num_permutations"]
    mean: Float[Array, ""]
    p_value: Float[Array, ""]


def permutation_null(
    key: PRNGKeyArray,
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    *,
    num_groups: int,
    num_permutations: int,
    statistic: Callable[[GroupCounts], Float[Array, ""]] = equalized_odds_difference,
    within_label: bool = True,
) -> PermutationNull:
    r"""Null distribution of a gap when the attribute is shuffled across rows.

    .. math:: p = \frac{1 + \#\{\text{null} \ge \text{observed}\}}{1 + N}

    Rows must be patients. Shuffling treats rows as exchangeable; with several rows to a
    patient it underestimates the noise, so keep one row or one mean prediction each.

    The shuffled tables are drawn directly from their multivariate hypergeometric
    distribution, which is exact and does not touch the rows again.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; rows with -1 take no part.
      num_groups: Number of groups declared, ``G``.
      num_permutations: Number of shuffles, ``N``; p is at least ``1 / (1 + N)``.
      statistic: Maps counts to a scalar that is large under disparity, such as
        ``functools.partial(equalized_odds_difference, min_support=10)``.
      within_label: True shuffles among rows of the same label, which keeps every
        group's numbers of positives and negatives. It tests that predictions are
        independent of the group *given the label*: equalized odds, equal opportunity.
        False shuffles among all rows and tests that predictions and labels together
        are independent of the group, as demographic parity needs. A gap of true
        positive rates tested so is too often found where groups differ in prevalence,
        since its null gives a group with few positives more of them.

    Returns:
      Observed value, null, noise floor and p-value. An undefined observed value has a
      NaN p-value; undefined shuffles count against it and are left out of the mean.

    Raises:
      ValueError: If ``num_permutations`` is below 1, and as ``group_counts``.

    Phipson and Smyth, "Permutation p-values should never be zero", Statistical
    Applications in Genetics and Molecular Biology 9 (2010).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> groups = jnp.repeat(jnp.arange(2), 50)
      >>> test = permutation_null(
      ...     jax.random.key(0), jnp.arange(100) % 2, groups, groups,
      ...     num_groups=2, num_permutations=99,
      ... )
      >>> test.observed.item(), round(test.p_value.item(), 3)
      (1.0, 0.01)
    """
    if num_permutations < 1:
        raise ValueError(
            f"num_permutations must be at least 1, got {num_permutations}."
        )
    counts = group_counts(labels, predictions, groups, num_groups=num_groups)
    table = counts.counts
    size = {"num_draws": num_permutations, "max_total": max(labels.shape[0], 1)}
    if within_label:
        strata = [
            random_tables(
                stratum_key,
                jnp.sum(table[:, label], axis=1),
                jnp.sum(table[:, label], axis=0),
                **size,
            )
            for label, stratum_key in enumerate(jax.random.split(key))
        ]
        shuffled = jnp.stack(strata, axis=2)
    else:
        cells = table.reshape(num_groups, 4)
        tables = random_tables(key, jnp.sum(cells, 1), jnp.sum(cells, 0), **size)
        shuffled = tables.reshape(-1, num_groups, 2, 2)
    observed = statistic(counts)
    return _against(observed, jax.vmap(statistic)(GroupCounts(shuffled)))


def permutation_p_value(
    observed: Float[Array | np.ndarray, ""],
    null: Float[Array | np.ndarray, " num_permutations"],
) -> Float[Array, ""]:
    r"""How often noise does at least as much, counting the observed one.

    .. math:: p = \frac{1 + \#\{\text{null} \ge \text{observed}\}}{1 + N}

    For a statistic made of several nulls, such as the worst of many gaps, draw by draw.

    Args:
      observed: The statistic of the rows as they are.
      null: ``[N]``, the statistic of each shuffle.

    Returns:
      In (0, 1]; NaN where the statistic is not defined. Shuffles where it is not count
      against it.

    Phipson and Smyth, "Permutation p-values should never be zero", Statistical
    Applications in Genetics and Molecular Biology 9 (2010).

    Example:
      >>> import jax.numpy as jnp
      >>> permutation_p_value(jnp.array(0.3), jnp.array([0.1, 0.4, 0.2])).item()
      0.5
    """
    observed, null = jnp.asarray(observed), jnp.asarray(null)
    exceeding = jnp.sum(jnp.isnan(null) | (null >= observed - _TIE))
    p_value = (1 + exceeding) / (1 + null.shape[0])
    return jnp.where(jnp.isnan(observed), jnp.nan, p_value)


def cluster_permutation_null(
    key: PRNGKeyArray,
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    patients: Int[Array | np.ndarray, " rows"],
    *,
    num_groups: int,
    num_permutations: int,
    statistic: Callable[[GroupCounts], Float[Array, ""]] = equalized_odds_difference,
) -> PermutationNull:
    """Null distribution of a gap where patients have several rows.

    Whole patients exchange their groups, and only with patients who have as many
    positive and as many negative rows. It tests that a patient's predictions do not
    depend on the group given the labels, however correlated they are within the
    patient, and is exact. Patients with a rare combination of labels have few to
    exchange with, which costs power, not validity.

    Runs outside ``jit``, since it looks at the patients first. Each shuffle sorts the
    patients.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``, the same for all rows of a
        patient; rows with -1 take no part.
      patients: ``[rows]``, patient codes, at least 0.
      num_groups: Number of groups declared, ``G``.
      num_permutations: Number of shuffles.
      statistic: Maps counts to a scalar that is large under disparity.

    Returns:
      As ``permutation_null``.

    Raises:
      ValueError: If the group varies within a patient, if ``num_permutations`` is below
        1, and as ``group_counts``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> patients = jnp.repeat(jnp.arange(40), 3)
      >>> groups = (patients >= 20).astype(int)
      >>> test = cluster_permutation_null(
      ...     jax.random.key(0), jnp.arange(120) % 2, groups, groups, patients,
      ...     num_groups=2, num_permutations=99,
      ... )
      >>> test.observed.item(), round(test.p_value.item(), 3)
      (1.0, 0.01)
    """
    check_rows(num_groups, labels=labels, groups=groups, patients=patients)
    observed = group_counts(labels, predictions, groups, num_groups=num_groups)
    units = exchangeable_units(labels, predictions, groups, patients, num_groups)
    null = _cluster_null(
        key,
        units.group,
        units.stratum,
        units.counts,
        num_groups=num_groups,
        num_permutations=num_permutations,
        statistic=statistic,
    )
    return _against(statistic(observed), null)


@functools.partial(
    jax.jit, static_argnames=("num_groups", "num_permutations", "statistic")
)
def _cluster_null(
    key, group, stratum, counts, *, num_groups, num_permutations, statistic
):
    def of_groups(shuffled: Array) -> Float[Array, ""]:
        table = jnp.zeros((num_groups, 4), jnp.int32).at[shuffled].add(counts)
        return statistic(GroupCounts(table.reshape(num_groups, 2, 2)))

    return shuffled_statistics(key, group, stratum, num_permutations, of_groups)


def _against(
    observed: Float[Array, ""], null: Float[Array, " num_permutations"]
) -> PermutationNull:
    p_value = permutation_p_value(observed, null)
    return PermutationNull(observed, null, jnp.nanmean(null), p_value)


def score_permutation_null(
    key: PRNGKeyArray,
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    num_permutations: int,
    statistic: Callable[[Array, Array, Array], Float[Array, ""]] | None = None,
    patients: Int[Array | np.ndarray, " rows"] | None = None,
) -> PermutationNull:
    """Null distribution of any gap of scores, such as that of the groups' AUROCs.

    Shuffles the groups among rows of the same label, or among patients with the same
    numbers of positive and negative rows, and computes the statistic anew: the scores
    do not depend on the group given the labels. That is more than equal AUROCs, which
    scores of other distributions can have too; where these may differ, the interval's
    p-value tests equal AUROCs alone.

    Runs outside ``jit`` where ``patients`` are given. Each shuffle sorts the groups
    by label, and goes through the rows once for each group.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1; rows with other values take no part.
      scores: ``[rows]``.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; rows with -1 take no part.
      num_groups: Number of groups declared, ``G``.
      num_permutations: Number of shuffles.
      statistic: Maps ``labels, scores, groups`` to a scalar that is large under
        disparity; by default the largest less the smallest AUROC.
      patients: ``[rows]``, patient codes, at least 0, to exchange whole patients; the
        group must be the same for all rows of a patient.

    Returns:
      As ``permutation_null``.

    Raises:
      ValueError: If the group varies within a patient, ``num_permutations`` is below 1,
        or the columns differ in length.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> labels, groups = jnp.arange(100) % 2, jnp.repeat(jnp.arange(2), 50)
      >>> scores = jnp.where(groups == 0, labels, 1 - labels).astype(float)
      >>> test = score_permutation_null(
      ...     jax.random.key(0), labels, scores, groups, num_groups=2,
      ...     num_permutations=99,
      ... )
      >>> test.observed.item(), round(test.p_value.item(), 3)
      (1.0, 0.01)
    """
    check_rows(
        num_groups, labels=labels, scores=scores, groups=groups, patients=patients
    )

    label = jnp.asarray(labels)
    if patients is None:
        group = jnp.asarray(groups).astype(jnp.int32)
        inside = (group >= 0) & (group < num_groups) & ((label == 0) | (label == 1))
        group = jnp.where(inside, group, -1)
        stratum = jnp.where(inside, (label == 1).astype(jnp.int32), 2)
        unit_of_row = jnp.arange(label.shape[0])
    else:
        units = exchangeable_units(labels, labels, groups, patients, num_groups)
        # One more unit, of its own, for the rows that take no part.
        group, stratum = jnp.append(units.group, -1), jnp.append(units.stratum, -1)
        unit_of_row = units.unit_of_row
    observed, null = _score_null(
        key,
        label,
        jnp.asarray(scores),
        group,
        stratum,
        unit_of_row,
        num_groups=num_groups,
        num_permutations=num_permutations,
        statistic=statistic,
    )
    return _against(observed, null)


@functools.partial(
    jax.jit, static_argnames=("num_groups", "num_permutations", "statistic")
)
def _score_null(
    key,
    labels,
    scores,
    group,
    stratum,
    unit_of_row,
    *,
    num_groups,
    num_permutations,
    statistic,
):
    order = score_order(scores)

    def auroc_of(groups: Array, group: Array) -> Array:
        return auroc_from_order(order, labels, (groups == group).astype(jnp.int32))

    def of_groups(shuffled: Array) -> Float[Array, ""]:
        groups = shuffled[unit_of_row]
        if statistic is not None:
            return statistic(labels, scores, groups)
        # Sorted by score once, not by group and score in every shuffle.
        each = jnp.arange(num_groups)
        return difference(jax.lax.map(lambda group: auroc_of(groups, group), each))

    null = shuffled_statistics(key, group, stratum, num_permutations, of_groups)
    return of_groups(group), null
