"""Ragged contractions: a parameter gradient for each segment of the examples.

The examples are ordered so that a segment consists of one or several blocks of
neighbours. A block's size is known only when the step runs. So a block is read through
a window of fixed capacity, and rows outside the block count as zero. A loop adds the
examples that do not fit into the windows, so that the sum is exact whatever the sizes.
Or blocks are divided into as many short windows as they need, which are dealt to the
blocks when the step runs, and whose gradients are summed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from fairjax.jacobian._costs import platform_of

# Gradients of convolutions that are unrolled; they compile in proportion to these.
_MOST_UNROLLED = 32


class Blocks(NamedTuple):
    """Blocks of neighbours in an order of the examples.

    Attributes:
      segments: The segment of each block; an array for blocks that were divided.
      capacities: The length of each block's window, at most the number of examples.
      num_segments: The number of segments.
      order: int ``[B]``, the examples in the order of the blocks.
      starts: The position in ``order`` at which each block starts.
      stops: The position in ``order`` after each block's last example.
    """

    segments: tuple[int, ...] | Int[Array, " blocks"]
    capacities: tuple[int, ...]
    num_segments: int
    order: Int[Array, " B"]
    starts: Int[Array, " blocks"]
    stops: Int[Array, " blocks"]

    def divide(self, length: int) -> "Blocks":
        """Divides the blocks into blocks of at most ``length`` examples."""
        number = count_divided(len(self.segments), len(self.order), length)
        needed = -(-(self.stops - self.starts) // length)
        firsts = jnp.cumsum(needed) - needed
        window = jnp.arange(number, dtype=jnp.int32)
        block = jnp.searchsorted(firsts, window, side="right") - 1
        starts = self.starts[block] + (window - firsts[block]) * length
        return self._replace(
            segments=jnp.asarray(self.segments)[block],
            capacities=(length,) * number,
            starts=starts,
            stops=jnp.minimum(starts + length, self.stops[block]),
        )


class Contraction(NamedTuple):
    """The gradient of one weight as a function of examples and of their cotangents.

    Attributes:
      apply: ``apply(operands, cotangent) -> gradient``, linear in the cotangent and a
        sum over any number of examples.
      operands: Values with an axis of examples.
      axes: The axis of the examples in each operand.
      cotangent: The cotangent of the result.
      axis: The axis of the examples in the cotangent.
      convolved: Whether the gradient is that of a convolution, for which a CPU takes
        several times longer in a batch, and up to a hundred times longer in a loop.
    """

    apply: Callable[[Sequence[Array], Array], Array]
    operands: Sequence[Array]
    axes: Sequence[int]
    cotangent: Array
    axis: int
    convolved: bool = False


class Layout(NamedTuple):
    """The windows of one pass over segments, as far as is known at trace time.

    Attributes:
      pieces: Each block as (segment, first cell, last cell + 1).
      capacities: The length of each block's window.
      divided: Whether blocks are divided into windows of the first capacity.
    """

    pieces: Sequence[tuple[int, int, int]] = ()
    capacities: Sequence[int] = ()
    divided: bool = False

    def padded(self, size: int) -> int:
        """Returns the number of rows of all windows, for ``size`` examples."""
        if not self.divided:
            return sum(self.capacities)
        length = self.capacities[0]
        return length * count_divided(len(self.pieces), size, length)


def count_divided(blocks: int, size: int, length: int) -> int:
    """Returns how many windows of one length hold all blocks, whatever their sizes."""
    return (size + blocks * (length - 1)) // length


def lay_out(
    pieces: Sequence[tuple[int, int, int]],
    expected: Sequence[float],
    size: int,
    copying: float = 160.0,
) -> Layout:
    """Chooses windows for blocks.

    Args:
      pieces: Each block as (segment, first cell, last cell + 1).
      expected: Examples expected in each block.
      size: Examples in the batch.
      copying: See :func:`capacities`; a quarter of it is the cost of one more window.
    """
    found = Layout(pieces, capacities(expected, size, copying=copying))
    cost = found.padded(size)
    for length in (4, 8, 16, 32, 64):
        number = count_divided(len(pieces), size, length)
        if number * (length + copying / 4) < cost:
            cost = number * (length + copying / 4)
            found = Layout(pieces, [length] * len(pieces), divided=True)
    return found


def capacities(
    expected: Sequence[float], size: int, *, spread: float = 2, copying: float = 160.0
) -> list[int]:
    """Chooses the windows' capacities from the examples expected in each block.

    Windows of equal length are contracted in the same operations. Several lengths need
    less padding, but their rows must be copied together, so there are four at most.

    Args:
      expected: Examples expected in each block.
      size: Examples in the batch.
      spread: How many standard deviations more than expected a window holds, so that
        the loop over the remaining examples is rare and short.
      copying: The cost for each block of copying rows together, in examples of padding.
    """
    means = np.asarray(expected, float)
    deviations = np.sqrt(np.clip(means * (1 - means / size), 0, None))
    needed = np.maximum(np.ceil((means + spread * deviations) / 8), 1) * 8
    best = np.full(len(needed), needed.max())
    cost = best.sum()
    for number in (2, 3, 4):
        edges = _split(needed, number)
        lengths = edges[np.searchsorted(edges, needed)]
        if lengths.sum() + copying * len(lengths) < cost:
            best, cost = lengths, lengths.sum() + copying * len(lengths)
    return [int(min(length, size)) for length in best]


def _split(needed: np.ndarray, number: int) -> np.ndarray:
    """Chooses ``number`` lengths, sorted, that add the least to the needed lengths."""
    lengths, counts = np.unique(needed, return_counts=True)
    within = np.concatenate([[0], np.cumsum(counts)])
    # best[i]: the cost of the first i lengths, and the lengths that are used for them.
    best = [(0.0, ())] + [(np.inf, ())] * len(lengths)
    for _ in range(number):
        best = [best[0]] + [
            min(
                (
                    best[i][0] + lengths[j - 1] * (within[j] - within[i]),
                    (*best[i][1], lengths[j - 1]),
                )
                for i in range(j)
            )
            for j in range(1, len(best))
        ]
    return np.array(best[-1][1])


def segment_gradients(
    contractions: Sequence[Contraction], blocks: Blocks
) -> list[Array]:
    """Computes each weight's gradients for each segment, ``[segments, *weight]``."""
    lengths = np.asarray(blocks.capacities)
    divided = isinstance(blocks.segments, jax.Array)
    parts: list[list[Array]] = [[] for _ in contractions]
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        edges = blocks.starts[chosen], blocks.stops[chosen]
        for part, contraction in zip(parts, contractions, strict=True):

            def window(edges, contraction=contraction, length=length):
                rows, inside = rows_of(blocks, edges[0], edges[1], length)
                return _contract(contraction, rows, inside)

            at_once = min(_blocks_at_once(contraction, length), len(chosen))
            part.append(map_gradients(window, edges, contraction, at_once))
    sums = [_gather_segments(part, lengths, blocks) for part in parts]
    return sums if divided else _add_rest(contractions, blocks, sums)


def map_gradients(
    gradient: Callable[[Any], Array],
    arguments: PyTree[Array],
    contraction: Contraction,
    at_once: int,
) -> Array:
    """Computes gradients for several arguments, in the way that is fast."""
    arrays = (*contraction.operands, contraction.cotangent)
    number = len(jax.tree.leaves(arguments)[0])
    if not contraction.convolved or platform_of(arrays) != "cpu":
        return jax.lax.map(gradient, arguments, batch_size=at_once)
    if number > _MOST_UNROLLED:
        return jax.vmap(gradient)(arguments)
    alone = [jax.tree.map(lambda x, i=i: x[i], arguments) for i in range(number)]
    return jnp.stack([gradient(argument) for argument in alone])


def rows_of(
    blocks: Blocks, start: Int[Array, ""], stop: Int[Array, ""], length: int
) -> tuple[Int[Array, " rows"], Bool[Array, " rows"]]:
    """Returns the first ``length`` examples of a block, and which rows hold one."""
    place = start + jnp.arange(length, dtype=jnp.int32)
    inside = place < stop
    # Other rows read an example of some block, which cannot hold a masked NaN.
    return blocks.order[jnp.where(inside, place, 0)], inside


def _blocks_at_once(contraction: Contraction, length: int) -> int:
    """Returns how many windows to fill before contracting them: all that fit.

    All that fit are the fastest on a GPU; on a CPU any number of products is equally
    fast.
    """
    arrays = (*contraction.operands, contraction.cotangent)
    room = 2**26 if platform_of(arrays) == "cpu" else 2**30
    whole = sum(v.nbytes for v in arrays)
    share = length / contraction.cotangent.shape[contraction.axis]
    return max(int(room / max(whole * share, 1)), 1)


def _contract(
    contraction: Contraction, rows: Int[Array, " rows"], inside: Bool[Array, " rows"]
) -> Array:
    def cut(value: Array, axis: int) -> Array:
        return jnp.take(value, rows, axis=axis, mode="clip")

    axis = contraction.axis
    cotangent = select(inside, cut(contraction.cotangent, axis), axis)
    operands = [
        cut(value, axis)
        for value, axis in zip(contraction.operands, contraction.axes, strict=True)
    ]
    return contraction.apply(operands, cotangent)


def _gather_segments(
    parts: Sequence[Array], lengths: np.ndarray, blocks: Blocks
) -> Array:
    """Sums rows of blocks, which are grouped by capacity, within each segment."""
    if isinstance(blocks.segments, jax.Array):
        return sum_segments(blocks, parts[0])
    segments = np.asarray(blocks.segments)[np.argsort(lengths, kind="stable")]
    if len(segments) > blocks.num_segments:
        rows = jnp.concatenate(parts)
        return sum_segments(blocks._replace(segments=segments), rows)
    if len(parts) == 1 and (np.diff(segments) > 0).all():
        return parts[0]
    rows = [part[i] for part in parts for i in range(len(part))]
    return jnp.stack([rows[i] for i in np.argsort(segments)])


def sum_segments(blocks: Blocks, rows: Array) -> Array:
    """Sums rows of blocks within each segment."""
    here = blocks.segments == np.arange(blocks.num_segments)[:, None]
    return mix(jnp.asarray(here), rows)


def _add_rest(
    contractions: Sequence[Contraction], blocks: Blocks, sums: list[Array]
) -> list[Array]:
    """Adds the examples beyond the blocks' windows, one window at a time."""
    segments = jnp.asarray(blocks.segments, jnp.int32)
    length = max(blocks.capacities)
    if length == len(blocks.order) and min(blocks.capacities) == length:
        return sums

    def unfinished(state):
        starts, _ = state
        return jnp.any(starts < blocks.stops)

    def add(state):
        starts, sums = state
        block = jnp.argmax(blocks.stops - starts)
        rows, inside = rows_of(blocks, starts[block], blocks.stops[block], length)
        sums = [
            total.at[segments[block]].add(_contract(contraction, rows, inside))
            for total, contraction in zip(sums, contractions, strict=True)
        ]
        return starts.at[block].add(length), sums

    starts = blocks.starts + jnp.asarray(blocks.capacities, jnp.int32)
    return jax.lax.while_loop(unfinished, add, (starts, sums))[1]


def along(values: Array, axis: int, like: Array) -> Array:
    """Reshapes ``[n]`` to broadcast against an array with ``n`` rows at an axis."""
    return values.reshape([-1 if d == axis else 1 for d in range(like.ndim)])


def select(chosen: Bool[Array, " n"], value: Array, axis: int) -> Array:
    """Returns an array with 0 in the rows at an axis that are not chosen."""
    return jnp.where(along(chosen, axis, value), value, 0)


def mix(matrix: Array, rows: Array) -> Float[Array, "K ..."]:
    """Computes ``matrix [K, segments] @ rows [segments, *param]`` in the rows' type."""
    wide = jnp.promote_types(rows.dtype, jnp.float32)
    flat = rows.reshape(rows.shape[0], -1).astype(wide)
    mixed = jnp.dot(matrix.astype(wide), flat, precision=jax.lax.Precision.HIGHEST)
    return mixed.reshape(-1, *rows.shape[1:]).astype(rows.dtype)
