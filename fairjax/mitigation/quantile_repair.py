r"""Quantile repair: every group's values moved towards one common distribution.

The mathematics of :class:`fairjax.mitigation.DisparateImpactRemover`, as pure functions
of arrays. A group's distribution of a feature is held as its quantiles at Q equally
spaced levels ("knots"); features are repaired one by one.
"""

from typing import Any, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax.mitigation._order import order
from fairjax.mitigation._quantile_moves import (
    GroupQuantiles,
    Scale,
    Ties,
    learn,
    most_distinct,
    move,
)
from fairjax.types import Scalar, check_whole, is_known

# Of more quantiles the square leaves the whole numbers of 32 bits.
_MOST_QUANTILES = 46_341
_order = jax.jit(order, static_argnames="num_groups")


def group_quantiles(
    features: Float[Array, "n d"],
    groups: Int[Array, " n"],
    *,
    num_groups: int,
    num_quantiles: int,
    discrete: Bool[Array, " d"] | None = None,
) -> GroupQuantiles:
    r"""Learn each group's quantiles of each feature, and those of the common one.

    With :math:`F_g^{-1}(p)` the p-quantile of group g, the common distribution is the
    one whose p-quantile is the *lower median* over groups,

    .. math:: T(p) = \operatorname{median}_g F_g^{-1}(p),

    over the groups that have values. Quantiles are taken at p = k / (Q − 1). They are
    linear between order statistics, of a discrete feature the order statistic below.

    Args:
      features: ``[n, d]``; NaN is a missing value and counts for nothing.
      groups: ``[n]``, in ``0 .. G − 1``.
      num_groups: G.
      num_quantiles: Q, from 2 to 46,341. A group of Q rows has its values as knots;
        of a discrete feature every value is a knot where Q is at least the rows.
      discrete: ``[d]``, features that are given observed values only. None: none.

    Returns:
      The quantiles.

    Raises:
      ValueError: A number that is not whole, too small or too large.

    References:
      Feldman et al., *Certifying and Removing Disparate Impact*, KDD 2015.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([1.0, 2, 3, 4, 11, 12, 13, 14])[:, None]
      >>> groups = jnp.array([0, 0, 0, 0, 1, 1, 1, 1])
      >>> group_quantiles(x, groups, num_groups=2, num_quantiles=4).target[:, 0]
      Array([1., 2., 3., 4.], dtype=float32)
    """
    check_whole("num_groups", num_groups)
    check_whole("num_quantiles", num_quantiles, 2)
    if num_quantiles > _MOST_QUANTILES:
        raise ValueError(
            f"num_quantiles is at most {_MOST_QUANTILES}, not {num_quantiles}."
        )
    rows, columns = features.shape
    discrete = jnp.zeros(columns, bool) if discrete is None else jnp.asarray(discrete)
    ordered = _order(features, groups, num_groups)
    most = most_distinct(num_quantiles, num_groups, rows)
    return learn(ordered, discrete, num_quantiles, most, size=num_quantiles, most=most)


def repair(
    features: Float[Array, "n d"],
    groups: Int[Array, " n"],
    learnt: GroupQuantiles,
    *,
    level: Scalar = 1.0,
    scale: Scale = "value",
    ties: Ties = "middle",
    key: Array | None = None,
) -> Float[Array, "n d"]:
    r"""Move each value towards the one that has its rank in the common distribution.

    A value x of group g at the level :math:`p = F_g(x)` has the target T(p); with the
    repair level :math:`\lambda` it becomes

    - ``scale="value"`` (geometric repair): :math:`(1 - \lambda) x + \lambda T(p)`;
    - ``scale="rank"`` (combinatorial repair): the value whose place among the distinct
      values of all groups is that share of the way from x's place to T(p)'s. Places
      between two distinct values are in proportion.

    Of a discrete feature the nearest distinct value is taken, on the scale of ranks
    the way being rounded to whole places, half to even. :math:`\lambda = 0` changes
    nothing, and with :math:`\lambda = 1` the groups' quantiles are those of T, up to
    ties and to the number of knots. Within a group the order of values is kept.

    Args:
      features: ``[n, d]``; a missing value, NaN, stays missing. Values beyond those
        that a group was learnt from take its lowest or highest place.
      groups: ``[n]``, in ``0 .. G − 1``; G stands for all groups together.
      learnt: From :func:`group_quantiles`.
      level: :math:`\lambda` in [0, 1]; may be traced.
      scale: See above.
      ties: Where a value stands for several levels p, as those of discrete features
        do: ``"middle"`` takes the middle, so that equal values of a group stay equal;
        ``"random"`` draws one of them, so that the groups' distributions become equal
        even so.
      key: Of ``ties="random"``. What is drawn for a row depends on the key and on the
        row's place alone, not on how many rows there are.

    Returns:
      The repaired features, in the features' type. A group that had no value of a
      feature keeps what it now has.

    Raises:
      ValueError: A level outside [0, 1], an unknown scale or treatment of ties, or
        random ties without a key.

    References:
      Feldman et al., *Certifying and Removing Disparate Impact*, KDD 2015.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([1.0, 2, 3, 4, 11, 12, 13, 14])[:, None]
      >>> groups = jnp.array([0, 0, 0, 0, 1, 1, 1, 1])
      >>> learnt = group_quantiles(x, groups, num_groups=2, num_quantiles=4)
      >>> repair(x, groups, learnt)[4:, 0]
      Array([1., 2., 3., 4.], dtype=float32)
      >>> repair(x, groups, learnt, level=0.5, scale="rank")[4:, 0]
      Array([ 3.,  4., 11., 12.], dtype=float32)
    """
    check_repair(level, scale, ties)
    if ties == "random" and key is None:
        raise ValueError("ties are broken at random only with a key.")
    key = key if ties == "random" else None
    number = learnt.knots.shape[1]
    return move(features, groups, learnt, number, level, key, 0, scale=scale, ties=ties)


def check_repair(level: Any, scale: str, ties: str) -> None:
    """Refuse settings of :func:`repair` that cannot be.

    Raises:
      ValueError: A level outside [0, 1], an unknown scale or treatment of ties.

    Example:
      >>> check_repair(0.5, "value", "middle")
      >>> check_repair(1.5, "value", "middle")
      Traceback (most recent call last):
        ...
      ValueError: the repair level lies in [0, 1], not 1.5.
    """
    if isinstance(level, str) or level is None:
        raise ValueError(f"the repair level is a number in [0, 1], not {level!r}.")
    if is_known(level) and not 0 <= level <= 1:
        raise ValueError(f"the repair level lies in [0, 1], not {level}.")
    if scale not in get_args(Scale):
        raise ValueError(f"scale is one of {get_args(Scale)}, not {scale!r}.")
    if ties not in get_args(Ties):
        raise ValueError(f"ties are one of {get_args(Ties)}, not {ties!r}.")
