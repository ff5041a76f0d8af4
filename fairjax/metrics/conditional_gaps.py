"""Gaps within the strata of a control attribute, summed up.

Groups may differ in a rate because they differ in what the rate depends on, such as the
severity of disease. A gap within strata of that attribute compares like with like.
Which attributes to control for is a judgement that no metric makes: controlling for a
consequence of unequal treatment hides it.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.metrics.counts import GroupCounts
from fairjax.types import check_choice


class ConditionalGap(NamedTuple):
    """A gap within strata, and what it was made from.

    Attributes:
      gap: ``[...]``, over the strata; NaN if none has a gap.
      stratum_gaps: ``[..., S]``, each stratum's own gap.
      compared: ``[..., S]``, False for a stratum that has none: fewer than two of its
        groups have the rows. ``compared_groups`` of the same counts says which.
    """

    gap: Float[Array, "*batch"]
    stratum_gaps: Float[Array, "*batch strata"]
    compared: Bool[Array, "*batch strata"]


def conditional(
    gap: Callable[[GroupCounts], Array],
    counts: GroupCounts,
    agg: Literal["max", "min", "mean"],
) -> ConditionalGap:
    r"""A gap among rows alike in a control attribute.

    .. math:: \max_s \Delta_s, \qquad \min_s \Delta_s, \qquad
              \sum_s n_s \Delta_s \Big/ \sum_s n_s

    with :math:`\Delta_s` the gap within stratum :math:`s` and :math:`n_s` its rows. An
    average of gaps within strata is not the gap of averages: groups that differ in
    different directions in two strata do not cancel. Gaps of small strata are biased
    upwards the more.

    Args:
      gap: Maps counts ``[..., S, G, 2, 2]`` to gaps ``[..., S]``, such as
        ``equal_opportunity_difference``, but not against a reference: that is a gap of
        every group.
      counts: ``[..., S, G, 2, 2]``, of ``conditional_counts``.
      agg: ``"max"``, the worst stratum of a difference; ``"min"``, the worst of a
        ratio, which a maximum would hide; or ``"mean"``, over the compared strata by
        their rows.

    Returns:
      The gap, each stratum's own, and which strata had one.

    Raises:
      ValueError: If ``agg`` is none of these, or the gap is not one number a stratum.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax.metrics import accuracy_difference
      >>> stratum = [[[3, 1], [0, 0]], [[1, 3], [0, 0]]]
      >>> other = [[[2, 0], [0, 2]], [[1, 1], [1, 1]]]
      >>> counts = GroupCounts(jnp.array([stratum, other]))
      >>> result = conditional(accuracy_difference, counts, agg="mean")
      >>> result.gap.item(), result.stratum_gaps.tolist()
      (0.5, [0.5, 0.5])
    """
    check_choice("agg", agg, "max", "min", "mean")
    gaps, strata = gap(counts), counts.counts.shape[:-3]
    if gaps.shape != strata:
        raise ValueError(
            "conditional needs one gap for each stratum, of shape "
            f"{strata}, and the gap of these counts has shape {gaps.shape}. Against a "
            "reference each group has a gap: choose one group's, as in "
            "lambda counts: gap(counts, reference=0)[..., 1]."
        )
    compared = ~jnp.isnan(gaps)
    if agg == "mean":
        rows = jnp.sum(jnp.asarray(counts.counts), axis=(-3, -2, -1))
        rows = jnp.where(compared, rows, 0).astype(gaps.dtype)
        total = jnp.sum(jnp.where(compared, gaps, 0) * rows, axis=-1)
        result = total / jnp.sum(rows, axis=-1)
    elif agg == "max":
        result = jnp.max(gaps, axis=-1, initial=-jnp.inf, where=compared)
    else:
        result = jnp.min(gaps, axis=-1, initial=jnp.inf, where=compared)
    result = jnp.where(jnp.any(compared, axis=-1), result, jnp.nan)
    return ConditionalGap(result, gaps, compared)
