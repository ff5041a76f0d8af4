"""A proof that a model treats the examples of a batch one by one, from its jaxpr.

Every value is followed through the jaxpr: whether it depends on the batch, and if so,
which of its axes runs over the examples. Where a rule is missing, a separable model is
called coupled; a coupled model is never called separable.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from fairjax.jacobian._jaxprs import (
    CALLS,
    CUSTOM_DERIVATIVES,
    aval,
    evaluate,
    inner_jaxpr,
    inner_jaxprs,
    scan_parts,
    trace_flat,
)
from fairjax.jacobian._linearity import is_linear
from fairjax.jacobian._separable_ops import (
    ELEMENTWISE,
    OPERATIONS,
    CoupledError,
    Equation,
    Kind,
    Nested,
    Rule,
    Verdict,
)


class Analysis(NamedTuple):
    """Kinds of all values of a jaxpr, and verdicts of the equations with examples.

    Attributes:
      kinds: variable -> its kind.
      verdicts: index of an equation -> its verdict.
      positional: Whether an example's result depends on its position in the batch, as
        with random bits drawn for a whole batch.
    """

    kinds: Mapping[Var, Kind]
    verdicts: Mapping[int, Verdict]
    positional: bool

    @property
    def opaque(self) -> bool:
        """Whether parameters and examples meet within a nested jaxpr."""
        return any(verdict.opaque for verdict in self.verdicts.values())


def analyse(jaxpr: Jaxpr, in_kinds: Sequence[Kind], size: int) -> Analysis:
    """Follows ``size`` examples through a jaxpr, given the kinds of its inputs.

    Raises:
      CoupledError: If the examples are not proven to be separate.
    """

    def follow(closed: ClosedJaxpr, kinds: Sequence[Kind]) -> Nested:
        # Inside a loop, shapes lack an axis, so what is known of the axes is dropped.
        inside = [Kind(kind.axis, kind.params) for kind in kinds]
        found = analyse(closed.jaxpr, inside, size)
        axes = [kind_of(atom, found.kinds).axis for atom in closed.jaxpr.outvars]
        return Nested(axes, found.positional)

    kinds = dict.fromkeys(jaxpr.constvars, Kind())
    kinds.update(zip(jaxpr.invars, in_kinds, strict=True))
    verdicts, positional = {}, False
    for index, eqn in enumerate(jaxpr.eqns):
        operands = [kind_of(atom, kinds) for atom in eqn.invars]
        if all(kind.axis is None for kind in operands):
            found = _without_examples(eqn, operands)
        else:
            verdict = _verdict(Equation(eqn, operands, size, follow))
            verdicts[index] = verdict
            positional |= verdict.positional
            found = [Kind(None if a is None else int(a)) for a in verdict.axes]
        kinds.update(zip(eqn.outvars, found, strict=True))
    return Analysis(kinds, verdicts, positional)


def kind_of(atom: Var | Literal, kinds: Mapping[Var, Kind]) -> Kind:
    """Returns the kind of an operand; a literal is a constant."""
    return Kind() if isinstance(atom, Literal) else kinds[atom]


def is_uniform(atom: Any, kind: Kind, axis: int) -> bool:
    """Checks whether a value without examples is constant along the examples' axis."""
    shape = aval(atom).shape
    return not shape or shape[axis] == 1 or axis in kind.uniform


def _without_examples(eqn: JaxprEqn, operands: Sequence[Kind]) -> list[Kind]:
    params = any(kind.params for kind in operands)
    if params:
        _check_linear(eqn)
    # No gradient flows through integers and booleans.
    return [
        Kind(
            params=params and jnp.issubdtype(aval(var).dtype, jnp.inexact),
            uniform=_uniform_axes(eqn, operands, len(getattr(aval(var), "shape", ()))),
        )
        for var in eqn.outvars
    ]


def _check_linear(eqn: JaxprEqn) -> None:
    """Checks that gradients flow linearly through an equation on parameters alone."""
    if eqn.primitive.name == "custom_vjp_call":
        inputs = [i for i, atom in enumerate(eqn.invars) if _is_inexact(atom)]
        outputs = [i for i, atom in enumerate(eqn.outvars) if _is_inexact(atom)]
        _backward(eqn, inputs, outputs)
    for inner in inner_jaxprs(eqn):
        for one in inner.eqns:
            _check_linear(one)


def _uniform_axes(eqn: JaxprEqn, operands: Sequence[Kind], rank: int) -> frozenset[int]:
    name, axes = eqn.primitive.name, frozenset(range(rank))
    if name == "broadcast_in_dim":
        place, source = eqn.params["broadcast_dimensions"], eqn.invars[0]
        kept = (i for i in range(len(place)) if not is_uniform(source, operands[0], i))
        return axes - {place[i] for i in kept}
    if name == "iota":
        return axes - {eqn.params["dimension"]}
    if name in ELEMENTWISE:
        pairs = list(zip(eqn.invars, operands, strict=True))
        return frozenset(a for a in axes if all(is_uniform(*pair, a) for pair in pairs))
    return frozenset()


def _verdict(e: Equation) -> Verdict:
    rule = _RULES.get(e.eqn.primitive.name)
    if rule is None:
        raise CoupledError(f"{e.title} is not known to keep examples apart")
    verdict, positional = rule(e), False
    for var, axis in zip(e.eqn.outvars, verdict.axes, strict=True):
        if axis is not None and aval(var).shape[axis] != e.size:
            raise CoupledError(f"{e.title} changes the number of examples")
    for i, (atom, kind) in enumerate(zip(e.eqn.invars, e.operands, strict=True)):
        if kind.axis is not None or i == verdict.contracted:
            continue
        axis = verdict.aligned.get(i)
        if axis is None:
            if kind.params and not verdict.opaque:
                raise CoupledError(f"{e.title} takes a parameter in an unknown way")
        elif not is_uniform(atom, kind, axis):
            if kind.params:
                raise CoupledError(f"{e.title} takes a parameter for each example")
            positional = True
    return verdict._replace(positional=positional or verdict.positional)


def _call(e: Equation) -> Verdict:
    inside = e.follow(inner_jaxpr(e.eqn), e.operands)
    return Verdict(inside.axes, opaque=e.has_params, positional=inside.positional)


def _custom_derivative(e: Equation) -> Verdict:
    """Follows a function with a custom derivative, which must keep examples apart."""
    if e.has_params:
        raise CoupledError(f"{e.title} has a custom derivative by parameters")
    axes, positional = e.follow(inner_jaxpr(e.eqn), e.operands)
    inputs = _differentiable(e.eqn.invars, [kind.axis for kind in e.operands])
    outputs = _differentiable(e.eqn.outvars, axes)
    if not inputs or not outputs:
        return Verdict(axes, positional=positional)
    closed = _backward(e.eqn, inputs, outputs)
    kinds = [*e.operands, *(Kind(axes[i]) for i in outputs)]
    found = e.follow(closed, kinds)
    for i, axis in zip(inputs, found.axes, strict=True):
        if axis not in (None, e.operands[i].axis):
            raise e.couples()
    return Verdict(axes, positional=positional or found.positional)


def _backward(
    eqn: JaxprEqn, inputs: Sequence[int], outputs: Sequence[int]
) -> ClosedJaxpr:
    """Traces the derivative of a function that has its own, linear in cotangents."""

    def backward(arguments, cotangents):
        def forward(*chosen):
            full = list(arguments)
            for i, value in zip(inputs, chosen, strict=True):
                full[i] = value
            results = evaluate(eqn, full)
            return [results[i] for i in outputs]

        return jax.vjp(forward, *(arguments[i] for i in inputs))[1](cotangents)

    arguments = [aval(atom) for atom in eqn.invars]
    cotangents = [aval(eqn.outvars[i]) for i in outputs]
    closed = trace_flat(backward, arguments, cotangents, differentiable=False)
    pulled = [False] * len(arguments) + [True] * len(cotangents)
    # A rule for tangents is linear; JAX could not transpose one that is not.
    if eqn.primitive.name == "custom_vjp_call" and not is_linear(closed, pulled):
        raise CoupledError(
            f"{eqn.primitive.name} has a custom derivative, not known to be linear in "
            "cotangents"
        )
    return closed


def _is_inexact(atom: Any) -> bool:
    return jnp.issubdtype(aval(atom).dtype, jnp.inexact)


def _differentiable(atoms: Sequence[Any], axes: Sequence[int | None]) -> list[int]:
    """Returns which values have examples and derivatives."""
    return [
        i
        for i, (atom, axis) in enumerate(zip(atoms, axes, strict=True))
        if axis is not None and jnp.issubdtype(aval(atom).dtype, jnp.inexact)
    ]


def _scan(e: Equation) -> Verdict:
    consts, carry = scan_parts(e.eqn)
    inside = list(e.operands)
    for i in range(consts + carry, len(inside)):
        axis = inside[i].axis
        if axis == 0:
            raise e.couples()
        inside[i] = Kind(None if axis is None else axis - 1, inside[i].params)
    carried = range(consts, consts + carry)
    found, aligned = _fixed_point(e, e.eqn.params["jaxpr"], inside, carried)
    stacked = [None if axis is None else axis + 1 for axis in found.axes[carry:]]
    axes = [*found.axes[:carry], *stacked]
    return Verdict(axes, aligned, None, e.has_params, found.positional)


def _while(e: Equation) -> Verdict:
    conditions, bodies = e.eqn.params["cond_nconsts"], e.eqn.params["body_nconsts"]
    inside = list(e.operands[conditions:])
    carried = range(bodies, len(inside))
    found, aligned = _fixed_point(e, e.eqn.params["body_jaxpr"], inside, carried)
    state = [*e.operands[:conditions], *inside[bodies:]]
    if e.follow(e.eqn.params["cond_jaxpr"], state).axes != [None]:
        raise e.couples()
    aligned = {i + conditions: axis for i, axis in aligned.items()}
    return Verdict(found.axes, aligned, None, e.has_params, found.positional)


def _fixed_point(
    e: Equation, body: ClosedJaxpr, inside: list[Kind], carried: range
) -> tuple[Nested, dict[int, int]]:
    """Finds which carried values have examples both before and after the body.

    Updates ``inside`` in place. Also returns the carried constants that have one row
    for each example, such as a state that starts at zeros, and their axis.
    """
    rows = {}
    for i in carried:
        shape = aval(body.jaxpr.invars[i]).shape
        constant = inside[i].axis is None and not inside[i].params
        if constant and shape.count(e.size) == 1:
            rows[i] = shape.index(e.size)
    for aligned in (rows, {}):
        kinds = [Kind(aligned[i]) if i in aligned else k for i, k in enumerate(inside)]
        found = e.follow(body, kinds)
        if found.axes[: len(carried)] == [kinds[i].axis for i in carried]:
            inside[:] = kinds
            return found, aligned
    raise e.couples()


def _cond(e: Equation) -> Verdict:
    found = [e.follow(branch, e.operands[1:]) for branch in e.eqn.params["branches"]]
    axes = found[0].axes
    if e.operands[0].axis is not None or any(one.axes != axes for one in found):
        raise e.couples()
    positional = any(one.positional for one in found)
    return Verdict(axes, opaque=e.has_params, positional=positional)


_RULES: Mapping[str, Rule] = {
    **OPERATIONS,
    **dict.fromkeys(CALLS, _call),
    **dict.fromkeys(CUSTOM_DERIVATIVES, _custom_derivative),
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}
