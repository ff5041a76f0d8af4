"""Gradients of segments for a model that is only known to treat examples one by one.

The examples of each block are dealt to groups of one size, the last group of a block
padded, and each group is differentiated by itself, all of them at once.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fairjax._segments import Blocks, mix


def padded_gradients(
    statistics: Callable[[Sequence[Array], Sequence[Array]], Sequence[Array]],
    params: Sequence[Array],
    batch: Sequence[Array],
    cotangents: Sequence[Array],
    blocks: Blocks,
) -> list[Array]:
    """Gradients of the parameters for each segment, ``[segments, *param]``.

    Args:
      statistics: ``statistics(params, batch) -> [[B], ...]``, for any number of
        examples.
      params: The leaves of the parameters.
      batch: The leaves of the batch.
      cotangents: Of the statistics, ``[B]`` each.
      blocks: The segments.
    """
    size = cotangents[0].shape[0]
    length = group_length(size, len(blocks.segments))
    # Every block has at most one group that is not full.
    groups = size // length + len(blocks.segments)
    needed = -(-(blocks.stops - blocks.starts) // length)
    firsts = jnp.cumsum(needed) - needed
    group = jnp.arange(groups)
    block = jnp.searchsorted(firsts, group, side="right") - 1
    start = blocks.starts[block] + (group - firsts[block]) * length
    rows = start[:, None] + jnp.arange(length)
    inside = rows < blocks.stops[block][:, None]
    rows = blocks.order[jnp.where(inside, rows, 0)]

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
    segment = jnp.asarray(blocks.segments)[block]
    member = segment[None, :] == jnp.arange(blocks.num_segments)[:, None]
    return [mix(member, leaf) for leaf in found]


def group_length(size: int, blocks: int) -> int:
    """Examples of a group: half of what a block has on average, 1 at least."""
    return max(size // (2 * blocks), 1)
