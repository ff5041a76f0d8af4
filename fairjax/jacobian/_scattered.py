"""Gradients summed over devices, of which each device keeps a share.

Each device has gradients of its own examples. Their sums would be K gradients on every
device. Instead a reduce-scatter gives each device some parameters of all sums. It
computes these parameters' part of the Gram matrix, and of a combination. On the wire
this takes ``K P`` numbers for the sums and ``P`` for the combination, where the sums on
every device would take ``2 K P``.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fairjax import gram
from fairjax.stacked import FactoredRows, num_objectives
from fairjax.types import Gramian, Jacobian, Params

# Leaves of fewer numbers than these share a collective: each has a cost of its own,
# and compilers sum small arrays whole.
_ALONE = 2**20
# A TPU's compiler scatters whole tiles, of 8 rows, and else sums all on every device.
_TILE, _TILE_ROWS = 1024, 8


@dataclasses.dataclass(frozen=True, eq=False)
class ScatteredRows(FactoredRows):
    """Gradients ``[K, *param]`` whose parameters are spread over a mesh axis.

    Attributes:
      axis: The mesh axis.
      shares: This device's parameters ``[K, share]`` of each group of leaves.
      groups: The indices of each group's leaves.
      shapes: The shape of each leaf's parameter.
      structure: The structure of the parameters.
    """

    axis: str
    shares: Sequence[Float[Array, "K share"]]
    groups: Sequence[Sequence[int]]
    shapes: Sequence[tuple[int, ...]]
    structure: Any

    @property
    def num_objectives(self) -> int:
        """The number of objectives, K."""
        return len(self.shares[0])

    def gramian(self) -> Gramian:
        """Computes inner products of the gradients, ``[K, K]``."""
        return jax.lax.psum(gram.gramian(list(self.shares)), self.axis)

    def combine(self, weights: Float[Array, " K"]) -> Params:
        """Computes a weighted sum of the gradients, ``[*param]``."""
        leaves: dict[int, Array] = {}
        for share, group in zip(self.shares, self.groups, strict=True):
            part = gram.combine(weights, share)
            whole = jax.lax.all_gather(part, self.axis, tiled=True, to="invarying")
            sizes = [math.prod(self.shapes[i]) for i in group]
            parts = jnp.split(whole, np.cumsum(sizes))
            for i, one in zip(group, parts, strict=False):  # The last is padding.
                leaves[i] = one.reshape(self.shapes[i])
        return self.structure.unflatten([leaves[i] for i in range(len(leaves))])


def scatter(rows: Jacobian, axis: str) -> ScatteredRows:
    """Sums the devices' own gradients ``[K, *param]``, and spreads the sums."""
    leaves, structure = jax.tree.flatten(rows)
    devices, count = jax.lax.axis_size(axis), num_objectives(rows)
    together: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        alone = leaf.size >= _ALONE * count
        together.setdefault(i if alone else leaf.dtype, []).append(i)

    def share(group: Sequence[int]) -> Array:
        flat = [leaves[i].reshape(count, -1) for i in group]
        flat = jnp.concatenate(flat, axis=1)
        flat = jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % (devices * _TILE))))
        parts = jnp.moveaxis(flat.reshape(count, devices, -1), 1, 0)
        tiles = parts.reshape(devices, _TILE_ROWS, -1)
        return jax.lax.psum_scatter(tiles, axis).reshape(count, -1)

    groups = list(together.values())
    shapes = [leaf.shape[1:] for leaf in leaves]
    return ScatteredRows(axis, [share(g) for g in groups], groups, shapes, structure)
