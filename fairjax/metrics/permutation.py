"""Permutation tests: is a gap more than noise?

Where predictions do not depend on the group, exchanging the groups of rows with equal
labels changes nothing, so the gaps of shuffled groups are what noise alone gives. The
tests need no large groups, as intervals (:mod:`fairjax.metrics.gap_intervals`) do; but
they test only the hypothesis of no dependence at all, and say nothing of how large a
gap may be. Those that shuffle units are exact; the one of counts is so up to the
precision with which its tables are drawn, see ``permutation_null``.
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

# Two tables whose statistics are equal in exact arithmetic may differ in the last bits.
_TIE = 1e-6
# Groups shuffled at a time, whatever the number of shuffles.
_UNITS_AT_ONCE = 2**22


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


class _Units(NamedTuple):
    """Patients, who may exchange their groups within a stratum.

    ``unit_of_row`` is ``[rows]``, one past the last unit for a row that takes no part;
    ``counts`` is ``[units, 4]``, by label and prediction.
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
    r"""Null distribution of a gap when the attribute is shuffled across rows.

    .. math:: p = \frac{1 + \#\{\text{null} \ge \text{observed}\}}{1 + N}

    Rows must be patients. Shuffling treats rows as exchangeable; with several rows to a
    patient it underestimates the noise, so keep one row or one mean prediction each.

    The shuffled tables are drawn directly from their multivariate hypergeometric
    distribution, which does not touch the rows again: from its probabilities, in
    float32 right to about 1e-6, where a cell's standard deviation is at most 20; from
    the Cornish-Fisher expansion of its quantiles, right to about 1e-4, beyond. The
    test is exact up to that.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; rows with -1 take no part.
      num_groups: Number of groups declared, ``G``.
      num_permutations: Number of shuffles, ``N``; p is at least ``1 / (1 + N)``.
      statistic: Maps counts to a scalar that is large under disparity, such as
        ``functools.partial(equalized_odds_difference, min_support=10)``.
      within: What rows must share to exchange their groups, which says what is tested
        and so which statistics the p-value is valid for.
        ``"label"``: predictions are independent of the group *given the label*, as
        equalized odds and equal opportunity ask: rates given the label. Every group
        keeps its numbers of positives and negatives.
        ``"prediction"``: labels are independent of the group *given the prediction*,
        as predictive parity asks: predictive values. Every group keeps its numbers of
        positive and negative predictions.
        None: predictions and labels together are independent of the group, as
        demographic parity may be tested by. A gap of true positive rates tested so is
        too often found where groups differ in prevalence, since its null gives a group
        with few positives more of them; and so is a gap of predictive values.

    Returns:
      Observed value, null, noise floor and p-value. An undefined observed value has a
      NaN p-value; undefined shuffles count against it and are left out of the mean.

    Raises:
      ValueError: If ``num_permutations`` is below 1, ``within`` is something else, and
        as ``group_counts``.

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
        # Of either label, or of either prediction, the groups by what is left to vary.
        axis = 1 if within == "label" else 2
        strata = map(shuffle, jax.random.split(key), jnp.moveaxis(table, axis, 0))
        shuffled = jnp.stack([*strata], axis=axis + 1)
    return _against(statistic(counts), jax.vmap(statistic)(GroupCounts(shuffled)))


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
    """Null distribution of a gap where patients have several rows.

    Whole patients exchange their groups, and only with patients who have as many rows
    of each label, or of each prediction, or as many rows at all, by ``within``. It
    tests that a patient's predictions do not depend on the group given the labels, or
    as in ``permutation_null``, however correlated they are within the patient, and is
    exact. Patients with a rare combination of labels have few to exchange with, which
    costs power, not validity.

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
      within: As in ``permutation_null``.

    Returns:
      As ``permutation_null``.

    Raises:
      ValueError: If the group varies within a patient, a code is negative,
        ``num_permutations`` is below 1, ``within`` is something else, and as
        ``group_counts``.

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
      ValueError: If the group varies within a patient, a code is negative,
        ``num_permutations`` is below 1, or the columns differ in length.

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
        found = _exchangeable_units(label, label, groups, patients, num_groups, "label")
        # One more unit, of its own, for the rows that take no part.
        group, stratum = jnp.append(found.group, -1), jnp.append(found.stratum, -1)
        units = group, stratum, found.unit_of_row
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
        # Sorted by score once, not by group and score in every shuffle.
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
    """Patients with their groups and counts, in strata of equal numbers of rows.

    Of rows of each label, of each prediction, or of rows at all.
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
    # Cells are by label and prediction: what is summed out is what may differ.
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
    """A statistic of the groups, shuffled within strata."""
    # Random bits order the groups within a stratum; the units themselves, by stratum,
    # are where they go. Two of 32 bits are rarely equal, and then their order is kept.
    place = jnp.argsort(stratum, stable=True)

    def one(shuffle_key):
        bits = jax.random.bits(shuffle_key, stratum.shape)
        _, _, drawn = jax.lax.sort((stratum, bits, group), num_keys=2)
        return statistic(jnp.zeros_like(group).at[place].set(drawn))

    keys = jax.random.split(key, num_permutations)
    batch = max(1, _UNITS_AT_ONCE // max(1, group.shape[0]))
    return jax.lax.map(one, keys, batch_size=min(batch, num_permutations))
