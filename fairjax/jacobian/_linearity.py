"""Checks whether a backward pass is linear in its cotangents.

A user's custom derivative may clip gradients or normalise them. Such a rule gives
different rows where cotangents are pulled back separately and mixed afterwards.
"""

from collections.abc import Sequence
from enum import Enum

from jax.extend.core import JaxprEqn, Literal

from fairjax.jacobian._jaxprs import ClosedJaxpr


class _Part(Enum):
    """How a value depends on the cotangents: not at all, as zero, or linearly."""

    NONE = 0
    ZERO = 1
    LINEAR = 2


_SUMS = frozenset(("add", "add_any", "sub", "concatenate", "stack", "select_n"))
_PRODUCTS = frozenset(("mul", "dot_general", "conv_general_dilated"))
_SAME = frozenset(
    (
        *("neg", "reshape", "transpose", "broadcast_in_dim", "reduce_sum", "squeeze"),
        *("convert_element_type", "copy", "rev", "slice", "cumsum", "expand_dims"),
        "unstack",
        *("div", "gather", "dynamic_slice", "pvary", "reduce_precision"),
    )
)


def is_linear(closed: ClosedJaxpr, cotangents: Sequence[bool]) -> bool:
    """Checks whether each output is linear in the inputs that are cotangents.

    An operation that is not known to be linear counts as not linear.
    """
    jaxpr = closed.jaxpr
    parts = dict.fromkeys(jaxpr.constvars, _Part.NONE)
    for var, cotangent in zip(jaxpr.invars, cotangents, strict=True):
        parts[var] = _Part.LINEAR if cotangent else _Part.NONE

    def part(atom):
        if isinstance(atom, Literal):
            zero = getattr(atom.val, "ndim", 0) == 0 and atom.val == 0
            return _Part.ZERO if zero else _Part.NONE
        return parts[atom]

    for eqn in jaxpr.eqns:
        result = _result(eqn, [part(atom) for atom in eqn.invars])
        if result is None:
            return False
        parts.update(dict.fromkeys(eqn.outvars, result))
    return all(part(atom) is not _Part.NONE for atom in jaxpr.outvars)


def _result(eqn: JaxprEqn, operands: list[_Part]) -> _Part | None:
    """Returns the part of an equation's outputs; None where they are not linear."""
    name, linear = eqn.primitive.name, operands.count(_Part.LINEAR)
    if name in _SUMS:
        # A selection's first operand, which chooses, must not depend on cotangents.
        terms = operands[1:] if name == "select_n" else operands
        chosen = name != "select_n" or operands[0] is not _Part.LINEAR
        if all(term is _Part.ZERO for term in terms) and chosen:
            return _Part.ZERO
        if not linear:
            return _Part.NONE
        return _Part.LINEAR if chosen and _Part.NONE not in terms else None
    if name in _PRODUCTS and linear < 2:
        if _Part.ZERO in operands:
            return _Part.ZERO
        return _Part.LINEAR if linear else _Part.NONE
    if name in _SAME and _Part.LINEAR not in operands[1:]:
        return operands[0]
    return None if linear else _Part.NONE
