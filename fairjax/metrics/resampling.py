"""Resamples of rows within strata, and of whole patients, as row weights.

To bootstrap a metric that takes weights, map the metric over these weights. This module
bootstraps counts and AUROCs in batches of replicates, so that memory does not grow with
the number of replicates times the rows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fairjax.metrics._rows import (
    PatientRows,
    ScoreRows,
    as_patients,
    as_rows,
    check_sizes,
    compiled,
    unknown_codes,
)
from fairjax.metrics.counts import BinaryRows, GroupCounts, GroupRows, group_counts
from fairjax.metrics.order import grouped_score_order
from fairjax.metrics.ranking import grouped_auroc_from_order
from fairjax.types import gathered

# Row weights held at a time, for any number of replicates.
_WEIGHTS_AT_ONCE = 2**22


@compiled("num_strata", "num_replicates")
def stratified_bootstrap_weights(
    key: PRNGKeyArray, strata: GroupRows, *, num_strata: int, num_replicates: int
) -> Int[Array, "num_replicates rows"]:
    """Draws row weights that resample rows within strata of fixed sizes.

    With a stratum for every group and label, no replicate lacks positives of a group,
    and the uncertainty is conditional on group and label.

    Args:
      key: A random key.
      strata: ``[rows]`` in ``0 .. num_strata - 1``; rows with other ids are never
        drawn.
      num_strata: Number of strata.
      num_replicates: Number of resamples, ``B``.

    Returns:
      int32 ``[B, rows]``: the number of times that each row was drawn.

    Raises:
      ValueError: If a number is below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = stratified_bootstrap_weights(
      ...     jax.random.key(0), jnp.array([0, 1, 1, 0, 1]), num_strata=2,
      ...     num_replicates=2,
      ... )
      >>> weights[:, jnp.array([0, 3])].sum(axis=1).tolist()
      [2, 2]
    """
    check_sizes(num_strata=num_strata, num_replicates=num_replicates)
    draw = _stratified(gathered(strata), num_strata)
    return jax.vmap(draw)(jax.random.split(key, num_replicates))


def _stratified(strata: Array, num_strata: int) -> Callable[[PRNGKeyArray], Array]:
    """Returns a function that draws one resample; sorts the strata once."""
    strata = jnp.where((strata >= 0) & (strata < num_strata), strata, num_strata)
    order = jnp.argsort(strata, stable=True)
    stratum = strata[order]
    ends = jnp.searchsorted(stratum, jnp.arange(num_strata + 2))
    start, size = ends[stratum], (ends[1:] - ends[:-1])[stratum]

    def draw(key: PRNGKeyArray) -> Array:
        within = jax.random.randint(key, strata.shape, 0, size)
        times = jnp.zeros(strata.shape, jnp.int32).at[order[start + within]].add(1)
        return jnp.where(strata < num_strata, times, 0)

    return draw


@compiled("num_groups", "num_patients", "num_replicates")
def patient_bootstrap_counts(
    key: PRNGKeyArray,
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    patients: PatientRows,
    *,
    num_groups: int,
    num_patients: int,
    num_replicates: int,
) -> GroupCounts:
    """Counts the rows of resampled patients, with all rows of a patient together.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      patients: ``[rows]`` in ``0 .. num_patients - 1``.
      num_groups: Number of groups declared, ``G``.
      num_patients: Number of patients.
      num_replicates: Number of resamples, ``B``.

    Returns:
      ``[B, G, 2, 2]``, int32. The memory does not grow with ``B`` times the rows.

    Raises:
      ValueError: If a number is below 1, the columns differ in length, or a patient has
        a code outside the range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> ones = jnp.ones(4, int)
      >>> drawn = patient_bootstrap_counts(
      ...     jax.random.key(0), ones, ones, ones - 1, jnp.array([0, 0, 0, 1]),
      ...     num_groups=1, num_patients=2, num_replicates=4,
      ... )
      >>> drawn.counts[:, 0, 1, 1].tolist()  # Two patients, of 3 rows or of 1 row.
      [2, 6, 4, 4]
    """
    check_sizes(num_replicates=num_replicates)
    columns = {"labels": labels, "predictions": predictions, "groups": groups}
    labels, predictions, groups, people = as_rows(
        num_groups, **columns, patients=patients
    )
    draw = _by_patient(people, num_patients)

    def replicate(replicate_key):
        weights = draw(replicate_key)
        return group_counts(
            labels, predictions, groups, num_groups=num_groups, weights=weights
        )

    keys = jax.random.split(key, num_replicates)
    return jax.lax.map(replicate, keys, batch_size=_at_once(len(labels)))


@compiled("num_groups", "num_patients", "num_replicates")
def bootstrap_auroc(
    key: PRNGKeyArray,
    labels: BinaryRows,
    scores: ScoreRows,
    groups: GroupRows,
    *,
    num_groups: int,
    num_replicates: int,
    patients: PatientRows | None = None,
    num_patients: int | None = None,
) -> Float[Array, "num_replicates groups"]:
    """Computes the AUROC of each group in resamples of rows or patients.

    The scores are sorted only once.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      scores: ``[rows]``, higher for the positive class.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      num_groups: Number of groups declared, ``G``.
      num_replicates: Number of resamples, ``B``.
      patients: ``[rows]`` in ``0 .. num_patients - 1``, to resample whole patients.
        By default rows are resampled within group and label, which keeps the numbers
        of positives and negatives.
      num_patients: Number of patients; needed with ``patients``.

    Returns:
      ``[B, G]``; NaN where a resample leaves a group without a class. The memory does
      not grow with ``B`` times the rows. Use the same key for two models, so that the
      differences of their replicates are paired.

    Raises:
      ValueError: If a number is below 1, the columns differ in length, only one of
        ``patients`` and ``num_patients`` is given, or a code is outside the range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> areas = bootstrap_auroc(
      ...     jax.random.key(0), jnp.array([0, 0, 1, 1]),
      ...     jnp.array([0.1, 0.2, 0.7, 0.9]), jnp.zeros(4, int), num_groups=1,
      ...     num_replicates=3,
      ... )
      >>> areas.tolist()
      [[1.0], [1.0], [1.0]]
    """
    check_sizes(num_replicates=num_replicates)
    labels, scores, groups, people = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, patients=patients
    )
    keys = jax.random.split(key, num_replicates)
    order = grouped_score_order(scores, groups, num_groups=num_groups)
    if people is None or num_patients is None:
        cell = 2 * groups.astype(jnp.int32) + (labels == 1)
        usable = (groups >= 0) & (groups < num_groups) & ((labels == 0) | (labels == 1))
        draw = _stratified(jnp.where(usable, cell, -1), 2 * num_groups)
        # Gives the same draws as stratified_bootstrap_weights with these keys.
        keys = jax.vmap(lambda one: jax.random.split(one, 1)[0])(keys)
    else:
        draw = _by_patient(people, num_patients)
    return jax.lax.map(
        lambda key: grouped_auroc_from_order(order, labels, draw(key)),
        keys,
        batch_size=_at_once(len(labels)),
    )


def _by_patient(patients: Array, num_patients: int) -> Callable[[PRNGKeyArray], Array]:
    """Returns a function that draws one resample of whole patients."""

    def draw(key: PRNGKeyArray) -> Array:
        return patient_bootstrap_weights(
            key, patients, num_patients=num_patients, num_replicates=1
        )[0]

    return draw


def patient_bootstrap_weights(
    key: PRNGKeyArray, patients: PatientRows, *, num_patients: int, num_replicates: int
) -> Int[Array, "num_replicates rows"]:
    """Draws row weights that resample whole patients.

    Every replicate draws ``num_patients`` patients with replacement. The weight of a
    row is the number of times that its patient was drawn. Use one set of weights for
    all methods and repeats of a comparison, so that the comparison is paired. Weights
    are integers, so ``group_counts`` stays exact.

    Args:
      key: A random key.
      patients: ``[rows]`` in ``0 .. num_patients - 1``.
      num_patients: Number of patients, including any without rows.
      num_replicates: Number of resamples, ``B``.

    Returns:
      int32 ``[B, rows]``. All weights are -1 if a traced code is outside the range, so
      that weighted metrics are NaN.

    Raises:
      ValueError: If a number is below 1, or a patient has a code outside the range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = patient_bootstrap_weights(
      ...     jax.random.key(0), jnp.array([0, 0, 1, 2]), num_patients=3,
      ...     num_replicates=2,
      ... )
      >>> (weights[:, 0] == weights[:, 1]).all().item()
      True
      >>> weights[:, 1:].sum(axis=1).tolist()
      [3, 3]
    """
    check_sizes(num_replicates=num_replicates)
    codes = as_patients(patients, num_patients)
    drawn = jax.random.randint(key, (num_replicates, num_patients), 0, num_patients)
    replicate = jnp.arange(num_replicates)[:, None]
    times = jnp.zeros((num_replicates, num_patients), jnp.int32)
    weights = times.at[replicate, drawn].add(1)[:, codes]
    # Rates, means and areas are NaN if all weights are negative.
    lost = jnp.any(unknown_codes(codes, num_patients))
    return jnp.where(lost, -1, weights)


def _at_once(rows: int) -> int:
    return max(1, _WEIGHTS_AT_ONCE // max(1, rows))
