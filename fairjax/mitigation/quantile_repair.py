r"""Quantile repair: every group's values moved towards one common distribution.

The mathematics of :class:`fairjax.mitigation.DisparateImpactRemover`, as pure functions
of arrays. A group's distribution of a feature is held as its quantiles at Q equally
spaced levels ("knots"); all features are repaired at once.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax.types import Scalar, check_whole, is_known

Scale: TypeAlias = Literal["value", "rank"]
Ties: TypeAlias = Literal["middle", "random"]

# Of more quantiles the square leaves the whole numbers of 32 bits.
_MOST_QUANTILES = 46_341


class GroupQuantiles(NamedTuple):
    """What quantile repair learns of a table.

    Attributes:
      knots: ``[G + 1, Q, d]``, quantiles of each group's observed values, rising along
        the second axis; NaN where a group has no value of a feature. The last row is of
        all groups together.
      target: ``[Q, d]``, the quantiles of the common distribution.
      values: ``[U, d]``, distinct values of all groups in rising order, at most G Q of
        them, evenly thinned where there are more; filled up with infinity.
      discrete: ``[d]``, whether a feature is given observed values only.
    """

    knots: Float[Array, "G1 Q d"]
    target: Float[Array, "Q d"]
    values: Float[Array, "U d"]
    discrete: Bool[Array, " d"]


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
    columns = features.shape[1]
    discrete = jnp.zeros(columns, bool) if discrete is None else jnp.asarray(discrete)
    return _learn(features, groups, discrete, num_groups, num_quantiles)


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
      key: Of ``ties="random"``.

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
    return _repair(features, groups, learnt, level, key, scale, ties)


def check_repair(level: Any, scale: str, ties: str) -> None:
    """Refuse settings of :func:`repair` that cannot be.

    Raises:
      ValueError: A level outside [0, 1], an unknown scale or treatment of ties.

    Example:
      >>> check_repair(0.5, "value", "middle")
    """
    if is_known(level) and not 0 <= level <= 1:
        raise ValueError(f"the repair level lies in [0, 1], not {level}.")
    if scale not in get_args(Scale):
        raise ValueError(f"scale is one of {get_args(Scale)}, not {scale!r}.")
    if ties not in get_args(Ties):
        raise ValueError(f"ties are one of {get_args(Ties)}, not {ties!r}.")


@functools.partial(jax.jit, static_argnames=("num_groups", "number"))
def _learn(
    features: Array, groups: Array, discrete: Array, num_groups: int, number: int
) -> GroupQuantiles:
    rows = features.shape[0]
    # Sorted by feature within the group, with what is missing last.
    everyone = jnp.full_like(groups, num_groups)
    of_groups = _sorted(features, groups)
    of_all = _sorted(features, everyone)
    seen = ~jnp.isnan(features)
    sizes = jax.ops.segment_sum(jnp.ones(rows, jnp.int32), groups, num_groups)
    starts = jnp.cumsum(sizes) - sizes
    observed = jax.ops.segment_sum(seen.astype(jnp.int32), groups, num_groups)
    knot, steps = jnp.arange(number)[:, None], number - 1

    def knots(ordered: Array, start: Array, count: Array) -> Array:
        last = jnp.maximum(count - 1, 0)
        # knot * last / steps in whole numbers, so that no order statistic is missed
        # by a rounding; taken apart so that none overflows.
        over = knot * (last % steps)
        low = knot * (last // steps) + over // steps
        share = jnp.where(discrete, 0, (over % steps).astype(features.dtype) / steps)
        lower = jnp.take_along_axis(ordered, start + low, axis=0)
        upper = jnp.take_along_axis(ordered, start + jnp.minimum(low + 1, last), axis=0)
        return jnp.where(count > 0, _between(lower, upper, share), jnp.nan)

    each = jax.lax.map(lambda part: knots(of_groups, *part), (starts, observed))
    together = knots(of_all, jnp.int32(0), jnp.sum(observed, axis=0))
    return GroupQuantiles(
        jnp.concatenate([each, together[None]]),
        _lower_median(each),
        # As many as all groups' knots, so that none is lost where no knot is.
        _distinct(of_all, number * num_groups),
        discrete,
    )


def _sorted(features: Array, groups: Array) -> Array:
    """``[n, d]``: values in rising order within groups, in the order of groups."""
    groups = jnp.broadcast_to(groups[:, None], features.shape)
    return jax.lax.sort((groups, features), dimension=0, num_keys=2)[1]


def _between(lower: Array, upper: Array, share: Array) -> Array:
    # Nothing is added where there is no way to go, so that ties stay ties.
    way = jnp.where((upper > lower) & (share > 0), upper - lower, 0)
    return lower + share * way


def _lower_median(knots: Float[Array, "G Q d"]) -> Float[Array, "Q d"]:
    ordered = jnp.sort(knots, axis=0)
    number = jnp.sum(~jnp.isnan(knots), axis=0)
    middle = jnp.maximum((number - 1) // 2, 0)
    return jnp.take_along_axis(ordered, middle[None], axis=0)[0]


def _distinct(ordered: Float[Array, "n d"], number: int) -> Float[Array, "U d"]:
    """Distinct values, evenly thinned to a number; infinity fills up."""
    rows = ordered.shape[0]
    first = jnp.ones_like(ordered[:1], bool)
    new = jnp.concatenate([first, ordered[1:] > ordered[:-1]]) & ~jnp.isnan(ordered)
    count = jnp.sum(new, axis=0)
    place = jnp.cumsum(new, axis=0) - 1
    kept = jnp.full((rows, ordered.shape[1]), jnp.inf, ordered.dtype)
    columns = jnp.arange(ordered.shape[1])
    target = jnp.where(new, place, rows)
    kept = kept.at[target, columns].set(ordered, mode="drop")
    wanted = jnp.arange(min(number, rows))[:, None]
    most = jnp.minimum(count, len(wanted))
    share = wanted / jnp.maximum(most - 1, 1)
    chosen = jnp.round(share * (count - 1)).astype(jnp.int32)
    thinned = jnp.take_along_axis(kept, jnp.clip(chosen, 0, rows - 1), axis=0)
    return jnp.where(wanted < most, thinned, jnp.inf)


@functools.partial(jax.jit, static_argnames=("scale", "ties"))
def _repair(
    features: Array,
    groups: Array,
    learnt: GroupQuantiles,
    level: Scalar,
    key: Array | None,
    scale: Scale,
    ties: Ties,
) -> Array:
    dtype = learnt.knots.dtype
    values = features.astype(dtype)
    position = _position(values, groups, learnt, key if ties == "random" else None)
    target = _at(learnt.target, position)
    level = jnp.asarray(level, dtype)
    start, end = _place(learnt.values, values), _place(learnt.values, target)
    if scale == "value":
        repaired = values + jnp.where(target == values, 0, level * (target - values))
        place = _place(learnt.values, repaired)
    else:
        nearest = _nearest(start), _nearest(end)
        start, end = (
            jnp.where(learnt.discrete, *both)
            for both in zip(nearest, (start, end), strict=True)
        )
        way = level * (end - start)
        place = start + jnp.where(learnt.discrete, jnp.round(way), way)
        place = jnp.clip(place, jnp.minimum(start, end), jnp.maximum(start, end))
        repaired = _at(learnt.values, place)
    repaired = jnp.where(learnt.discrete, _at(learnt.values, _nearest(place)), repaired)
    # At its ends the way need not lead there to the last digit.
    repaired = jnp.where(level == 1, target, repaired)
    known = ~jnp.isnan(learnt.knots[groups, 0]) & ~jnp.isnan(values)
    repaired = repaired.astype(features.dtype)
    return jnp.where(known & (level > 0), repaired, features)


def _position(
    values: Array, groups: Array, learnt: GroupQuantiles, key: Array | None
) -> Array:
    """Each value's place among the knots of its group, in ``[0, Q − 1]``."""
    knots = learnt.knots
    columns = jnp.arange(values.shape[1])

    def of_group(place: Array) -> Array:
        return knots[groups[:, None], place, columns]

    number = knots.shape[1]
    first = _search(of_group, values, number, strict=True)
    past = _search(of_group, values, number, strict=False)
    share = 0.5
    if key is not None:
        share = jax.random.uniform(key, values.shape, values.dtype)
    tied = first + share * (past - 1 - first)
    below = jnp.clip(first - 1, 0, number - 1)
    lower, upper = of_group(below), of_group(jnp.minimum(first, number - 1))
    between = below + (values - lower) / jnp.where(upper > lower, upper - lower, 1)
    position = jnp.where(past > first, tied, between)
    position = jnp.clip(jnp.nan_to_num(position), 0, number - 1)
    return jnp.where(learnt.discrete, jnp.round(position), position)


def _place(values: Float[Array, "U d"], wanted: Array) -> Array:
    """Where numbers lie among the distinct values, between them in proportion."""
    number = values.shape[0]
    columns = jnp.arange(values.shape[1])
    above = _search(lambda p: values[p, columns], wanted, number, strict=True)
    above = jnp.clip(above, 0, number - 1)
    below = jnp.maximum(above - 1, 0)
    lower, upper = values[below, columns], values[above, columns]
    # Beyond the last value lies infinity, and none of the way to it is gone.
    share = (wanted - lower) / jnp.where(upper > lower, upper - lower, 1)
    return below + jnp.clip(share, 0, above - below)


def _nearest(place: Array) -> Array:
    return jnp.ceil(place - 0.5)


def _at(values: Float[Array, "U d"], place: Array) -> Array:
    """The distinct value at a place, between two of them in proportion."""
    low = jnp.floor(jnp.nan_to_num(place)).astype(jnp.int32)
    high = jnp.minimum(low + 1, values.shape[0] - 1)
    return _between(
        jnp.take_along_axis(values, low, axis=0),
        jnp.take_along_axis(values, high, axis=0),
        place - low,
    )


def _search(
    at: Callable[[Array], Array], wanted: Array, number: int, *, strict: bool
) -> Array:
    """How many of a rising row's numbers lie below each wanted one (or at it)."""

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        found = at(jnp.minimum(middle, number - 1))
        right = (found < wanted) if strict else (found <= wanted)
        right &= low < high
        return jnp.where(right, middle + 1, low), jnp.where(right, high, middle)

    low = jnp.zeros(wanted.shape, jnp.int32)
    steps = math.ceil(math.log2(number + 1))
    return jax.lax.fori_loop(0, steps, halve, (low, low + number))[0]
