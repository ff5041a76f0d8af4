"""The choice of a Jacobian's strategy, at trace time, from static sizes."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from fairjax.jacobian import _cells
from fairjax.jacobian._costs import (
    Sizes,
    cells_cost,
    cheapest,
    cheapest_general,
    general_costs,
    gram_cost,
    machine,
    meshes_of,
    platform_of,
)
from fairjax.jacobian._fused import Fused, prepare_fused
from fairjax.jacobian._jaxprs import largest_product, matrix_flops
from fairjax.jacobian._passes import Pass, cell_order, choose_passes, readers
from fairjax.jacobian._separable_ops import CoupledError
from fairjax.objectives import CellObjectives, OutputObjectives, RunningMeans
from fairjax.types import Batch, Params

_DEFAULT_CHUNK = 8


class Plan(NamedTuple):
    """How a Jacobian is computed, and why; returned by :func:`explain`.

    ``print(plan)`` shows a table.

    Attributes:
      strategy: ``"jacrev"``, ``"pulls"``, ``"map"``, ``"cells"`` or ``"fused"``.
      reason: Why this strategy, in one sentence.
      costs: strategy -> its estimated cost in forward passes, with bytes moved counted
        as FLOPs. A strategy that is not possible is missing. Empty where the caller
        chose the strategy.
      chunk_size: Rows at a time under ``"map"``.
      memory: strategy -> estimated bytes of the gradients, or of what stands for them.

    Example:
      >>> print(Plan("pulls", "alone possible", {"pulls": 5.0}, 8, {"pulls": 2e6}))
      strategy   forward passes   gradients (MB)
      pulls *               5.0              2.0
      * alone possible
    """

    strategy: str
    reason: str
    costs: Mapping[str, float]
    chunk_size: int
    memory: Mapping[str, float] = MappingProxyType({})

    def __str__(self) -> str:
        """Returns a table of the strategies, the cheapest first."""
        rows = [f"{'strategy':<10} {'forward passes':>14}   gradients (MB)"]
        for name, cost in sorted(self.costs.items(), key=lambda pair: pair[1]):
            mark = f"{name} *" if name == self.strategy else name
            held = self.memory.get(name)
            held = "" if held is None else f"{held / 1e6:.1f}"
            rows.append(f"{mark:<10} {cost:>14.1f} {held:>16}")
        if not self.costs:
            rows.append(f"{self.strategy} *")
        return "\n".join([*rows, f"* {self.reason}"])


class Decision(NamedTuple):
    """A plan, and what the cells strategy has prepared for it."""

    plan: Plan
    prepared: _cells.Prepared | None = None
    passes: tuple[Pass, ...] = ()


def decide(
    objective_fn: Callable[..., Any],
    strategy: str,
    has_aux: bool,
    chunk_size: int | None,
    params: Params,
    args: tuple[Any, ...],
) -> Decision:
    """Returns the plan for the arguments of :func:`fairjax.value_and_jacobian`."""
    if strategy not in ("auto", "cells"):
        chunk = chunk_size or _DEFAULT_CHUNK
        return Decision(Plan(strategy, "chosen by name", {}, chunk))
    if strategy == "cells":
        return _decide_cells(objective_fn, params, args)
    if not isinstance(objective_fn, CellObjectives):
        reason = "the objectives are not functions of cell means"
        leaves, tree = jax.tree.flatten(args)
        abstract = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves]

        def values_of(params, given):
            # Others stay as they are, such as numbers that decide what is traced.
            traced = iter(given)
            known = [
                next(traced) if unknown else leaf
                for leaf, unknown in zip(leaves, abstract, strict=True)
            ]
            return objective_fn(params, *jax.tree.unflatten(tree, known))

        unknown = [x for x, asked in zip(leaves, abstract, strict=True) if asked]
        closed, shape = jax.make_jaxpr(values_of, return_shape=True)(params, unknown)
        values, _ = split_aux(shape, has_aux)
        check_values(values)
        sizes = _sizes(values.shape[0], 1, params, args, closed.jaxpr)
        return _general(sizes, reason, chunk_size, params, args)

    batch, _ = batch_and_running(objective_fn, args)
    examples = jnp.shape(batch["cells"])[0]
    sharded = _is_sharded(params, args)
    try:
        prepared = _cells.prepare(objective_fn, params, batch)
    except CoupledError as error:
        closed = jax.make_jaxpr(objective_fn.per_example)(params, batch)
        sizes = _sizes(
            objective_fn.num_objectives, examples, params, args, closed.jaxpr
        )
        return _general(sizes, str(error), chunk_size, params, args)
    jaxpr = prepared.model.closed.jaxpr
    sizes = _sizes(objective_fn.num_objectives, examples, params, args, jaxpr)
    if sharded:
        return _general(sizes, "", chunk_size, params, args)
    passes, cost = _cheapest_passes(objective_fn, prepared, sizes)
    costs = {**general_costs(sizes), "cells": cost}
    if cheapest({name: costs[name] for name in ("pulls", "cells")}) == "pulls":
        reason = "each objective by itself costs no more than segments of examples"
        return _general(sizes, reason, chunk_size, params, args, cells=cost)
    reason = f"{len(passes)} backward passes give all {sizes.objectives} objectives"
    memory = _rows_memory(sizes, passes)
    plan = Plan("cells", reason, costs, _DEFAULT_CHUNK, memory)
    return Decision(plan, prepared, passes)


def _decide_cells(
    objective_fn: Callable[..., Any], params: Params, args: tuple[Any, ...]
) -> Decision:
    if not isinstance(objective_fn, CellObjectives):
        raise ValueError(
            "strategy='cells' must have an objective_fn of fairjax.cell_objectives; "
            f"got {type(objective_fn).__name__}. Choose strategy='auto' for others."
        )
    batch, _ = batch_and_running(objective_fn, args)
    try:
        prepared = _cells.prepare(objective_fn, params, batch)
    except CoupledError as error:
        raise ValueError(
            "with strategy='cells', the statistics must treat the examples of a batch "
            f"one by one, which cannot be proven here: {error}. Evaluate BatchNorm "
            "with its running statistics, or use GroupNorm or LayerNorm; or choose "
            "strategy='auto' or 'jacrev'."
        ) from error
    examples = prepared.model.size
    jaxpr = prepared.model.closed.jaxpr
    sizes = _sizes(objective_fn.num_objectives, examples, params, args, jaxpr)
    passes, _ = _cheapest_passes(objective_fn, prepared, sizes)
    return Decision(
        Plan("cells", "chosen by name", {}, _DEFAULT_CHUNK), prepared, passes
    )


def fuse(
    objective_fn: Callable[..., Any], params: Params, args: tuple[Any, ...]
) -> tuple[Fused, Plan]:
    """Prepares the fused path, and returns a plan with the costs of all paths.

    The plan's strategy is the cheapest that the device has memory for.

    Raises:
      CoupledError: If the path is not possible, with the reason.
    """
    if not isinstance(objective_fn, CellObjectives | OutputObjectives):
        raise CoupledError("the objectives are not functions of examples' outputs")
    if objective_fn.axis_name is not None:
        raise CoupledError("examples are spread over devices")
    if _is_sharded(params, args):
        raise CoupledError("arrays may be sharded over a mesh of several devices")
    count, passes, cells = objective_fn.num_objectives, (), {}
    if isinstance(objective_fn, CellObjectives):
        batch, _ = batch_and_running(objective_fn, args)
        prepared = _cells.prepare(objective_fn, params, batch)
        model = prepared.model
        sizes = _sizes(count, model.size, params, args, model.closed.jaxpr)
        passes, cells["cells"] = _cheapest_passes(objective_fn, prepared, sizes)
    else:
        model = _cells.prepare_outputs(objective_fn, params, args)
        sizes = _sizes(count, model.size, params, args, model.closed.jaxpr)
    fused = prepare_fused(objective_fn, model, passes, sizes)
    # Stored gradients are read for the Gram matrix, and for the combination.
    reading = gram_cost(sizes)
    costs = {**general_costs(sizes), **cells}
    costs = {name: cost + reading for name, cost in costs.items()}
    costs["fused"] = fused.cost
    memory = {**_rows_memory(sizes, passes), "fused": fused.memory}
    memory = {name: memory[name] for name in costs}
    fitting = {
        name: costs[name] for name in costs if memory[name] <= sizes.machine.memory
    }
    chosen = cheapest(fitting or costs)
    reason = "the Gram matrix and the update follow from the layers' factors"
    if chosen != "fused":
        reason = "not fused: stored gradients cost no more"
    return fused, Plan(chosen, reason, costs, 1, memory)


def _rows_memory(sizes: Sizes, passes: tuple[Pass, ...]) -> dict[str, float]:
    """Returns the bytes of stored gradients, under each strategy that stores them."""
    count = sizes.objectives
    memory = dict.fromkeys(general_costs(sizes), 1.0 * count * sizes.param_bytes)
    held = count
    if not _cells.are_rows(passes, count):
        held += sum(len(one.segments) for one in passes)
    return {**memory, "cells": 1.0 * held * sizes.param_bytes}


def _general(
    sizes: Sizes,
    reason: str,
    chunk_size: int | None,
    params: Params,
    args: tuple[Any, ...],
    cells: float | None = None,
) -> Decision:
    """Decides for the cheapest of the strategies that work for any objectives."""
    costs = general_costs(sizes)
    if cells is not None:
        costs["cells"] = cells
    strategy, chunk = cheapest_general(sizes)
    if _is_sharded(params, args):
        strategy = "pulls"
        reason = "on a mesh of several devices, the others would gather the batch"
    memory = dict.fromkeys(costs, 1.0 * sizes.objectives * sizes.param_bytes)
    return Decision(Plan(strategy, reason, costs, chunk_size or chunk, memory))


def _cheapest_passes(
    objectives: CellObjectives, prepared: _cells.Prepared, sizes: Sizes
) -> tuple[tuple[Pass, ...], float]:
    def cost(passes):
        cells = cell_order(passes)
        layout = [
            _cells.windows(one, cells, objectives.cell_shares, prepared.model)
            for one in passes
        ]
        size = sizes.examples
        paddings = [windows.padded(size) / max(size, 1) for windows in layout]
        grouped = prepared.model.analysis.opaque
        return cells_cost(sizes, passes, paddings, grouped=grouped)

    passes = choose_passes(readers(objectives), cost)
    return passes, cost(passes)


def _sizes(
    objectives: int, examples: int, params: Params, args: tuple[Any, ...], jaxpr: Any
) -> Sizes:
    leaves = [jax.typeof(leaf) for leaf in jax.tree.leaves(params)]
    return Sizes(
        objectives=objectives,
        examples=examples,
        params=sum(math.prod(leaf.shape) for leaf in leaves),
        param_bytes=sum(math.prod(t.shape) * t.dtype.itemsize for t in leaves),
        flops=matrix_flops(jaxpr),
        largest=largest_product(jaxpr),
        machine=machine(platform_of((params, args))),
    )


def _is_sharded(params: Params, args: tuple[Any, ...]) -> bool:
    """Checks whether arrays may be sharded over devices, outside a manual region."""
    return any(
        size > 1 and kind != AxisType.Manual
        for mesh in meshes_of((params, args))
        for size, kind in zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    )


def batch_and_running(
    objectives: CellObjectives, args: tuple[Any, ...]
) -> tuple[Batch, RunningMeans | None]:
    """Returns the checked arguments that follow the parameters of cell objectives."""
    if not 1 <= len(args) <= 2:
        raise ValueError(
            "the arguments must be (params, batch), or for objectives with a decay "
            f"(params, batch, running); got {len(args)} arguments after params."
        )
    batch, running = args if len(args) == 2 else (args[0], None)
    objectives.check_call(batch, running)
    return batch, running


def split_aux(result: Any, has_aux: bool) -> tuple[Any, Any]:
    """Returns an objective function's result as ``(values, aux)``."""
    pair = isinstance(result, tuple)
    if pair != has_aux or (pair and len(result) != 2):
        raise ValueError(
            "the objective function must return "
            + ("(values, aux), since has_aux=True" if has_aux else "values [K]")
            + (f"; got a tuple of {len(result)}." if pair else "; got no tuple.")
            + ("" if has_aux else " With has_aux=True it may return (values, aux).")
        )
    return result if has_aux else (result, None)


def check_values(values: Any) -> None:
    """Raises unless an objective function returned ``[K]``."""
    if not hasattr(values, "shape") or jnp.ndim(values) != 1:
        raise ValueError(
            "the objective function must return values [K], one for each objective; "
            f"got {_described(values)}. fairjax.stack_objectives makes such a function "
            "of functions that return scalars."
        )


def _described(value: Any) -> str:
    return f"shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
