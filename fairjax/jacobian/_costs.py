r"""The cost model by which the strategies for a Jacobian are compared.

Costs are in units of one forward pass, ``F``: the FLOPs of its matrix products (or
``2 B P`` where a pass has no matrix product). There are ``K`` objectives and ``P``
parameters of ``b`` bytes. The machine balance ``β`` is the number of FLOPs that a
device does in the time in which it moves a byte. Then

.. math::
    \text{plain}  &= 3 \\
    \text{pulls}  &= 1 + 2K + \beta\,3 K P b / F \\
    \text{jacrev} &= 1 + 2K\eta + \beta\,3 K P b / F \\
    \text{map}    &= 1 + 2K\mu + \beta\,3 K P b / F \\
    \text{cells}  &= 1 + \sum_{\text{passes}} c_p
                     + \beta\,(K + M) P b / F + 2 K M P / F \\
    c_p &= 2 \text{ for one segment, and }
           1 + \rho_p + \gamma + \beta\,3 s_p P b / F \text{ for } s_p > 1,

where pass ``p`` has ``s_p`` segments and

- ``ρ`` is the padding of the windows: the sum of their capacities over ``B``;
- ``γ`` is the cost of gathering examples into the windows;
- ``M`` is the number of segments to be mixed: 0 if every segment is one row;
- ``η`` is the cost of a batched pull relative to a plain pull;
- ``μ`` is the cost of a pull in a loop over chunks relative to a plain pull.

A model with a loop that parameters enter is differentiated in padded groups, forward
again and backward: ``c_p = 6`` for ``s_p > 1``. The values of ``β, γ, η, μ`` were
measured on a CPU, and are estimates for other devices.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh
from jaxtyping import PyTree

from fairjax.jacobian._passes import SHARED, Pass


class Machine(NamedTuple):
    """Constants of a kind of device.

    Attributes:
      balance: FLOPs in the time in which the device moves a byte, β.
      batched: Cost of a batched pull relative to a plain pull, η.
      looped: Cost of a pull in a loop over chunks relative to a plain pull, μ.
      gathered: Cost of gathering windows, in forward passes, γ.
      memory: Bytes that batched pulls may take; above that they are done in chunks. If
        stored gradients take more, another path to the update is preferred.
      chunk: The best number of rows in a chunk, if there is memory for it.
    """

    balance: float
    batched: float
    looped: float
    gathered: float
    memory: float
    chunk: int


_MACHINES = {
    "cpu": Machine(20.0, 1.6, 1.05, 0.4, 2**31, 8),
    "gpu": Machine(40.0, 1.0, 1.2, 0.2, 2**33, 64),
    "tpu": Machine(150.0, 1.0, 1.2, 0.2, 2**33, 64),
}

# Unrolled pulls compile in proportion to their number.
MAX_PULLS = 64


class Sizes(NamedTuple):
    """Static sizes of a Jacobian.

    Attributes:
      objectives: Number of objectives, K.
      examples: Number of examples, B; 1 where the objectives are not functions of a
        batch of examples.
      params: Number of parameters, P.
      param_bytes: Bytes of the parameters, ``P b``.
      flops: FLOPs of the forward pass' matrix products.
      largest: Bytes of the largest result or operand of a matrix product.
      machine: Constants of the device.
    """

    objectives: int
    examples: int
    params: int
    param_bytes: float
    flops: float
    largest: float
    machine: Machine

    @property
    def forward(self) -> float:
        """The cost of a forward pass in FLOPs, F; at least 1."""
        return max(self.flops or 2.0 * self.examples * self.params, 1.0)


def machine(platform: str) -> Machine:
    """Returns the constants of a platform's devices."""
    return _MACHINES.get(platform, _MACHINES["gpu"])


def platform_of(values: PyTree) -> str:
    """Returns the platform for which functions of these values will be compiled.

    Types, and the mesh in scope, name the devices, which need not be here. Where they
    do not, it is that of concrete arrays, or the default one.
    """
    leaves = jax.tree.leaves(values)
    for mesh in meshes_of(leaves):
        if mesh.abstract_device is not None:
            return mesh.abstract_device.platform
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
            return next(iter(leaf.sharding.device_set)).platform
    return jax.default_backend()


def meshes_of(values: PyTree) -> list[AbstractMesh]:
    """Lists the meshes in the types of arrays, and the mesh in scope."""
    meshes = [
        jax.typeof(leaf).sharding.mesh
        for leaf in jax.tree.leaves(values)
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)
    ]
    meshes.append(jax.sharding.get_abstract_mesh())
    return [mesh for mesh in meshes if not mesh.empty]


def general_costs(sizes: Sizes) -> dict[str, float]:
    """Returns the costs of the strategies that work for any objectives."""
    here, k = sizes.machine, sizes.objectives
    traffic = here.balance * 3 * k * sizes.param_bytes / sizes.forward
    return {
        "pulls": 1 + 2 * k + traffic,
        "jacrev": 1 + 2 * k * here.batched + traffic,
        "map": 1 + 2 * k * here.looped + traffic,
    }


def gram_cost(sizes: Sizes) -> float:
    """Returns the cost of a Gram matrix and a combination of stored gradients."""
    k = sizes.objectives
    traffic = sizes.machine.balance * 2 * k * sizes.param_bytes
    return (traffic + 2 * k * (k + 1) * sizes.params) / sizes.forward


def cells_cost(
    sizes: Sizes,
    passes: Sequence[Pass],
    paddings: Sequence[float],
    *,
    grouped: bool = False,
) -> float:
    """Returns the cost of the passes over cells, in forward passes.

    Args:
      sizes: The sizes.
      passes: The backward passes.
      paddings: For each pass, the sum of its windows' capacities, divided by the
        number of examples.
      grouped: Whether examples are differentiated in padded groups.
    """
    here = sizes.machine
    cost = 1.0
    for one, padding in zip(passes, paddings, strict=True):
        number = len(one.segments)
        traffic = here.balance * 3 * number * sizes.param_bytes / sizes.forward
        if number == 1:
            cost += 2 + traffic
        elif grouped:
            cost += 6 + 2 * traffic
        else:
            cost += 1 + padding + here.gathered + traffic
    owners = [segment.objective for one in passes for segment in one.segments]
    if SHARED in owners or len(set(owners)) < len(owners):
        mixed = (len(owners) + sizes.objectives) * sizes.param_bytes * here.balance
        products = 2.0 * len(owners) * sizes.objectives * sizes.params
        cost += (mixed + products) / sizes.forward
    return cost


def cheapest(costs: Mapping[str, float]) -> str:
    """Returns the cheapest strategy; of nearly equal ones the sooner compiled."""
    later = {"cells": 1.05, "fused": 1.1}
    return min(costs, key=lambda name: costs[name] * later.get(name, 1.0))


def cheapest_general(sizes: Sizes) -> tuple[str, int]:
    """Returns the cheapest strategy for any objectives, and its rows in a chunk."""
    costs = general_costs(sizes)
    per_row = 3 * sizes.largest + sizes.param_bytes
    fit = int(np.clip(sizes.machine.memory // max(per_row, 1), 1, sizes.objectives))
    if sizes.objectives > MAX_PULLS:
        costs.pop("pulls")
    if fit < sizes.objectives:
        costs.pop("jacrev")
    return min(costs, key=costs.__getitem__), min(fit, sizes.machine.chunk)
