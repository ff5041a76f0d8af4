"""A proof that a model treats the examples of a batch one by one, from its jaxpr.

Every value is followed through the jaxpr: whether it depends on the batch, and if so,
which of its axes runs over the examples. A primitive keeps the examples apart if a rule
here says so. Whatever contracts, reduces, sorts or otherwise mixes along that axis
couples them, and a primitive without a rule is not proven to keep them apart. So a
separable model may be called coupled, never the other way round.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from fairjax._jaxprs import evaluate, inner_jaxpr, trace_flat


class CoupledError(Exception):
    """The examples of a batch are coupled, or not proven not to be."""


class Kind(NamedTuple):
    """What a value depends on.

    Attributes:
      axis: The axis that runs over the examples; None for a value without examples.
      params: Whether a value without examples depends on parameters.
      uniform: Axes along which a value without examples is known to be constant.
    """

    axis: int | None = None
    params: bool = False
    uniform: frozenset[int] = frozenset()


class Verdict(NamedTuple):
    """How an equation treats the axis of the examples.

    Attributes:
      axes: That axis in each output.
      aligned: operand -> the axis at which an operand without examples meets them.
      contracted: The one operand, a weight, which each example is contracted with.
      opaque: Whether a parameter enters a nested jaxpr along with the examples.
    """

    axes: Sequence[int | None]
    aligned: Mapping[int, int] = {}
    contracted: int | None = None
    opaque: bool = False


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


def kind_of(atom: Var | Literal, kinds: Mapping[Var, Kind]) -> Kind:
    """The kind of an operand; a literal is a constant."""
    return _CONSTANT if isinstance(atom, Literal) else kinds[atom]


def analyse(
    jaxpr: Jaxpr, in_kinds: Sequence[Kind], size: int, *, nested: bool = False
) -> Analysis:
    """Follow ``size`` examples through a jaxpr.

    Args:
      jaxpr: Its constants count as constants of every example.
      in_kinds: One for each input.
      size: The number of examples.
      nested: Within a nested jaxpr, whose equations are evaluated as they are, a
        constant with one row an example cannot be put in the examples' order.

    Raises:
      CoupledError: The examples are coupled, or not proven not to be.
    """
    kinds = dict.fromkeys(jaxpr.constvars, Kind())
    kinds.update(zip(jaxpr.invars, in_kinds, strict=True))
    verdicts, positional = {}, False
    for index, eqn in enumerate(jaxpr.eqns):
        operands = [kind_of(atom, kinds) for atom in eqn.invars]
        if all(kind.axis is None for kind in operands):
            kinds.update(
                zip(eqn.outvars, _without_examples(eqn, operands), strict=True)
            )
            continue
        verdict = _judge(eqn, operands, size)
        moved = _check_operands(eqn, operands, verdict, size)
        if moved and nested:
            raise CoupledError(
                f"{_title(eqn)} meets a constant that has one row an example"
            )
        positional |= moved
        verdicts[index] = verdict
        kinds.update(
            (var, Kind(axis if axis is None else int(axis)))
            for var, axis in zip(eqn.outvars, verdict.axes, strict=True)
        )
    return Analysis(kinds, verdicts, positional)


def is_uniform(atom: Any, kind: Kind, axis: int) -> bool:
    """Whether a value without examples is the same for all at this axis of theirs."""
    shape = np.shape(atom.aval)
    return not shape or shape[axis] == 1 or axis in kind.uniform


_CONSTANT = Kind(uniform=frozenset(range(32)))


def _without_examples(eqn: JaxprEqn, operands: Sequence[Kind]) -> list[Kind]:
    params = any(kind.params for kind in operands)
    uniform = frozenset()
    name = eqn.primitive.name
    out = eqn.outvars[0].aval if eqn.outvars else None
    if name == "broadcast_in_dim":
        place = eqn.params["broadcast_dimensions"]
        source = eqn.invars[0].aval
        uniform = frozenset(range(len(out.shape))) - {
            target
            for i, target in enumerate(place)
            if source.shape[i] != 1 and i not in operands[0].uniform
        }
    elif name == "iota":
        uniform = frozenset(range(len(out.shape))) - {eqn.params["dimension"]}
    elif name in _ELEMENTWISE:
        uniform = frozenset(
            axis
            for axis in range(len(out.shape))
            if all(
                is_uniform(atom, kind, axis)
                for atom, kind in zip(eqn.invars, operands, strict=True)
            )
        )
    # No gradient flows through integers and booleans.
    return [
        Kind(None, params and jnp.issubdtype(var.aval.dtype, np.inexact), uniform)
        for var in eqn.outvars
    ]


def _judge(eqn: JaxprEqn, operands: Sequence[Kind], size: int) -> Verdict:
    name = eqn.primitive.name
    rule = _RULES.get(name, _elementwise if name in _ELEMENTWISE else None)
    if rule is None:
        raise CoupledError(
            f"the primitive {name!r} is not known to keep examples apart"
        )
    verdict = rule(eqn, operands, size)
    for var, axis in zip(eqn.outvars, verdict.axes, strict=True):
        if axis is not None and var.aval.shape[axis] != size:
            raise CoupledError(f"{_title(eqn)} changes the number of examples")
    return verdict


def _check_operands(
    eqn: JaxprEqn, operands: Sequence[Kind], verdict: Verdict, size: int
) -> bool:
    """Raise on an operand that cannot meet the examples; True if one must be moved."""
    moved = False
    for i, (atom, kind) in enumerate(zip(eqn.invars, operands, strict=True)):
        if kind.axis is not None or i == verdict.contracted:
            continue
        axis = verdict.aligned.get(i)
        if axis is None:
            if kind.params and not verdict.opaque:
                raise CoupledError(f"{_title(eqn)} takes a parameter in an unknown way")
        elif not is_uniform(atom, kind, axis):
            if kind.params:
                raise CoupledError(f"{_title(eqn)} takes a parameter for each example")
            moved = True
    return moved


def _title(eqn: JaxprEqn) -> str:
    return f"the operation {eqn.primitive.name!r}"


def _couples(eqn: JaxprEqn) -> CoupledError:
    return CoupledError(
        f"{_title(eqn)} combines examples of the batch with one another"
    )


def _one_axis(eqn: JaxprEqn, operands: Sequence[Kind]) -> int:
    axes = {kind.axis for kind in operands if kind.axis is not None}
    if len(axes) != 1:
        raise _couples(eqn)
    return axes.pop()


def _align(operands: Sequence[Kind], axis: int) -> dict[int, int]:
    return {i: axis for i, kind in enumerate(operands) if kind.axis is None}


def _elementwise(eqn, operands, size):
    axis = _one_axis(eqn, operands)
    return Verdict([axis] * len(eqn.outvars), _align(operands, axis))


def _broadcast_in_dim(eqn, operands, size):
    return Verdict([eqn.params["broadcast_dimensions"][operands[0].axis]])


def _reshape(eqn, operands, size):
    axis, old = operands[0].axis, eqn.invars[0].aval.shape
    new = eqn.params["new_sizes"]
    if eqn.params.get("dimensions") is None:
        for place, length in enumerate(new):
            if length == size and math.prod(new[:place]) == math.prod(old[:axis]):
                return Verdict([place])
    raise CoupledError("a reshape merges the examples' axis with another")


def _transpose(eqn, operands, size):
    return Verdict([list(eqn.params["permutation"]).index(operands[0].axis)])


def _squeeze(eqn, operands, size):
    return _drop(eqn, operands, eqn.params["dimensions"])


def _reduce(eqn, operands, size):
    return _drop(eqn, operands, eqn.params["axes"])


def _drop(eqn, operands, dropped):
    axis = _one_axis(eqn, operands)
    if axis in dropped or any(kind.axis is None for kind in operands):
        raise _couples(eqn)
    place = axis - sum(d < axis for d in dropped)
    return Verdict([place] * len(eqn.outvars))


def _along(name):
    """A rule for what runs along the one axis that a parameter names."""

    def rule(eqn, operands, size):
        axis, along = _one_axis(eqn, operands), eqn.params[name]
        if axis == along % len(eqn.outvars[0].aval.shape):
            raise _couples(eqn)
        return Verdict([axis] * len(eqn.outvars), _align(operands, axis))

    return rule


def _top_k(eqn, operands, size):
    axis = operands[0].axis
    if axis == eqn.params.get("axis", -1) % len(eqn.invars[0].aval.shape):
        raise _couples(eqn)
    return Verdict([axis] * len(eqn.outvars))


def _rev(eqn, operands, size):
    if operands[0].axis in eqn.params["dimensions"]:
        raise _couples(eqn)
    return Verdict([operands[0].axis])


def _slice(eqn, operands, size):
    axis, strides = operands[0].axis, eqn.params["strides"]
    # Of full length, so it starts at 0; _judge has checked the length.
    if strides is not None and strides[axis] != 1:
        raise _couples(eqn)
    return Verdict([axis])


def _dynamic_slice(eqn, operands, size):
    if operands[0].axis is None or any(k.axis is not None for k in operands[1:]):
        raise _couples(eqn)
    return Verdict([operands[0].axis])


def _pad(eqn, operands, size):
    axis = operands[0].axis
    if axis is None or tuple(eqn.params["padding_config"][axis]) != (0, 0, 0):
        raise _couples(eqn)
    return Verdict([axis])


def _reduce_window(eqn, operands, size):
    axis, params = _one_axis(eqn, operands), eqn.params
    trivial = (
        params["window_dimensions"][axis] == 1
        and params["window_strides"][axis] == 1
        and tuple(params["padding"][axis]) == (0, 0)
        and (params.get("base_dilation") or {axis: 1})[axis] == 1
    )
    if not trivial or operands[0].axis is None:
        raise _couples(eqn)
    return Verdict([axis] * len(eqn.outvars))


def _dot_general(eqn, operands, size):
    contracting, batched = eqn.params["dimension_numbers"]
    left, right = (kind.axis for kind in operands)
    for side, axis in enumerate((left, right)):
        if axis is not None and axis in contracting[side]:
            raise _couples(eqn)
    pairs = list(zip(*batched, strict=True))
    for place, (a, b) in enumerate(pairs):
        if a == left or b == right:
            if left not in (None, a) or right not in (None, b):
                raise _couples(eqn)
            aligned = {} if None not in (left, right) else {left is not None: (a, b)}
            return Verdict([place], {int(i): ab[int(i)] for i, ab in aligned.items()})
    if left is not None and right is not None:
        raise _couples(eqn)
    side = 0 if right is None else 1
    free = [
        [
            d
            for d in range(len(eqn.invars[s].aval.shape))
            if d not in contracting[s] and d not in batched[s]
        ]
        for s in (0, 1)
    ]
    place = len(pairs) + free[side].index(operands[side].axis)
    return Verdict([place + side * len(free[0])], contracted=1 - side)


def _convolution(eqn, operands, size):
    numbers = eqn.params["dimension_numbers"]
    if (
        operands[1].axis is not None
        or operands[0].axis != numbers.lhs_spec[0]
        or eqn.params["batch_group_count"] != 1
    ):
        raise _couples(eqn)
    return Verdict([numbers.out_spec[0]], contracted=1)


def _gather(eqn, operands, size):
    numbers, (table, indices) = eqn.params["dimension_numbers"], operands
    rank = len(eqn.outvars[0].aval.shape)
    looped = [d for d in range(rank) if d not in numbers.offset_dims]
    paired = list(
        zip(
            numbers.operand_batching_dims,
            numbers.start_indices_batching_dims,
            strict=True,
        )
    )
    for a, b in paired:
        if a == table.axis or b == indices.axis:
            if table.axis not in (None, a) or indices.axis not in (None, b):
                raise _couples(eqn)
            aligned = {0: a} if table.axis is None else {}
            if indices.axis is None:
                aligned = {1: b}
            return Verdict([looped[b]], aligned)
    if table.axis is None:
        return Verdict([looped[indices.axis]], contracted=0)
    whole = (
        indices.axis is None
        and eqn.params["slice_sizes"][table.axis] == size
        and table.axis not in numbers.collapsed_slice_dims
        and table.axis not in numbers.start_index_map
    )
    if not whole:
        raise _couples(eqn)
    windowed = [
        d
        for d in range(len(eqn.invars[0].aval.shape))
        if d not in numbers.collapsed_slice_dims
        and d not in numbers.operand_batching_dims
    ]
    return Verdict([numbers.offset_dims[windowed.index(table.axis)]])


def _call(eqn, operands, size):
    inner = inner_jaxpr(eqn)
    return Verdict(_nested(inner, operands, size), opaque=_has_params(operands))


def _custom(eqn, operands, size):
    """A function with its own derivative, which must keep examples apart too."""
    if _has_params(operands):
        raise CoupledError(
            f"{_title(eqn)} has its own derivative with respect to parameters"
        )
    axes = _nested(inner_jaxpr(eqn), operands, size)
    shapes = [jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype) for a in eqn.invars]
    varied = [
        i
        for i, (shape, kind) in enumerate(zip(shapes, operands, strict=True))
        if kind.axis is not None and jnp.issubdtype(shape.dtype, np.inexact)
    ]
    outputs = [
        i
        for i, (var, axis) in enumerate(zip(eqn.outvars, axes, strict=True))
        if axis is not None and jnp.issubdtype(var.aval.dtype, np.inexact)
    ]
    if not varied or not outputs:
        return Verdict(axes)

    def backward(arguments, cotangents):
        def forward(*chosen):
            full = list(arguments)
            for i, value in zip(varied, chosen, strict=True):
                full[i] = value
            results = evaluate(eqn, full)
            return [results[i] for i in outputs]

        return jax.vjp(forward, *(arguments[i] for i in varied))[1](cotangents)

    outs = [eqn.outvars[i].aval for i in outputs]
    closed = trace_flat(
        backward,
        shapes,
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in outs],
        differentiable=False,
    )
    cotangents = [Kind(axes[i]) for i in outputs]
    found = _nested(closed, [*operands, *cotangents], size)
    for i, axis in zip(varied, found, strict=True):
        if axis not in (None, operands[i].axis):
            raise _couples(eqn)
    return Verdict(axes)


def _scan(eqn, operands, size):
    params = eqn.params
    consts, carry = params["num_consts"], params["num_carry"]
    inside = list(operands)
    for i in range(consts + carry, len(inside)):
        if inside[i].axis == 0:
            raise _couples(eqn)
        if inside[i].axis is not None:
            inside[i] = Kind(inside[i].axis - 1)
        else:
            inside[i] = Kind(params=inside[i].params)
    carries = slice(consts, consts + carry)
    axes, aligned = _fixed_point(eqn, params["jaxpr"], inside, carries, size)
    stacked = [None if axis is None else axis + 1 for axis in axes[carry:]]
    return Verdict([*axes[:carry], *stacked], aligned, opaque=_has_params(operands))


def _while(eqn, operands, size):
    conditions, bodies = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    inside = list(operands[conditions:])
    carries = slice(bodies, len(inside))
    axes, aligned = _fixed_point(eqn, eqn.params["body_jaxpr"], inside, carries, size)
    state = [*operands[:conditions], *inside[carries]]
    if any(_nested(eqn.params["cond_jaxpr"], state, size)):
        raise _couples(eqn)
    aligned = {i + conditions: axis for i, axis in aligned.items()}
    return Verdict(axes, aligned, opaque=_has_params(operands))


def _fixed_point(eqn, body, inside, carries, size):
    """Which carried values have examples, such that the body keeps it so.

    ``inside`` is updated in place.
    """
    places = range(*carries.indices(len(inside)))
    rows = {
        i: axis
        for i, var in zip(places, body.jaxpr.invars[carries], strict=True)
        if (axis := _sole_axis(var.aval.shape, size)) is not None
        and (inside[i].axis, inside[i].params) == (None, False)
    }
    # A state that starts at zeros, one row an example, has examples from the start.
    for aligned in (rows, {}):
        kinds = [Kind(aligned[i]) if i in aligned else k for i, k in enumerate(inside)]
        axes = _nested(body, kinds, size)
        if axes[: len(places)] == [kinds[i].axis for i in places]:
            inside[:] = kinds
            return axes, aligned
    raise _couples(eqn)


def _sole_axis(shape, size):
    return shape.index(size) if shape.count(size) == 1 else None


def _cond(eqn, operands, size):
    found = {
        tuple(_nested(branch, operands[1:], size)) for branch in eqn.params["branches"]
    }
    if operands[0].axis is not None or len(found) != 1:
        raise _couples(eqn)
    return Verdict(found.pop(), opaque=_has_params(operands))


def _nested(closed: ClosedJaxpr, kinds: Sequence[Kind], size: int) -> list[int | None]:
    # Inside a loop, shapes lack an axis, so what is known of the axes is dropped.
    inside = [Kind(kind.axis, kind.params) for kind in kinds]
    found = analyse(closed.jaxpr, inside, size, nested=True).kinds
    return [kind_of(atom, found).axis for atom in closed.jaxpr.outvars]


def _has_params(operands: Sequence[Kind]) -> bool:
    return any(kind.params for kind in operands)


_ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2
    expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min
    mul ne neg nextafter not or pow pvary real reduce_precision rem round rsqrt
    select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt
    square stop_gradient sub tan tanh xor
    """.split()
)

_Rule = Callable[[JaxprEqn, Sequence[Kind], int], Verdict]
_RULES: Mapping[str, _Rule] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "rev": _rev,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "gather": _gather,
    "top_k": _top_k,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "sort": _along("dimension"),
    "concatenate": _along("dimension"),
    "split": _along("axis"),
    **dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "checkpoint"), _call),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), _custom),
    **dict.fromkeys(
        "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor "
        "argmax argmin".split(),
        _reduce,
    ),
    **dict.fromkeys(
        "cumsum cumprod cummax cummin cumlogsumexp".split(), _along("axis")
    ),
    **dict.fromkeys(
        "reduce_window reduce_window_sum reduce_window_max reduce_window_min".split(),
        _reduce_window,
    ),
}
