"""Rules for how single primitives treat the axis of the examples.

From the examples' axis in a primitive's operands, a rule derives their axis in the
results. A rule raises :class:`CoupledError` where the primitive contracts, reduces,
sorts or otherwise mixes along the examples' axis. A primitive without a rule is not
proven to keep the examples apart.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jax.extend.core import ClosedJaxpr, JaxprEqn

from fairjax.jacobian._jaxprs import aval


class CoupledError(Exception):
    """The examples of a batch are not proven to be separate."""


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
      axes: The examples' axis in each output.
      aligned: operand without examples -> the axis at which it meets the examples.
      contracted: The operand, a weight, with which each example is contracted.
      opaque: Whether a parameter enters a nested jaxpr along with the examples.
      positional: Whether a constant within a nested jaxpr has one row per example.
    """

    axes: Sequence[int | None]
    aligned: Mapping[int, int] = {}
    contracted: int | None = None
    opaque: bool = False
    positional: bool = False


class Nested(NamedTuple):
    """A nested jaxpr: the examples' axis in each output, and whether it is positional.

    Positional means that an example's result depends on its position in the batch.
    """

    axes: list[int | None]
    positional: bool


class Equation(NamedTuple):
    """An equation, what its operands depend on, and the number of examples.

    Attributes:
      follow: ``follow(closed, kinds) -> Nested`` follows the examples through a nested
        jaxpr.
    """

    eqn: JaxprEqn
    operands: Sequence[Kind]
    size: int
    follow: Callable[[ClosedJaxpr, Sequence[Kind]], Nested]

    @property
    def has_params(self) -> bool:
        """Whether an operand depends on parameters alone."""
        return any(kind.params for kind in self.operands)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The operands' shapes."""
        return [aval(atom).shape for atom in self.eqn.invars]

    @property
    def title(self) -> str:
        """The primitive, as error messages name it."""
        return f"the operation {self.eqn.primitive.name!r}"

    def couples(self) -> CoupledError:
        """Returns the error that this equation combines examples."""
        return CoupledError(f"{self.title} combines examples of the batch")

    def one_axis(self) -> int:
        """Returns the examples' axis, which all operands with examples must share."""
        axes = {kind.axis for kind in self.operands if kind.axis is not None}
        if len(axes) != 1:
            raise self.couples()
        return axes.pop()

    def along(self, axis: int, aligned: Mapping[int, int] | None = None) -> Verdict:
        """Returns the verdict that all outputs have the examples at this axis."""
        return Verdict([axis] * len(self.eqn.outvars), aligned or {})

    def align(self, axis: int) -> dict[int, int]:
        """Aligns all operands without examples with the examples at this axis."""
        return {i: axis for i, kind in enumerate(self.operands) if kind.axis is None}


def _elementwise(e: Equation) -> Verdict:
    axis = e.one_axis()
    return e.along(axis, aligned=e.align(axis))


def _broadcast_in_dim(e: Equation) -> Verdict:
    return e.along(e.eqn.params["broadcast_dimensions"][e.one_axis()])


def _reshape(e: Equation) -> Verdict:
    axis, old, new = e.one_axis(), e.shapes[0], e.eqn.params["new_sizes"]
    if e.eqn.params.get("dimensions") is None:
        for place, length in enumerate(new):
            if length == e.size and math.prod(new[:place]) == math.prod(old[:axis]):
                return e.along(place)
    raise CoupledError("a reshape merges the axis of the examples with another")


def _transpose(e: Equation) -> Verdict:
    return e.along(list(e.eqn.params["permutation"]).index(e.one_axis()))


def _dropping(name: str) -> Callable[[Equation], Verdict]:
    """Returns a rule for primitives that drop the axes which a parameter names."""

    def rule(e: Equation) -> Verdict:
        axis, dropped = e.one_axis(), e.eqn.params[name]
        if axis in dropped or any(kind.axis is None for kind in e.operands):
            raise e.couples()
        return e.along(axis - sum(d < axis for d in dropped))

    return rule


def _along(name: str) -> Callable[[Equation], Verdict]:
    """Returns a rule for primitives that run along the axis which a parameter names."""

    def rule(e: Equation) -> Verdict:
        axis = e.one_axis()
        if axis == e.eqn.params[name] % len(aval(e.eqn.outvars[0]).shape):
            raise e.couples()
        return e.along(axis, aligned=e.align(axis))

    return rule


def _stack(e: Equation) -> Verdict:
    axis = e.one_axis()
    return e.along(axis + (e.eqn.params["axis"] <= axis), aligned=e.align(axis))


def _unstack(e: Equation) -> Verdict:
    axis, gone = e.one_axis(), e.eqn.params["axis"]
    if axis == gone:
        raise e.couples()
    return e.along(axis - (gone < axis))


def _top_k(e: Equation) -> Verdict:
    axis = e.one_axis()
    if axis == e.eqn.params.get("axis", -1) % len(e.shapes[0]):
        raise e.couples()
    return e.along(axis)


def _rev(e: Equation) -> Verdict:
    axis = e.one_axis()
    if axis in e.eqn.params["dimensions"]:
        raise e.couples()
    return e.along(axis)


def _slice(e: Equation) -> Verdict:
    axis, strides = e.one_axis(), e.eqn.params["strides"]
    # The length of every result is checked to be full, so the slice starts at 0.
    if strides is not None and strides[axis] != 1:
        raise e.couples()
    return e.along(axis)


def _dynamic_slice(e: Equation) -> Verdict:
    first, *places = (kind.axis for kind in e.operands)
    if first is None or any(axis is not None for axis in places):
        raise e.couples()
    return e.along(first)


def _pad(e: Equation) -> Verdict:
    axis = e.operands[0].axis
    if axis is None or tuple(e.eqn.params["padding_config"][axis]) != (0, 0, 0):
        raise e.couples()
    return e.along(axis)


def _reduce_window(e: Equation) -> Verdict:
    axis, params = e.one_axis(), e.eqn.params
    dilation = params.get("base_dilation")
    trivial = (
        params["window_dimensions"][axis] == 1
        and params["window_strides"][axis] == 1
        and tuple(params["padding"][axis]) == (0, 0)
        and (dilation is None or dilation[axis] == 1)
    )
    if not trivial or e.operands[0].axis is None:
        raise e.couples()
    return e.along(axis)


def _dot_general(e: Equation) -> Verdict:
    contracting, batched = e.eqn.params["dimension_numbers"]
    axes = [kind.axis for kind in e.operands]
    for axis, contracted in zip(axes, contracting, strict=True):
        if axis is not None and axis in contracted:
            raise e.couples()
    for place, pair in enumerate(zip(*batched, strict=True)):
        met = _meet_at(e, axes, pair)
        if met is not None:
            return e.along(place, aligned=met)
    side, axis = _only(e, axes)
    free = [
        [
            d
            for d in range(len(shape))
            if d not in contracting[s] and d not in batched[s]
        ]
        for s, shape in enumerate(e.shapes)
    ]
    place = len(batched[0]) + side * len(free[0]) + free[side].index(axis)
    return Verdict([place], contracted=1 - side)


def _convolution(e: Equation) -> Verdict:
    numbers = e.eqn.params["dimension_numbers"]
    image, kernel = (kind.axis for kind in e.operands)
    if (
        kernel is not None
        or image != numbers.lhs_spec[0]
        or e.eqn.params["batch_group_count"] != 1
    ):
        raise e.couples()
    return Verdict([numbers.out_spec[0]], contracted=1)


def _gather(e: Equation) -> Verdict:
    numbers, sizes = e.eqn.params["dimension_numbers"], e.eqn.params["slice_sizes"]
    axes = [kind.axis for kind in e.operands]
    rank = len(aval(e.eqn.outvars[0]).shape)
    looped = [d for d in range(rank) if d not in numbers.offset_dims]
    batched = numbers.operand_batching_dims, numbers.start_indices_batching_dims
    for pair in zip(*batched, strict=True):
        met = _meet_at(e, axes, pair)
        if met is not None:
            return e.along(looped[pair[1]], aligned=met)
    side, axis = _only(e, axes)
    if side == 1:
        return Verdict([looped[axis]], contracted=0)
    whole = (
        sizes[axis] == e.size
        and axis not in numbers.collapsed_slice_dims
        and axis not in numbers.start_index_map
    )
    if not whole:
        raise e.couples()
    skipped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    windowed = [d for d in range(len(sizes)) if d not in skipped]
    return e.along(numbers.offset_dims[windowed.index(axis)])


def _only(e: Equation, axes: Sequence[int | None]) -> tuple[int, int]:
    """Returns the only operand that has examples, and their axis."""
    found = [(i, axis) for i, axis in enumerate(axes) if axis is not None]
    if len(found) != 1:
        raise e.couples()
    return found[0]


def _meet_at(
    e: Equation, axes: Sequence[int | None], pair: tuple[int, int]
) -> dict[int, int] | None:
    """Returns operands to align if examples lie at a pair of batch axes, else None."""
    if all(axis != place for axis, place in zip(axes, pair, strict=True)):
        return None
    if any(axis not in (None, p) for axis, p in zip(axes, pair, strict=True)):
        raise e.couples()
    return {i: pair[i] for i in (0, 1) if axes[i] is None}


ELEMENTWISE = frozenset(
    (
        *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan"),
        *("atan2", "atanh", "cbrt", "ceil", "clamp", "convert_element_type", "copy"),
        *("copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc"),
        *("exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite"),
        *("le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne"),
        *("neg", "nextafter", "not", "or", "pow", "pvary", "reduce_precision", "rem"),
        *("round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic"),
        *("shift_right_logical", "sign", "sin", "sinh", "sqrt", "square"),
        *("stop_gradient", "sub", "tan", "tanh", "xor"),
    )
)

Rule = Callable[[Equation], Verdict]

OPERATIONS: Mapping[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _along("dimension"),
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "sort": _along("dimension"),
    "split": _along("axis"),
    "squeeze": _dropping("dimensions"),
    "stack": _stack,
    "top_k": _top_k,
    "transpose": _transpose,
    "unstack": _unstack,
    **{
        f"cum{kind}": _along("axis")
        for kind in ("sum", "prod", "max", "min", "logsumexp")
    },
    **{
        f"reduce_{kind}": _dropping("axes")
        for kind in ("sum", "max", "min", "prod", "and", "or", "xor")
    },
    **dict.fromkeys(("argmax", "argmin"), _dropping("axes")),
    **{f"reduce_window{kind}": _reduce_window for kind in ("", "_sum", "_max", "_min")},
}
