r"""Differentiable surrogates of fairness criteria, as functions of cell means.

Each makes a :class:`~fairjax.objectives.CellFunction` from a partition whose
attributes include the label where the criterion conditions on it. With soft rates
:math:`r_{y,g}`, the mean of a statistic (usually the score :math:`\sigma(z)`) over the
examples with label :math:`y` in group :math:`g`, and :math:`r_y` over all examples with
that label, a gap is

.. math:: L = \sum_y R_g\, \phi(r_{y,g} - r_y),

where :math:`\phi` is the absolute value or the square, and :math:`R_g` the mean, the
maximum or a smooth maximum over the groups that have examples. The form is our reading
of what FairGrad (Wang and Yang, 2025) leaves open, which is why each choice is an
argument.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fairjax._levels import display
from fairjax.groups import Partition
from fairjax.objectives import CellFunction
from fairjax.types import Scalar, check_choice, is_known

Penalty = Literal["absolute", "squared"]
Reduction = Literal["mean", "max", "smooth_max"]
Level = str | int | float | np.generic


def task(partition: Partition, *, statistic: str = "loss") -> CellFunction:
    r"""The mean of a statistic over all examples: :math:`\sum_c n_c m_c / \sum_c n_c`.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"sex": ["f", "m"]})
      >>> counts, means = jnp.array([1.0, 3.0]), jnp.array([0.0, 4.0])
      >>> float(fairjax.losses.task(cells).value({"loss": means}, counts))
      3.0
    """
    return _mean_of(np.ones(partition.num_cells, bool), statistic)


def group_risk(
    partition: Partition,
    attribute: str | Sequence[str],
    level: Level | Sequence[Level],
    *,
    statistic: str = "loss",
) -> CellFunction:
    """The mean of a statistic over one group: that subgroup's loss.

    Args:
      partition: The cells.
      attribute: An attribute, or several for an intersectional group.
      level: The attribute's level, as its name says it or as a number; of several
        attributes, a level of each.
      statistic: The statistic to average.

    Returns:
      A cell function; 0, with no gradient, for a batch without anyone in the group.

    Raises:
      ValueError: An attribute or a level that the partition does not have.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"sex": ["f", "m"]})
      >>> risk = fairjax.losses.group_risk(cells, "sex", "m")
      >>> float(risk.value({"loss": jnp.array([0.2, 0.5])}, jnp.array([3.0, 1.0])))
      0.5
    """
    return _mean_of(_group(partition, attribute, level), statistic)


def group_risks(
    partition: Partition, attribute: str | Sequence[str], *, statistic: str = "loss"
) -> Mapping[str, CellFunction]:
    """One :func:`group_risk` for each group, under the group's name.

    The names are those of ``partition.membership(attribute)``.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"sex": ["f", "m"]})
      >>> risks = fairjax.losses.group_risks(cells, "sex")
      >>> means, counts = {"loss": jnp.array([0.25, 0.5])}, jnp.array([3.0, 1.0])
      >>> {name: float(risk.value(means, counts)) for name, risk in risks.items()}
      {'sex=f': 0.25, 'sex=m': 0.5}
    """
    names, groups = partition.membership(attribute)
    return {
        name: _mean_of(group, statistic)
        for name, group in zip(names, groups, strict=True)
    }


def risk_parity(
    partition: Partition,
    attribute: str | Sequence[str],
    *,
    statistic: str = "loss",
    penalty: Penalty = "absolute",
    reduction: Reduction = "mean",
    temperature: Scalar = 0.01,
) -> CellFunction:
    r"""Gap between the groups' losses: :math:`R_g\,\phi(\ell_g - \ell)`.

    Args:
      partition: The cells.
      attribute: An attribute, or several for their intersection.
      statistic: The statistic whose group means are compared.
      penalty: ``"absolute"`` or ``"squared"``.
      reduction: ``"mean"``, ``"max"`` or ``"smooth_max"`` over the groups present.
      temperature: Of the smooth maximum, > 0, in units of the penalty; smaller is
        sharper.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"sex": ["f", "m"]})
      >>> gap = fairjax.losses.risk_parity(cells, "sex")
      >>> print(gap.value({"loss": jnp.array([0.25, 0.75])}, jnp.array([1.0, 1.0])))
      0.25
    """
    _, groups = partition.membership(attribute)
    return _gap(groups[None], statistic, penalty, reduction, temperature)


def demographic_parity(
    partition: Partition,
    attribute: str | Sequence[str],
    *,
    statistic: str = "score",
    penalty: Penalty = "absolute",
    reduction: Reduction = "mean",
    temperature: Scalar = 0.01,
) -> CellFunction:
    r"""Gap between the groups' mean scores: :math:`R_g\,\phi(r_g - r)`.

    Arguments as in :func:`risk_parity`, of which it is the reading on scores.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"sex": ["f", "m"]})
      >>> gap = fairjax.losses.demographic_parity(cells, "sex", penalty="squared")
      >>> print(gap.value({"score": jnp.array([0.0, 1.0])}, jnp.array([1.0, 1.0])))
      0.25
    """
    return risk_parity(
        partition,
        attribute,
        statistic=statistic,
        penalty=penalty,
        reduction=reduction,
        temperature=temperature,
    )


def equalized_odds(
    partition: Partition,
    attribute: str | Sequence[str],
    *,
    label: str,
    statistic: str = "score",
    penalty: Penalty = "absolute",
    reduction: Reduction = "mean",
    temperature: Scalar = 0.01,
) -> CellFunction:
    r"""Soft equalized odds: :math:`\sum_y R_g\,\phi(r_{y,g} - r_y)`.

    Args:
      partition: The cells; its attributes include ``label``.
      attribute: A sensitive attribute, or several for their intersection.
      label: The name of the label among the partition's attributes.
      statistic: The statistic that is compared, usually the soft score in [0, 1].
      penalty: ``"absolute"`` or ``"squared"``.
      reduction: ``"mean"``, ``"max"`` or ``"smooth_max"`` over the groups present.
      temperature: Of the smooth maximum, > 0, in units of the penalty; smaller is
        sharper.

    Returns:
      A cell function, ≥ 0, and 0 at equal soft rates. Groups without an example of
      a label are left out of that label's sum. Examples whose label is missing, or is
      among the merged rare ones, take no part.

    Raises:
      ValueError: An attribute that the partition does not have, or an unknown option.

    Example:
      Positives' rates .2 and .8, negatives' .1 and .1, one example in each cell:

      >>> import jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"died": [0, 0, 1, 1], "sex": ["f", "m"] * 2})
      >>> gap = fairjax.losses.equalized_odds(cells, "sex", label="died")
      >>> score = jnp.array([0.1, 0.1, 0.2, 0.8])
      >>> print(gap.value({"score": score}, jnp.ones(4)).round(3))
      0.3
    """
    _, groups = partition.membership(attribute)
    _, labels = partition.membership(label)
    labels = labels[partition.names_a_value(label)]
    by_label = labels[:, None, :] & groups[None, :, :]
    return _gap(by_label, statistic, penalty, reduction, temperature)


def tpr_parity(
    partition: Partition,
    attribute: str | Sequence[str],
    *,
    label: str,
    positive: Level | None = None,
    statistic: str = "score",
    penalty: Penalty = "absolute",
    reduction: Reduction = "mean",
    temperature: Scalar = 0.01,
) -> CellFunction:
    r"""Soft equal opportunity: :math:`R_g\,\phi(r_{1,g} - r_1)`, positives only.

    Arguments as in :func:`equalized_odds`, and ``positive``, the label's positive
    level. Where none is named it is the second of two levels; those of missing and of
    merged labels do not count.

    Raises:
      ValueError: As :func:`equalized_odds`; no ``positive`` named for a label of other
        than two levels.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"died": [0, 0, 1, 1], "sex": ["f", "m"] * 2})
      >>> gap = fairjax.losses.tpr_parity(cells, "sex", label="died")
      >>> score = jnp.array([0.9, 0.1, 0.2, 0.8])
      >>> print(gap.value({"score": score}, jnp.ones(4)).round(3))
      0.3
    """
    _, groups = partition.membership(attribute)
    if positive is None:
        names, labels = partition.membership(label)
        named = np.flatnonzero(partition.names_a_value(label))
        if len(named) != 2:
            raise ValueError(
                f"label {label!r} has the levels {', '.join(map(repr, names))}: say "
                "which one is positive."
            )
        positives = labels[named[1]]
    else:
        positives = _group(partition, label, positive)
    by_label = (groups & positives)[None]
    return _gap(by_label, statistic, penalty, reduction, temperature)


def _group(
    partition: Partition,
    attribute: str | Sequence[str],
    level: Level | Sequence[Level],
) -> Bool[np.ndarray, " C"]:
    """The cells of one group, found by its levels."""
    names, groups = partition.membership(attribute)
    attributes = (attribute,) if isinstance(attribute, str) else tuple(attribute)
    alone = isinstance(level, Level | None)
    levels = (level,) if alone else tuple(level)
    pairs = zip(attributes, levels, strict=False)
    name = ", ".join(f"{a}={display(b)}" for a, b in pairs)
    if len(levels) != len(attributes) or name not in names:
        raise ValueError(
            f"{attribute!r} has no group {level!r}; its groups are "
            f"{', '.join(map(repr, names))}."
        )
    return groups[names.index(name)]


def _mean_of(group: Bool[np.ndarray, " C"], statistic: str) -> CellFunction:
    """The mean of a statistic over a union of cells."""

    def value(means, counts):
        rates, _ = _group_means(means[statistic], counts, group[None])
        return rates[0]

    return CellFunction(value, (statistic,), group)


def _gap(
    groups: Bool[np.ndarray, "Y G C"],
    statistic: str,
    penalty: Penalty,
    reduction: Reduction,
    temperature: Scalar,
) -> CellFunction:
    """Sum over strata ``Y`` of the reduced penalty of each group's deviation."""
    check_choice("penalty", penalty, "absolute", "squared")
    check_choice("reduction", reduction, "mean", "max", "smooth_max")
    if is_known(temperature) and not temperature > 0:
        raise ValueError(f"temperature must be positive; got {temperature}.")

    def value(means, counts):
        total = jnp.zeros((), means[statistic].dtype)
        for stratum in groups:
            rates, present = _group_means(means[statistic], counts, stratum)
            overall, _ = _group_means(
                means[statistic], counts, stratum.any(axis=0, keepdims=True)
            )
            deviation = jnp.where(present, rates - overall[0], 0.0)
            size = jnp.abs(deviation) if penalty == "absolute" else deviation**2
            total += _reduce(size, present, reduction, temperature)
        return total

    return CellFunction(value, (statistic,), np.logical_or.reduce(groups, axis=(0, 1)))


def _group_means(
    means: Float[Array, " C"], counts: Float[Array, " C"], groups: np.ndarray
) -> tuple[Float[Array, " G"], Bool[Array, " G"]]:
    """Means over unions of cells ``groups [G, C]``, and which have any example."""
    sizes = jnp.sum(jnp.where(groups, counts, 0.0), axis=1)
    sums = jnp.sum(jnp.where(groups, counts * means, 0.0), axis=1)
    present = sizes > 0
    return jnp.where(present, sums / jnp.where(present, sizes, 1.0), 0.0), present


def _reduce(
    sizes: Float[Array, " G"],
    present: Bool[Array, " G"],
    reduction: Reduction,
    temperature: Scalar,
) -> Float[Array, ""]:
    """Mean, maximum or smooth maximum over the groups present; 0 where none is."""
    number = jnp.maximum(jnp.sum(present), 1)
    if reduction == "mean":
        return jnp.sum(jnp.where(present, sizes, 0.0)) / number
    if reduction == "max":
        return jnp.max(jnp.where(present, sizes, 0.0))
    # τ log mean exp(x/τ): 0 at parity, and between the mean and the maximum.
    anyone = jnp.any(present)
    exponents = jnp.where(present, sizes / temperature, -jnp.inf)
    exponents = jnp.where(anyone, exponents, 0.0)
    smooth = temperature * (jax.nn.logsumexp(exponents) - jnp.log(number))
    return jnp.where(anyone, smooth, 0.0)
