r"""Rates of groups whose rows are clustered in patients.

A patient with several rows (images, visits) gives less information than as many
patients. The variance of a rate is then that of a ratio of sums over patients,

.. math:: \hat r_g = \frac{\sum_p H_{pg}}{\sum_p B_{pg}}, \qquad
          \widehat{\mathrm{Cov}}(\hat r_g, \hat r_h) = \sqrt{f_g f_h}
          \sum_p u_{pg} u_{ph}, \qquad
          u_{pg} = \frac{H_{pg} - \hat r_g B_{pg}}{\sum_p B_{pg}},

with :math:`H_{pg}, B_{pg}` the patient's hits and rows in group ``g``, and with
:math:`f_g = m_g / (m_g - 1)` for the :math:`m_g` patients in the group. This is a
linearisation with whole patients as units, valid under any correlation within patients.
Groups share patients, and are then correlated, if an attribute varies within patients
(a site, a scanner).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fairjax.metrics._numbers import Numbers, student_equivalent
from fairjax.metrics._rows import as_rows, compiled, unknown_codes
from fairjax.metrics._segments import group_sums
from fairjax.metrics.counts import BinaryRows, GroupRows
from fairjax.metrics.intervals import Interval, normal_quantile, wilson_interval
from fairjax.types import gathered

_ROUNDING = 1e-6


class ClusterRates(NamedTuple):
    """Rates of groups of clustered rows.

    Attributes:
      rates: ``[G]`` in [0, 1]; NaN for a group without rows.
      covariance: ``[G, G]`` of the rates; NaN for a group of fewer than two patients.
      trials: ``[G]``, effective numbers of trials, for Wilson's interval.
      patients: int32 ``[G]``, number of patients with rows in each group.
      degrees_of_freedom: ``[G]``, degrees of freedom of the variance, at least 1.
    """

    rates: Float[Array, " groups"]
    covariance: Float[Array, "groups groups"]
    trials: Float[Array, " groups"]
    patients: Int[Array, " groups"]
    degrees_of_freedom: Float[Array, " groups"]


@compiled("num_groups", "num_patients")
def cluster_rate_covariance(
    hits: BinaryRows,
    base: BinaryRows,
    groups: GroupRows,
    patients: Int[Array | np.ndarray, " rows"],
    *,
    num_groups: int,
    num_patients: int,
) -> ClusterRates:
    r"""Computes rates of groups with their covariance, with patients as clusters.

    The effective trials are the number of independent rows with the same variance,

    .. math:: \tilde n_g = \min\!\left(n_g,\
              \frac{\hat r_g (1 - \hat r_g)}{\widehat{\mathrm{Var}}(\hat r_g)}\right),

    and at most the number of rows. Where the rate is 0 or 1, or the variance is 0 or
    unknown, the effective trials are :math:`n_g^2 / \sum_p B_{pg}^2`. This smallest
    possible number treats the rows of a patient as copies of one row. The same number
    minus 1 gives the degrees of freedom of the variance, which are few if a few
    patients have most rows. ``cluster_interval`` and the intervals of gaps use the
    effective trials and the degrees of freedom.

    Use ``cluster_label_rates`` for true and false positive rates with their covariance.
    The cost is O(rows x groups) time and O(rows) memory.

    Args:
      hits: ``[rows]``, 0 or 1, such as predictions.
      base: ``[rows]``, 1 where a row counts for the rate: the labels for a true
        positive rate, ones for a selection rate.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      patients: ``[rows]`` in ``0 .. num_patients - 1``.
      num_groups: Number of groups declared, ``G``.
      num_patients: Number of patients, including any without rows.

    Returns:
      Rates, covariance, effective trials and numbers of patients. A traced code outside
      the range makes all values of its group except the rate NaN.

    Raises:
      ValueError: If a number is below 1, the columns differ in length, or a patient has
        a code outside the range.

    References:
      Korn and Graubard, "Confidence intervals for proportions with small expected
      number of positive counts estimated from survey data", Survey Methodology 24
      (1998); Rao and Scott, "A simple method for the analysis of clustered binary
      data", Biometrics 48 (1992).

    Example:
      >>> import jax.numpy as jnp
      >>> hits = jnp.array([1, 1, 0, 0, 1, 1])
      >>> patients = jnp.array([0, 0, 1, 1, 2, 2])
      >>> found = cluster_rate_covariance(
      ...     hits, jnp.ones(6), jnp.zeros(6, int), patients, num_groups=1,
      ...     num_patients=3,
      ... )
      >>> round(found.rates[0].item(), 3), round(found.trials[0].item(), 3)
      (0.667, 2.0)
    """
    hit, tried, ids, people = as_rows(
        num_groups, hits=hits, base=base, groups=groups, patients=patients
    )
    dtype = jnp.result_type(float)
    ids = ids.astype(jnp.int32)
    counted = (ids >= 0) & (ids < num_groups) & (tried == 1)
    counted &= (hit == 0) | (hit == 1)
    ids = jnp.where(counted, ids, num_groups)  # an extra group, dropped at the end
    hit = (counted & (hit == 1)).astype(jnp.int32)

    by_group = functools.partial(group_sums, ids=ids, num_ids=num_groups)
    rows = by_group(counted.astype(jnp.int32))
    rates = jnp.where(rows > 0, by_group(hit) / jnp.maximum(rows, 1), jnp.nan)
    rates = rates.astype(dtype)
    residuals = jnp.where(counted, hit - _of_rows(rates, ids), 0)
    scaled = residuals / _of_rows(jnp.maximum(rows, 1), ids)

    def column(group):
        inner = jnp.where(ids == group, people, -1)
        of_patient = group_sums(jnp.ones_like(inner), inner, num_patients)
        influence = group_sums(scaled, inner, num_patients)
        products = by_group(scaled * influence[people])
        squares = jnp.sum(of_patient.astype(dtype) ** 2)
        return products, squares, jnp.sum(of_patient > 0)

    # One group at a time avoids an array [patients, groups].
    products, squares, members = jax.lax.map(column, jnp.arange(num_groups))
    known = by_group(unknown_codes(people, num_patients)) == 0
    factor = jnp.where(
        (members > 1) & known, members / jnp.maximum(members - 1, 1), jnp.nan
    )
    covariance = products * jnp.sqrt(factor[:, None] * factor)
    covariance = ((covariance + covariance.T) / 2).astype(dtype)
    variance = jnp.diagonal(covariance)
    binomial = rates * (1 - rates)
    # Ignores rounding errors in the variance if all patients have the same rate.
    smooth = (variance * rows > _ROUNDING * binomial) & (binomial > 0)
    effective = binomial / jnp.where(smooth, variance, 1)
    copies = rows**2.0 / jnp.maximum(squares, 1)
    trials = jnp.minimum(jnp.where(smooth, effective, copies), rows)
    trials = jnp.where(known, trials, jnp.nan)
    return ClusterRates(
        rates,
        covariance,
        trials.astype(dtype),
        members.astype(jnp.int32),
        jnp.where(known, jnp.maximum(copies - 1, 1), jnp.nan).astype(dtype),
    )


def _of_rows(values: Array, groups: Array) -> Array:
    return jnp.append(values, 0)[groups]


def cluster_interval(
    found: ClusterRates, *, confidence: float = 0.95, z: Numbers | None = None
) -> Interval:
    r"""Computes Wilson's intervals of the rates with effective trials and Student's t.

    The number of standard errors to either side is a quantile of the t distribution
    with the rates' degrees of freedom :math:`\nu`, by Wallace's approximation

    .. math:: t = \sqrt{\nu \left(e^{w^2 / \nu} - 1\right)}, \qquad
              w = z\, \frac{8 \nu + 3}{8 \nu + 1}.

    Args:
      found: From ``cluster_rate_covariance`` or ``cluster_label_rates``.
      confidence: Two-sided, in (0, 1).
      z: Normal standard errors to either side, instead of ``confidence``.

    Returns:
      Ends ``[G]`` in [0, 1]; NaN for a group without rows.

    Raises:
      ValueError: If the confidence is outside (0, 1).

    References:
      Wallace, "Bounds on normal approximations to Student's and the chi-square
      distributions", Annals of Mathematical Statistics 30 (1959); Korn and Graubard,
      Survey Methodology 24 (1998).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> hits, patients = jnp.arange(60) % 6 < 4, jnp.arange(60) // 3
      >>> found = cluster_rate_covariance(
      ...     hits, jnp.ones(60), jnp.zeros(60, int), patients, num_groups=1,
      ...     num_patients=20,
      ... )
      >>> lower, upper = jax.jit(cluster_interval)(found)
      >>> round(lower[0].item(), 2), round(upper[0].item(), 2)
      (0.5, 0.8)
    """
    z = normal_quantile(confidence) if z is None else z
    score = student_equivalent(z, found.degrees_of_freedom)
    return wilson_interval(found.rates * found.trials, found.trials, z=score)


def cluster_label_rates(
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    patients: Int[Array | np.ndarray, " rows"],
    *,
    num_groups: int,
    num_patients: int,
) -> ClusterRates:
    """Computes false and true positive rates of groups jointly, by patient.

    A patient may have rows of both labels, so false and true positive rates are
    correlated. The interval of equalized odds needs this correlation.

    Args:
      labels: ``[rows]``, 0 or 1; rows with other values are ignored.
      predictions: ``[rows]``, 0 or 1.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 for a row in no group.
      patients: ``[rows]`` in ``0 .. num_patients - 1``.
      num_groups: Number of groups declared, ``G``.
      num_patients: Number of patients.

    Returns:
      As ``cluster_rate_covariance`` for ``2 G`` groups: first the false positive rates
      of all groups, then the true positive rates. ``rates.reshape(2, G)`` is indexed
      ``[label, group]``.

    Raises:
      ValueError: As ``cluster_rate_covariance``.

    Example:
      >>> import jax.numpy as jnp
      >>> labels, predictions = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1, 1])
      >>> found = cluster_label_rates(
      ...     labels, predictions, jnp.zeros(4, int), jnp.arange(4), num_groups=1,
      ...     num_patients=4,
      ... )
      >>> found.rates.tolist()
      [0.5, 1.0]
    """
    labels, groups = gathered(labels), gathered(groups).astype(jnp.int32)
    inside = (groups >= 0) & (groups < num_groups)
    return cluster_rate_covariance(
        predictions,
        (labels == 0) | (labels == 1),
        jnp.where(inside, groups + num_groups * (labels == 1), -1),
        patients,
        num_groups=2 * num_groups,
        num_patients=num_patients,
    )
