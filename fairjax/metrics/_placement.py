"""The weight of a group below each sorted row, from which rank statistics follow."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from fairjax.metrics._rows import as_mass, float_type
from fairjax.metrics._segments import running_sums
from fairjax.metrics.counts import BinaryRows, WeightRows
from fairjax.metrics.order import GroupedOrder
from fairjax.types import gathered


class SortedMass(NamedTuple):
    """Weights at the sorted positions, split by label; 0 for ignored rows.

    The type is integer for integer weights. ``undefined`` marks weighted rows without a
    score.
    """

    positive: Shaped[Array, " rows"]
    negative: Shaped[Array, " rows"]
    undefined: Bool[Array, " rows"]


def sorted_mass(
    order: GroupedOrder, labels: BinaryRows, weights: WeightRows | None = None
) -> SortedMass:
    """Gathers the rows' weights in sorted order, by label."""
    labels = gathered(labels)[order.order]
    weights = None if weights is None else gathered(weights)
    mass = as_mass(weights, labels.size)[order.order]
    mass = jnp.where(order.group < order.num_groups, mass, 0)
    positive = jnp.where(labels == 1, mass, 0)
    negative = jnp.where(labels == 0, mass, 0)
    undefined = order.missing & ((positive > 0) | (negative > 0))
    return SortedMass(positive, negative, undefined)


def before_and_through(
    order: GroupedOrder, mass: Shaped[Array, " rows"]
) -> tuple[Shaped[Array, " rows"], Shaped[Array, " rows"]]:
    """Returns the group's mass below each position's tied run, and through its end."""
    running = running_sums(mass, order.group, order.starts)
    head = order.first == order.starts[order.group]
    before = jnp.where(head, 0, running[jnp.maximum(order.first - 1, 0)])
    return before, running[order.last - 1]


def mean_fraction(
    before: Shaped[Array, " rows"],
    through: Shaped[Array, " rows"],
    total: Shaped[Array, "*rows"],
) -> Float[Array, " rows"]:
    """Returns the fraction of ``total`` below, tied rows counting half; 0 for 0 / 0."""
    total = jnp.where(total > 0, total, 1).astype(float_type(total))
    return (before.astype(total.dtype) + through) / (2 * total)
