"""Ragged contractions: one parameter gradient a segment of the examples.

Examples lie sorted, so that a segment is one or several blocks of neighbours. A block's
size is only known when the step runs, so it is read through a window of a fixed
capacity, and what lies outside of the block counts as zero. The examples that a window
did not hold, if any, are added by a loop, so that the sum is exact however the examples
fall.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


class Blocks(NamedTuple):
    """Blocks of neighbouring examples.

    Attributes:
      segments: The segment of each block; static, as are all fields but the last two.
      capacities: The length of each block's window, at most the number of examples.
      num_segments: The number of segments.
      unrolled: Whether each block has operations of its own, rather than all blocks of
        one capacity sharing batched ones.
      starts: The first example of each block.
      stops: One past the last example of each block.
    """

    segments: tuple[int, ...]
    capacities: tuple[int, ...]
    num_segments: int
    unrolled: bool
    starts: Int[Array, " blocks"]
    stops: Int[Array, " blocks"]


class Contraction(NamedTuple):
    """The gradient of one weight as a function of examples and of their cotangents.

    Attributes:
      apply: ``apply(operands, cotangent) -> gradient``, linear in the cotangent and a
        sum over the examples, of which there may be any number.
      operands: Values with an axis of examples.
      axes: The axis of the examples in each operand.
      cotangent: The cotangent of the result.
      axis: The axis of the examples in the cotangent.
    """

    apply: Callable[[Sequence[Array], Array], Array]
    operands: Sequence[Array]
    axes: Sequence[int]
    cotangent: Array
    axis: int


def capacity(expected: float, examples: int, *, multiple: int = 8) -> int:
    """A window for a block of which so many examples are expected in a batch.

    Two standard deviations more than expected, so that the loop over the rest is rare
    and what it has left to add is little.
    """
    deviation = np.sqrt(max(expected * (1 - expected / max(examples, 1)), 0.0))
    needed = int(np.ceil((expected + 2 * deviation) / multiple)) * multiple
    return int(min(max(needed, multiple), examples))


def segment_gradients(
    contractions: Sequence[Contraction], blocks: Blocks
) -> list[Array]:
    """Gradients of each weight for each segment, ``[segments, *weight]``."""
    if blocks.unrolled:
        sums = [_unrolled(contraction, blocks) for contraction in contractions]
    else:
        sums = [_batched(contraction, blocks) for contraction in contractions]
    return _add_rest(contractions, blocks, sums)


def _window(contraction: Contraction, start: Any, stop: Any, *, length: int) -> Array:
    """The gradient of the examples from start to stop, of the first ``length``."""
    axis, examples = contraction.axis, contraction.cotangent.shape[contraction.axis]
    # A window that would reach beyond the last example is moved back, as a dynamic
    # slice would do by itself.
    first = jnp.minimum(start, examples - length)

    def cut(value: Array, axis: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(value, first, length, axis)

    rows = first + jnp.arange(length, dtype=jnp.int32)
    inside = (rows >= start) & (rows < stop)
    cotangent = cut(contraction.cotangent, axis)
    shape = [length if d == axis else 1 for d in range(cotangent.ndim)]
    cotangent = jnp.where(inside.reshape(shape), cotangent, 0)
    operands = [
        cut(value, axis)
        for value, axis in zip(contraction.operands, contraction.axes, strict=True)
    ]
    return contraction.apply(operands, cotangent)


def _unrolled(contraction: Contraction, blocks: Blocks) -> Array:
    rows: list[Array | None] = [None] * blocks.num_segments
    for b, (segment, length) in enumerate(
        zip(blocks.segments, blocks.capacities, strict=True)
    ):
        row = _window(contraction, blocks.starts[b], blocks.stops[b], length=length)
        known = rows[segment]
        rows[segment] = row if known is None else known + row
    return jnp.stack([row for row in rows if row is not None])


def _batched(contraction: Contraction, blocks: Blocks) -> Array:
    parts, order = [], []
    for length in sorted(set(blocks.capacities)):
        chosen = np.flatnonzero(np.asarray(blocks.capacities) == length)
        order += chosen.tolist()
        window = functools.partial(_window, contraction, length=length)
        parts.append(jax.vmap(window)(blocks.starts[chosen], blocks.stops[chosen]))
    rows = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
    segments = np.asarray(blocks.segments)[order]
    if len(segments) == blocks.num_segments:
        return rows if (np.diff(segments) > 0).all() else rows[np.argsort(segments)]
    gathered = segments[None, :] == np.arange(blocks.num_segments)[:, None]
    return mix(jnp.asarray(gathered, rows.dtype), rows)


def _add_rest(
    contractions: Sequence[Contraction], blocks: Blocks, sums: list[Array]
) -> list[Array]:
    """Add the examples beyond the blocks' windows, one window at a time."""
    capacities = jnp.asarray(blocks.capacities, jnp.int32)
    segments = jnp.asarray(blocks.segments, jnp.int32)
    length = max(blocks.capacities)

    def unfinished(state):
        starts, _ = state
        return jnp.any(starts < blocks.stops)

    def add(state):
        starts, sums = state
        block = jnp.argmax(blocks.stops - starts)
        start = starts[block]
        stop = jnp.minimum(blocks.stops[block], start + length)
        sums = [
            total.at[segments[block]].add(_window(c, start, stop, length=length))
            for total, c in zip(sums, contractions, strict=True)
        ]
        return starts.at[block].set(stop), sums

    starts = jnp.minimum(blocks.starts + capacities, blocks.stops)
    return jax.lax.while_loop(unfinished, add, (starts, sums))[1]


def mix(matrix: Array, rows: Array) -> Array:
    """``matrix [K, segments] @ rows [segments, *param]``, in the rows' type."""
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    flat = rows.reshape(rows.shape[0], -1).astype(wide)
    mixed = jnp.dot(matrix.astype(wide), flat, precision=jax.lax.Precision.HIGHEST)
    return mixed.reshape(-1, *rows.shape[1:]).astype(rows.dtype)
