"""Verdicts of positive-sum fairness: does a model gain without a loss for any group?

Two numbers compare a model with a baseline on the same patients: the gain overall, and
the least gain of any group. A gap between groups may widen without harm if all groups
gain, or narrow with harm if one group loses. Both numbers are estimates, so the
verdicts use intervals. A favourable verdict needs evidence that no group loses, not
merely a lack of evidence for a loss.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from fairjax.metrics._numbers import student_t_quantile
from fairjax.metrics._rows import group_sizes
from fairjax.metrics.gaps import difference
from fairjax.types import known_number

VERDICTS = ("positive-sum", "non-harmful gap", "harmful", "inconclusive")
"""Names of the values of ``verdict`` and ``quadrant`` in a ``PositiveSum``."""

_POSITIVE_SUM, _NON_HARMFUL_GAP, _HARMFUL, _INCONCLUSIVE = range(4)

Scalar: TypeAlias = float | int | Real[Array | np.ndarray, ""]


class PositiveSum(NamedTuple):
    """Comparison of a model with a baseline.

    Attributes:
      gain: Scalar, overall metric of the model minus the baseline's, ``x``.
      gain_lower: Scalar, lower end of the interval of ``gain``.
      gain_upper: Scalar, upper end of the interval of ``gain``.
      group_gains: ``[G]``, the gain within each group; NaN for an omitted group.
      group_lower: ``[G]``, lower ends, simultaneous over the groups.
      group_upper: ``[G]``, upper ends, simultaneous over the groups.
      compared: bool ``[G]``, the groups that the verdict covers.
      worst: Scalar, the least gain of a group, ``y``.
      worst_lower: Scalar, lower end of the interval of ``worst``.
      worst_upper: Scalar, upper end of the interval of ``worst``.
      worst_group: int32 scalar, the group with the least gain; -1 if none is compared.
      gap_changes: ``[A]``, for each attribute the model's largest minus smallest group
        metric, minus that of the baseline; above 0 where the gap widened.
      verdict: int32 scalar, an index into ``VERDICTS``.
      quadrant: int32 scalar, the published rule: the verdict from the estimates alone,
        without a margin.
    """

    gain: Float[Array, ""]
    gain_lower: Float[Array, ""]
    gain_upper: Float[Array, ""]
    group_gains: Float[Array, " groups"]
    group_lower: Float[Array, " groups"]
    group_upper: Float[Array, " groups"]
    compared: Bool[Array, " groups"]
    worst: Float[Array, ""]
    worst_lower: Float[Array, ""]
    worst_upper: Float[Array, ""]
    worst_group: Int[Array, ""]
    gap_changes: Float[Array, " attributes"]
    verdict: Int[Array, ""]
    quadrant: Int[Array, ""]


def positive_sum_of(
    overall: Float[Array | np.ndarray, " 2"],
    overall_error: Scalar,
    by_group: Float[Array | np.ndarray, "2 groups"],
    group_errors: Float[Array | np.ndarray, " groups"],
    *,
    num_groups: int | Sequence[int] | None = None,
    valid: Bool[Array | np.ndarray, " groups"] | None = None,
    overall_degrees: Scalar = jnp.inf,
    group_degrees: Real[Array | np.ndarray, " groups"] | None = None,
    margin: Scalar = 0.0,
    confidence: float = 0.95,
) -> PositiveSum:
    r"""Assesses the gains in any metric from paired standard errors.

    The gains :math:`d_g` have standard errors :math:`s_g`. The interval of the worst
    gain :math:`y = \min_g d_g`, with :math:`q_g(p)` the quantiles of Student's t and
    α = 1 - confidence, is

    .. math:: L = \min_g \left[d_g - q_g(1 - \tfrac{α}{2}) s_g\right], \qquad
              U = \min_g \left[d_g + q_g(1 - \tfrac{α}{2G}) s_g\right].

    Each end errs with probability at most α/2 under any dependence between the groups'
    estimates. The estimates are dependent where attributes share patients. The lower
    end needs no correction for the number of groups. If L exceeds the true minimum,
    then so does the lower limit of the group with the true minimum. The upper end needs
    a correction, since any group can lower U (Bonferroni). The intervals of the groups
    have the corrected quantile at both ends, so ``group_lower`` can lie below ``L``.

    The verdict, with margin δ, is the first of these that holds:

    - **harmful**: U < -δ. Some group demonstrably loses more than δ.
    - **positive-sum**: the overall gain has a lower limit above 0, and L >= -δ. The
      model demonstrably gains, and no group loses more than δ.
    - **non-harmful gap**: L >= -δ, and the gap of some attribute has widened. Only the
      estimated gap has widened; the interval shows that no group loses more than δ.
    - **inconclusive**: everything else, including an unproven gain without a wider gap.

    A false verdict *harmful* and a false claim that no group loses more than δ each
    have probability at most α/2. A margin of 0 requires proof that every group gains or
    stays exactly equal, so choose beforehand a loss that would not matter. No verdict
    covers an omitted group.

    ``quadrant`` is the same rule with the estimates in place of all limits and δ = 0.
    The rule gives positive-sum where x > 0 and y >= 0, harmful where y < 0, non-harmful
    where y >= 0 and a gap widened. This rule often finds a difference between two equal
    models.

    Args:
      overall: ``[2]``, the metric of the model and of the baseline; higher is better
        (negate a loss).
      overall_error: Standard error of their difference.
      by_group: ``[2, G]``, the metric within each group. The groups of several
        attributes follow each other.
      group_errors: ``[G]``, standard errors of the differences.
      num_groups: Number of groups of each attribute, which affects only the gaps; by
        default all groups belong to one attribute.
      valid: ``[G]``, False to omit a group; all True by default. A group with a NaN
        metric or error is omitted too.
      overall_degrees: Degrees of freedom of the overall error; infinite for a normal
        distribution.
      group_degrees: ``[G]``, degrees of freedom of the groups' errors; infinite by
        default.
      margin: The loss δ that would not matter, at least 0.
      confidence: Confidence of the intervals, in (0, 1).

    Returns:
      The comparison. Without a group to compare, or without an overall metric, the
      values that need the missing number are NaN and the verdict is inconclusive.

    Raises:
      ValueError: If the confidence is outside (0, 1), a concrete margin is negative, or
        the numbers of groups do not add up.

    References:
      Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics
      24 (1982), for the lower end.

    Example:
      >>> import jax.numpy as jnp
      >>> found = positive_sum_of(
      ...     jnp.array([0.84, 0.80]), 0.01,
      ...     jnp.array([[0.80, 0.88], [0.79, 0.81]]), jnp.array([0.01, 0.01]),
      ...     margin=0.02,
      ... )
      >>> VERDICTS[found.verdict], round(found.worst_lower.item(), 4)
      ('positive-sum', -0.0096)
      >>> round(found.gap_changes.item(), 2)
      0.06
    """
    overall, by_group = jnp.asarray(overall), jnp.asarray(by_group)
    total = by_group.shape[1]
    sizes = group_sizes(total if num_groups is None else num_groups)
    if sum(sizes) != total or min(sizes) < 1:
        raise ValueError(
            f"num_groups must be at least 1 each and add up to {total}; got {sizes}."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}.")
    number = known_number("margin", margin)
    if number is not None and number < 0:
        raise ValueError(f"margin must be at least 0; got {margin}.")
    return _positive_sum_of(
        overall,
        jnp.asarray(overall_error),
        by_group,
        jnp.asarray(group_errors),
        jnp.ones(total, bool) if valid is None else jnp.asarray(valid),
        jnp.asarray(overall_degrees),
        jnp.asarray(jnp.inf if group_degrees is None else group_degrees),
        jnp.asarray(margin),
        sizes=sizes,
        tail=(1 - confidence) / 2,
    )


@functools.partial(jax.jit, static_argnames=("sizes", "tail"))
def _positive_sum_of(
    overall: Array,
    overall_error: Array,
    by_group: Array,
    errors: Array,
    valid: Array,
    overall_degrees: Array,
    degrees: Array,
    margin: Array,
    *,
    sizes: tuple[int, ...],
    tail: float,
) -> PositiveSum:
    gains = by_group[0] - by_group[1]
    compared = valid & ~jnp.isnan(gains) & ~jnp.isnan(errors)
    gains = jnp.where(compared, gains, jnp.nan)
    degrees = jnp.broadcast_to(degrees, gains.shape).astype(gains.dtype)
    number = jnp.maximum(jnp.sum(compared), 1)
    # One call for all quantiles, because compiling each call takes a second.
    tails = jnp.stack(
        [jnp.full(gains.shape, tail), jnp.full(gains.shape, tail) / number]
    )
    quantiles = student_t_quantile(
        jnp.append(tails, tail), jnp.append(jnp.tile(degrees, 2), overall_degrees)
    )
    single, jointly = quantiles[:-1].reshape(tails.shape) * errors
    gain, reach = overall[0] - overall[1], quantiles[-1] * overall_error
    worst_group = jnp.argmin(jnp.where(compared, gains, jnp.inf)).astype(jnp.int32)
    known = jnp.any(compared)
    worst = gains[worst_group]
    worst_lower = _least(gains - single, compared)
    worst_upper = _least(gains + jointly, compared)
    # The gaps of both models over the groups of each attribute.
    ends = itertools.pairwise(np.cumsum((0, *sizes)))
    parts = [slice(begin, end) for begin, end in ends]
    gaps = jnp.stack([difference(by_group[:, p], compared[p]) for p in parts])
    gap_changes = gaps[:, 0] - gaps[:, 1]
    wider = jnp.any(gap_changes > 0)  # False for NaN, where nothing is compared
    return PositiveSum(
        gain=gain,
        gain_lower=gain - reach,
        gain_upper=gain + reach,
        group_gains=gains,
        group_lower=jnp.where(compared, gains - jointly, jnp.nan),
        group_upper=jnp.where(compared, gains + jointly, jnp.nan),
        compared=compared,
        worst=worst,
        worst_lower=worst_lower,
        worst_upper=worst_upper,
        worst_group=jnp.where(known, worst_group, -1),
        gap_changes=gap_changes,
        verdict=_assess(gain - reach, worst_lower, worst_upper, wider, margin),
        quadrant=_assess(gain, worst, worst, wider, jnp.zeros_like(gain)),
    )


def _least(values: Array, compared: Array) -> Array:
    least = jnp.min(jnp.where(compared, values, jnp.inf))
    return jnp.where(jnp.any(compared), least, jnp.nan)


def _assess(
    gain: Array, worst_lower: Array, worst_upper: Array, wider: Array, margin: Array
) -> Array:
    """Returns the first verdict that holds; a comparison with NaN does not hold."""
    harmless = worst_lower >= -margin
    return jnp.select(
        [worst_upper < -margin, harmless & (gain > 0), harmless & wider],
        [jnp.int32(_HARMFUL), jnp.int32(_POSITIVE_SUM), jnp.int32(_NON_HARMFUL_GAP)],
        jnp.int32(_INCONCLUSIVE),
    )
