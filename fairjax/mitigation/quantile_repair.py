r"""Quantile repair: every group's values moved towards one common distribution.

This module holds the mathematics of :class:`fairjax.mitigation.DisparateImpactRemover`
as functions of arrays. A group's distribution of a feature is stored as its quantiles
at Q equally spaced probabilities ("knots"). Features are repaired one by one. Tables
that are not traced are padded to a few sizes and repaired in blocks. The folds of a
cross-validation then share compiled programs, and memory is bounded. Padding and blocks
do not change the results.
"""

import functools
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from fairjax.mitigation import _ranks
from fairjax.types import Scalar, check_choice, check_whole, is_known

Scale: TypeAlias = Literal["value", "rank"]
Ties: TypeAlias = Literal["middle", "random"]

# The square of a larger number of quantiles overflows integers of 32 bits.
_MOST_QUANTILES = 46_341
# The number of rows that are repaired at once.
_BLOCK = 16_384


class GroupQuantiles(NamedTuple):
    """The quantiles and values that quantile repair learns from a table.

    Attributes:
      knots: ``[G + 1, Q, d]``, quantiles of each group's observed values, rising along
        the second axis; NaN where a group has no value of a feature. The last row is
        for all groups together.
      target: ``[Q, d]``, the quantiles of the common distribution.
      values: ``[U, d]``, distinct values of all groups in rising order, evenly thinned
        to at most G Q values and padded with infinity.
      discrete: ``[d]``, whether a feature's repaired values are observed values only.
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
    r"""Computes each group's quantiles of each feature, and the common quantiles.

    With :math:`F_g^{-1}(p)` the p-quantile of group g, the p-quantile of the common
    distribution is the *lower median* over groups,

    .. math:: T(p) = \operatorname{median}_g F_g^{-1}(p),

    over the groups that have values. Quantiles are taken at p = k / (Q − 1). Quantiles
    are linear between order statistics; a discrete feature takes the order statistic
    below.

    Args:
      features: ``[n, d]``; NaN is a missing value and is ignored.
      groups: ``[n]``, in ``0 .. G − 1``.
      num_groups: G.
      num_quantiles: Q, from 2 to 46,341. The knots of a group of Q rows are its values.
        Every value of a discrete feature is a knot where Q is at least the rows.
      discrete: ``[d]``, features whose repaired values are observed values only; none
        by default.

    Returns:
      The quantiles.

    Raises:
      ValueError: If a number is not an integer, or is too small or too large, or groups
        are out of range.

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
            f"num_quantiles must be {_MOST_QUANTILES} or less; got {num_quantiles}."
        )
    _check_groups(groups, num_groups - 1)
    rows, columns = features.shape
    discrete = jnp.zeros(columns, bool) if discrete is None else jnp.asarray(discrete)
    filled, size = _filled(rows), _power_of_two(num_quantiles)
    most = min(num_quantiles * num_groups, rows)
    # Padding rows form an additional group, which is ignored.
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
    r"""Moves each value towards the value of its rank in the common distribution.

    A value x of group g at the probability :math:`p = F_g(x)` has the target T(p). The
    repair level :math:`\lambda` moves the value to

    - ``scale="value"`` (geometric repair): :math:`(1 - \lambda) x + \lambda T(p)`;
    - ``scale="rank"`` (combinatorial repair): the value at the fraction
      :math:`\lambda` of the way from x to T(p) in positions among the distinct values
      of all groups. Positions between two distinct values are interpolated linearly.

    A discrete feature takes the nearest distinct value; on the scale of ranks the way
    is rounded to an integer, half to even. :math:`\lambda = 0` changes nothing. With
    :math:`\lambda = 1` the groups' quantiles are the quantiles of T, up to ties and to
    the number of knots. Repair keeps the order of values within a group.

    Args:
      features: ``[n, d]``; a missing value, NaN, stays missing. Values outside the
        learnt range of a group are treated as its lowest or highest value.
      groups: ``[n]``, in ``0 .. G − 1``; G stands for all groups together.
      learnt: From :func:`group_quantiles`.
      level: :math:`\lambda` in [0, 1]; may be traced.
      scale: ``"value"`` or ``"rank"``, as above.
      ties: Which p a value takes that has several, as in discrete features.
        ``"middle"`` takes the middle p, so that equal values of a group stay equal.
        ``"random"`` draws a p, so that the groups' distributions become equal despite
        ties.
      key: A random key, for ``ties="random"``.
      patients: ``[n]``, or ``[n, words]``, 32-bit numbers that identify a patient: a
        patient's draw depends on the key and these numbers alone. None: the row's
        index in this call, so that patients who arrive one at a time all share the
        draw of index 0.

    Returns:
      The repaired features, in the features' type. Values of a feature that had no
      value in their group are unchanged.

    Raises:
      ValueError: If the level is outside [0, 1]; if the scale or treatment of ties is
        unknown; if ties are random without a key; if groups are out of range.

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
        raise ValueError("ties='random' needs a key; got None.")
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
    # A traced table is a single block.
    block = min(_filled(size), _BLOCK) if known else max(size, 1)
    parts = [given[0][:0]]
    for start in range(0, size, block):
        stop = min(start + block, size)
        part = jax.tree.map(lambda x, rows=slice(start, stop): x[rows], given)
        # Padding rows are missing values, which stay missing.
        rows = _widened(part[0], block, np.nan)
        who = jax.tree.map(lambda x: _widened(x, block, 0), part[1:])
        moved = _move(rows, *who, wide, number, level, key, scale=scale, ties=ties)
        parts.append(_narrowed(moved, stop - start))
    together = np.concatenate if is_known(parts) else jnp.concatenate
    return jnp.asarray(together(parts))


def check_repair(level: Any, scale: str, ties: str) -> None:
    """Checks the settings of :func:`repair`.

    Raises:
      ValueError: If the level is outside [0, 1], or the scale or treatment of ties is
        unknown.

    Example:
      >>> check_repair(0.5, "value", "middle")
      >>> check_repair(1.5, "value", "middle")
      Traceback (most recent call last):
        ...
      ValueError: the repair level must be a number in [0, 1]; got 1.5.
    """
    if isinstance(level, str | None) or (
        is_known(level) and not 0 <= np.asarray(level) <= 1
    ):
        raise ValueError(f"the repair level must be a number in [0, 1]; got {level!r}.")
    check_choice("scale", scale, *get_args(Scale))
    check_choice("ties", ties, *get_args(Ties))


@functools.partial(jax.jit, static_argnames=("num_groups", "size", "most"))
def _learn(
    features: Float[Array, "N d"],
    groups: Int[Array, " N"],
    discrete: Bool[Array, " d"],
    number: _ranks.Count,
    limit: _ranks.Count,
    *,
    num_groups: int,
    size: int,
    most: int,
) -> GroupQuantiles:
    """Computes the quantiles of a table, whose padding rows are an additional group.

    Q and the limit of distinct values may be traced: knots are padded to ``size`` with
    the last knot, distinct values to ``most`` with infinity.
    """
    seen = (~jnp.isnan(features)).astype(jnp.int32)
    sizes = jax.ops.segment_sum(jnp.ones(len(groups), jnp.int32), groups, num_groups)
    observed = jax.ops.segment_sum(seen, groups, num_groups).T
    starts = jnp.append(jnp.cumsum(sizes) - sizes, len(groups))[:, None]
    # Missing values come last, in each group and in all groups together.
    columns = features.T
    codes = jnp.broadcast_to(groups, columns.shape)
    by_group = jax.lax.sort((codes, columns), dimension=1, num_keys=2)[1]
    steps = number - 1
    knot = jnp.minimum(jnp.arange(size), steps)

    def of_feature(part: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        by_group, together, observed, whole = part
        # Sorting does not determine the sign of zeros.
        by_group, together = (jnp.where(x == 0, 0, x) for x in (by_group, together))
        # All groups together are an additional group.
        both = jnp.concatenate([by_group, together])
        count = jnp.append(observed, jnp.sum(observed))[:, None]
        last = jnp.maximum(count - 1, 0)
        # knot * last / steps in integers, so that rounding does not miss an order
        # statistic; split in two terms, so that the product does not overflow.
        over = knot * (last % steps)
        low = knot * (last // steps) + over // steps
        fraction = jnp.where(whole, 0, (over % steps).astype(both.dtype) / steps)
        lower, upper = (
            _ranks.pick(both, starts + at_) for at_ in (low, jnp.minimum(low + 1, last))
        )
        knots = jnp.where(count > 0, _ranks.between(lower, upper, fraction), jnp.nan)
        return knots, _lower_median(knots[:-1]), _ranks.distinct(together, most, limit)

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
    number: _ranks.Count,
    level: Scalar,
    key: Array | None,
    *,
    scale: Scale,
    ties: Ties,
) -> Float[Array, "n d"]:
    """Repairs a block of a table, feature by feature.

    Knots and values may be padded with infinity, the target with any value. Q, the
    number of knots without padding, may be traced.
    """
    dtype, last = learnt.knots.dtype, number - 1
    level = jnp.asarray(level, dtype)
    columns = features.T
    # The fraction of the way through a value's several probabilities.
    through = jnp.full(len(columns), 0.5, dtype)
    if ties == "random":
        through = _draws(key, rows, len(columns), dtype)

    def of_feature(part: tuple[Array, ...]) -> Array:
        given, knots, target, observed, whole, tied = part
        values = given.astype(dtype)
        rank = _ranks.rank_in_group(knots, groups, values, last, tied)
        rank = jnp.where(whole, jnp.round(rank), rank)
        aim = _ranks.at(target, rank, last)
        end = len(observed) - 1

        def to_observed(rank: Array) -> Array:
            return _ranks.at(observed, _ranks.nearest(rank), end)

        if scale == "value":
            repaired = values + jnp.where(aim == values, 0, level * (aim - values))
            repaired = jax.lax.cond(
                whole,
                lambda x: to_observed(_ranks.rank(observed, x)),
                lambda x: x,
                repaired,
            )
        else:
            start, stop = _ranks.rank(observed, values), _ranks.rank(observed, aim)
            start, stop = (
                jnp.where(whole, _ranks.nearest(x), x) for x in (start, stop)
            )
            way = level * (stop - start)
            there = start + jnp.where(whole, jnp.round(way), way)
            there = jnp.clip(there, jnp.minimum(start, stop), jnp.maximum(start, stop))
            repaired = jnp.where(
                whole, to_observed(there), _ranks.at(observed, there, end)
            )
        # Rounding may miss the end of the way, so the end is set exactly.
        repaired = jnp.where(level == 1, aim, repaired)
        known = ~jnp.isnan(knots[groups, 0]) & ~jnp.isnan(values)
        return jnp.where(known & (level > 0), repaired.astype(given.dtype), given)

    knots = jnp.moveaxis(learnt.knots, 2, 0)
    parts = (columns, knots, learnt.target.T, learnt.values.T, learnt.discrete, through)
    return jax.lax.map(of_feature, parts).T


def _draws(key: Any, rows: Any, columns: int, dtype: Any) -> Array:
    """Draws numbers ``[d, n]`` in [0, 1), with a key for each row."""

    def of_row(words: Array) -> Array:
        row_key = functools.reduce(jax.random.fold_in, words, key)
        return jax.random.uniform(row_key, (columns,), dtype)

    return jax.vmap(of_row, out_axes=1)(rows.reshape(len(rows), -1))


def _check_groups(groups: Any, last: int) -> None:
    """Checks that groups are in range, if they are not traced.

    Other numbers would count as another group's.
    """
    if is_known(groups) and len(groups):
        least, most = int(np.min(groups)), int(np.max(groups))
        if least < 0 or most > last:
            raise ValueError(
                f"groups must lie in 0 .. {last}; got {least} to {most}. Leave out "
                "rows that are in no group."
            )


def _power_of_two(number: int) -> int:
    return 1 << int(max(number - 1, 0)).bit_length()


def _filled(rows: int) -> int:
    """Returns the padded number of rows, a power of two or a multiple of blocks."""
    if rows <= _BLOCK:
        return _power_of_two(rows)
    return -(-rows // _BLOCK) * _BLOCK


def _widened(array: Any, size: int, fill: float | int, *, axis: int = 0) -> Array:
    missing = [(0, 0)] * np.ndim(array)
    missing[axis] = (0, size - np.shape(array)[axis])
    # NumPy's pad is not compiled for each shape.
    pad = np.pad if is_known(array) else jnp.pad
    return jnp.asarray(pad(array, missing, constant_values=fill))


def _narrowed(array: Array, size: int, *, axis: int = 0) -> Array:
    given = np.asarray(array) if is_known(array) else array
    return jnp.asarray(given[:size] if axis == 0 else given[:, :size])
