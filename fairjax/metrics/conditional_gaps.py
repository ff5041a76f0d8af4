"""Gaps within the strata of a control attribute, aggregated over the strata.

Groups may differ in a rate because they differ in a cause of the rate, such as the
severity of disease. A gap within strata of the cause compares similar patients. No
metric can choose the attributes to control for. Controlling for a consequence of
unequal treatment hides the unequal treatment.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.metrics.counts import GroupCounts
from fairjax.types import check_choice


class ConditionalGap(NamedTuple):
    """A gap aggregated over strata, with the gap of each stratum.

    Attributes:
      gap: ``[...]``, aggregated over the strata; NaN if no stratum has a gap.
      stratum_gaps: ``[..., S]``, the gap of each stratum.
      compared: ``[..., S]``, False for a stratum without a gap, because fewer than two
        groups have enough rows. ``compared_groups`` of the same counts tells which.
    """

    gap: Float[Array, "*batch"]
    stratum_gaps: Float[Array, "*batch strata"]
    compared: Bool[Array, "*batch strata"]


def conditional(
    gap: Callable[[GroupCounts], Array],
    counts: GroupCounts,
    agg: Literal["max", "min", "mean"],
) -> ConditionalGap:
    r"""Computes a gap within strata of a control attribute, and aggregates the strata.

    .. math:: \max_s \Delta_s, \qquad \min_s \Delta_s, \qquad
              \sum_s n_s \Delta_s \Big/ \sum_s n_s

    with :math:`\Delta_s` the gap within stratum :math:`s` and :math:`n_s` its rows. An
    average of gaps within strata is not the gap of averages: opposite differences in
    two strata do not cancel. The upward bias of a gap is larger in small strata.

    Args:
      gap: Maps counts ``[..., S, G, 2, 2]`` to gaps ``[..., S]``, such as
        ``equal_opportunity_difference``. A function with a reference does not fit,
        because there is then a gap for every group.
      counts: ``[..., S, G, 2, 2]``, from ``conditional_counts``.
      agg: ``"max"``, the worst stratum of a difference; ``"min"``, the worst stratum of
        a ratio, which a maximum would hide; or ``"mean"``, over the compared strata
        weighted by their rows.

    Returns:
      The aggregated gap, the gap of each stratum, and which strata have a gap.

    Raises:
      ValueError: If ``agg`` is not one of these, or ``gap`` does not give one number
        for each stratum.

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
            "gap must give one value for each stratum, of shape "
            f"{strata}; got shape {gaps.shape}. Against a reference each group has a "
            "gap. Choose the gap of one group, as in "
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
