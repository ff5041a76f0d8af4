r"""Differentiable surrogates of fairness criteria, as functions of cell means.

Each function makes a :class:`~fairjax.objectives.CellFunction` from a partition. Where
a criterion conditions on the label, the partition's attributes include the label. The
soft rate :math:`r_{y,g}` is the mean of a statistic, usually the score
:math:`\sigma(z)`, over the examples with label :math:`y` in group :math:`g`; the rate
:math:`r_y` is the mean over all examples with label :math:`y`. A gap is

.. math:: L = \sum_y R_g\, \phi(r_{y,g} - r_y),

where :math:`\phi` is the absolute value or the square, and :math:`R_g` the mean, the
maximum or a smooth maximum over groups that have examples. FairGrad (Wang and Yang,
2025) leaves the form open; this form is our reading, so each choice is an argument.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from fairjax._levels import display
from fairjax.groups import Partition
from fairjax.objectives import CellFunction
from fairjax.types import Scalar, check_choice, check_positive

Penalty = Literal["absolute", "squared"]
Reduction = Literal["mean", "max", "smooth_max"]
Level = str | int | float | np.generic


def task(partition: Partition, *, statistic: str = "loss") -> CellFunction:
    r"""Makes a statistic's mean over all examples: :math:`\sum_c n_c m_c / \sum_c n_c`.

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
    """Makes the mean of a statistic over one group, such as the group's loss.

    Args:
      partition: The cells.
      attribute: An attribute, or several for an intersectional group.
      level: The attribute's level, by its name or as a number; for several attributes,
        one level of each.
      statistic: The statistic to average.

    Returns:
      A cell function; its value is 0, with a gradient of 0, for a batch without
      examples in the group.

    Raises:
      ValueError: The partition does not have the attribute or the level.

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
    """Makes one :func:`group_risk` for each group, under the group's name.

    The names are those that ``partition.membership(attribute)`` returns.

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
    r"""Makes the gap between the groups' losses: :math:`R_g\,\phi(\ell_g - \ell)`.

    Args:
      partition: The cells.
      attribute: An attribute, or several for their intersection.
      statistic: The statistic whose group means are compared.
      penalty: ``"absolute"`` or ``"squared"``.
      reduction: ``"mean"``, ``"max"`` or ``"smooth_max"`` over the groups present.
      temperature: Temperature of the smooth maximum, > 0, in units of the penalty;
        smaller is sharper.

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
    r"""Makes the gap between the groups' mean scores: :math:`R_g\,\phi(r_g - r)`.

    This is :func:`risk_parity` of the score, and takes the same arguments.

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
    r"""Makes the gap in equalized odds: :math:`\sum_y R_g\,\phi(r_{y,g} - r_y)`.

    Args:
      partition: The cells; its attributes include ``label``.
      attribute: A sensitive attribute, or several for their intersection.
      label: The name of the label among the partition's attributes.
      statistic: The statistic that is compared, usually the soft score in [0, 1].
      penalty: ``"absolute"`` or ``"squared"``.
      reduction: ``"mean"``, ``"max"`` or ``"smooth_max"`` over the groups present.
      temperature: Temperature of the smooth maximum, > 0, in units of the penalty;
        smaller is sharper.

    Returns:
      A cell function, ≥ 0, and 0 at equal soft rates. Groups without an example of
      a label are left out of that label's term. Examples whose label is missing, or is
      a merged rare value, are left out.

    Raises:
      ValueError: The partition does not have an attribute, or an option is unknown; or
        the label is a measurement, with more than ten levels and fractions among them.

    Example:
      The positives' rates are .2 and .8, the negatives' rates .1 and .1, with one
      example in each cell:

      >>> import jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"died": [0, 0, 1, 1], "sex": ["f", "m"] * 2})
      >>> gap = fairjax.losses.equalized_odds(cells, "sex", label="died")
      >>> score = jnp.array([0.1, 0.1, 0.2, 0.8])
      >>> print(gap.value({"score": score}, jnp.ones(4)).round(3))
      0.3
    """
    _, groups = partition.membership(attribute)
    _, labels = partition.membership(label)
    _check_classes(partition, label)
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
    r"""Makes the gap in true positive rates: :math:`R_g\,\phi(r_{1,g} - r_1)`.

    This is soft equal opportunity: it reads positives only. The arguments are those of
    :func:`equalized_odds` and ``positive``, the label's positive level. By default
    ``positive`` is the second of two levels; the levels of missing and of merged labels
    do not count.

    Raises:
      ValueError: As :func:`equalized_odds`; or the label does not have two levels, and
        ``positive`` is not given.

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
                f"label {label!r} must have two levels, or positive must name one; got "
                f"the levels {', '.join(map(repr, names))}."
            )
        positives = labels[named[1]]
    else:
        positives = _group(partition, label, positive)
    by_label = (groups & positives)[None]
    return _gap(by_label, statistic, penalty, reduction, temperature)


def cox_loss(
    scores: Float[Array, "..."],
    times: Real[Array | np.ndarray, "..."],
    events: Bool[Array | np.ndarray, "..."] | Real[Array | np.ndarray, "..."],
    *,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
) -> Float[Array, ""]:
    r"""Computes Cox's negative log partial likelihood per event, with Breslow's ties.

    .. math:: L = -\frac{1}{\sum_i \delta_i} \sum_i \delta_i
        \Bigl(z_i - \log \sum_{j:\, t_j \ge t_i} e^{z_j}\Bigr)

    Unlike the other functions of this module, this is not a function of cell means,
    because an event is compared with everyone at risk. One loss for each group, for
    :func:`fairjax.stack_objectives`, masks the other groups, which then leave the risk
    sets too.

    Args:
      scores: ``z [N]``, log hazard ratios.
      times: ``t [N]``, times of the event or of censoring.
      events: ``δ [N]``, whether the event occurred.
      mask: ``[N]``; examples where the mask is False are left out.

    Returns:
      ``[]``, in float32 at least; 0 without events; NaN if a time in use is NaN.

    Raises:
      ValueError: Shapes differ, or are not ``[N]``.

    References:
      Breslow, *Covariance analysis of censored survival data*, Biometrics, 1974.

    Example:
      Two are at risk at the first event, one at the second: log 2 over 2.

      >>> import jax.numpy as jnp, fairjax
      >>> loss = fairjax.losses.cox_loss(jnp.zeros(2), jnp.array([1, 2]), jnp.ones(2))
      >>> print(loss.round(4))
      0.3466
    """
    scores, times, events = map(jnp.asarray, (scores, times, events))
    mask = jnp.ones(scores.shape, bool) if mask is None else jnp.asarray(mask, bool)
    shapes = [value.shape for value in (scores, times, events, mask)]
    if scores.ndim != 1 or len(set(shapes)) > 1:
        raise ValueError(
            "scores, times, events and the mask must all have shape [N]; got "
            f"{', '.join(map(str, shapes))}. Pass scores[:, 0] of a layer's [N, 1]."
        )
    wide = jnp.promote_types(scores.dtype, jnp.float32)
    unknown = jnp.any(mask & jnp.isnan(times))
    # Examples that are left out come last, so that no event's risk set reaches them.
    # Ranks of times, since whole numbers may be too large for a float.
    scores = jnp.where(mask, scores, 0.0).astype(wide)
    ordered = jnp.sort(times)
    ranks = jnp.where(mask, jnp.searchsorted(ordered, times), -1)
    order = jnp.argsort(-ranks)
    at_risk = jax.lax.cumlogsumexp(scores[order])
    last = jnp.searchsorted(-ranks[order], -ranks, side="right") - 1
    happened = (mask & (events != 0)).astype(wide)
    total = jnp.sum(happened * (at_risk[last] - scores))
    return jnp.where(unknown, jnp.nan, total / jnp.maximum(jnp.sum(happened), 1))


# More levels, with fractions among them, are taken for a measurement.
_MOST_CLASSES = 10


def _check_classes(partition: Partition, label: str) -> None:
    """Checks that a label has classes, in which groups can be compared at all."""
    levels = partition.levels[partition.attributes.index(label)]
    fractions = [x for x in levels if re.fullmatch(r"-?\d*\.\d*[1-9]\d*", display(x))]
    if fractions and len(levels) > _MOST_CLASSES:
        raise ValueError(
            f"label {label!r} must hold classes; got {len(levels)} levels, with "
            f"fractions such as {display(fractions[0])}. Make classes of a measurement "
            "first, such as whether it is above a threshold."
        )


def _group(
    partition: Partition,
    attribute: str | Sequence[str],
    level: Level | Sequence[Level],
) -> Bool[np.ndarray, " C"]:
    """Returns the cells of the group that has these levels."""
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
    """Makes the mean of a statistic over a union of cells."""

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
    """Makes the sum over strata ``Y`` of the reduced penalties of group deviations."""
    check_choice("penalty", penalty, "absolute", "squared")
    check_choice("reduction", reduction, "mean", "max", "smooth_max")
    check_positive("temperature", temperature)

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
    """Returns means over unions of cells ``groups [G, C]``, and which have examples."""
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
    """Returns the mean, maximum or smooth maximum over the groups present, else 0."""
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
