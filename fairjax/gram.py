r"""Gram matrix and combination of stacked gradients: the passes over all parameters.

A reconciler reads the stacked gradients :math:`J` [K, P] twice: once for
:math:`G = J J^\top`, and once for :math:`W J`. All code between these two passes reads
K×K numbers only.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from fairjax.stacked import FactoredRows, num_objectives
from fairjax.types import Gramian, Jacobian, Params

# On a CPU, columns of the rows whose inner products are computed at a time.
_COLUMNS = 8192
# A sum of more rows than the most is a loop over blocks of rows, which compiles once.
_MOST_ROWS, _ROWS = 16, 8


def gramian(jacobian: Jacobian, other: Jacobian | None = None) -> Gramian:
    r"""Computes inner products of gradients: :math:`G_{ij} = g_i \cdot g_j`.

    Args:
      jacobian: Pytree of ``[K, *param]`` floating arrays of any dtype and sharding.
      other: Gradients of the same shapes and dtypes on another batch, for the products
        :math:`g_i \cdot g'_j` of both batches; None for those of one batch. If the
        batches are independent, the products have no bias by noise on the diagonal.

    Returns:
      ``[K, K]``, summed over all leaves. The sums are accumulated in float32, or in
      float64 for float64 leaves, and replicated over the mesh, if there is one.

    Raises:
      ValueError: There are no leaves, the leaves' leading axes differ, gradients are
        complex, or the other gradients have other shapes.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> fairjax.gramian({"w": jnp.array([[3.0, 4.0], [1.0, 0.0]])})
      Array([[25.,  3.],
             [ 3.,  1.]], dtype=float32)
      >>> fairjax.gramian(jnp.array([[3.0, 4.0], [1.0, 0.0]]), 2 * jnp.eye(2))
      Array([[6., 8.],
             [2., 0.]], dtype=float32)
    """
    num_objectives(jacobian)
    if isinstance(jacobian, FactoredRows) and other is None:
        return jacobian.gramian()
    trees = (jacobian,) if other is None else (jacobian, other)
    leaves = [[jnp.asarray(x) for x in jax.tree.leaves(tree)] for tree in trees]
    if any(jnp.iscomplexobj(leaf) for leaf in leaves[0]):
        raise ValueError(
            "gradients must be real; got complex ones. Stack their real and imaginary "
            "parts, or wrap a reconciler in optax.contrib.split_real_and_imaginary."
        )
    first, second = ([leaf.shape for leaf in leaves[i]] for i in (0, -1))
    if first != second:
        raise ValueError(
            f"the other gradients must have the first ones' shapes, {first}; got "
            f"{second}."
        )
    return functools.reduce(jnp.add, map(_leaf_gramian, *leaves))


def combine(
    weights: Float[Array, " K"] | Float[Array, "R K"], jacobian: Jacobian
) -> Params | Jacobian:
    r"""Computes weighted sums of the rows: :math:`d_r = \sum_k w_{rk}\, g_k`.

    A row whose weight is exactly 0 is left out of the sum. So values that are not
    finite do not spread from rows of weight 0.

    Args:
      weights: ``[K]`` for one sum, or ``[R, K]`` for several.
      jacobian: Pytree of ``[K, *param]``.

    Returns:
      Pytree of ``[*param]``, or of ``[R, *param]``, in the leaves' dtypes and with the
      parameters' sharding. The sums are accumulated in float32 at least.

    Raises:
      ValueError: The weights do not fit the number of rows.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> rows = {"w": jnp.array([[3.0, 4.0], [jnp.nan, 0.0]])}
      >>> fairjax.combine(jnp.array([2.0, 0.0]), rows)
      {'w': Array([6., 8.], dtype=float32)}
    """
    rows = num_objectives(jacobian)
    if weights.shape[-1] != rows:
        raise ValueError(
            f"weights of shape {weights.shape} do not fit {rows} rows of the Jacobian."
        )
    if weights.ndim == 1 and isinstance(jacobian, FactoredRows):
        return jacobian.combine(weights)
    if weights.ndim == 1:
        return jax.tree.map(
            lambda leaf: _weighted_sum(weights, jnp.asarray(leaf)), jacobian
        )
    sums = [combine(row, jacobian) for row in weights]
    return jax.tree.map(lambda *rows: jnp.stack(rows), *sums)


def _leaf_gramian(*leaves: Array) -> Gramian:
    """Returns the inner products of one leaf's rows, or of those of two batches."""
    leaf = leaves[0]

    def contract(*leaves: Array) -> Gramian:
        return _inner_products(leaves, tuple(range(1, leaf.ndim)))

    def contract_blocks(*leaves: Array) -> Gramian:
        rows = [leaf.reshape(leaf.shape[0], -1) for leaf in leaves]
        blocks = rows[0].shape[1] // _COLUMNS

        def add(block: Array, total: Gramian) -> Gramian:
            start = block * _COLUMNS
            some = [
                jax.lax.dynamic_slice_in_dim(row, start, _COLUMNS, 1) for row in rows
            ]
            return total + _inner_products(some, (1,))

        rest = _inner_products([row[:, blocks * _COLUMNS :] for row in rows], (1,))
        return jax.lax.fori_loop(0, blocks, add, rest)

    if leaf.size < 2 * _COLUMNS * len(leaf) or _may_be_spread(leaf):
        return contract(*leaves)
    # On a CPU, XLA would copy the rows to contract several axes, and takes up to ten
    # times longer for long rows than for blocks that fit into a cache.
    return jax.lax.platform_dependent(*leaves, cpu=contract_blocks, default=contract)


def _inner_products(leaves: Sequence[Array], axes: tuple[int, ...]) -> Gramian:
    leaf = leaves[0]
    return jax.lax.dot_general(
        leaf,
        leaves[-1],
        ((axes, axes), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=_accumulator(leaf),
        out_sharding=_replicated(leaf),
    )


def _weighted_sum(weights: Float[Array, " K"], leaf: Array) -> Array:
    # One pass over the rows, without a copy. A matrix product would need a copy with
    # the excluded rows set to 0. A sum along the first axis takes many times longer on
    # a CPU, but is the only form for rows that are spread over devices by their axis.
    weights = weights.astype(_accumulator(leaf))
    if jax.typeof(leaf).sharding.spec[0] is not None:
        weights = weights.reshape((-1,) + (1,) * (leaf.ndim - 1))
        return jnp.sum(_weighted(weights, leaf), axis=0).astype(leaf.dtype)

    def add(total: Array, k: Any) -> Array:
        return total + _weighted(weights[k], leaf[k])

    def add_block(block: Array, total: Array) -> Array:
        return functools.reduce(add, [block * _ROWS + i for i in range(_ROWS)], total)

    blocks = leaf.shape[0] // _ROWS if leaf.shape[0] > _MOST_ROWS else 0
    total = jnp.zeros_like(leaf[0], weights.dtype)
    if blocks:
        total = jax.lax.fori_loop(0, blocks, add_block, total)
    total = functools.reduce(add, range(blocks * _ROWS, leaf.shape[0]), total)
    return total.astype(leaf.dtype)


def _weighted(weight: Array, row: Array) -> Array:
    return jnp.where(weight != 0, weight * row.astype(weight.dtype), 0)


def _may_be_spread(leaf: Array) -> bool:
    """Checks whether the parameters' axes may be sharded, in a way that is not known.

    Under ``jit`` the types of arrays do not show how automatic axes are sharded.
    """
    mesh = jax.typeof(leaf).sharding.mesh
    kinds = set(mesh.axis_types) if not mesh.empty else {AxisType.Auto}
    return kinds != {AxisType.Manual} and jax.device_count("cpu") > 1


def _accumulator(leaf: Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)


def _replicated(leaf: Array) -> NamedSharding | None:
    """Returns the output sharding that a contraction over explicit axes must name."""
    sharding = jax.typeof(leaf).sharding
    mesh = sharding.mesh
    if mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return None
    return NamedSharding(mesh, PartitionSpec())
