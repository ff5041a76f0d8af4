"""Gradients of segments for a model that is only known to treat examples one by one.

The examples of each block are divided into groups of one size; the last group of a
block is padded. Each group is differentiated by itself, and ``vmap`` runs over groups.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array

from fairjax.jacobian._jaxprs import trace_flat
from fairjax.jacobian._segments import Blocks, rows_of, sum_segments
from fairjax.jacobian._separable_ops import CoupledError
from fairjax.types import Params


def padded_gradients(
    statistics: Callable[[Sequence[Array], Sequence[Array]], Sequence[Array]],
    params: Sequence[Array],
    batch: Sequence[Array],
    cotangents: Sequence[Array],
    blocks: Blocks,
    length: int,
) -> list[Array]:
    """Computes the parameters' gradients for each segment, ``[segments, *param]``.

    Args:
      statistics: ``statistics(params, batch) -> [[B], ...]``, for any number of
        examples.
      params: The leaves of the parameters.
      batch: The leaves of the batch.
      cotangents: Cotangents of the statistics, ``[B]`` each.
      blocks: The segments.
      length: Examples in a group.
    """
    size = cotangents[0].shape[0]
    groups = blocks.divide(length)
    rows, inside = jax.vmap(lambda a, b: rows_of(groups, a, b, length))(
        groups.starts, groups.stops
    )

    dealt = [
        leaf.ndim > 0 and leaf.shape[0] == size for leaf in map(jnp.asarray, batch)
    ]
    dealt_leaves = [leaf[rows] for leaf, d in zip(batch, dealt, strict=True) if d]
    dealt_cotangents = [jnp.where(inside, c[rows], 0) for c in cotangents]

    def one(leaves, cotangents):
        mine = iter(leaves)
        whole = [
            next(mine) if d else leaf for leaf, d in zip(batch, dealt, strict=True)
        ]
        pull = jax.vjp(lambda params: statistics(params, whole), list(params))[1]
        return pull(cotangents)[0]

    found = jax.vmap(one)(dealt_leaves, dealt_cotangents)
    return [sum_segments(groups, leaf) for leaf in found]


def group_length(size: int, blocks: int) -> int:
    """Returns the size of a group: half of the examples that a block has on average.

    A group has two examples at least, because some operations are traced to a different
    program for one example than for several.
    """
    return max(size // (2 * blocks), min(size, 2))


def check_any_size(
    statistics: Callable[..., Any],
    params: Params,
    batch: Sequence[Any],
    size: int,
    length: int,
) -> None:
    """Checks that a group of examples is traced to the same program as the batch.

    Raises:
      CoupledError: If the programs differ. For example, statistics that are divided by
        the size of the batch would be wrong for a group.
    """
    group = [
        jax.ShapeDtypeStruct((length, *jnp.shape(leaf)[1:]), jnp.result_type(leaf))
        if jnp.ndim(leaf) and jnp.shape(leaf)[0] == size
        else leaf
        for leaf in batch
    ]

    def backward(params, batch):
        outputs, pull = jax.vjp(lambda params: statistics(params, batch), params)
        return outputs, pull(outputs)

    # The derivatives are compared too, since a function may have a custom derivative.
    whole = trace_flat(backward, params, batch, differentiable=False)
    try:
        other = trace_flat(backward, params, group, differentiable=False)
    except Exception as error:
        # They are right for the batch, such as a loop whose carry has the batch's size.
        raise CoupledError(
            "parameters enter a loop, and the statistics fail for a part of the batch: "
            f"{error}"
        ) from error
    same_consts = len(whole.consts) == len(other.consts) and all(
        a is b or (isinstance(a, np.ndarray) and np.array_equal(a, b))
        for a, b in zip(whole.consts, other.consts, strict=True)
    )
    if not same_consts or not _equal(whole.jaxpr, other.jaxpr, size, length):
        raise CoupledError(
            "parameters enter a loop, and the statistics depend on the number of "
            "examples in the batch"
        )


def _equal(a: Any, b: Any, size: int, length: int) -> bool:
    """Checks whether two parts of jaxprs differ only in the number of examples."""
    if isinstance(a, ClosedJaxpr):
        a, b = a.jaxpr, b.jaxpr  # Since JAX 0.12, each returns itself.
    if isinstance(a, Jaxpr):
        return len(a.eqns) == len(b.eqns) and all(
            one.primitive is other.primitive
            and one.params.keys() == other.params.keys()
            and all(
                _equal(v, other.params[k], size, length) for k, v in one.params.items()
            )
            and all(
                _equal_atoms(*atoms)
                for atoms in zip(one.invars, other.invars, strict=True)
            )
            for one, other in zip(a.eqns, b.eqns, strict=True)
        )
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(
            _equal(x, y, size, length) for x, y in zip(a, b, strict=True)
        )
    # A function among the parameters is not part of the derivative, which is traced.
    return (a, b) == (size, length) or callable(a) or bool(np.all(a == b))


def _equal_atoms(a: Any, b: Any) -> bool:
    literals = isinstance(a, Literal), isinstance(b, Literal)
    if not any(literals):
        return True
    return all(literals) and bool(np.array_equal(a.val, b.val))
