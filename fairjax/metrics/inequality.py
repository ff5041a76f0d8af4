"""Inequality of outcomes: differential fairness, and entropy indices of benefits.

Differential fairness bounds the ratios between groups of the probability of either
outcome. The entropy indices assign a benefit to each person, and split the inequality
of benefits into a part between groups and a part within groups.
"""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from fairjax.metrics._rows import as_rows, compiled, float_type
from fairjax.metrics._segments import tally
from fairjax.metrics.counts import GroupCounts, GroupRows, WeightRows
from fairjax.types import check_choice

_Column: TypeAlias = (
    Bool[Array | np.ndarray, " rows"] | Real[Array | np.ndarray, " rows"]
)


def differential_fairness(
    counts: GroupCounts,
    concentration: float | int = 1.0,
    of: Literal["predictions", "labels"] = "predictions",
) -> Float[Array, "*batch"]:
    r"""Computes the widest log ratio of two groups' probabilities of either outcome.

    .. math:: \epsilon = \max_{y,\, g,\, h}
              \left| \log \frac{p_g(y)}{p_h(y)} \right|, \qquad
              p_g(y) = \frac{N_{g,y} + c / 2}{N_g + c}

    so that every ratio of probabilities lies between :math:`e^{-\epsilon}` and
    :math:`e^{\epsilon}`. Half the concentration :math:`c` is the parameter
    :math:`\alpha` of the symmetric Dirichlet prior that smooths small groups.

    Args:
      counts: ``[..., G, 2, 2]``, of the intersections of all protected attributes.
      concentration: :math:`c`, at least 0; 0 gives the empirical value, which is
        infinite where one group has an outcome that another group never has.
      of: ``"predictions"``, or ``"labels"`` for the value of the data. The difference
        of the two is the bias that the model adds.

    Returns:
      ``[...]``, at least 0, 0 at parity. A group without rows is omitted; NaN where
      fewer than two groups remain.

    Raises:
      ValueError: If the concentration is negative, or ``of`` is not one of these.

    References:
      Foulds et al., "An intersectional definition of fairness", ICDE 2020.

    Example:
      >>> import jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[6, 2], [0, 0]], [[4, 4], [0, 0]]]))
      >>> jnp.exp(differential_fairness(counts, concentration=0)).item()
      2.0
    """
    if concentration < 0:
        raise ValueError(f"concentration must be at least 0; got {concentration}.")
    check_choice("of", of, "predictions", "labels")
    outcomes = jnp.sum(jnp.asarray(counts.counts), axis=-2 if of != "labels" else -1)
    rows = jnp.sum(outcomes, axis=-1, keepdims=True)
    present = rows > 0
    dtype = jnp.result_type(outcomes, float)
    outcomes, rows = outcomes.astype(dtype), rows.astype(dtype)
    probability = (outcomes + concentration / 2) / (rows + concentration)
    highest = jnp.max(probability, axis=-2, initial=0.0, where=present)
    lowest = jnp.min(probability, axis=-2, initial=1.0, where=present)
    # The ratio 0/0 of an outcome that no group has counts as 1.
    unequal = highest > lowest
    widest = jnp.where(unequal, highest, 1.0) / jnp.where(unequal, lowest, 1.0)
    epsilon = jnp.max(jnp.log(widest), axis=-1)
    return jnp.where(jnp.sum(present, axis=(-2, -1)) >= 2, epsilon, jnp.nan)


def generalized_entropy_index(
    labels: _Column,
    predictions: _Column,
    alpha: float | int = 2,
    *,
    weights: WeightRows | None = None,
) -> Float[Array, ""]:
    r"""Computes the inequality of the benefits from predictions.

    .. math:: b_i = \hat y_i - y_i + 1, \qquad
              \mathcal{E}_\alpha = \frac{1}{n \alpha (\alpha - 1)}
              \sum_i \left[ (b_i / \mu)^\alpha - 1 \right]

    with :math:`\mu` the mean benefit. The limits are the Theil index
    :math:`\frac1n \sum_i \frac{b_i}{\mu} \log \frac{b_i}{\mu}` at
    :math:`\alpha = 1`, and the mean log deviation
    :math:`-\frac1n \sum_i \log \frac{b_i}{\mu}` at 0. The index does not depend on
    groups.

    Args:
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1, or probabilities.
      alpha: Weight of the large benefits; at 2 the index is half the squared
        coefficient of variation.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The index, at least 0, and 0 if all benefits are equal. If ``alpha`` is at most 0,
      the index is infinite if a benefit is 0, as for a false negative. NaN without
      rows, or if all benefits are 0.

    Raises:
      ValueError: If the columns differ in length.

    References:
      Speicher et al., "A unified approach to quantifying algorithmic unfairness",
      KDD 2018.

    Example:
      >>> import jax.numpy as jnp
      >>> labels, predictions = jnp.array([1, 1, 0, 0]), jnp.array([0, 1, 1, 0])
      >>> generalized_entropy_index(labels, predictions).item()
      0.25
    """
    groups = jnp.zeros(np.shape(labels), int)
    return entropy_split(
        labels, predictions, groups, alpha, num_groups=1, weights=weights
    ).total


class EntropySplit(NamedTuple):
    """A generalized entropy index, the sum of two parts.

    Attributes:
      total: The index over all rows that are in a group.
      between: The inequality if everybody had the mean benefit of their group.
      within: The inequality if the mean benefits of the groups were equal.
    """

    total: Float[Array, ""]
    between: Float[Array, ""]
    within: Float[Array, ""]


@compiled("alpha", "num_groups")
def entropy_split(
    labels: _Column,
    predictions: _Column,
    groups: GroupRows,
    alpha: float | int = 2,
    *,
    num_groups: int,
    weights: WeightRows | None = None,
) -> EntropySplit:
    r"""Splits the generalized entropy index between and within groups.

    .. math:: \mathcal{E} = \mathcal{E}(\mu_{g(1)}, \dots, \mu_{g(n)}) +
              \sum_g \frac{n_g}{n} \left( \frac{\mu_g}{\mu} \right)^\alpha
              \mathcal{E}_g

    with :math:`n_g`, :math:`\mu_g` and :math:`\mathcal{E}_g` the rows, the mean benefit
    and the index of group :math:`g`. The between-group part measures unfairness between
    groups, and is 0 for groups of equal mean benefit. Lowering the between-group part
    can raise the within-group part.

    Args:
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1, or probabilities.
      groups: ``[rows]``, ids in ``0 .. num_groups - 1``; -1 omits the row.
      alpha: As in ``generalized_entropy_index``.
      num_groups: Number of groups declared, ``G``.
      weights: ``[rows]``, at least 0; ones by default.

    Returns:
      The index and its two parts.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.

    References:
      Speicher et al., "A unified approach to quantifying algorithmic unfairness",
      KDD 2018.

    Example:
      >>> import jax.numpy as jnp
      >>> labels, predictions = jnp.array([1, 1, 0, 0]), jnp.array([0, 1, 1, 0])
      >>> total, between, within = entropy_split(
      ...     labels, predictions, jnp.array([0, 0, 1, 1]), num_groups=2
      ... )
      >>> [round(part.item(), 3) for part in (total, between, within)]
      [0.25, 0.125, 0.125]
    """
    columns = {"labels": labels, "predictions": predictions, "groups": groups}
    labels, predictions, groups, weights = as_rows(
        num_groups, **columns, weights=weights
    )
    dtype = float_type(labels, predictions)
    benefits = predictions.astype(dtype) - labels.astype(dtype) + 1
    kept = (groups >= 0) & (groups < num_groups)
    weights = jnp.ones_like(benefits) if weights is None else weights
    weights = jnp.where(kept, weights.astype(dtype), 0)
    # An omitted row has no weight, and gets an arbitrary benefit.
    benefits = jnp.where(kept, benefits, 1)

    def total_of(values):
        return tally(jnp.zeros_like(groups), groups, values, num_groups, 1)

    rows, benefit = total_of(weights), total_of(weights * benefits)
    all_rows = jnp.sum(rows)
    overall = jnp.sum(benefit) / all_rows
    mean = jnp.where(rows > 0, benefit / jnp.where(rows > 0, rows, 1), overall)
    total = jnp.sum(total_of(_deviations(weights, benefits, overall, alpha)))
    between = jnp.sum(_deviations(rows, mean, overall, alpha))
    # A group without any benefit has no inequality, although its ratios are 0 / 0.
    some = mean[groups] > 0
    means = jnp.where(some, mean[groups], 1)
    index = total_of(_deviations(weights, jnp.where(some, benefits, 1), means, alpha))
    scale = jnp.where(index > 0, (mean / overall) ** alpha, 1)
    within = jnp.sum(scale * index)
    return EntropySplit(total / all_rows, between / all_rows, within / all_rows)


def _deviations(
    weights: Array, benefits: Array, mean: Array, alpha: float | int
) -> Array:
    """Computes the terms of the index by row, times their weights."""
    # Subtracts the tangent at the mean from each term. Tangents add up to 0 over all
    # rows, and without this step a small index would be a difference of large terms.
    excess = (benefits - mean) / mean
    relative = benefits / mean
    if alpha == 0:
        term = excess - jnp.log(relative)
    elif alpha == 1:
        term = jax.scipy.special.xlogy(relative, relative) - excess
    else:
        term = (relative**alpha - 1 - alpha * excess) / (alpha * (alpha - 1))
    # Near the mean these terms also cancel, so the power series replaces them.
    series = jnp.ones_like(excess)
    for power in range(8, 2, -1):
        series = 1 + (alpha - power + 1) * excess / power * series
    near = jnp.abs(excess) < jnp.finfo(excess.dtype).eps ** (1 / 8)
    term = jnp.where(near, excess**2 / 2 * series, term)
    # An infinite term without weight does not count.
    return jnp.where(weights > 0, weights * term, 0)
