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
from jaxtyping import Array, Float

from fairjax import gram
from fairjax.stacked import FactoredRows, num_objectives
from fairjax.types import Gramian, Jacobian, Params


@dataclasses.dataclass(frozen=True, eq=False)
class ScatteredRows(FactoredRows):
    """Gradients ``[K, *param]`` whose parameters are spread over a mesh axis.

    Attributes:
      axis: The mesh axis.
      shares: This device's parameters ``[K, share]`` of each leaf.
      shapes: The shape of each leaf's parameter.
      structure: The structure of the parameters.
    """

    axis: str
    shares: Sequence[Float[Array, "K share"]]
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
        leaves = []
        for share, shape in zip(self.shares, self.shapes, strict=True):
            part = gram.combine(weights, share)
            whole = jax.lax.all_gather(part, self.axis, tiled=True, to="invarying")
            leaves.append(whole[: math.prod(shape)].reshape(shape))
        return self.structure.unflatten(leaves)


def scatter(rows: Jacobian, axis: str) -> ScatteredRows:
    """Sums the devices' own gradients ``[K, *param]``, and spreads the sums."""
    leaves, structure = jax.tree.flatten(rows)
    devices, count = jax.lax.axis_size(axis), num_objectives(rows)

    def share(leaf: Array) -> Array:
        flat = leaf.reshape(count, -1)
        flat = jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % devices)))
        return jax.lax.psum_scatter(flat, axis, scatter_dimension=1, tiled=True)

    shapes = [leaf.shape[1:] for leaf in leaves]
    return ScatteredRows(axis, [share(leaf) for leaf in leaves], shapes, structure)
