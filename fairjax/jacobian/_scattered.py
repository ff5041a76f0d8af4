"""Gradients summed over devices, of which each device keeps a share.

Each device has gradients of its own examples. Their sums would be K gradients on every
device. Instead a reduce-scatter gives each device some parameters of all sums. It
computes these parameters' part of the Gram matrix, and of a combination. On the wire
this takes ``K P`` numbers for the sums and ``P`` for the combination, where the sums on
every device would take ``2 K P``.

Or the devices sum random projections of the gradients, ``m`` numbers instead of ``P``,
which takes ``2 K m + 2 P``. Inner products of the projections are unbiased estimates.
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
from fairjax.types import Gramian, Jacobian, Params, vary_like

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


@dataclasses.dataclass(frozen=True, eq=False)
class SketchedRows(FactoredRows):
    """Gradients ``[K, *param]`` by devices, and projections of their sums.

    Attributes:
      axis: The mesh axis.
      own: The gradients of this device's examples, ``[K, *param]``.
      projections: The sums' projections, ``[K, m]``.
    """

    axis: str
    own: Jacobian
    projections: Float[Array, "K m"]

    @property
    def num_objectives(self) -> int:
        """The number of objectives, K."""
        return len(self.projections)

    def gramian(self) -> Gramian:
        """Estimates inner products of the gradients, ``[K, K]``."""
        return gram.gramian(self.projections)

    def combine(self, weights: Float[Array, " K"]) -> Params:
        """Computes a weighted sum of the gradients, ``[*param]``."""
        return jax.lax.psum(gram.combine(weights, self.own), self.axis)


def sketch(rows: Jacobian, axis: str, size: int, key: Array) -> SketchedRows:
    """Sums projections of the devices' own gradients ``[K, *param]``."""
    total = jax.lax.psum(project(rows, size, key), axis)
    return SketchedRows(axis, rows, total)


def project(rows: Jacobian, size: int, key: Array) -> Float[Array, "K m"]:
    r"""Projects gradients at random: a count sketch.

    Each parameter has a random sign ``s`` and a place ``h`` among ``m``, and the
    projection is :math:`S_{kh} = \sum_{p: h(p) = h} s_p J_{kp}`. Then
    :math:`E[S S^\top] = J J^\top`, and the standard deviation of an inner product is
    about :math:`\sqrt{(|J_i|^2 |J_j|^2 + (J_i \cdot J_j)^2) / m}`. The places of ``m``
    successive parameters differ, being a random rotation of them.

    References:
      Charikar, Chen and Farach-Colton, *Finding frequent items in data streams*, 2002.
    """
    count = num_objectives(rows)
    total = jnp.zeros((count, size), jnp.float32)
    for i, leaf in enumerate(jax.tree.leaves(rows)):
        flat = leaf.reshape(count, -1).astype(total.dtype)
        flat = jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % size)))
        chunks = flat.reshape(count, -1, size).swapaxes(0, 1)
        keys = jax.random.split(jax.random.fold_in(key, i), len(chunks))

        def add(total: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
            chunk, key = one
            place, signs = jax.random.split(key)
            signed = chunk * jax.random.rademacher(signs, (size,), chunk.dtype)
            shift = jax.random.randint(place, (), 0, size)
            return total + jnp.roll(signed, shift, axis=1), None

        total = vary_like(total, flat)
        total, _ = jax.lax.scan(add, total, (chunks, keys))
    return total
