"""Columns of rows: checked, and made into arrays of weights, labels and scores."""

from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

ScoreRows: TypeAlias = Float[Array | np.ndarray, " rows"]


def check_rows(num_groups: int, **columns) -> None:
    """Raises unless there is a group and the columns are of one length.

    Args:
      num_groups: Number of groups declared.
      **columns: ``[rows]`` each, by name; None is passed over.

    Raises:
      ValueError: If not so.
    """
    if num_groups < 1:
        raise ValueError(f"num_groups must be at least 1, got {num_groups}.")
    shapes = {name: np.shape(c) for name, c in columns.items() if c is not None}
    if len(set(shapes.values())) != 1 or any(len(s) != 1 for s in shapes.values()):
        raise ValueError(
            f"The columns must be one-dimensional and of one length, got {shapes}."
        )


def as_mass(weights, rows: int) -> Shaped[Array, " rows"]:
    """Weights as int32, if they are whole by type, or as floats; ones by default."""
    if weights is None:
        return jnp.ones(rows, jnp.int32)
    weights = jnp.asarray(weights)
    if jnp.issubdtype(weights.dtype, jnp.floating):
        return weights.astype(jnp.result_type(weights, float))
    return weights.astype(jnp.int32)


class BinaryTable(NamedTuple):
    """Columns as arrays; a row that takes no part has group -1 and no mass."""

    labels: Int[Array, " rows"]
    scores: Float[Array, " rows"]
    groups: Int[Array, " rows"]
    mass: Shaped[Array, " rows"]


def binary_rows(labels, scores, groups, num_groups: int, weights) -> BinaryTable:
    """Checks the columns, and leaves out rows in no group or of neither label."""
    check_rows(num_groups, labels=labels, scores=scores, groups=groups, weights=weights)
    labels, scores = jnp.asarray(labels), jnp.asarray(scores)
    mass, groups = as_mass(weights, labels.size), jnp.asarray(groups)
    kept = (labels == 0) | (labels == 1)
    # A missing score of a row without weight is nobody's.
    kept &= (groups >= 0) & (groups < num_groups) & (mass != 0)
    return BinaryTable(
        (labels == 1).astype(jnp.int32),
        jnp.where(kept, scores, 0),
        jnp.where(kept, groups, -1).astype(jnp.int32),
        jnp.where(kept, mass, 0),
    )
