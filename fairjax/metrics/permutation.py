"""Permutation tests: is a gap more than noise?

If predictions do not depend on the group, exchanging the groups of rows with equal
labels does not change the distribution of gaps. The gaps of shuffled groups then show
the effect of noise alone. Unlike intervals (:mod:`fairjax.metrics.gap_intervals`), the
tests do not need large groups. The tests only assess the hypothesis of no dependence,
and do not estimate the size of a gap. Tests that shuffle units are exact. The test of
counts is exact up to the precision of the drawn tables, see ``permutation_null``.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fairjax.metrics._rows import (
    PatientRows,
    ScoreRows,
    as_rows,
    check_columns,
    check_sizes,
)
from fairjax.metrics.contingency import random_tables
from fairjax.metrics.counts import BinaryRows, GroupCounts, GroupRows, group_counts
from fairjax.metrics.gaps import difference, equalized_odds_difference
from fairjax.metrics.order import score_order
from fairjax.metrics.ranking import auroc_from_order
from fairjax.types import check_choice

# Statistics that are equal in exact arithmetic may differ in the last bits.
_TIE = 1e-6
# Groups shuffled at a time, for any number of shuffles.
_UNITS_AT_ONCE = 2**22


class PermutationNull(NamedTuple):
    """A statistic and its distribution under shuffles of the attribute.

    Attributes:
      observed: Scalar, the statistic of the observed rows.
      null: ``[num_permutations]``, the statistic with the attribute shuffled.
      mean: Scalar, the mean of ``null``: the noise floor of a gap without any
        disparity.
      p_value: Scalar in (0, 1], one-sided: how often noise gives at least the observed
        statistic.
    """

    observed: Float[Array, ""]
    null: Float[Array, " num_permutations"]
    mean: Float[Array, ""]
    p_value: Float[Array, ""]


class _Units(NamedTuple):
    """Patients who may exchange their groups within a stratum.

    ``unit_of_row`` is ``[rows]``, one past the last unit for an ignored row. ``counts``
    is ``[units, 4]``, by label and prediction.
    """

    group: Int[Array, " units"]
    stratum: Int[Array, " units"]
    counts: Int[Array, "units 4"]
    unit_of_row: Int[Array, " rows"]


def permutation_null(
    key: PRNGKeyArray,
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    *,
    num_groups: int,
    num_permutations: int,
    statistic: Callable[[GroupCounts], Float[Array, ""]] = equalized_odds_difference,
    within: Literal["label", "prediction"] | None = "label",
) -> PermutationNull:
    r"""Tests a gap by shuffling the attribute across rows.

    .. math:: p = \frac{1 + \#\{\text{null} \ge \text{observed}\}}{1 + N}

    Rows must be patients, because shuffling treats rows as exchangeable. With several
    rows for a patient the test underestimates the noise. Keep one row or one mean
    prediction for each patient, or use ``cluster_permutation_null``.

    The shuffled tables are drawn directly from their multivariate hypergeometric
    distribution, without the rows. Where a cell's standard deviation is at most 20, the
    draws use the probabilities, accurate to about 1e-6 in float32. Beyond, the draws
    use the Cornish-Fisher expansion of the quantiles, accurate to about 1e-4. The test
    is exact up to this accuracy.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; rows with -1 are ignored.
      num_groups: Number of groups declared, ``G``.
      num_permutations: Number of shuffles, ``N``; p is at least ``1 / (1 + N)``.
      statistic: Maps counts to a scalar that is large under disparity, such as
        ``functools.partial(equalized_odds_difference, min_support=10)``.
      within: What rows must share to exchange their groups. This defines the hypothesis
        of the test, and so the statistics for which the p-value is valid.
        ``"label"``: predictions are independent of the group *given the label*, as in
        equalized odds and equal opportunity. Use it for rates given the label. Every
        group keeps its numbers of positives and negatives.
        ``"prediction"``: labels are independent of the group *given the prediction*, as
        in predictive parity. Use it for predictive values. Every group keeps its
        numbers of positive and negative predictions.
        None: predictions and labels together are independent of the group. Use it for
        demographic parity. This test rejects gaps in true positive rates or predictive
        values too often if groups differ in prevalence. The reason is that a shuffle
        gives more positives to a group with few positives.

    Returns:
      Observed value, null, noise floor and p-value. The p-value of an undefined
      observed value is NaN. Undefined shuffles count as exceeding the observed value
      and do not enter the mean.

    Raises:
      ValueError: If ``num_permutations`` or ``num_groups`` is below 1, ``within`` is
        not one of these, or the columns differ in length.

    References:
      Phipson and Smyth, "Permutation p-values should never be zero", Statistical
      Applications in Genetics and Molecular Biology 9 (2010).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> groups = jnp.repeat(jnp.arange(2), 50)
      >>> @jax.jit
      ... def shuffled(key, labels, decisions, groups):
      ...     return permutation_null(
      ...         key, labels, decisions, groups, num_groups=2, num_permutations=99
      ...     )
      >>> test = shuffled(jax.random.key(0), jnp.arange(100) % 2, groups, groups)
      >>> test.observed.item(), round(test.p_value.item(), 3)
      (1.0, 0.01)
    """
    check_sizes(num_permutations=num_permutations)
    check_choice("within", within, "label", "prediction", None)
    counts = group_counts(labels, predictions, groups, num_groups=num_groups)
    table = counts.counts
    size = {"num_draws": num_permutations, "max_total": max(np.size(labels), 1)}

    def shuffle(key: PRNGKeyArray, cells: Array) -> Array:
        return random_tables(key, jnp.sum(cells, 1), jnp.sum(cells, 0), **size)

    if within is None:
        shuffled = shuffle(key, table.reshape(num_groups, 4))
        shuffled = shuffled.reshape(-1, num_groups, 2, 2)
    else:
        # Shuffles within each label, or within each prediction.
        axis = 1 if within == "label" else 2
        strata = map(shuffle, jax.random.split(key), jnp.moveaxis(table, axis, 0))
        shuffled = jnp.stack([*strata], axis=axis + 1)
    return _against(statistic(counts), jax.vmap(statistic)(GroupCounts(shuffled)))


def permutation_p_value(
    observed: Float[Array | np.ndarray, ""],
    null: Float[Array | np.ndarray, " num_permutations"],
) -> Float[Array, ""]:
    r"""Computes the p-value of a permutation test.

    .. math:: p = \frac{1 + \#\{\text{null} \ge \text{observed}\}}{1 + N}

    Use this function for a statistic that combines several nulls draw by draw, such as
    the worst of many gaps.

    Args:
      observed: The statistic of the observed rows.
      null: ``[N]``, the statistic of each shuffle.

    Returns:
      The p-value in (0, 1]; NaN if ``observed`` is NaN. NaN shuffles count as exceeding
      the observed statistic.

    References:
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
    patients: PatientRows,
    *,
    num_groups: int,
    num_permutations: int,
    statistic: Callable[[GroupCounts], Float[Array, ""]] = equalized_odds_difference,
    within: Literal["label", "prediction"] | None = "label",
) -> PermutationNull:
    """Tests a gap by shuffling the attribute across patients with several rows.

    Whole patients exchange their groups, but only with patients who have equal numbers
    of rows of each label. (``within`` replaces label by prediction or all rows.) The
    hypothesis is that a patient's predictions do not depend on the group given the
    labels, or the corresponding hypothesis of ``permutation_null``. The test is exact
    under any correlation within patients. Patients with a rare combination of labels
    have few patients to exchange with, which reduces power, not validity.

    The function runs outside ``jit``, because the patients must be concrete. Each
    shuffle sorts the patients.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``, equal for all rows of a
        patient; rows with -1 are ignored.
      patients: ``[rows]``, patient codes, at least 0.
      num_groups: Number of groups declared, ``G``.
      num_permutations: Number of shuffles.
      statistic: Maps counts to a scalar that is large under disparity.
      within: As in ``permutation_null``.

    Returns:
      As ``permutation_null``.

    Raises:
      ValueError: If a patient is in several groups, a code is negative,
        ``num_permutations`` or ``num_groups`` is below 1, ``within`` is not one of
        these, or the columns differ in length.

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
    check_sizes(num_permutations=num_permutations)
    check_choice("within", within, "label", "prediction", None)
    check_columns(labels=labels, groups=groups, patients=patients)
    observed = group_counts(labels, predictions, groups, num_groups=num_groups)
    units = _exchangeable_units(
        labels, predictions, groups, patients, num_groups, within
    )
    null = _cluster_null(key, units, num_groups, num_permutations, statistic)
    return _against(statistic(observed), null)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _cluster_null(key, units, num_groups: int, num_permutations: int, statistic):
    def of_groups(shuffled: Array) -> Float[Array, ""]:
        table = jnp.zeros((num_groups, 4), jnp.int32).at[shuffled].add(units.counts)
        return statistic(GroupCounts(table.reshape(num_groups, 2, 2)))

    return _shuffled_statistics(
        key, units.group, units.stratum, num_permutations, of_groups
    )


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
    patients: PatientRows | None = None,
) -> PermutationNull:
    """Tests a gap in scores by shuffles, such as the gap between the groups' AUROCs.

    Each shuffle exchanges groups among rows of the same label, or among patients with
    equal numbers of positive and negative rows, and computes the statistic again. The
    hypothesis is that the scores do not depend on the group given the labels. This is
    stronger than equal AUROCs, because different distributions of scores can have equal
    AUROCs. The p-value of ``gap_interval`` tests only equal AUROCs.

    The function runs outside ``jit`` if ``patients`` are given. Each shuffle sorts the
    groups by label, and reads the rows once for each group.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      scores: ``[rows]``.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; rows with -1 are ignored.
      num_groups: Number of groups declared, ``G``.
      num_permutations: Number of shuffles.
      statistic: Maps ``labels, scores, groups`` to a scalar that is large under
        disparity; by default the largest minus the smallest AUROC.
      patients: ``[rows]``, patient codes, at least 0, to exchange whole patients. All
        rows of a patient must have the same group.

    Returns:
      As ``permutation_null``.

    Raises:
      ValueError: If a patient is in several groups, a code is negative,
        ``num_permutations`` or ``num_groups`` is below 1, or the columns differ in
        length.

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
    check_sizes(num_permutations=num_permutations)
    label, scores, groups, _ = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, patients=patients
    )
    if patients is None:
        group = groups.astype(jnp.int32)
        inside = (group >= 0) & (group < num_groups) & ((label == 0) | (label == 1))
        group = jnp.where(inside, group, -1)
        stratum = jnp.where(inside, (label == 1).astype(jnp.int32), 2)
        units = group, stratum, jnp.arange(label.shape[0])
    else:
        units = _exchangeable_units(label, label, groups, patients, num_groups, "label")
        # An additional unit stands for all ignored rows.
        group, stratum = jnp.append(units.group, -1), jnp.append(units.stratum, -1)
        units = group, stratum, units.unit_of_row
    rows = label, scores
    return _against(
        *_score_null(key, rows, units, num_groups, num_permutations, statistic)
    )


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _score_null(key, rows, units, num_groups: int, num_permutations: int, statistic):
    labels, scores = rows
    group, stratum, unit_of_row = units
    order = score_order(scores)

    def auroc_of(groups: Array, group: Array) -> Array:
        return auroc_from_order(order, labels, (groups == group).astype(jnp.int32))

    def of_groups(shuffled: Array) -> Float[Array, ""]:
        groups = shuffled[unit_of_row]
        if statistic is not None:
            return statistic(labels, scores, groups)
        # Sorted once by score, rather than by group and score in every shuffle.
        each = jnp.arange(num_groups)
        return difference(jax.lax.map(lambda group: auroc_of(groups, group), each))

    null = _shuffled_statistics(key, group, stratum, num_permutations, of_groups)
    return of_groups(group), null


def _exchangeable_units(
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    patients: PatientRows,
    num_groups: int,
    within: Literal["label", "prediction"] | None,
) -> _Units:
    """Returns patients with their groups and counts, in strata of equal row counts.

    ``within`` chooses the counts: rows of each label, of each prediction, or all rows.
    """
    label, prediction = np.asarray(labels), np.asarray(predictions)
    group, patient = np.asarray(groups), np.asarray(patients)
    if patient.size and patient.min() < 0:
        raise ValueError(
            f"patients must be codes of at least 0; got {(patient < 0).sum()} negative "
            f"codes in {patient.size} rows."
        )
    counted = (group >= 0) & (group < num_groups) & np.isin(label, (0, 1))
    counted &= np.isin(prediction, (0, 1))
    _, first, unit = np.unique(patient[counted], return_index=True, return_inverse=True)
    of_unit = group[counted][first]
    varying = np.unique(unit[group[counted] != of_unit[unit]]).size
    if varying:
        raise ValueError(
            "Each patient must be in one group, because patients exchange their "
            f"groups; got {varying} of {first.size} patients in several groups. Use "
            "the p-value of gap_interval with cluster_rate_covariance."
        )
    cell = 2 * (label[counted] == 1) + (prediction[counted] == 1)
    cells = np.bincount(4 * unit + cell, minlength=4 * first.size).reshape(-1, 4)
    # Cells are by label and prediction; the axis summed out may differ in a stratum.
    table = cells.reshape(-1, 2, 2)
    summed = {"label": (2,), "prediction": (1,), None: (1, 2)}[within]
    profile = table.sum(summed, keepdims=True)
    stratum = np.unique(profile, axis=0, return_inverse=True)[1].reshape(-1)
    unit_of_row = np.full(label.shape, first.size)
    unit_of_row[counted] = unit
    return _Units(
        jnp.asarray(of_unit, jnp.int32),
        jnp.asarray(stratum, jnp.int32),
        jnp.asarray(cells, jnp.int32),
        jnp.asarray(unit_of_row, jnp.int32),
    )


def _shuffled_statistics(
    key: PRNGKeyArray,
    group: Int[Array, " units"],
    stratum: Int[Array, " units"],
    num_permutations: int,
    statistic: Callable[[Array], Float[Array, ""]],
) -> Float[Array, " num_permutations"]:
    """Computes a statistic of the groups, shuffled within strata."""
    # Random bits order the groups within a stratum, and the sorted units receive the
    # groups. Two draws of 32 bits are rarely equal; equal draws keep their order.
    sorted_units = jnp.argsort(stratum, stable=True)

    def shuffled(shuffle_key):
        bits = jax.random.bits(shuffle_key, stratum.shape)
        _, _, drawn = jax.lax.sort((stratum, bits, group), num_keys=2)
        return statistic(jnp.zeros_like(group).at[sorted_units].set(drawn))

    keys = jax.random.split(key, num_permutations)
    batch = max(1, _UNITS_AT_ONCE // max(1, group.shape[0]))
    return jax.lax.map(shuffled, keys, batch_size=min(batch, num_permutations))
