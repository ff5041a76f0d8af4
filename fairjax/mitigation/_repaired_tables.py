"""Quantile repair of NumPy tables: sorted by NumPy, compiled for few shapes.

The mathematics is that of :mod:`fairjax.mitigation.quantile_repair`. Tables are filled
up to a few sizes and repaired in blocks, so that the folds of a cross-validation share
their programs and memory is bounded; results do not depend on either.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from fairjax.mitigation._order import order_on_host
from fairjax.mitigation._quantile_moves import (
    GroupQuantiles,
    Scale,
    Ties,
    learn,
    most_distinct,
    move,
)

# Rows that are repaired at once.
_BLOCK = 16_384


def learn_table(
    values: Float[np.ndarray, "n d"],
    groups: Int[np.ndarray, " n"],
    *,
    num_groups: int,
    num_quantiles: int,
    discrete: Bool[np.ndarray, " d"],
) -> GroupQuantiles:
    """What ``group_quantiles`` learns, to the bit, as NumPy arrays.

    Example:
      >>> x = np.array([1.0, 2, 3, 4, 11, 12, 13, 14])[:, None]
      >>> groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
      >>> learnt = learn_table(x, groups, num_groups=2, num_quantiles=4,
      ...                      discrete=np.array([False]))
      >>> learnt.target[:, 0]
      array([1., 2., 3., 4.])
    """
    rows = len(values)
    size = _power_of_two(num_quantiles)
    filled = _filled(rows)
    most = most_distinct(num_quantiles, num_groups, rows)
    with jax.enable_x64(True):
        learnt = learn(
            order_on_host(values, groups, num_groups, filled),
            jnp.asarray(discrete),
            num_quantiles,
            most,
            size=size,
            most=most_distinct(size, num_groups, filled),
        )
        knots, target, distinct, _ = map(np.asarray, learnt)
    return GroupQuantiles(
        knots[:, :num_quantiles], target[:num_quantiles], distinct[:most], discrete
    )


def repair_table(
    values: Float[np.ndarray, "n d"],
    groups: Int[np.ndarray, " n"],
    learnt: GroupQuantiles,
    *,
    level: float,
    scale: Scale,
    ties: Ties,
    key: Any,
) -> Float[np.ndarray, "n d"]:
    """What ``repair`` gives, to the bit, block by block.

    Example:
      >>> x = np.array([1.0, 2, 3, 4, 11, 12, 13, 14])[:, None]
      >>> groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
      >>> learnt = learn_table(x, groups, num_groups=2, num_quantiles=4,
      ...                      discrete=np.array([False]))
      >>> repair_table(x, groups, learnt, level=1.0, scale="value", ties="middle",
      ...              key=None)[4:, 0]
      array([1., 2., 3., 4.])
    """
    rows = len(values)
    number = learnt.knots.shape[1]
    repaired = np.empty_like(values)
    with jax.enable_x64(True):
        wide = GroupQuantiles(
            _widened(learnt.knots, 1, _power_of_two(number)),
            _widened(learnt.target, 0, _power_of_two(number)),
            _widened(learnt.values, 0, _power_of_two(len(learnt.values))),
            jnp.asarray(learnt.discrete),
        )
        for start in range(0, rows, _BLOCK):
            part = slice(start, start + _BLOCK)
            size = min(_filled(rows), _BLOCK)
            found = move(
                _widened(values[part], 0, size),
                _widened(groups[part].astype(np.int32), 0, size, fill=0),
                wide,
                number,
                level,
                key if ties == "random" else None,
                start,
                scale=scale,
                ties=ties,
            )
            repaired[part] = np.asarray(found)[: len(repaired[part])]
    return repaired


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _filled(rows: int) -> int:
    """A power of two, or so many blocks."""
    if rows <= _BLOCK:
        return _power_of_two(rows)
    return -(-rows // _BLOCK) * _BLOCK


def _widened(array: Any, axis: int, size: int, fill: float | int = np.inf) -> jax.Array:
    missing = [(0, 0)] * np.ndim(array)
    missing[axis] = (0, size - np.shape(array)[axis])
    return jnp.asarray(np.pad(array, missing, constant_values=fill))
