r"""Quantile repair: every group's values moved towards one common distribution.

The mathematics of :class:`fairjax.mitigation.DisparateImpactRemover`, as functions of
arrays. A group's distribution of a feature is held as its quantiles at Q equally spaced
levels ("knots"); features are repaired one by one. Tables that are not traced are
padded to a few sizes and repaired in blocks, so that the folds of a cross-validation
share their programs and memory is bounded; results depend on neither.
"""

import functools
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from fairjax.mitigation import _places
from fairjax.types import Scalar, check_choice, check_whole, is_known

Scale: TypeAlias = Literal["value", "rank"]
Ties: TypeAlias = Literal["middle", "random"]

# Of more quantiles the square leaves the whole numbers of 32 bits.
_MOST_QUANTILES = 46_341
# Rows that are repaired at once.
_BLOCK = 16_384


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

    knots: Float[Array | np.ndarray, "G1 Q d"]
    target: Float[Array | np.ndarray, "Q d"]
    values: Float[Array | np.ndarray, "U d"]
    discrete: Bool[Array | np.ndarray, " d"]


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
    _check_groups(groups, num_groups - 1)
    rows, columns = features.shape
    discrete = jnp.zeros(columns, bool) if discrete is None else jnp.asarray(discrete)
    filled, size = _filled(rows), _power_of_two(num_quantiles)
    most = min(num_quantiles * num_groups, rows)
    # Filled up with a group more, which no quantile is taken of.
    knots, target, values, _ = _learn(
        _widened(features, filled, np.nan),
        _widened(groups, filled, num_groups),
        discrete,
        num_quantiles,
        most,
        num_groups=num_groups,
        size=size,
        most=min(size * num_groups, filled),
    )
    return GroupQuantiles(
        _narrowed(knots, num_quantiles, axis=1),
        _narrowed(target, num_quantiles),
        _narrowed(values, most),
        discrete,
    )


def repair(
    features: Float[Array, "n d"],
    groups: Int[Array, " n"],
    learnt: GroupQuantiles,
    *,
    level: Scalar = 1.0,
    scale: Scale = "value",
    ties: Ties = "middle",
    key: Array | None = None,
    patients: Integer[Array, " n"] | Integer[Array, "n words"] | None = None,
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
      patients: ``[n]``, or ``[n, words]``, numbers of 32 bits that identify a patient:
        what is drawn for a patient depends on the key and on them alone. None: the
        row's place in this call, so that patients who arrive one at a time all share
        the draw of place 0.

    Returns:
      The repaired features, in the features' type. A group that had no value of a
      feature keeps what it now has.

    Raises:
      ValueError: A level outside [0, 1], an unknown scale or treatment of ties, random
        ties without a key, or groups out of range.

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
    number, size = learnt.knots.shape[1], len(features)
    _check_groups(groups, learnt.knots.shape[0] - 1)
    if ties == "middle":
        key = patients = None
    elif patients is None:
        patients = jnp.arange(size)
    wide = GroupQuantiles(
        _widened(learnt.knots, _power_of_two(number), np.inf, axis=1),
        _widened(learnt.target, _power_of_two(number), np.inf),
        _widened(learnt.values, _power_of_two(len(learnt.values)), np.inf),
        jnp.asarray(learnt.discrete),
    )
    given = (features, groups, patients)
    known = is_known(given)
    if known:
        given = jax.tree.map(np.asarray, given)
    # A traced table is one part.
    block = min(_filled(size), _BLOCK) if known else max(size, 1)
    parts = [given[0][:0]]
    for start in range(0, size, block):
        stop = min(start + block, size)
        part = jax.tree.map(lambda x, rows=slice(start, stop): x[rows], given)
        # What fills a part up has no value and counts for nothing.
        rows = _widened(part[0], block, np.nan)
        who = jax.tree.map(lambda x: _widened(x, block, 0), part[1:])
        found = _move(rows, *who, wide, number, level, key, scale=scale, ties=ties)
        parts.append(_narrowed(found, stop - start))
    together = np.concatenate if is_known(parts) else jnp.concatenate
    return jnp.asarray(together(parts))


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
    check_choice("scale", scale, *get_args(Scale))
    check_choice("ties", ties, *get_args(Ties))


@functools.partial(jax.jit, static_argnames=("num_groups", "size", "most"))
def _learn(
    features: Float[Array, "N d"],
    groups: Int[Array, " N"],
    discrete: Bool[Array, " d"],
    number: _places.Whole,
    limit: _places.Whole,
    *,
    num_groups: int,
    size: int,
    most: int,
) -> GroupQuantiles:
    """The quantiles of a table, whose rows may be filled up with a group more.

    Q and the most distinct values that are kept may be traced: knots are filled up to
    ``size`` with the last, distinct values to ``most`` with infinity.
    """
    seen = (~jnp.isnan(features)).astype(jnp.int32)
    sizes = jax.ops.segment_sum(jnp.ones(len(groups), jnp.int32), groups, num_groups)
    observed = jax.ops.segment_sum(seen, groups, num_groups).T
    starts = jnp.append(jnp.cumsum(sizes) - sizes, len(groups))[:, None]
    # What is missing comes last, in a group and in all.
    columns = features.T
    codes = jnp.broadcast_to(groups, columns.shape)
    by_group = jax.lax.sort((codes, columns), dimension=1, num_keys=2)[1]
    steps = number - 1
    knot = jnp.minimum(jnp.arange(size), steps)

    def of_feature(part: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        by_group, together, observed, whole = part
        # Order leaves the sign of zeros open.
        by_group, together = (jnp.where(x == 0, 0, x) for x in (by_group, together))
        # All groups together are one group more.
        both = jnp.concatenate([by_group, together])
        count = jnp.append(observed, jnp.sum(observed))[:, None]
        last = jnp.maximum(count - 1, 0)
        # knot * last / steps in whole numbers, so that no order statistic is missed by
        # a rounding; taken apart so that none overflows.
        over = knot * (last % steps)
        low = knot * (last // steps) + over // steps
        share = jnp.where(whole, 0, (over % steps).astype(both.dtype) / steps)
        lower, upper = (
            _places.pick(both, starts + at_)
            for at_ in (low, jnp.minimum(low + 1, last))
        )
        knots = jnp.where(count > 0, _places.between(lower, upper, share), jnp.nan)
        return knots, _lower_median(knots[:-1]), _places.distinct(together, most, limit)

    parts = (by_group, jnp.sort(columns, axis=1), observed, discrete)
    knots, target, values = jax.lax.map(of_feature, parts)
    return GroupQuantiles(jnp.moveaxis(knots, 0, 2), target.T, values.T, discrete)


def _lower_median(knots: Float[Array, "G Q"]) -> Float[Array, " Q"]:
    ordered = jnp.sort(knots, axis=0)
    number = jnp.sum(~jnp.isnan(knots), axis=0)
    middle = jnp.maximum((number - 1) // 2, 0)
    return jnp.take_along_axis(ordered, middle[None], axis=0)[0]


@functools.partial(jax.jit, static_argnames=("scale", "ties"))
def _move(
    features: Float[Array, "n d"],
    groups: Int[Array, " n"],
    rows: Array | None,
    learnt: GroupQuantiles,
    number: _places.Whole,
    level: Scalar,
    key: Array | None,
    *,
    scale: Scale,
    ties: Ties,
) -> Float[Array, "n d"]:
    """Repair a part of a table, feature by feature.

    Knots and values may be filled up with infinity, the target with anything; Q, the
    number of knots that are not, may be traced.
    """
    dtype, last = learnt.knots.dtype, number - 1
    level = jnp.asarray(level, dtype)
    columns = features.T
    # How far through the levels that a value stands for.
    shares = jnp.full(len(columns), 0.5, dtype)
    if ties == "random":
        shares = _draws(key, rows, len(columns), dtype)

    def of_feature(part: tuple[Array, ...]) -> Array:
        given, knots, target, observed, whole, share = part
        values = given.astype(dtype)
        position = _places.place_in_group(knots, groups, values, last, share)
        position = jnp.where(whole, jnp.round(position), position)
        aim = _places.at(target, position, last)
        end = len(observed) - 1

        def to_observed(place_: Array) -> Array:
            return _places.at(observed, _places.nearest(place_), end)

        if scale == "value":
            repaired = values + jnp.where(aim == values, 0, level * (aim - values))
            repaired = jax.lax.cond(
                whole,
                lambda x: to_observed(_places.place(observed, x)),
                lambda x: x,
                repaired,
            )
        else:
            start, stop = _places.place(observed, values), _places.place(observed, aim)
            start, stop = (
                jnp.where(whole, _places.nearest(x), x) for x in (start, stop)
            )
            way = level * (stop - start)
            there = start + jnp.where(whole, jnp.round(way), way)
            there = jnp.clip(there, jnp.minimum(start, stop), jnp.maximum(start, stop))
            repaired = jnp.where(
                whole, to_observed(there), _places.at(observed, there, end)
            )
        # At its ends the way need not lead there to the last digit.
        repaired = jnp.where(level == 1, aim, repaired)
        known = ~jnp.isnan(knots[groups, 0]) & ~jnp.isnan(values)
        return jnp.where(known & (level > 0), repaired.astype(given.dtype), given)

    knots = jnp.moveaxis(learnt.knots, 2, 0)
    parts = (columns, knots, learnt.target.T, learnt.values.T, learnt.discrete, shares)
    return jax.lax.map(of_feature, parts).T


def _draws(key: Any, rows: Any, columns: int, dtype: Any) -> Array:
    """``[d, n]`` in [0, 1): of each row by its own key."""

    def of_row(words: Array) -> Array:
        own = functools.reduce(jax.random.fold_in, words, key)
        return jax.random.uniform(own, (columns,), dtype)

    return jax.vmap(of_row, out_axes=1)(rows.reshape(len(rows), -1))


def _check_groups(groups: Any, last: int) -> None:
    """Refuses groups out of range, which would count as others, where known now."""
    if is_known(groups) and len(groups):
        least, most = int(np.min(groups)), int(np.max(groups))
        if least < 0 or most > last:
            raise ValueError(
                f"groups must lie in 0 .. {last}; got {least} to {most}: leave out "
                "rows that are in no group."
            )


def _power_of_two(number: int) -> int:
    return 1 << int(max(number - 1, 0)).bit_length()


def _filled(rows: int) -> int:
    """A power of two, or so many blocks."""
    if rows <= _BLOCK:
        return _power_of_two(rows)
    return -(-rows // _BLOCK) * _BLOCK


def _widened(array: Any, size: int, fill: float | int, *, axis: int = 0) -> Array:
    missing = [(0, 0)] * np.ndim(array)
    missing[axis] = (0, size - np.shape(array)[axis])
    # NumPy's is not compiled for each shape.
    pad = np.pad if is_known(array) else jnp.pad
    return jnp.asarray(pad(array, missing, constant_values=fill))


def _narrowed(array: Array, size: int, *, axis: int = 0) -> Array:
    given = np.asarray(array) if is_known(array) else array
    return jnp.asarray(given[:size] if axis == 0 else given[:, :size])
