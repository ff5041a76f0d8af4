"""Functions that trace flat jaxprs, evaluate equations, and estimate their cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import (
    ClosedJaxpr,
    DebugInfo,
    Jaxpr,
    JaxprEqn,
    Literal,
    Var,
    jaxpr_as_fun,
)

CALLS = frozenset(
    ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")
)


CUSTOM_DERIVATIVES = frozenset(("custom_jvp_call", "custom_vjp_call"))


def trace_flat(
    function: Callable[..., Any], *args: Any, differentiable: bool = True
) -> ClosedJaxpr:
    """Traces a function to a jaxpr with calls inlined and unused equations dropped.

    Rematerialisation is inlined as well. A function with a custom derivative stays an
    equation, so that the derivative is kept, unless ``differentiable`` is False.
    """
    inlined = CALLS if differentiable else CALLS | CUSTOM_DERIVATIVES
    return flatten(jax.make_jaxpr(function)(*args), inlined)


def flatten(
    closed: ClosedJaxpr,
    inlined: frozenset[str] = CALLS,
    depths: Mapping[int, int] | None = None,
) -> ClosedJaxpr:
    """Inlines calls, drops unused equations, and unrolls loops over layers.

    Args:
      closed: The jaxpr.
      inlined: Names of the equations to inline.
      depths: Index of an input -> its layers, which become inputs instead of it; as
        :func:`find_depths` returns it.
    """
    depths, types = depths or {}, []
    for i, var in enumerate(closed.jaxpr.invars):
        # Abstract values keep the mesh axes that the arguments vary over.
        types += [_layer(aval(var))] * depths[i] if i in depths else [aval(var)]

    def run(*given):
        parts = iter(given)
        values = [
            _Layers(next(parts) for _ in range(depths[i]))
            if i in depths
            else next(parts)
            for i in range(len(closed.jaxpr.invars))
        ]
        return [_whole(value) for value in _inline(closed, values, inlined)]

    return _without_unused(jax.make_jaxpr(run)(*types))


def find_depths(jaxpr: Jaxpr, inputs: Mapping[Var, int], most: int) -> dict[int, int]:
    """Finds inputs that a scan reads one layer at a time, and their layers' number.

    Args:
      jaxpr: The jaxpr.
      inputs: Its inputs in question, with the index to return for each.
      most: More layers than these are left in their loop.
    """
    found: dict[int, int] = {}
    for eqn in jaxpr.eqns:
        # Of each operand, the index; None for others. A literal cannot be looked up.
        at = [inputs.get(a) if isinstance(a, Var) else None for a in eqn.invars]
        if eqn.primitive.name in CALLS:
            inner = inner_jaxpr(eqn).jaxpr
            passed = zip(inner.invars, at, strict=True)
            passed = {var: i for var, i in passed if i is not None}
            found |= find_depths(inner, passed, most)
        elif eqn.primitive.name == "scan" and 0 < eqn.params["length"] <= most:
            layers = at[sum(scan_parts(eqn)) :]
            found |= {i: eqn.params["length"] for i in layers if i is not None}
    return found


def evaluate(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Evaluates an equation at these operands, and returns its outputs."""
    by_var = {
        atom: value
        for atom, value in zip(eqn.invars, operands, strict=True)
        if isinstance(atom, Var)
    }
    name = eqn.primitive.name
    alone = Jaxpr(
        constvars=(),
        invars=list(by_var),
        outvars=eqn.outvars,
        eqns=[eqn],
        effects=eqn.effects,
        debug_info=DebugInfo(name, name, None, None),
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*by_var.values())


def inner_jaxpr(eqn: JaxprEqn) -> ClosedJaxpr:
    """Returns the jaxpr that a call equation calls."""
    inner = eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


def scan_parts(eqn: JaxprEqn) -> tuple[int, int]:
    """Returns how many of a scan's operands are constants, and how many are carried."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    # Since JAX 0.12.
    consts, carry, _ = eqn.params["ft_in"].unpack()
    return len(consts), len(carry)


def matrix_flops(jaxpr: Jaxpr) -> float:
    """Estimates the FLOPs of a jaxpr's matrix products and convolutions, nested too.

    A conditional counts as its costliest branch. A ``while`` loop counts as one
    iteration, since the number of iterations is not known.
    """
    return math.fsum(_flops(eqn) for eqn in jaxpr.eqns)


def largest_product(jaxpr: Jaxpr) -> float:
    """Returns the bytes of a matrix product's largest operand or result, nested too."""
    sizes = [0.0]
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            avals = [aval(atom) for atom in (*eqn.invars, *eqn.outvars)]
            sizes += [math.prod(a.shape) * float(a.dtype.itemsize) for a in avals]
        sizes += [largest_product(inner) for inner in inner_jaxprs(eqn)]
    return max(sizes)


def read(env: Mapping[Var, Any], atom: Var | Literal) -> Any:
    """Returns the value of an operand."""
    return atom.val if isinstance(atom, Literal) else env[atom]


def aval(atom: Var | Literal) -> Any:
    """Returns an atom's abstract value, an array's; JAX declares a wider type."""
    return atom.aval


def _inline(
    closed: ClosedJaxpr, values: Sequence[Any], inlined: frozenset[str]
) -> list[Any]:
    jaxpr = closed.jaxpr
    env = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))
    for eqn in jaxpr.eqns:
        operands = [read(env, atom) for atom in eqn.invars]
        layered = any(isinstance(value, _Layers) for value in operands)
        if eqn.primitive.name in inlined:
            results = _inline(inner_jaxpr(eqn), operands, inlined)
        elif eqn.primitive.name == "scan" and layered:
            results = _unroll(eqn, operands, inlined)
        else:
            results = evaluate(eqn, [_whole(value) for value in operands])
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(env, atom) for atom in jaxpr.outvars]


class _Layers(tuple):
    """The layers of an array: its rows along the first axis."""


def _whole(value: Any) -> Any:
    return jnp.stack(value) if isinstance(value, _Layers) else value


def _layer(array: Any) -> Any:
    """Returns the abstract value of one layer."""
    return aval(jax.make_jaxpr(lambda x: x[0])(array).jaxpr.outvars[0])


def _unroll(
    eqn: JaxprEqn, operands: Sequence[Any], inlined: frozenset[str]
) -> list[Any]:
    """Evaluates a scan, one iteration after the other."""
    consts, carried = scan_parts(eqn)
    first = consts + carried
    fixed = [_whole(value) for value in operands[:consts]]
    state = [_whole(value) for value in operands[consts:first]]
    order = range(eqn.params["length"])
    results = []
    for i in reversed(order) if eqn.params["reverse"] else order:
        layer = [
            x[i]
            if isinstance(x, _Layers)
            else jax.lax.index_in_dim(x, i, keepdims=False)
            for x in operands[first:]
        ]
        found = _inline(eqn.params["jaxpr"], [*fixed, *state, *layer], inlined)
        state = [_whole(value) for value in found[:carried]]
        results.append([_whole(value) for value in found[carried:]])
    if eqn.params["reverse"]:
        results.reverse()
    return [*state, *(jnp.stack(rows) for rows in zip(*results, strict=True))]


def _without_unused(closed: ClosedJaxpr) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    used = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not used.isdisjoint(eqn.outvars):
            used.update(atom for atom in eqn.invars if isinstance(atom, Var))
            kept.append(eqn)
    return closed.replace(jaxpr=jaxpr.replace(eqns=kept[::-1]))


def _flops(eqn: JaxprEqn) -> float:
    name = eqn.primitive.name
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        left = aval(eqn.invars[0]).shape
        depth = math.prod(left[d] for d in contracted)
        return 2.0 * math.prod(aval(eqn.outvars[0]).shape) * depth
    if name == "conv_general_dilated":
        kernel = aval(eqn.invars[1]).shape
        features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        outputs = math.prod(aval(eqn.outvars[0]).shape)
        return 2.0 * outputs * math.prod(kernel) / max(features, 1)
    if name == "cond":
        return max(matrix_flops(branch.jaxpr) for branch in eqn.params["branches"])
    times = eqn.params["length"] if name == "scan" else 1
    return times * math.fsum(matrix_flops(jaxpr) for jaxpr in inner_jaxprs(eqn))


def inner_jaxprs(eqn: JaxprEqn) -> list[Jaxpr]:
    """Lists the jaxprs among an equation's parameters."""
    values = [*eqn.params.values(), *eqn.params.get("branches", ())]
    return [
        value.jaxpr if isinstance(value, ClosedJaxpr) else value
        for value in values
        if isinstance(value, ClosedJaxpr | Jaxpr)
    ]
