r"""Gram matrix and combination of stacked gradients: the passes over all parameters.

A reconciler reads the stacked gradients :math:`J` [K, P] twice: once for
:math:`G = J J^\top`, and once for :math:`W J`. All code between these two passes reads
K×K numbers only.
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from fairjax.stacked import num_objectives
from fairjax.types import Gramian, Jacobian, Params


def gramian(jacobian: Jacobian) -> Gramian:
    r"""Computes inner products of gradients: :math:`G_{ij} = g_i \cdot g_j`.

    Args:
      jacobian: Pytree of ``[K, *param]`` floating arrays of any dtype and sharding.

    Returns:
      ``[K, K]``, summed over all leaves. The sums are accumulated in float32, or in
      float64 for float64 leaves, and replicated over the mesh, if there is one.

    Raises:
      ValueError: There are no leaves, or the leaves' leading axes differ.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> fairjax.gramian({"w": jnp.array([[3.0, 4.0], [1.0, 0.0]])})
      Array([[25.,  3.],
             [ 3.,  1.]], dtype=float32)
    """
    num_objectives(jacobian)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(jacobian)]
    total = _leaf_gramian(leaves[0])
    for leaf in leaves[1:]:
        total += _leaf_gramian(leaf)
    return total


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
    if weights.ndim == 1:
        return jax.tree.map(
            lambda leaf: _weighted_sum(weights, jnp.asarray(leaf)), jacobian
        )
    sums = [combine(row, jacobian) for row in weights]
    return jax.tree.map(lambda *rows: jnp.stack(rows), *sums)


def _leaf_gramian(leaf: Array) -> Gramian:
    axes = tuple(range(1, leaf.ndim))
    return jax.lax.dot_general(
        leaf,
        leaf,
        ((axes, axes), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=_accumulator(leaf),
        out_sharding=_replicated(leaf),
    )


def _weighted_sum(weights: Float[Array, " K"], leaf: Array) -> Array:
    # One fused pass over the rows. A matrix product would read the rows as fast, but
    # would need a copy of the rows with excluded rows set to 0. On a mesh with explicit
    # axes it would also need an output sharding, which only the caller knows.
    wide = _accumulator(leaf)
    weights = weights.astype(wide).reshape((-1,) + (1,) * (leaf.ndim - 1))
    rows = jnp.where(weights != 0, weights * leaf.astype(wide), 0)
    return jnp.sum(rows, axis=0).astype(leaf.dtype)


def _accumulator(leaf: Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)


def _replicated(leaf: Array) -> NamedSharding | None:
    """Returns the output sharding that a contraction over explicit axes must name."""
    sharding = jax.typeof(leaf).sharding
    mesh = sharding.mesh
    if mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return None
    return NamedSharding(mesh, PartitionSpec())
