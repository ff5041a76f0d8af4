"""The verdicts of positive-sum fairness: does a model gain without anyone losing?

A model is compared with a baseline on the same patients by two numbers: what it gains
overall, and what the group that fares worst by the change gains. A gap between groups
may widen without harm, when all of them gain, or narrow with it, when one loses.
Either number is an estimate, so the verdicts rest on intervals, and what must be shown
is that nobody loses, not merely that no loss has been shown.
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
from fairjax.types import is_known

VERDICTS = ("positive-sum", "non-harmful gap", "harmful", "inconclusive")
"""What the numbers in ``verdict`` and ``quadrant`` of a ``PositiveSum`` stand for."""

_POSITIVE_SUM, _NON_HARMFUL_GAP, _HARMFUL, _INCONCLUSIVE = range(4)

Scalar: TypeAlias = float | int | Real[Array | np.ndarray, ""]


class PositiveSum(NamedTuple):
    """A model held against a baseline.

    Attributes:
      gain: Scalar, overall metric of the model less the baseline's, ``x``.
      gain_lower: Scalar, lower end of its interval.
      gain_upper: Scalar, upper end.
      group_gains: ``[G]``, the same within each group; NaN for a group left out.
      group_lower: ``[G]``, lower ends, simultaneous over the groups.
      group_upper: ``[G]``, upper ends, simultaneous over the groups.
      compared: bool ``[G]``, the groups that take part; the verdict is about them.
      worst: Scalar, the least of the groups' gains, ``y``.
      worst_lower: Scalar, lower end of its interval.
      worst_upper: Scalar, upper end.
      worst_group: int32 scalar, whose gain it is; -1 if no group is compared.
      gap_changes: ``[A]``, for each attribute the model's largest less smallest group
        metric, less the same of the baseline; above 0 where the gap widened.
      verdict: int32 scalar, an index into ``VERDICTS``.
      quadrant: int32 scalar, the same from the estimates alone and with no margin, as
        it was published.
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
    r"""Judges any metric's gains, given paired standard errors.

    With gains :math:`d_g` of standard errors :math:`s_g`, the worst gain
    :math:`y = \min_g d_g` lies, with :math:`q_g(p)` the quantiles of Student's t and
    α one less the confidence, between

    .. math:: L = \min_g \left[d_g - q_g(1 - \tfrac{α}{2}) s_g\right], \qquad
              U = \min_g \left[d_g + q_g(1 - \tfrac{α}{2G}) s_g\right].

    Each end errs with a chance of at most α/2, however the groups' estimates depend on
    each other, as they do where attributes share patients. For if L exceeds the true
    minimum, then so does the lower limit of the one group that attains it: the lower
    end needs no correction for the number of groups. The upper end does, since any one
    of the groups may pull it down (Bonferroni). The groups' own intervals have the
    corrected quantile at either end, so that ``group_lower`` may lie below ``L``.

    The verdict, with margin δ, is the first of these that holds:

    - **harmful**: U < -δ. Some group is shown to lose more than δ.
    - **positive-sum**: the gain overall has a lower limit above 0, and L >= -δ. A gain
      is shown, and it is shown that no group loses more than δ.
    - **non-harmful gap**: L >= -δ, and the gap of some attribute has widened. The
      widening is the estimates'; what is shown is that it comes without a loss.
    - **inconclusive**: all else; also a gap that did not widen with no gain shown.

    The false verdict *harmful* and the false claim that no group loses more than δ each
    have a chance of at most α/2. A margin of 0 asks to show that every group gains or
    stays exactly as it was: choose, beforehand, the loss that would not matter. A group
    that is left out is not covered by any verdict.

    ``quadrant`` is the same rule with the estimates in place of all limits and δ = 0:
    positive-sum where x > 0 and y >= 0, harmful where y < 0, non-harmful where y >= 0
    and a gap widened. By it, two equal models often differ.

    Args:
      overall: ``[2]``, the metric of the model and of the baseline; higher is better
        (negate a loss).
      overall_error: Standard error of their difference.
      by_group: ``[2, G]``, the same within each group. Groups of several attributes
        follow each other.
      group_errors: ``[G]``, standard errors of the differences.
      num_groups: How many groups each attribute has; by default all belong to one. Only
        gaps depend on it.
      valid: ``[G]``, False to leave a group out; all by default. A group without a
        metric or an error is left out too.
      overall_degrees: Degrees of freedom of the error; infinite for a normal
        distribution.
      group_degrees: ``[G]``, the same of the groups; infinite by default.
      margin: The loss δ that would not matter, at least 0.
      confidence: Of the intervals, in (0, 1).

    Returns:
      The comparison. Without any group to compare, or without an overall metric, what
      depends on it is NaN and the verdict inconclusive.

    Raises:
      ValueError: If the confidence is outside (0, 1), a margin known beforehand is
        negative, or the numbers of groups do not add up.

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
            f"num_groups {sizes} must be at least 1 each and add up to {total}."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    if is_known(margin) and margin < 0:
        raise ValueError(f"margin must be at least 0, got {margin}.")
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
    # One call for all: what is compiled for it takes a second.
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
    # The groups of one attribute after another's, each with a gap of either model.
    ends = itertools.pairwise(np.cumsum((0, *sizes)))
    parts = [slice(begin, end) for begin, end in ends]
    gaps = jnp.stack([difference(by_group[:, p], compared[p]) for p in parts])
    gap_changes = gaps[:, 0] - gaps[:, 1]
    wider = jnp.any(gap_changes > 0)  # NaN, where nothing is compared, is not
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
        verdict=_judge(gain - reach, worst_lower, worst_upper, wider, margin),
        quadrant=_judge(gain, worst, worst, wider, jnp.zeros_like(gain)),
    )


def _least(values: Array, compared: Array) -> Array:
    least = jnp.min(jnp.where(compared, values, jnp.inf))
    return jnp.where(jnp.any(compared), least, jnp.nan)


def _judge(
    gain: Array, worst_lower: Array, worst_upper: Array, wider: Array, margin: Array
) -> Array:
    """The first verdict that holds; comparisons with NaN do not."""
    harmless = worst_lower >= -margin
    return jnp.select(
        [worst_upper < -margin, harmless & (gain > 0), harmless & wider],
        [jnp.int32(_HARMFUL), jnp.int32(_POSITIVE_SUM), jnp.int32(_NON_HARMFUL_GAP)],
        jnp.int32(_INCONCLUSIVE),
    )
