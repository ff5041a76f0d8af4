r"""The Gram matrix and combinations of objectives' gradients, without the gradients.

Objectives are functions of a model's outputs ``z`` for each example, so the gradient of
objective ``k`` is ``Σ_b Σ_r A[k, b, r] ∂z[b, r]/∂θ`` with ``A = ∂L/∂z``. A backward pass
for each output ``r`` gives, at each weight, the operand ``a_b`` and the cotangent
``δ_b`` of every example. Both are as large as activations. A weight's part of the Gram
matrix is ``A N Aᵀ`` with ``N[b, c] = (a_b · a_c)(δ_b · δ_c)``, or the Gram matrix of
the weight's rows, which are stored for one weight at a time. A combination of the
gradients is one contraction with the cotangents ``Σ_k w_k A[k]``.
"""

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array, Bool, Float

from fairjax.jacobian._cells import (
    Prepared,
    are_rows,
    arrange,
    blocks_of,
    cotangents,
    mix_parts,
    values_and_weights,
    windows,
)
from fairjax.jacobian._jaxprs import aval, evaluate, read
from fairjax.jacobian._passes import Pass, cell_order
from fairjax.jacobian._segments import Blocks, segment_gradients
from fairjax.jacobian._separability import kind_of
from fairjax.jacobian._separable_ops import CoupledError
from fairjax.jacobian._taps import Linearized, Model, linearize
from fairjax.objectives import CellObjectives, RunningMeans, example_weights
from fairjax.reconcilers.gram import gramian
from fairjax.types import Batch, Gramian, Params, Values

# More outputs for each example would need as many backward passes.
_MOST_OUTPUTS = 16


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

    def head(batch: Sequence[Array], waist: Sequence[Array]) -> list[Array]:
        env: dict[Var, Any] = dict(
            zip(jaxpr.constvars, model.closed.consts, strict=True)
        )
        env.update(zip(jaxpr.invars[model.num_params :], batch, strict=True))
        env.update(zip(values, waist, strict=True))
        for index, eqn in enumerate(jaxpr.eqns):
            # Values of the batch alone are computed again, which costs next to nothing.
            known = all(not isinstance(a, Var) or a in env for a in eqn.invars)
            past = index > cut or not any(v in active for v in eqn.outvars)
            if known and past:
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


class Stream(NamedTuple):
    """A way to the rows of one weight at a time: segments of examples, then mixed.

    Attributes:
      slopes: ``[B, R]`` for each pass, the cotangents of the waist.
      blocks: The segments of each pass.
      padded: Examples that all passes contract, with those of padding.
      mix: Function from the passes' gradients of a leaf to its rows ``[K, *param]``.
      mixed: Gradients that enter each row; 0 where gradients are rows already.
    """

    slopes: Sequence[Float[Array, "B R"]]
    blocks: Sequence[Blocks | None]
    padded: int
    mix: Callable[[Sequence[Array]], Array]
    mixed: int


class Factors:
    """Gradients ``[K, *param]`` of objectives, held as factors of each weight.

    Attributes:
      num_objectives: K.
    """

    def __init__(
        self,
        linear: Linearized,
        structure: Any,
        slopes: Float[Array, "K B R"],
        broken: Bool[Array, " K"],
        stream: Stream,
    ) -> None:
        """Pulls back each output of the waist.

        Args:
          linear: The trunk at the parameters and the batch.
          structure: The structure of the parameters.
          slopes: The objectives' derivatives by the waist's values; finite.
          broken: Which objectives read an example that is not finite.
          stream: The way to the rows of a weight.
        """
        self.num_objectives = len(slopes)
        self._stream = stream
        self._slopes, self._broken = slopes, broken
        self._structure = structure
        finite = _all_finite(linear.outputs)
        pulled = [linear.pull(unit)[0] for unit in _units(linear.outputs)]
        # An objective must not see NaNs of examples that it does not read.
        self._pulled = [
            [_select(finite, value, tap.axis) for value in values]
            for tap, values in zip(linear.model.taps, zip(*pulled, strict=True))
        ]
        met = [
            None if tap.met is None else _select(finite, value, tap.met)
            for tap, value in zip(linear.model.taps, linear.met, strict=True)
        ]
        self._linear = linear._replace(met=met)

    def gramian(self) -> Gramian:
        """Computes inner products of the gradients, ``[K, K]``."""
        parts = [self._part(*block) for block in _blocks(self._linear.model)]
        total = sum(parts[1:], parts[0])
        return jnp.where(self._broken[:, None] | self._broken, jnp.nan, total)

    def combine(self, weights: Float[Array, " K"]) -> Params:
        """Computes a weighted sum of the gradients, ``[*param]``."""
        used = self._broken & (weights != 0)
        weights = jnp.where(used, jnp.nan, weights).astype(self._slopes.dtype)
        # An objective of weight 0 is left out.
        slopes = jnp.where(weights[:, None, None] != 0, self._slopes, 0)
        slopes = jnp.einsum("k,kbr->br", weights, slopes, precision="highest")
        sums = [self._sum(i, slopes) for i in range(len(self._pulled))]
        return self._structure.unflatten(self._linear.pull_params(sums)[0])

    def _part(self, leaves: Sequence[int], taps: Sequence[int]) -> Gramian:
        """Computes the inner products of the gradients of some parameters."""
        if len(taps) == 1 and len(leaves) == 1:
            factors = self._factors(leaves[0], taps[0])
            if factors is not None:
                return self._ghost(*factors)
        pull, rows = self._linear.pull_of(leaves, taps), []
        if self._repeated(taps):
            sums = [
                jax.vmap(functools.partial(self._sum, i))(self._slopes) for i in taps
            ]
            return gramian(jax.vmap(pull)(sums))
        for slopes, blocks in zip(
            self._stream.slopes, self._stream.blocks, strict=True
        ):
            if blocks is None:
                sums = [self._sum(i, slopes)[None] for i in taps]
            else:
                contractions = [
                    self._linear.contraction(i, self._cotangent(i, slopes))
                    for i in taps
                ]
                sums = segment_gradients(contractions, blocks)
            rows.append(jax.vmap(pull)(sums))
        return gramian([self._stream.mix(leaf) for leaf in zip(*rows, strict=True)])

    def _repeated(self, taps: Sequence[int]) -> bool:
        """Checks whether all taps are of values that are repeated for each example."""
        return all(self._linear.model.taps[i].met is None for i in taps)

    def _sum(self, tap: int, slopes: Float[Array, "B R"]) -> Array:
        """Computes the gradient of a tap's value for cotangents of the waist."""
        at = self._linear.model.taps[tap]
        contraction = self._linear.contraction(tap, self._pulled[tap][0])
        if at.met is None:
            # A sum over the examples is a product with their weights.
            sums = [
                contraction.apply((slopes[:, r].astype(pulled.dtype),), pulled)
                for r, pulled in enumerate(self._pulled[tap])
            ]
            return functools.reduce(operator.add, sums)
        total = self._cotangent(tap, slopes)
        return contraction.apply(contraction.operands, total)

    def _cotangent(self, tap: int, slopes: Float[Array, "B R"]) -> Array:
        """Computes the cotangent of a tap for cotangents of the waist."""
        axis = self._linear.model.taps[tap].axis
        parts = [
            _along(slopes[:, r].astype(pulled.dtype), axis, pulled) * pulled
            for r, pulled in enumerate(self._pulled[tap])
        ]
        return functools.reduce(operator.add, parts)

    def _factors(self, leaf: int, tap: int) -> tuple[Array, Array] | None:
        """Returns operands ``[B, T, I]`` and cotangents ``[R, B, T, O]`` of a weight.

        Returns None where the weight is not a parameter itself, where it does not enter
        a matrix product, or where rows of the parameter cost less.
        """
        model = self._linear.model
        at = model.taps[tap]
        if at.met is None or at.index is None:
            return None
        eqn = model.closed.jaxpr.eqns[at.index]
        if eqn.primitive.name != "dot_general" or not _is_leaf(model, at.atom, leaf):
            return None
        contracted, batched = eqn.params["dimension_numbers"]
        if batched[0]:
            return None
        operand, met = self._linear.met[tap], at.met
        inner = contracted[1 - at.operand]
        free = [d for d in range(operand.ndim) if d not in inner]
        rest = [d for d in free if d != met]
        operands = operand.transpose(met, *rest, *inner)
        # The result has the free axes of the left operand, then those of the right.
        width = aval(eqn.outvars[0]).ndim - len(free)
        first = width if at.operand == 0 else 0
        others = [first + free.index(d) for d in rest]
        outer = [
            d for d in range(width + len(free)) if d < first or d >= first + len(free)
        ]
        if at.operand == 0:
            outer = list(range(width))
        else:
            outer = list(range(len(free), len(free) + width))
        size, times = model.size, math.prod(operand.shape[d] for d in rest)
        operands = operands.reshape(size, times, -1)
        cotangents = jnp.stack(
            [
                value.transpose(at.axis, *others, *outer).reshape(size, times, -1)
                for value in self._pulled[tap]
            ]
        )
        objectives, outputs = self.num_objectives, len(cotangents)
        entries = operands.shape[-1] * cotangents.shape[-1]
        pairs = (size * times) ** 2
        ghost = pairs * (operands.shape[-1] + outputs**2 * cotangents.shape[-1])
        mixed = objectives * (objectives + self._stream.mixed)
        rows = (self._stream.padded * times + mixed) * entries
        return (operands, cotangents) if ghost < rows else None

    def _ghost(
        self, operands: Float[Array, "B T I"], cotangents: Float[Array, "R B T O"]
    ) -> Gramian:
        """Computes a weight's inner products from those of its factors."""
        wide = jnp.promote_types(operands.dtype, jnp.float32)
        options = {"precision": "highest", "preferred_element_type": wide}
        met = jnp.einsum("bti,cui->btcu", operands, operands, **options)
        total = jnp.zeros((self.num_objectives,) * 2, wide)
        for r, left in enumerate(cotangents):
            for q, right in enumerate(cotangents[: r + 1]):
                both = jnp.einsum("bto,cuo->btcu", left, right, **options)
                pairs = jnp.sum(met * both, axis=(1, 3))
                part = self._slopes[:, :, r] @ pairs @ self._slopes[:, :, q].T
                total += part if q == r else part + part.T
        return total


def _units(outputs: Sequence[Array]) -> list[list[Array]]:
    """Returns a cotangent of ones for each output of the examples."""
    units = []
    for i, output in enumerate(outputs):
        for place in range(math.prod(output.shape[1:])):
            one = jnp.zeros(output.shape[1:], output.dtype).reshape(-1)
            one = one.at[place].set(1).reshape(output.shape[1:])
            unit = [jnp.zeros_like(other) for other in outputs]
            unit[i] = jnp.broadcast_to(one, output.shape)
            units.append(unit)
    return units


def _blocks(model: Model) -> list[tuple[list[int], list[int]]]:
    """Groups parameters, by their leaves' indices, and the taps that they reach.

    Gradients of different blocks are independent of each other's taps.
    """
    origins: dict[Var, frozenset[int]] = {
        var: frozenset((i,))
        for i, var in enumerate(model.closed.jaxpr.invars[: model.num_params])
    }
    for eqn in model.closed.jaxpr.eqns:
        if all(kind_of(atom, model.analysis.kinds).axis is None for atom in eqn.invars):
            found = _origins(eqn.invars, origins)
            origins.update(dict.fromkeys(eqn.outvars, found))
    blocks: list[tuple[set[int], list[int]]] = []
    for i, tap in enumerate(model.taps):
        leaves, taps = set(_origins([tap.atom], origins)), [i]
        apart = []
        for block in blocks:
            if block[0].isdisjoint(leaves):
                apart.append(block)
            else:
                leaves, taps = leaves | block[0], [*block[1], *taps]
        blocks = [*apart, (leaves, taps)]
    return [(sorted(leaves), taps) for leaves, taps in blocks]


def _origins(
    atoms: Sequence[Any], origins: Mapping[Var, frozenset[int]]
) -> frozenset[int]:
    found = [origins.get(a, frozenset()) for a in atoms if isinstance(a, Var)]
    return frozenset().union(*found)


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


def _all_finite(values: Sequence[Array]) -> Bool[Array, " B"]:
    finite = [
        jnp.all(jnp.isfinite(value.reshape(len(value), -1)), axis=1) for value in values
    ]
    return jnp.all(jnp.stack(finite), axis=0)


def _along(values: Float[Array, " B"], axis: int, like: Array) -> Array:
    return values.reshape([-1 if d == axis else 1 for d in range(like.ndim)])


def _select(finite: Bool[Array, " B"], value: Array, axis: int) -> Array:
    return jnp.where(_along(finite, axis, value), value, 0)


def value_and_factors(
    objectives: CellObjectives,
    prepared: Prepared,
    waist: Waist,
    passes: Sequence[Pass],
    params: Params,
    batch: Batch,
    running: RunningMeans | None,
) -> tuple[Values, RunningMeans | None, Factors]:
    """Computes values, running means and the factored Jacobian of cell objectives."""
    leaves, structure = jax.tree.flatten(params)
    rows = [jnp.asarray(row) for row in jax.tree.leaves(batch)]
    linear = linearize(waist.trunk, leaves, rows)
    outputs = waist.head(rows, linear.outputs)
    by_name = dict(zip(objectives.statistics, outputs, strict=True))
    sums = objectives.cell_sums(by_name, batch)
    values, running, weights = values_and_weights(objectives, sums, running)

    # Derivatives of the objectives by the statistics of each example, [K, S, B].
    cells = jnp.asarray(batch["cells"])
    inside = (cells >= 0) & (cells < objectives.num_cells)
    mass = jnp.where(inside, example_weights(batch), 0.0)
    read = jnp.where(mass != 0, weights[:, :, jnp.where(inside, cells, 0)] * mass, 0.0)
    finite = _all_finite([*linear.outputs, *outputs])
    broken = jnp.any(~jnp.isfinite(read) | ((read != 0) & ~finite), axis=(1, 2))
    read = jnp.where(broken[:, None, None] | ~finite, 0.0, read)

    # Derivatives of each statistic by the waist's values, [S, B, R].
    waisted = [_select(finite, value, 0) for value in linear.outputs]
    outputs, pull = jax.vjp(lambda values: waist.head(rows, values), waisted)
    through = []
    for s in range(len(outputs)):
        unit = [jnp.zeros_like(output) for output in outputs]
        unit[s] = jnp.ones_like(outputs[s])
        pulled = [value.reshape(len(value), -1) for value in pull(unit)[0]]
        through.append(jnp.concatenate(pulled, axis=1))
    chain = functools.partial(
        jnp.einsum, "...sb,sbr->...br", precision="highest", optimize=False
    )
    slopes = chain(read, jnp.stack(through))

    order = cell_order(passes)
    arranged = arrange(objectives, batch, order)
    layout = [windows(one, order, objectives.cell_shares, len(cells)) for one in passes]
    weights = jnp.where(broken[:, None, None], 0.0, weights)
    stream = Stream(
        slopes=[
            chain(
                jnp.where(
                    finite, jnp.stack(cotangents(one, weights, arranged, outputs)), 0
                ),
                jnp.stack(through),
            )
            for one in passes
        ],
        blocks=[
            blocks_of(one, pieces, arranged)
            for one, pieces in zip(passes, layout, strict=True)
        ],
        padded=sum(sum(length for *_, length in p) or len(cells) for p in layout),
        mix=lambda parts: mix_parts(passes, weights, parts),
        mixed=0
        if are_rows(passes, len(weights))
        else sum(len(p.segments) for p in passes),
    )
    return values, running, Factors(linear, structure, slopes, broken, stream)
