r"""The Gram matrix and combinations of objectives' gradients, without the gradients.

Objectives are functions of a model's outputs ``z`` for each example, so the gradient of
objective ``k`` is ``Σ_b Σ_r A[k, b, r] ∂z[b, r]/∂θ``, where ``A = ∂L/∂z``. One backward
pass for each output ``r`` gives the operand ``a_b`` and the cotangent ``δ_b`` of every
example at each weight. Both are as large as activations. A weight's part of the Gram
matrix is ``A N Aᵀ`` with ``N[b, c] = (a_b · a_c)(δ_b · δ_c)``; or it is the Gram matrix
of the weight's rows, which are stored for one weight at a time. A combination of the
gradients is one contraction with the cotangents ``Σ_k w_k A[k]``.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jaxtyping import Array, Bool, Float

from fairjax.gram import gramian
from fairjax.jacobian._cells import (
    are_rows,
    arrange,
    blocks_of,
    cotangents,
    mix_parts,
    values_and_weights,
    windows,
)
from fairjax.jacobian._costs import Sizes
from fairjax.jacobian._jaxprs import aval, evaluate, matrix_flops, read
from fairjax.jacobian._passes import Pass, cell_order
from fairjax.jacobian._segments import (
    Blocks,
    Contraction,
    Layout,
    along,
    map_gradients,
    segment_gradients,
    select,
)
from fairjax.jacobian._separability import kind_of
from fairjax.jacobian._separable_ops import CoupledError
from fairjax.jacobian._taps import Linearized, Model, linearize
from fairjax.objectives import CellObjectives, OutputObjectives, RunningMeans
from fairjax.stacked import FactoredRows
from fairjax.types import Batch, Gramian, Params, Values

# The backward passes that a plan may have: one for each output of an example, or one
# for each objective if these are fewer.
_MOST_PASSES = 16
# Rows that are computed at once.
_ROWS_AT_ONCE = 8


class Waist(NamedTuple):
    """Where a model's values for each example are fewest, behind all parameters.

    Attributes:
      trunk: The model up to there; its outputs are the waist's values.
      head: Function from the batch's leaves and the waist's values to the statistics.
      outputs: The number of values for each example.
    """

    trunk: Model
    head: Callable[[Sequence[Array], Sequence[Array]], list[Array]]
    outputs: int


def find_waist(model: Model) -> Waist:
    """Splits a model where the fewest values for each example depend on parameters."""
    jaxpr, kinds = model.closed.jaxpr, model.analysis.kinds
    active = _active(model)
    places = [tap.index for tap in model.taps]
    if not places or None in places:
        raise CoupledError("a statistic is a parameter")
    last = max(place for place in places if place is not None)
    used: dict[Var, int] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        used.update({atom: index for atom in eqn.invars if isinstance(atom, Var)})
    end = len(jaxpr.eqns)
    used.update({atom: end for atom in jaxpr.outvars if isinstance(atom, Var)})
    made = {var: index for index, eqn in enumerate(jaxpr.eqns) for var in eqn.outvars}

    def live(index: int) -> list[Var]:
        return [v for v in active if made[v] <= index < used.get(v, -1)]

    def size(index: int) -> int:
        return sum(math.prod(aval(v).shape) for v in live(index)) // model.size

    cut = min(range(last, end), key=size)
    values = live(cut)
    trunk = model._replace(
        closed=model.closed.replace(
            jaxpr=jaxpr.replace(eqns=jaxpr.eqns[: cut + 1], outvars=values)
        ),
        analysis=model.analysis._replace(
            verdicts={i: v for i, v in model.analysis.verdicts.items() if i <= cut}
        ),
    )
    for var in values:
        if kind_of(var, kinds).axis != 0:
            raise CoupledError("the examples' axis is not the first at the waist")

    # Values of the batch alone are computed again, which costs next to nothing.
    known = {*jaxpr.constvars, *jaxpr.invars[model.num_params :], *values}
    behind = []
    for index, eqn in enumerate(jaxpr.eqns):
        past = index > cut or not any(var in active for var in eqn.outvars)
        if past and all(a in known for a in eqn.invars if isinstance(a, Var)):
            known.update(eqn.outvars)
            behind.append(eqn)
    if not known.issuperset(a for a in jaxpr.outvars if isinstance(a, Var)):
        raise CoupledError("a value without a derivative passes by the waist")

    def head(batch: Sequence[Array], waist: Sequence[Array]) -> list[Array]:
        env: dict[Var, Any] = dict(
            zip(jaxpr.constvars, model.closed.consts, strict=True)
        )
        env.update(zip(jaxpr.invars[model.num_params :], batch, strict=True))
        env.update(zip(values, waist, strict=True))
        for eqn in behind:
            results = evaluate(eqn, [read(env, atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(env, atom) for atom in jaxpr.outvars]

    return Waist(trunk, head, size(cut))


def _active(model: Model) -> list[Var]:
    """Lists the differentiable values of examples that depend on parameters."""
    jaxpr, kinds = model.closed.jaxpr, model.analysis.kinds
    reached: dict[Var, None] = dict.fromkeys(jaxpr.invars[: model.num_params])
    found = []
    for eqn in jaxpr.eqns:
        if any(isinstance(a, Var) and a in reached for a in eqn.invars):
            for var in eqn.outvars:
                if jnp.issubdtype(aval(var).dtype, jnp.inexact):
                    reached[var] = None
                    if kinds[var].axis is not None:
                        found.append(var)
    return found


class Block(NamedTuple):
    """Parameters that reach no other block's taps, and the way to their Gram matrix.

    Attributes:
      leaves: Indices of the parameters, each layer of a scan counted.
      taps: Indices of the taps.
      way: ``"ghost"``: inner products of examples, from a weight's factors; or the rows
        of one block at a time: ``"rows"``, each a sum over all examples, or
        ``"segments"``, from sums over segments of the examples.
      cost: FLOPs, with bytes moved in their place; one combination included.
      entries: Numbers that are held for the Gram matrix at once.
      product: The axes of the weight's matrix product, under ``"ghost"``.
    """

    leaves: Sequence[int]
    taps: Sequence[int]
    way: str
    cost: float
    entries: int
    product: "Product | None"


class Product(NamedTuple):
    """The axes of a parameter's matrix product with the examples.

    Attributes:
      shared: The axes that the other operand shares with the result, the examples'
        first.
      inner: The operand's axes that are contracted with the parameter.
      result: The axes of the result that it shares with the operand, in their order.
      outer: The result's axes that come from the parameter.
    """

    shared: Sequence[int]
    inner: Sequence[int]
    result: Sequence[int]
    outer: Sequence[int]


class Fused(NamedTuple):
    """What is known of the fused path at trace time, without parameter values.

    Attributes:
      waist: The model, split at its waist.
      passes: The segments of examples that give rows; none for objectives that are
        not functions of cell means, and where objectives are fewer than outputs.
      order: An order of the cells for the passes.
      layout: The windows of each pass; see `windows`.
      blocks: The parameters, and the way to their Gram matrices.
      cost: The cost of the Gram matrix and of one combination, in forward passes.
      memory: Bytes of the cotangents, and of the largest block's rows.
    """

    waist: Waist
    passes: Sequence[Pass]
    order: np.ndarray
    layout: Sequence[Layout]
    blocks: Sequence[Block]
    cost: float
    memory: float


def prepare_fused(
    objectives: CellObjectives | OutputObjectives,
    model: Model,
    passes: Sequence[Pass],
    sizes: Sizes,
) -> Fused:
    """Plans the fused path.

    Args:
      objectives: The objectives.
      model: Their statistics or outputs, proven to treat examples one by one.
      passes: The segments of examples that give rows.
      sizes: The sizes, and the device.

    Raises:
      CoupledError: If the path is not possible, with the reason.
    """
    if model.analysis.opaque:
        raise CoupledError("parameters enter a loop")
    waist, count = find_waist(model), sizes.objectives
    pulled = min(waist.outputs, count)
    if pulled > _MOST_PASSES:
        raise CoupledError(
            f"each example has {waist.outputs} outputs, for {count} objectives"
        )
    order, layout = np.arange(0), []
    # With fewer objectives than outputs, an example's values are the objectives' own.
    passes = passes if pulled == waist.outputs else ()
    if passes and isinstance(objectives, CellObjectives):
        order, shares = cell_order(passes), objectives.cell_shares
        layout = [windows(one, order, shares, model) for one in passes]
    padded = sum(one.padded(model.size) or model.size for one in layout)
    mixed = count
    if passes and not are_rows(passes, count):
        mixed += sum(len(one.segments) for one in passes)
    blocks = [
        _plan_block(model, leaves, taps, pulled, padded, mixed, sizes)
        for leaves, taps in _independent(model)
    ]
    cost = 2 + pulled + sum(block.cost for block in blocks) / sizes.forward
    held = pulled * sum(math.prod(tap.shape) for tap in model.taps)
    memory = 4.0 * (held + max(block.entries for block in blocks))
    return Fused(waist, passes, order, layout, blocks, cost, memory)


def _plan_block(
    model: Model,
    leaves: Sequence[int],
    taps: Sequence[int],
    outputs: int,
    padded: int,
    mixed: int,
    sizes: Sizes,
) -> Block:
    """Returns the cheapest way to the Gram matrix of some parameters."""
    traffic, count = 4 * sizes.machine.balance, sizes.objectives
    jaxpr = model.closed.jaxpr
    entries = sum(math.prod(aval(jaxpr.invars[leaf]).shape) for leaf in leaves)
    if all(model.taps[i].met is None for i in taps):
        read = sum(math.prod(model.taps[i].shape) for i in taps)
        cost = outputs * (2 * count + traffic) * read + 2 * count * count * entries
        return Block(leaves, taps, "rows", cost, count * entries, None)
    places = [(model.taps[i], jaxpr.eqns[model.taps[i].index or 0]) for i in taps]
    operands = [eqn.invars[1 - tap.operand] for tap, eqn in places]
    moved = sum(math.prod(aval(a).shape) for a in operands)
    moved += sum(math.prod(tap.shape) for tap, _ in places)
    products = matrix_flops(jaxpr.replace(eqns=[eqn for _, eqn in places]))

    def by_rows(examples: int, mixed: int) -> float:
        cost = examples * (products + 2 * traffic * moved) / model.size
        return cost + (2 * count * mixed + 3 * traffic * count) * entries

    ways = {"rows": by_rows(count * model.size, count)}
    if padded:
        ways["segments"] = by_rows(padded, mixed)
    held = {"rows": count * entries, "segments": mixed * entries}
    product = None
    if len(leaves) == len(taps) == 1:
        product = _product(model, leaves[0], taps[0])
    if product is not None:
        tap, (operand,) = model.taps[taps[0]], operands
        inner = math.prod(aval(operand).shape[d] for d in product.inner)
        outer = math.prod(tap.shape[d] for d in product.outer)
        pairs = (math.prod(tap.shape) // outer) ** 2
        ways["ghost"] = 2 * pairs * (inner + outputs**2 * outer)
        ways["ghost"] += traffic * pairs * (1 + 2 * outputs**2)
        held["ghost"] = pairs * (1 + outputs**2)
    way = min(ways, key=ways.__getitem__)
    # A combination reads the operands and the cotangents, and writes one gradient.
    cost = ways[way] + traffic * (moved + entries)
    return Block(
        leaves, taps, way, cost, held[way], product if way == "ghost" else None
    )


def _independent(model: Model) -> list[tuple[list[int], list[int]]]:
    """Groups parameters, by their leaves' indices, and the taps that they reach."""
    origins: dict[Var, frozenset[int]] = {
        var: frozenset((i,))
        for i, var in enumerate(model.closed.jaxpr.invars[: model.num_params])
    }

    def of(atoms: Sequence[Any]) -> frozenset[int]:
        found = [origins.get(a, frozenset()) for a in atoms if isinstance(a, Var)]
        return frozenset().union(*found)

    for eqn in model.closed.jaxpr.eqns:
        if all(kind_of(atom, model.analysis.kinds).axis is None for atom in eqn.invars):
            origins.update(dict.fromkeys(eqn.outvars, of(eqn.invars)))
    groups: list[tuple[frozenset[int], list[int]]] = []
    for i, tap in enumerate(model.taps):
        leaves, taps, apart = of([tap.atom]), [i], []
        for group in groups:
            if group[0].isdisjoint(leaves):
                apart.append(group)
            else:
                leaves, taps = leaves | group[0], [*group[1], *taps]
        groups = [*apart, (leaves, taps)]
    return [(sorted(leaves), taps) for leaves, taps in groups]


def _product(model: Model, leaf: int, tap: int) -> Product | None:
    """Returns a parameter's matrix product with the examples; None if there is none."""
    at = model.taps[tap]
    if at.met is None or at.index is None or not _is_leaf(model, at.atom, leaf):
        return None
    eqn = model.closed.jaxpr.eqns[at.index]
    if eqn.primitive.name != "dot_general":
        return None
    contracted, batched = eqn.params["dimension_numbers"]
    if batched[0]:
        return None
    inner = list(contracted[1 - at.operand])
    free = [d for d in range(aval(eqn.invars[1 - at.operand]).ndim) if d not in inner]
    # The result has the free axes of the left operand, then those of the right.
    rank = aval(eqn.outvars[0]).ndim
    shift = rank - len(free) if at.operand == 0 else 0
    rest = [d for d in free if d != at.met]
    result = [at.axis, *(shift + free.index(d) for d in rest)]
    outer = [d for d in range(rank) if d not in result]
    return Product([at.met, *rest], inner, result, outer)


# Operations that only rearrange the entries of a parameter.
_REARRANGING = ("reshape", "transpose", "squeeze", "rev")


def _is_leaf(model: Model, atom: Any, leaf: int) -> bool:
    """Checks whether a value is a parameter, with its entries rearranged at most."""
    jaxpr = model.closed.jaxpr
    while atom is not jaxpr.invars[leaf]:
        eqn = next((eqn for eqn in jaxpr.eqns if atom in eqn.outvars), None)
        if eqn is None or eqn.primitive.name not in _REARRANGING:
            return False
        atom = eqn.invars[0]
    return True


def value_and_factors(
    objectives: CellObjectives | OutputObjectives,
    fused: Fused,
    params: Params,
    batch: Any,
    running: RunningMeans | None,
) -> tuple[Values, RunningMeans | None, "Factors"]:
    """Computes values, running means, and the Jacobian as factors.

    For :class:`OutputObjectives`, ``batch`` are their arguments after the parameters.
    """
    leaves, structure = jax.tree.flatten(params)
    rows = [jnp.asarray(row) for row in jax.tree.leaves(batch)]
    linear = linearize(fused.waist.trunk, leaves, rows)

    def head(values: Sequence[Array]) -> list[Array]:
        return fused.waist.head(rows, values)

    if isinstance(objectives, CellObjectives):
        values, running, found = _slopes_of_cells(
            objectives, fused, batch, running, linear.outputs, head
        )
    else:
        structure_of = jax.tree.structure(
            jax.eval_shape(objectives.with_aux, params, *batch)[0]
        )

        def values_of(values: Sequence[Array]) -> Values:
            return objectives.values(structure_of.unflatten(head(values)), *batch)

        values, found = _slopes_of_outputs(values_of, linear.outputs)
    slopes = found.slopes
    if slopes.shape[-1] <= len(slopes):
        pulled = [linear.pull(unit)[0] for unit in _units(linear.outputs)]
    else:
        # The objectives' own cotangents, each of slope 1 for its objective.
        pulled = [linear.pull(_like(linear.outputs, row))[0] for row in slopes]
        units = jnp.eye(len(slopes), dtype=slopes.dtype)
        found = found._replace(slopes=jnp.repeat(units[:, None], slopes.shape[1], 1))
    return values, running, Factors(fused, linear, structure, pulled, *found)


class _Slopes(NamedTuple):
    """The fields of :class:`Factors` that depend on the kind of the objectives."""

    finite: Bool[Array, " B"]
    broken: Bool[Array, " K"]
    slopes: Float[Array, "K B R"]
    pass_slopes: Sequence[Float[Array, "B R"]] = ()
    pass_blocks: Sequence[Blocks | None] = ()
    weights: Float[Array, "K S C"] | None = None


def _slopes_of_cells(
    objectives: CellObjectives,
    fused: Fused,
    batch: Batch,
    running: RunningMeans | None,
    values_at_waist: Sequence[Array],
    head: Callable[[Sequence[Array]], list[Array]],
) -> tuple[Values, RunningMeans | None, _Slopes]:
    outputs = head(values_at_waist)
    by_name = dict(zip(objectives.statistics, outputs, strict=True))
    sums = objectives.cell_sums(by_name, batch)
    values, running, weights = values_and_weights(objectives, sums, running)

    # Derivatives of the objectives by each example's statistics, [K, S, B]. NaNs of an
    # example concern the objectives that read it, and no other.
    cells = fused.order if fused.passes else np.arange(objectives.num_cells)
    arranged = arrange(objectives, batch, cells)
    read = weights[:, :, arranged.cells] * arranged.weights
    read = jnp.where(arranged.cells < 0, 0.0, read)
    finite = _all_finite([*values_at_waist, *outputs])
    broken = jnp.any(~jnp.isfinite(read) | ((read != 0) & ~finite), axis=(1, 2))
    weights = jnp.where(broken[:, None, None], 0.0, weights)

    # Derivatives of each statistic by the waist's values, [S, B, R].
    safe = [select(finite, value, 0) for value in values_at_waist]
    outputs, pull = jax.vjp(head, safe)
    through = []
    for s in range(len(outputs)):
        unit = [jnp.zeros_like(output) for output in outputs]
        unit[s] = jnp.ones_like(outputs[s])
        through.append(_side_by_side(pull(unit)[0]))
    by_value = jnp.stack(through)

    def slopes(by_statistic: Float[Array, "... S B"]) -> Float[Array, "... B R"]:
        clean = jnp.where(finite, by_statistic, 0.0)
        return jnp.einsum("...sb,sbr->...br", clean, by_value, precision="highest")

    of_passes, blocks = [], []
    for one, pieces in zip(fused.passes, fused.layout, strict=True):
        of_passes.append(slopes(jnp.stack(cotangents(one, weights, arranged, outputs))))
        blocks.append(blocks_of(one, pieces, arranged))
    read = jnp.where(broken[:, None, None], 0.0, read)
    found = _Slopes(finite, broken, slopes(read), of_passes, blocks, weights)
    return values, running, found


def _slopes_of_outputs(
    values_of: Callable[[Sequence[Array]], Values], values_at_waist: Sequence[Array]
) -> tuple[Values, _Slopes]:
    values, pull = jax.vjp(values_of, values_at_waist)
    slopes = jax.vmap(lambda row: _side_by_side(pull(row)[0]))(
        jnp.eye(len(values), dtype=values.dtype)
    )
    finite = _all_finite(values_at_waist)
    wrong = ~jnp.isfinite(slopes) | ((slopes != 0) & ~finite[:, None])
    broken = jnp.any(wrong, axis=(1, 2))
    clean = finite[:, None] & ~broken[:, None, None]
    return values, _Slopes(finite, broken, jnp.where(clean, slopes, 0.0))


def _side_by_side(values: Sequence[Array]) -> Float[Array, "B R"]:
    """Returns the waist's values in one array."""
    return jnp.concatenate([value.reshape(len(value), -1) for value in values], axis=1)


def _like(values: Sequence[Array], row: Float[Array, "B R"]) -> list[Array]:
    """Returns what :func:`_side_by_side` puts into one array, in the values' types."""
    edges = np.cumsum([math.prod(value.shape[1:]) for value in values])[:-1]
    parts = jnp.split(row, edges, axis=1)
    return [
        part.reshape(value.shape).astype(value.dtype)
        for part, value in zip(parts, values, strict=True)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Factors(FactoredRows):
    """Gradients ``[K, *param]`` of objectives, held as factors of each weight.

    Attributes:
      fused: The plan.
      linear: The model up to the waist, at the parameters and the batch.
      structure: The structure of the parameters.
      pulled: The cotangents of the taps for a unit of each value of the waist; or for
        each objective, if these are fewer.
      finite: ``[B]``, the examples whose outputs are finite.
      broken: ``[K]``, the objectives that read another example.
      slopes: ``[K, B, R]``, the objectives' factors of the cotangents: derivatives by
        the waist's values.
      pass_slopes: ``[B, R]`` for each pass of segments.
      pass_blocks: The segments of each pass.
      weights: ``[K, S, C]``, derivatives of the objectives by cell sums.
    """

    fused: Fused
    linear: Linearized
    structure: Any
    pulled: Sequence[Sequence[Array]]
    finite: Bool[Array, " B"]
    broken: Bool[Array, " K"]
    slopes: Float[Array, "K B R"]
    pass_slopes: Sequence[Float[Array, "B R"]]
    pass_blocks: Sequence[Blocks | None]
    weights: Float[Array, "K S C"] | None

    @property
    def num_objectives(self) -> int:
        """The number of objectives, K."""
        return len(self.slopes)

    def gramian(self) -> Gramian:
        """Computes inner products of the gradients, ``[K, K]``."""
        pairs: dict[tuple[int, int], Array] = {}
        parts = []
        for block in self.fused.blocks:
            if block.product is None:
                parts.append(gramian(self._rows(block)))
                continue
            for key, part in self._pairs(block.taps[0], block.product).items():
                pairs[key] = pairs[key] + part if key in pairs else part
        for (r, q), pair in pairs.items():
            pair = jnp.where(self.finite[:, None] & self.finite, pair, 0)
            part = jnp.einsum(
                "kb,bc,lc->kl",
                self.slopes[:, :, r],
                pair,
                self.slopes[:, :, q],
                precision="highest",
            )
            parts.append(part if r == q else part + part.T)
        total = functools.reduce(operator.add, parts)
        return jnp.where(self.broken[:, None] | self.broken, jnp.nan, total)

    def combine(self, weights: Float[Array, " K"]) -> Params:
        """Computes a weighted sum of the gradients, ``[*param]``."""
        weights = jnp.where(self.broken & (weights != 0), jnp.nan, weights)
        # An objective of weight 0 is left out.
        slopes = jnp.where(weights[:, None, None] != 0, self.slopes, 0)
        slopes = jnp.einsum("k,kbr->br", weights, slopes, precision="highest")
        sums = [self._sum(i, slopes) for i in range(len(self.linear.model.taps))]
        return self.structure.unflatten(self.linear.pull_params(sums))

    def _rows(self, block: Block) -> list[Array]:
        """Computes the rows ``[K, *param]`` of a block's parameters."""
        pull = jax.vmap(self.linear.pull_of(block.leaves, block.taps))
        if block.way == "rows":
            return pull([self._sums(i) for i in block.taps])
        assert self.weights is not None
        parts = []
        for slopes, blocks in zip(self.pass_slopes, self.pass_blocks, strict=True):
            if blocks is None:
                sums = [self._sum(i, slopes)[None] for i in block.taps]
            else:
                contractions = [self._contraction(i, slopes) for i in block.taps]
                sums = segment_gradients(contractions, blocks)
            parts.append(pull(sums))
        return [
            mix_parts(self.fused.passes, self.weights, leaf)
            for leaf in zip(*parts, strict=True)
        ]

    def _sums(self, tap: int) -> Float[Array, "K ..."]:
        """Computes the gradients of a tap's value for all objectives."""
        one = functools.partial(self._sum, tap)
        if self.linear.model.taps[tap].met is not None:
            found = self._contraction(tap, self.slopes[0])
            return map_gradients(one, self.slopes, found, _ROWS_AT_ONCE)
        if len(self.slopes) <= _ROWS_AT_ONCE:
            return jax.vmap(one)(self.slopes)
        return jax.lax.map(one, self.slopes, batch_size=_ROWS_AT_ONCE)

    def _sum(self, tap: int, slopes: Float[Array, "B R"]) -> Array:
        """Computes the gradient of a tap's value for cotangents of the waist."""
        if self.linear.model.taps[tap].met is not None:
            contraction = self._contraction(tap, slopes)
            return contraction.apply(contraction.operands, contraction.cotangent)
        # A sum over the examples is a product with their slopes.
        axis, sums = self.linear.model.taps[tap].axis, []
        for r, pulled in enumerate(self.pulled):
            clean = select(self.finite, pulled[tap], axis)
            apply = self.linear.contraction(tap, clean).apply
            sums.append(apply((slopes[:, r].astype(clean.dtype),), clean))
        return functools.reduce(operator.add, sums)

    def _contraction(self, tap: int, slopes: Float[Array, "B R"]) -> Contraction:
        """Returns a tap's contraction for cotangents of the waist."""
        axis = self.linear.model.taps[tap].axis
        parts = [
            along(slopes[:, r].astype(pulled[tap].dtype), axis, pulled[tap])
            * pulled[tap]
            for r, pulled in enumerate(self.pulled)
        ]
        total = select(self.finite, functools.reduce(operator.add, parts), axis)
        found = self.linear.contraction(tap, total)
        operands = [
            select(self.finite, value, axis)
            for value, axis in zip(found.operands, found.axes, strict=True)
        ]
        return found._replace(operands=operands)

    def _pairs(
        self, tap: int, product: Product
    ) -> dict[tuple[int, int], Float[Array, "B B"]]:
        """Computes inner products of examples' gradients, for each pair of outputs.

        With operands ``a [B, T, I]`` and cotangents ``δ [B, T, O]`` they are
        ``Σ_t Σ_u (a_bt · a_cu)(δ_bt · δ_cu)``.
        """
        size = len(self.finite)
        operand = self.linear.met[tap].transpose(*product.shared, *product.inner)
        times = math.prod(operand.shape[: len(product.shared)]) // size
        met = _products(*[operand.reshape(size * times, -1)] * 2)
        flat = [
            pulled[tap]
            .transpose(*product.result, *product.outer)
            .reshape(size * times, -1)
            for pulled in self.pulled
        ]
        found = {}
        for r, left in enumerate(flat):
            for q, right in enumerate(flat[: r + 1]):
                pairs = met * _products(left, right)
                if times > 1:
                    pairs = pairs.reshape(size, times, size, times).sum(axis=(1, 3))
                found[r, q] = pairs
        return found


def _units(outputs: Sequence[Array]) -> list[list[Array]]:
    """Returns a cotangent of ones for each output of the examples."""
    units = []
    for i, output in enumerate(outputs):
        for place in np.ndindex(output.shape[1:]):
            unit = [jnp.zeros_like(other) for other in outputs]
            unit[i] = unit[i].at[:, *place].set(1)
            units.append(unit)
    return units


def _products(left: Float[Array, "n d"], right: Float[Array, "m d"]) -> Array:
    return jax.lax.dot_general(
        left,
        right,
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(left.dtype, jnp.float32),
    )


def _all_finite(values: Sequence[Array]) -> Bool[Array, " B"]:
    """Checks which examples' values are all finite."""
    finite = [
        jnp.all(jnp.isfinite(value.reshape(len(value), -1)), axis=1) for value in values
    ]
    return jnp.all(jnp.stack(finite), axis=0)
