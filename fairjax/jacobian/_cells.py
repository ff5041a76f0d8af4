"""The Jacobian of cell objectives from one backward pass for each statistic."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fairjax.jacobian._jaxprs import aval, find_depths, flatten, matrix_flops
from fairjax.jacobian._padded import check_any_size, group_length, padded_gradients
from fairjax.jacobian._passes import SHARED, Pass, cell_order, readers, runs
from fairjax.jacobian._segments import Blocks, Layout, lay_out, mix
from fairjax.jacobian._separability import analyse, kind_of
from fairjax.jacobian._separable_ops import CoupledError, Kind
from fairjax.jacobian._taps import Model, find_taps, linearize
from fairjax.objectives import (
    CellObjectives,
    CellSums,
    OutputObjectives,
    RunningMeans,
    example_weights,
)
from fairjax.types import Batch, Jacobian, Params, Values, vary, vary_like

# The layers of a longer scan stay in their loop, which compiles sooner.
_MOST_LAYERS = 64


class Prepared(NamedTuple):
    """What is known of cell objectives at trace time, without parameter values.

    Attributes:
      model: The per-example statistics, proven to treat examples one by one.
      flops: FLOPs of the statistics' matrix products in one forward pass.
    """

    model: Model
    flops: float


class Arranged(NamedTuple):
    """A batch's examples ordered by cell; examples in no cell come last.

    Attributes:
      order: int ``[B]``, the examples' indices in this order.
      cells: int ``[B]``, −1 for an example in no cell; in the batch's order.
      weights: ``[B]``, in the batch's order.
      edges: int ``[C + 1]``: the ``i``-th cell has ``order[edges[i]:edges[i + 1]]``.
    """

    order: Int[Array, " B"]
    cells: Int[Array, " B"]
    weights: Float[Array, " B"]
    edges: Int[Array, " edges"]


def prepare(objectives: CellObjectives, params: Params, batch: Batch) -> Prepared:
    """Traces the statistics, and proves that they treat examples one by one.

    Raises:
      CoupledError: If the statistics combine examples, or the proof does not succeed.
    """
    batch_leaves, structure = jax.tree.flatten(batch)
    size = jnp.shape(batch["cells"])[0]
    if not size:
        raise CoupledError("the batch is empty")

    def statistics(params, leaves):
        return per_example(objectives, params, structure.unflatten(leaves))

    params = vary_params(objectives, params)
    model = prove(statistics, params, batch_leaves, size)
    analysis = model.analysis
    if analysis.opaque:
        if analysis.positional:
            raise CoupledError(
                "an example's statistics depend on its position in the batch, and "
                "parameters enter a loop"
            )
        length = group_length(size, objectives.num_cells)
        check_any_size(statistics, params, batch_leaves, size, length)
    return Prepared(model, matrix_flops(model.closed.jaxpr))


def prepare_outputs(
    objectives: OutputObjectives, params: Params, args: tuple[Any, ...]
) -> Model:
    """Traces the outputs, and proves that they treat examples one by one.

    Raises:
      CoupledError: If the outputs combine examples, or the proof does not succeed.
    """
    leaves, structure = jax.tree.flatten(args)

    def outputs(params, leaves):
        args = structure.unflatten(leaves)
        return jax.tree.leaves(objectives.with_aux(params, *args)[0])

    size = count_examples(jax.eval_shape(outputs, params, leaves))
    return prove(outputs, params, leaves, size)


def count_examples(outputs: Sequence[Any]) -> int:
    """Returns the number of rows that all outputs have, one for each example.

    Raises:
      CoupledError: If the outputs' first axes differ, or they have none.
    """
    sizes = {jnp.shape(leaf)[:1] for leaf in outputs}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise CoupledError(
            "the outputs do not all have one row for each example; their first axes "
            f"are {sorted(sizes)}"
        )
    return sizes.pop()[0]


def prove(
    outputs: Callable[[Params, list[Any]], Sequence[Array]],
    params: Params,
    batch_leaves: list[Any],
    size: int,
) -> Model:
    """Traces ``outputs(params, batch_leaves)``, and proves the examples separate.

    Raises:
      CoupledError: If the outputs combine examples, or the proof does not succeed.
    """
    traced = jax.make_jaxpr(outputs)(params, batch_leaves)
    count = len(jax.tree.leaves(params))
    rows = [Kind(0 if has_examples(leaf, size) else None) for leaf in batch_leaves]
    inputs = {var: i for i, var in enumerate(traced.jaxpr.invars[:count])}
    depths = find_depths(traced.jaxpr, inputs, _MOST_LAYERS)

    def analysed(depths):
        closed = flatten(traced, depths=depths)
        number = len(closed.jaxpr.invars) - len(rows)
        kinds = [Kind(params=True)] * number + rows
        return closed, number, analyse(closed.jaxpr, kinds, size)

    closed, number, analysis = analysed(depths)
    if analysis.opaque and depths:
        depths = {}  # Other loops stay, so these may stay as well.
        closed, number, analysis = analysed(depths)
    for atom in closed.jaxpr.outvars:
        if kind_of(atom, analysis.kinds).axis not in (0, None):
            raise CoupledError("an output's first axis is not that of the examples")
    taps = () if analysis.opaque else find_taps(closed.jaxpr, analysis, size)
    return Model(closed, analysis, taps, number, size, depths)


def value_and_jacobian(
    objectives: CellObjectives,
    prepared: Prepared,
    passes: Sequence[Pass],
    params: Params,
    batch: Batch,
    running: RunningMeans | None,
) -> tuple[Values, Any, Jacobian]:
    """Computes values, running means or aux, and the Jacobian by own examples."""
    cells = cell_order(passes)
    layout = [windows(p, cells, objectives.cell_shares, prepared.model) for p in passes]
    arranged = arrange(objectives, batch, cells)
    leaves, structure = jax.tree.flatten(vary_params(objectives, params))
    outputs, gradients = _linearize(objectives, prepared, structure, leaves, batch)
    by_name = dict(zip(objectives.statistics, outputs, strict=True))
    sums = objectives.cell_sums(by_name, batch)
    values, running, weights = values_and_weights(objectives, sums, running)

    parts = []
    for one, pieces in zip(passes, layout, strict=True):
        pulled = cotangents(one, weights, arranged, outputs)
        parts.append(gradients(pulled, blocks_of(one, pieces, arranged)))
    jacobian = [mix_parts(passes, weights, leaf) for leaf in zip(*parts, strict=True)]
    aux = with_aux(objectives, running, params, (batch,))
    return values, aux, structure.unflatten(jacobian)


def _linearize(
    objectives: CellObjectives,
    prepared: Prepared,
    structure: Any,
    leaves: list[Array],
    batch: Batch,
) -> tuple[Sequence[Array], Callable[..., Sequence[Array]]]:
    """Returns the statistics, and the function from their cotangents to gradients."""
    model = prepared.model
    rows, whole = jax.tree.flatten(batch)
    rows = [jnp.asarray(row) for row in rows]
    if not model.analysis.opaque:
        linear = linearize(model, leaves, rows)
        return linear.outputs, linear.gradients

    def statistics(leaves, rows):
        params = structure.unflatten(leaves)
        return per_example(objectives, params, whole.unflatten(rows))

    outputs, pull = jax.vjp(lambda leaves: statistics(leaves, rows), leaves)
    length = group_length(model.size, objectives.num_cells)

    def gradients(cotangents, blocks):
        if blocks is None:
            return [leaf[None] for leaf in pull(cotangents)[0]]
        return padded_gradients(statistics, leaves, rows, cotangents, blocks, length)

    return outputs, gradients


def per_example(
    objectives: CellObjectives, params: Params, batch: Batch
) -> list[Array]:
    """Computes the statistics of this device's examples, ``[B]`` each."""
    local = dataclasses.replace(objectives, axis_name=None)
    return list(local.per_example(params, batch).values())


def with_aux(
    objectives: CellObjectives | OutputObjectives,
    running: RunningMeans | None,
    params: Params,
    args: tuple[Any, ...],
) -> Any:
    """Computes what a call returns beside the values, given the new running means.

    The proof covers the statistics alone, since aux may combine examples. A compiled
    program computes once what the statistics and the aux have in common.
    """
    if isinstance(objectives, CellObjectives):
        aux = objectives.with_aux(params, args[0])[1] if objectives.has_aux else None
        return objectives.join_aux(running, aux)
    return objectives.with_aux(params, *args)[1] if objectives.has_aux else None


def values_and_weights(
    objectives: CellObjectives, sums: CellSums, running: RunningMeans | None
) -> tuple[Values, RunningMeans | None, Float[Array, "K S C"]]:
    """Computes values, running means, and the derivatives of values by cell sums.

    An objective that reads a pair which it did not declare gets NaN weights, because
    its row would be wrong.
    """
    values, new = objectives.values_from_sums(sums, running)

    def one(name, totals):
        alone = dataclasses.replace(
            objectives, functions={name: objectives.functions[name]}
        )
        whole = CellSums({**sums.sums, **totals}, sums.counts)
        return alone.values_from_sums(whole, running)[0][0]

    # One gradient per objective: a Jacobian of all would differentiate each K times.
    rows = []
    for name in objectives.names:
        slopes = jax.grad(lambda totals, name=name: one(name, totals))(dict(sums.sums))
        rows.append(jnp.stack([slopes[s] for s in objectives.statistics]))
    weights = jnp.stack(rows)
    undeclared = jnp.any((weights != 0) & ~readers(objectives), axis=(1, 2))
    return values, new, jnp.where(undeclared[:, None, None], jnp.nan, weights)


def windows(one: Pass, cells: np.ndarray, shares: np.ndarray, model: Model) -> Layout:
    """Returns the windows of a pass.

    A pass of a single segment needs no windows and has no blocks.
    """
    if len(one.segments) == 1:
        return Layout()
    pieces = runs(one.segment_of_cell[cells])
    shares = shares if shares.sum() > 0 else np.full(len(cells), 1 / len(cells))
    expected = [model.size * float(shares[cells[a:b]].sum()) for _, a, b in pieces]
    if model.analysis.opaque:
        return lay_out(pieces, expected, model.size)
    # Padding costs as many products for a weight as an example has positions.
    inputs = [aval(var) for var in model.closed.jaxpr.invars[: model.num_params]]
    entries = sum(math.prod(value.shape) for value in inputs)
    products = matrix_flops(model.closed.jaxpr) / max(2 * model.size * entries, 1)
    return lay_out(pieces, expected, model.size, 160 / max(products, 1))


def blocks_of(one: Pass, layout: Layout, arranged: Arranged) -> Blocks | None:
    """Returns a pass's blocks of examples; None for a single segment."""
    if not layout.pieces:
        return None
    segments, firsts, lasts = zip(*layout.pieces, strict=True)
    blocks = Blocks(
        segments=segments,
        capacities=tuple(layout.capacities),
        num_segments=len(one.segments),
        order=arranged.order,
        starts=arranged.edges[np.asarray(firsts)],
        stops=arranged.edges[np.asarray(lasts)],
    )
    return blocks.divide(layout.capacities[0]) if layout.divided else blocks


def arrange(objectives: CellObjectives, batch: Batch, cells: np.ndarray) -> Arranged:
    """Returns the order of a batch's examples by cell."""
    weights = example_weights(batch)
    given = jnp.asarray(batch["cells"])
    count, size = objectives.num_cells, given.shape[0]
    live = (given >= 0) & (given < count) & (weights != 0)
    place = np.empty(count, np.int32)
    place[cells] = np.arange(count)
    key = jnp.where(live, jnp.asarray(place)[jnp.clip(given, 0, count - 1)], count)
    sizes = jnp.sum(key[None, :] == jnp.arange(count)[:, None], axis=1, dtype=jnp.int32)
    edges = jnp.concatenate([jnp.zeros_like(sizes[:1]), jnp.cumsum(sizes)])
    if (count + 1) * size < 2**31:
        # Several times faster than a sort by keys.
        order = jnp.sort(key * size + jnp.arange(size, dtype=jnp.int32)) % size
    else:
        order = jnp.argsort(key)
    return Arranged(order, jnp.where(live, given, -1), weights, edges)


def vary_params(
    objectives: CellObjectives | OutputObjectives, params: Params
) -> Params:
    """Marks parameters as varying between devices, so that gradients are not summed.

    Each gradient is summed once, when the Jacobian is complete.
    """
    axis = manual_axis(objectives)
    return params if axis is None else vary(params, (axis,))


def manual_axis(objectives: Any) -> str | None:
    """Returns the mesh axis that examples are spread over, within ``shard_map``."""
    axis = getattr(objectives, "axis_name", None)
    return axis if axis in jax.sharding.get_abstract_mesh().manual_axes else None


def varies(value: Any, axis: str) -> bool:
    """Checks whether a value's type varies over a mesh axis."""
    return axis in jax.typeof(value).manual_axis_type.varying


def has_examples(leaf: Any, size: int) -> bool:
    """Checks whether a leaf of a batch has one row for each example."""
    return jnp.ndim(leaf) > 0 and jnp.shape(leaf)[0] == size


def cotangents(
    one: Pass,
    weights: Float[Array, "K S C"],
    arranged: Arranged,
    outputs: Sequence[Array],
) -> list[Array]:
    """Returns the statistics' cotangents in a pass, ``[B]`` each."""
    sources = one.sources
    s, c = np.indices(sources.shape)
    table = jnp.where(sources >= 0, weights[np.maximum(sources, 0), s, c], 0.0)
    table = jnp.where(sources == SHARED, 1.0, table)
    # The last column is for examples in no cell, whose index is -1.
    table = jnp.pad(table, ((0, 0), (0, 1)))
    pulled = []
    for row, output in zip(table, outputs, strict=True):
        per_example = jnp.where(arranged.cells < 0, 0, row[arranged.cells])
        cotangent = (per_example * arranged.weights).astype(output.dtype)
        pulled.append(vary_like(cotangent, output))
    return pulled


def are_rows(passes: Sequence[Pass], num_objectives: int) -> bool:
    """Checks whether each segment is the whole row of an objective."""
    owners = sorted(segment.objective for one in passes for segment in one.segments)
    return owners == list(range(num_objectives))


def mix_parts(
    passes: Sequence[Pass], weights: Float[Array, "K S C"], parts: Sequence[Array]
) -> Array:
    """Computes the rows ``[K, *param]`` of one leaf from each pass's gradients."""
    segments = [segment for one in passes for segment in one.segments]
    found = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
    owners = [segment.objective for segment in segments]
    if are_rows(passes, len(weights)):
        identity = owners == sorted(owners)
        return found if identity else found[np.argsort(owners)]
    columns = []
    for segment in segments:
        if segment.objective == SHARED:
            ((s, c),) = np.argwhere(segment.pairs)
            columns.append(weights[:, s, c])
        else:
            columns.append(jnp.arange(len(weights)) == segment.objective)
    return mix(jnp.stack(columns, axis=1), found)
