"""The gaps of the literature by name, each the difference or ratio of one rate.

All take counts ``[..., G, 2, 2]`` and two options. ``min_support`` is the fewest rows
under a group's rate (its denominator, see ``rate_support``) for the group to be
compared; ``reference`` is the position of a group to compare every other with, and
turns one gap ``[...]`` into signed differences, or unclipped ratios, ``[..., G]``.
``fairjax.metrics.difference`` and ``ratio`` say what becomes of groups without rows.
Any other rate's gap is ``rate_difference(counts, name)`` or ``rate_ratio``.

docs/conventions.md compares the names with those of other toolkits.
"""

import jax.numpy as jnp

from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.gaps import (
    Gap,
    Reference,
    Support,
    rate_difference,
    rate_ratio,
)


def demographic_parity_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the selection rates.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> round(demographic_parity_difference(counts).item(), 4)
      0.0667
    """
    return rate_difference(counts, "selection_rate", min_support, reference=reference)


def demographic_parity_ratio(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Ratio of the selection rates; below .8 it fails the "four-fifths rule".

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> round(demographic_parity_ratio(counts).item(), 4)
      0.8333
    """
    return rate_ratio(counts, "selection_rate", min_support, reference=reference)


def statistical_parity_difference(
    counts: GroupCounts, min_support: Support = 0, *, reference: Reference
) -> Gap:
    """Each group's selection rate minus the reference's, ``[..., G]``, signed.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> statistical_parity_difference(counts, reference=0).round(4).tolist()
      [0.0, -0.066...]
    """
    return demographic_parity_difference(counts, min_support, reference=reference)


def disparate_impact(
    counts: GroupCounts, min_support: Support = 0, *, reference: Reference
) -> Gap:
    """Each group's selection rate over the reference's, ``[..., G]``, not clipped.

    Infinite where the reference has nobody selected, and NaN where neither has
    (Feldman et al. 2015).

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[6, 2], [6, 2]], [[4, 4], [4, 4]]]))
      >>> disparate_impact(counts, reference=0).tolist()
      [1.0, 2.0]
    """
    return demographic_parity_ratio(counts, min_support, reference=reference)


def equal_opportunity_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the true positive rates (Hardt, Price and Srebro 2016).

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> equal_opportunity_difference(counts).item()
      0.25
      >>> equal_opportunity_difference(counts, reference=0).tolist()
      [0.0, -0.25]
    """
    return rate_difference(
        counts, "true_positive_rate", min_support, reference=reference
    )


def equal_opportunity_ratio(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Ratio of the true positive rates.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> round(equal_opportunity_ratio(counts).item(), 4)
      0.6667
    """
    return rate_ratio(counts, "true_positive_rate", min_support, reference=reference)


def false_positive_rate_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the false positive rates, also called predictive equality.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> round(false_positive_rate_difference(counts).item(), 4)
      0.0833
    """
    return rate_difference(
        counts, "false_positive_rate", min_support, reference=reference
    )


def false_negative_rate_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the miss rates: that of the true positive rates, sign turned.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> false_negative_rate_difference(counts, reference=0).tolist()
      [0.0, 0.25]
    """
    return rate_difference(
        counts, "false_negative_rate", min_support, reference=reference
    )


def predictive_parity_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the positive predictive values (Chouldechova 2017).

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> predictive_parity_difference(counts).item()
      0.25
    """
    return rate_difference(
        counts, "positive_predictive_value", min_support, reference=reference
    )


def negative_predictive_value_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the negative predictive values, predictive parity's other half.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]]]))
      >>> round(negative_predictive_value_difference(counts).item(), 4)
      0.0833
    """
    return rate_difference(
        counts, "negative_predictive_value", min_support, reference=reference
    )


def accuracy_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the accuracies, also called overall accuracy equality.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[6, 2], [2, 6]], [[4, 4], [4, 4]]]))
      >>> accuracy_difference(counts).item()
      0.25
    """
    return rate_difference(counts, "accuracy", min_support, reference=reference)


def error_rate_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the shares predicted wrong: the accuracies', sign turned.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[6, 2], [2, 6]], [[4, 4], [4, 4]]]))
      >>> error_rate_difference(counts, reference=0).tolist()
      [0.0, 0.25]
    """
    return rate_difference(counts, "error_rate", min_support, reference=reference)


def error_rate_ratio(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Ratio of the shares predicted wrong; not that of the accuracies.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[6, 2], [2, 6]], [[4, 4], [4, 4]]]))
      >>> error_rate_ratio(counts).item()
      0.5
    """
    return rate_ratio(counts, "error_rate", min_support, reference=reference)


def treatment_equality_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference | None = None,
) -> Gap:
    """Difference of the ratios FN / FP (Berk et al. 2021): at least 0, not bounded.

    Infinite if one group has false negatives and no false positive, and NaN if all
    that are compared are so.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[10, 2], [3, 6]], [[9, 4], [2, 3]]]))
      >>> treatment_equality_difference(counts).item()
      1.0
    """
    return rate_difference(counts, "treatment_ratio", min_support, reference=reference)


def average_odds_difference(
    counts: GroupCounts,
    min_support: Support = 0,
    *,
    reference: Reference,
    absolute: bool = False,
) -> Gap:
    r"""Mean of a group's two differences from the reference, in TPR and FPR.

    .. math:: \tfrac12 \left[ (\mathrm{TPR}_g - \mathrm{TPR}_{\text{ref}}) +
              (\mathrm{FPR}_g - \mathrm{FPR}_{\text{ref}}) \right]

    Signed differences cancel: 0 does not say that the odds are equal. With
    ``absolute`` each is taken without its sign, which is the equalized odds difference
    of ``agg="mean"``.

    Args:
      counts: ``[..., G, 2, 2]``.
      min_support: As in ``equalized_odds_difference``.
      reference: Position of the group to compare every other with.
      absolute: Whether to drop the signs before the mean.

    Returns:
      ``[..., G]``, in [-1, 1]; NaN where either difference is.

    Raises:
      ValueError: If there is no such reference.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[9, 3], [2, 6]], [[6, 6], [4, 4]]]))
      >>> average_odds_difference(counts, reference=0).tolist()
      [0.0, 0.0]
      >>> average_odds_difference(counts, reference=0, absolute=True).tolist()
      [0.0, 0.25]
    """
    options = {"min_support": min_support, "reference": reference}
    positives = equal_opportunity_difference(counts, **options)
    negatives = false_positive_rate_difference(counts, **options)
    if absolute:
        positives, negatives = jnp.abs(positives), jnp.abs(negatives)
    return (positives + negatives) / 2
