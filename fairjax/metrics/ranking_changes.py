"""Positive-sum fairness of rankings: a model's AUROC against a baseline's.

:mod:`fairjax.metrics.verdicts` has the verdicts and their intervals for any metric.
"""

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fairjax.metrics._rows import (
    PatientRows,
    as_patients,
    check_columns,
    group_sizes,
    unknown_codes,
)
from fairjax.metrics._segments import group_sums
from fairjax.metrics.auroc_covariance import delong
from fairjax.metrics.counts import BinaryRows
from fairjax.metrics.verdicts import PositiveSum, Scalar, positive_sum_of
from fairjax.types import gathered

_Scores: TypeAlias = Float[Array | np.ndarray, " rows"]


def positive_sum(
    labels: BinaryRows,
    scores: _Scores,
    baseline_scores: _Scores,
    groups: Int[Array | np.ndarray, "*attributes rows"],
    *,
    num_groups: int | Sequence[int],
    margin: Scalar = 0.0,
    confidence: float = 0.95,
    min_positives: int = 5,
    min_negatives: int = 5,
    patients: PatientRows | None = None,
    num_patients: int | None = None,
) -> PositiveSum:
    r"""Compares the AUROC of a model and of a baseline, overall and in every group.

    .. math:: x = \mathrm{AUROC}(M) - \mathrm{AUROC}(M_1), \qquad
              y = \min_g \left[\mathrm{AUROC}_g(M) - \mathrm{AUROC}_g(M_1)\right]

    with paired standard errors (DeLong), by patient if patients are given. See
    ``positive_sum_of`` for the intervals and the verdict.

    Pass one row of group ids for each attribute to compare several attributes at once.
    An intersection is one more attribute, whose ids are crossed. ``y`` is then the
    least gain of any group of any attribute.

    A group's errors have a t distribution with ``min(positives, negatives) - 1``
    degrees of freedom, counting patients instead of rows if patients are given. This
    number is conservative for the two variances in DeLong's estimate. Where a model
    ranks a group perfectly, or perfectly wrongly, DeLong's variance is 0, which is not
    informative. The largest possible variance of an AUROC,
    A(1 - A) / min(positives, negatives), then replaces DeLong's variance, with A moved
    inwards by half a pair. The errors of the two models then count as uncorrelated.

    Args:
      labels: ``[rows]``, 0 or 1.
      scores: ``[rows]``, of the model, higher for the positive class.
      baseline_scores: ``[rows]``, of the baseline, on the same rows.
      groups: ``[rows]`` or ``[A, rows]``, group ids of each attribute, from 0; -1 for a
        row in no group, which counts only overall.
      num_groups: Number of groups of each attribute; one number for one attribute.
      margin: The loss δ that would not matter, at least 0.
      confidence: Confidence of the intervals, in (0, 1).
      min_positives: Minimum positives for a group to be compared, at least 2.
      min_negatives: Minimum negatives for a group to be compared, at least 2.
      patients: ``[rows]``, codes of the patients, if patients have several rows.
      num_patients: Number of codes; needed with ``patients``.

    Returns:
      The comparison, with the groups of all attributes one after another.

    Raises:
      ValueError: If the columns differ in length, an argument is outside its range,
        only one of ``patients`` and ``num_patients`` is given, or a code is outside
        the range.

    References:
      "Positive-Sum Fairness: Leveraging Demographic Attributes to Achieve Fair AI
      Outcomes Without Sacrificing Group Gains", Belhadj et al. (2024); DeLong, DeLong
      and Clarke-Pearson, Biometrics 44 (1988); Birnbaum and Klose, "Bounds for the
      variance of the Mann-Whitney statistic", Annals of Mathematical Statistics 28
      (1957).

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax.metrics import VERDICTS
      >>> row = jnp.arange(400)
      >>> labels, noise = row % 2, (row * 37 % 101) / 101.0
      >>> found = positive_sum(
      ...     labels, noise + 0.9 * labels, noise + 0.3 * labels, row // 200,
      ...     num_groups=2,
      ... )
      >>> VERDICTS[found.verdict], round(found.gain.item(), 2)
      ('positive-sum', 0.24)
    """
    groups = gathered(groups)
    attributes = (groups[None] if groups.ndim == 1 else groups).astype(jnp.int32)
    sizes = group_sizes(num_groups)
    if attributes.ndim != 2 or len(sizes) != attributes.shape[0]:
        raise ValueError(
            "groups must be [rows] or [attributes, rows], with as many numbers in "
            f"num_groups as attributes; got shape {groups.shape} and {len(sizes)}."
        )
    if min_positives < 2 or min_negatives < 2:
        raise ValueError(
            "min_positives and min_negatives must be at least 2; got "
            f"{min_positives} and {min_negatives}."
        )
    patients = as_patients(patients, num_patients)
    columns = {"labels": labels, "scores": scores, "baseline_scores": baseline_scores}
    check_columns(**columns, groups=attributes[0], patients=patients)
    both = jnp.stack([gathered(scores), gathered(baseline_scores)])
    everyone, parts = _estimates(
        gathered(labels),
        both,
        attributes,
        patients,
        sizes=sizes,
        least=(min_positives, min_negatives),
        num_patients=num_patients,
    )
    overall, overall_error, overall_degrees, _ = everyone
    by_group, group_errors, group_degrees, enough = parts
    return positive_sum_of(
        overall,
        overall_error,
        by_group,
        group_errors,
        num_groups=sizes,
        valid=enough,
        overall_degrees=overall_degrees,
        group_degrees=group_degrees,
        margin=margin,
        confidence=confidence,
    )


@functools.partial(jax.jit, static_argnames=("sizes", "least", "num_patients"))
def _estimates(
    labels: Array,
    both: Array,
    attributes: Array,
    patients: Array | None,
    *,
    sizes: tuple[int, ...],
    least: tuple[int, int],
    num_patients: int | None,
) -> tuple[list[Array], list[Array]]:
    """Computes AUROCs, errors, degrees of freedom and support, overall and by group."""
    widest = max(sizes)

    def within(ids: Array) -> tuple[Array, Array, Array, Array]:
        clusters: Any = {"patients": patients, "num_patients": num_patients}
        areas = delong(labels, both, ids, num_groups=widest, **clusters)
        rows = labels == jnp.array([[1], [0]])
        support = [_support(of, ids, widest, patients, num_patients) for of in rows]
        support = jnp.stack(support)
        variance = _paired_variance(areas.auroc, areas.covariance, support)
        if patients is not None and num_patients is not None:
            unknown = unknown_codes(patients, num_patients)
            variance = jnp.where(
                group_sums(unknown, ids, widest) > 0, jnp.nan, variance
            )
        enough = (support[0] >= least[0]) & (support[1] >= least[1])
        return areas.auroc, jnp.sqrt(variance), jnp.min(support, axis=0) - 1, enough

    # All rows are the only group of a first attribute. Attributes are processed one
    # after another, because each needs the memory of a sort, and compiled only once.
    everyone = jnp.zeros((1, labels.size), jnp.int32)
    results = jax.lax.map(within, jnp.concatenate([everyone, attributes]))
    parts = [
        jnp.concatenate(
            [part[number, ..., :size] for number, size in enumerate(sizes, 1)], axis=-1
        )
        for part in results
    ]
    return [part[0, ..., 0] for part in results], parts


def _support(
    rows: Array,
    ids: Array,
    num_groups: int,
    patients: Array | None,
    num_patients: int | None,
) -> Array:
    """Counts the given rows in each group, or the patients with such rows."""
    ids = jnp.where(rows & (ids >= 0), ids, num_groups)
    if patients is None or num_patients is None:
        here = jnp.ones(ids.shape, jnp.int32)
    else:
        # Sorted by group, then patient; counts the first row of each patient.
        ids, codes = jax.lax.sort((ids, jnp.asarray(patients)), num_keys=2)
        here = (ids != jnp.roll(ids, 1)) | (codes != jnp.roll(codes, 1))
        here = here.at[:1].set(True)
    return group_sums(here, ids, num_groups)


def _paired_variance(aurocs: Array, covariance: Array, support: Array) -> Array:
    """Computes the variance of the first model's AUROC minus the second's, by group."""
    variance = jnp.stack([covariance[:, 0, 0], covariance[:, 1, 1]])
    certain = jnp.minimum(aurocs, 1 - aurocs) < 1e-6
    trials = jnp.maximum(jnp.min(support, axis=0), 1)
    drawn_in = (aurocs * trials + 0.5) / (trials + 1)
    variance = jnp.where(certain, drawn_in * (1 - drawn_in) / trials, variance)
    shared = jnp.where(jnp.any(certain, axis=0), 0, covariance[:, 0, 1])
    # Rounding can make the variance negative if two models agree.
    return jnp.maximum(variance[0] + variance[1] - 2 * shared, 0)
