"""Reverse-mode differentiation that stops where a parameter meets the examples.

A tap is a zero array that is added where a value that depends on parameters alone meets
a value with examples. It is added to the result of a product with a weight, or to a
parameter that has been repeated for each example. One reverse pass then gives the
cotangent of every tap, with one row for each example. From these rows the parameter's
gradient can be summed over any segment of the examples. Operations on parameters before
they meet examples (casts, weight normalisation) are pulled back segment by segment.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array

from fairjax.jacobian._jaxprs import aval, evaluate, read
from fairjax.jacobian._segments import Blocks, Contraction, segment_gradients
from fairjax.jacobian._separability import Analysis, is_uniform, kind_of
from fairjax.jacobian._separable_ops import CoupledError
from fairjax.types import vary


class Tap(NamedTuple):
    """Where a parameter-only value meets the examples.

    Attributes:
      atom: The parameter-only value.
      index: The equation; None for an output of the jaxpr.
      operand: Which operand of the equation.
      axis: The examples' axis in the tap.
      met: The examples' axis in the other operand, if each example is contracted with
        the value; None if the value is repeated for each example.
      shape: The tap's shape.
      dtype: The tap's type, which is the type of the value that it is added to.
      varying: Mesh axes that the tap varies over, within ``shard_map``.
    """

    atom: Var | Literal
    index: int | None
    operand: int
    axis: int
    met: int | None
    shape: tuple[int, ...]
    dtype: Any
    varying: tuple[str, ...]


class Model(NamedTuple):
    """A model whose examples are proven to be separate.

    Attributes:
      closed: Its flat jaxpr; inputs are the leaves of the parameters, then the batch's.
      analysis: What each value depends on.
      taps: Where parameters meet examples.
      num_params: The number of parameter leaves, each layer of a scan counted.
      size: The number of examples.
      depths: Index of a parameter leaf that a scan reads -> the number of its layers,
        which are inputs of the jaxpr instead of the leaf.
    """

    closed: ClosedJaxpr
    analysis: Analysis
    taps: tuple[Tap, ...]
    num_params: int
    size: int
    depths: Mapping[int, int]

    def split(self, leaves: Sequence[Array]) -> list[Array]:
        """Returns the jaxpr's inputs of the parameters' leaves."""
        parts: list[Array] = []
        for i, leaf in enumerate(leaves):
            layers = range(self.depths.get(i, 0))
            parts += [jax.lax.index_in_dim(leaf, j, keepdims=False) for j in layers]
            parts += [] if layers else [leaf]
        return parts

    def join(self, parts: Sequence[Array]) -> list[Array]:
        """Returns the parameters' leaves of the jaxpr's inputs."""
        rest = iter(parts)
        leaves = self.num_params - sum(d - 1 for d in self.depths.values())
        return [
            jnp.stack([next(rest) for _ in range(self.depths[i])])
            if i in self.depths
            else next(rest)
            for i in range(leaves)
        ]


class Linearized(NamedTuple):
    """A model at given parameters and batch; returned by :func:`linearize`.

    Attributes:
      model: The model.
      params: The leaves of the parameters.
      outputs: The model's outputs, ``[B]`` each.
      pull: Cotangents of the outputs -> cotangents of the taps.
      met: The operand that each weight is contracted with; None for a repeated value.
      values: The parameter-only value of each tap.
      pull_params: Cotangents of these values -> cotangents of the parameters.
      pull_of: Indices of the jaxpr's inputs and of taps -> the function from cotangents
        of the taps' values to cotangents of the inputs.
    """

    model: Model
    params: Sequence[Array]
    outputs: Sequence[Array]
    pull: Callable[..., Any]
    met: Sequence[Any]
    values: Sequence[Array]
    pull_params: Callable[..., Any]
    pull_of: Callable[..., Any]

    def gradients(
        self, cotangents: Sequence[Array], blocks: Blocks | None
    ) -> Sequence[Array]:
        """Computes gradients of the parameters' leaves, ``[segments, *param]``.

        Args:
          cotangents: Cotangents of the outputs, ``[B]`` each.
          blocks: The segments; None for one segment of all examples.
        """
        (tapped,) = self.pull(list(cotangents))
        contractions = [
            self.contraction(i, cotangent) for i, cotangent in enumerate(tapped)
        ]
        if not contractions:
            number = 1 if blocks is None else blocks.num_segments
            return [
                jnp.zeros((number, *leaf.shape), leaf.dtype) for leaf in self.params
            ]
        if blocks is None:
            sums = [c.apply(c.operands, c.cotangent)[None] for c in contractions]
        else:
            sums = segment_gradients(contractions, blocks)
        return jax.vmap(self.pull_params)(sums)

    def contraction(self, i: int, cotangent: Array) -> Contraction:
        """Returns the gradient of a tap's value as a function of the examples."""
        tap, value = self.model.taps[i], self.values[i]
        if tap.met is None or tap.index is None:
            # A sum as a product with ones, which a CPU computes many times faster
            # than a sum along an axis that is not the last.
            ones = jnp.ones(cotangent.shape[tap.axis], cotangent.dtype)
            apply = _sum_to(value, tap.axis)
            return Contraction(apply, (ones,), (0,), cotangent, tap.axis)
        eqn = self.model.closed.jaxpr.eqns[tap.index]
        axes = (tap.met,)
        apply = _pull_to(value, tap.operand, eqn)
        convolved = "conv" in eqn.primitive.name
        return Contraction(apply, (self.met[i],), axes, cotangent, tap.axis, convolved)


def find_taps(jaxpr: Jaxpr, analysis: Analysis, size: int) -> tuple[Tap, ...]:
    """Finds all points of a jaxpr where parameter-only values meet examples."""
    taps = []
    for index, verdict in analysis.verdicts.items():
        eqn = jaxpr.eqns[index]
        result = aval(eqn.outvars[0])
        varying = tuple(result.manual_axis_type.varying)
        for i, atom in enumerate(eqn.invars):
            if not kind_of(atom, analysis.kinds).params:
                continue
            axis = verdict.axes[0]
            if i == verdict.contracted and axis is not None:
                met = kind_of(eqn.invars[1 - i], analysis.kinds).axis
                form = (result.shape, result.dtype)
                taps.append(Tap(atom, index, i, axis, met, *form, varying))
            elif i in verdict.aligned:
                axis = verdict.aligned[i]
                shape = list(aval(atom).shape) or list(result.shape)
                shape[axis] = size
                form = (tuple(shape), aval(atom).dtype)
                taps.append(Tap(atom, index, i, axis, None, *form, varying))
    for i, atom in enumerate(jaxpr.outvars):
        kind = kind_of(atom, analysis.kinds)
        if kind.params:
            if not is_uniform(atom, kind, 0):
                raise CoupledError("a statistic has a parameter for each example")
            form = (aval(atom).shape, aval(atom).dtype)
            varying = tuple(aval(atom).manual_axis_type.varying)
            taps.append(Tap(atom, None, i, 0, None, *form, varying))
    return tuple(taps)


def linearize(
    model: Model,
    params: Sequence[Array],
    batch: Sequence[Any],
) -> Linearized:
    """Evaluates a model, and prepares to pull cotangents back.

    Args:
      model: The model.
      params: The leaves of the parameters.
      batch: The leaves of the batch.
    """
    jaxpr, kinds = model.closed.jaxpr, model.analysis.kinds
    given = dict(zip(jaxpr.constvars, model.closed.consts, strict=True))
    given.update(zip(jaxpr.invars[model.num_params :], batch, strict=True))

    def evaluated(leaves):
        env = given | dict(zip(jaxpr.invars[: model.num_params], leaves, strict=True))
        for eqn in jaxpr.eqns:
            if all(kind_of(atom, kinds).axis is None for atom in eqn.invars):
                results = evaluate(eqn, [read(env, atom) for atom in eqn.invars])
                env.update(zip(eqn.outvars, results, strict=True))
        return env

    def parameter_values(leaves):
        env = evaluated(leaves)
        return [_narrow(tap, env, jaxpr) for tap in model.taps]

    inputs = model.split(params)
    values, pull_inputs = jax.vjp(parameter_values, inputs)
    constants = evaluated(inputs)

    def pull_params(cotangents):
        return model.join(pull_inputs(cotangents)[0])

    def pull_of(leaves, taps):
        def chosen_values(chosen):
            whole = list(inputs)
            for leaf, value in zip(leaves, chosen, strict=True):
                whole[leaf] = value
            found = parameter_values(whole)
            return [found[i] for i in taps]

        pull = jax.vjp(chosen_values, [inputs[leaf] for leaf in leaves])[1]
        return lambda cotangents: pull(cotangents)[0]

    def forward(taps):
        return _forward(model, constants, values, taps)

    zeros = [vary(jnp.zeros(t.shape, t.dtype), t.varying) for t in model.taps]
    outputs, pull, met = jax.vjp(forward, zeros, has_aux=True)
    return Linearized(model, params, outputs, pull, met, values, pull_params, pull_of)


def _forward(
    model: Model,
    constants: Mapping[Var, Any],
    values: Sequence[Array],
    taps: Sequence[Array],
) -> tuple[list[Array], list[Any]]:
    jaxpr = model.closed.jaxpr
    env: dict[Var, Any] = dict(constants)
    met: list[Any] = [None] * len(taps)
    at: dict[tuple[int | None, int | None], int] = {
        (tap.index, tap.operand): i for i, tap in enumerate(model.taps)
    }

    def operand(atom, place):
        i = at.get(place)
        if i is None:
            return read(env, atom)
        if model.taps[i].met is not None:
            return values[i]
        return jnp.broadcast_to(values[i], model.taps[i].shape) + taps[i]

    for index, verdict in model.analysis.verdicts.items():
        eqn = jaxpr.eqns[index]
        operands = [operand(a, (index, i)) for i, a in enumerate(eqn.invars)]
        results = evaluate(eqn, operands)
        tapped = at.get((index, verdict.contracted))
        if tapped is not None:
            results = [results[0] + taps[tapped]]
            met[tapped] = operands[1 - model.taps[tapped].operand]
        env.update(zip(eqn.outvars, results, strict=True))
    outputs = [operand(a, (None, i)) for i, a in enumerate(jaxpr.outvars)]
    return outputs, met


def _narrow(tap: Tap, env: Mapping[Var, Any], jaxpr: Jaxpr) -> Array:
    """Returns the parameter-only value without repeating it for each example."""
    value = read(env, tap.atom)
    if tap.met is not None or value.ndim == 0 or value.shape[tap.axis] == 1:
        return value
    producer = _producer(jaxpr, tap.atom)
    if producer is not None and producer.primitive.name == "broadcast_in_dim":
        place = producer.params["broadcast_dimensions"]
        source = read(env, producer.invars[0])
        shape = list(value.shape)
        shape[tap.axis] = 1
        if tap.axis not in place or source.shape[list(place).index(tap.axis)] == 1:
            return jax.lax.broadcast_in_dim(source, shape, place)
    return jax.lax.slice_in_dim(value, 0, 1, axis=tap.axis)


def _producer(jaxpr: Jaxpr, atom: Any) -> JaxprEqn | None:
    return next((eqn for eqn in jaxpr.eqns if atom in eqn.outvars), None)


def _pull_to(
    value: Array, operand: int, eqn: JaxprEqn
) -> Callable[[Sequence[Array], Array], Array]:
    """Returns a function that pulls a product's cotangent back to a weight."""

    def apply(operands: Sequence[Array], cotangent: Array) -> Array:
        def result(weight):
            pair = (weight, *operands) if operand == 0 else (*operands, weight)
            return eqn.primitive.bind(*pair, **eqn.params)

        return jax.vjp(result, value)[1](cotangent)[0]

    return apply


def _sum_to(value: Array, axis: int) -> Callable[[Sequence[Array], Array], Array]:
    """Returns a function that sums a cotangent over the examples' axis of a value."""

    def apply(operands: Sequence[Array], cotangent: Array) -> Array:
        (ones,) = operands
        total = jax.lax.dot_general(
            ones,
            cotangent,
            (((0,), (axis,)), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.promote_types(cotangent.dtype, jnp.float32),
        )
        total = jnp.sum(total) if value.ndim == 0 else jnp.expand_dims(total, axis)
        return total.astype(value.dtype)

    return apply
