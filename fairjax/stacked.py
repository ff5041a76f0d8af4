"""What stacked gradients ``[K, *param]`` are, and what is asked of them at the door."""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.types import Jacobian, Params


def num_objectives(jacobian: Jacobian) -> int:
    """K, the length of the leading axis that all leaves share.

    Raises:
      ValueError: No leaves, a scalar leaf, or leaves whose leading axes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> num_objectives({"w": jnp.zeros((3, 2)), "b": jnp.zeros(3)})
      3
    """
    leaves = jax.tree_util.tree_leaves_with_path(jacobian)
    found = Counter(jnp.shape(leaf)[:1] for _, leaf in leaves)
    if len(found) != 1 or () in found:
        # What most leaves have is likely right: those that differ come first.
        usual, _ = (found or Counter([()])).most_common(1)[0]
        leaves.sort(key=lambda named: jnp.shape(named[1])[:1] == usual)
        shown = "; ".join(_named(path, leaf) for path, leaf in leaves[:8])
        raise ValueError(
            "stacked gradients need one leading axis of the same length on every "
            f"leaf, [K, *param]. Found: {shown or 'no leaves'}"
            f"{'; ...' if len(leaves) > 8 else ''}."
        )
    return jnp.shape(leaves[0][1])[0]


def check_rows(
    updates: Jacobian, expected: int, what: str, params: Params | None = None
) -> None:
    """Refuse gradients that are not stacked, ``[K, *param]``, for this many objectives.

    Raises:
      ValueError: As :func:`num_objectives`; another K; or, where the parameters are
        known, a leaf without its parameter's shape behind the leading axis.

    Example:
      >>> import jax.numpy as jnp
      >>> check_rows({"w": jnp.zeros((3, 2))}, 3, "this reconciler")
      >>> check_rows({"w": jnp.zeros((2, 2))}, 3, "this reconciler")
      Traceback (most recent call last):
        ...
      ValueError: this reconciler was made for 3 objectives; ...2 rows: ...
    """
    rows = num_objectives(updates)
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    if rows != expected:
        raise ValueError(
            f"{what} was made for {expected} objectives; the gradients have {rows} "
            f"rows: {_named(*leaves[0])}, where ({expected}, *param) is needed."
        )
    if params is None:
        return
    if jax.tree.structure(params) != jax.tree.structure(updates):
        have = {path for path, _ in leaves}
        for path, param in jax.tree_util.tree_leaves_with_path(params):
            # Trees of other kinds with as many leaves may name their parts otherwise.
            if path not in have and len(jax.tree.leaves(params)) > len(leaves):
                raise ValueError(
                    f"the gradients miss parameter {jax.tree_util.keystr(path)} of "
                    f"shape {jnp.shape(param)}."
                )
        return
    for (path, leaf), param in zip(leaves, jax.tree.leaves(params), strict=True):
        if jnp.shape(leaf) != (expected, *jnp.shape(param)):
            raise ValueError(
                f"gradients are stacked, [K, *param]: {_named(path, leaf)}, and its "
                f"parameter {jnp.shape(param)}; with {expected} objectives "
                f"{(expected, *jnp.shape(param))} is needed."
            )


def check_per_objective(name: str, values: Any, expected: int) -> None:
    """Refuse an extra argument that has not one value for each objective.

    Raises:
      ValueError: Another shape than ``[K]``.

    Example:
      >>> check_per_objective("mask", jnp.array([True, False]), 2)
      >>> check_per_objective("mask", jnp.array([True]), 2)
      Traceback (most recent call last):
        ...
      ValueError: mask has shape (1,); one value per objective is needed, shape (2,).
    """
    if values is not None and jnp.shape(values) != (expected,):
        raise ValueError(
            f"{name} has shape {jnp.shape(values)}; one value per objective is "
            f"needed, shape ({expected},)."
        )


def taking_part(
    updates: Jacobian,
    *,
    losses: Float[Array, " K"] | None,
    mask: Bool[Array, " K"] | None,
) -> tuple[Bool[Array, " K"], Bool[Array, " K"]]:
    """Which objectives the mask asks for, and which are finite throughout.

    Raises:
      ValueError: Losses or a mask without K values.

    Example:
      >>> rows = jnp.array([[1.0], [jnp.inf]])
      >>> taking_part(rows, losses=None, mask=None)
      (Array([ True,  True], dtype=bool), Array([ True, False], dtype=bool))
    """
    rows = num_objectives(updates)
    check_per_objective("losses", losses, rows)
    check_per_objective("mask", mask, rows)
    finite = jnp.ones(rows, bool)
    for leaf in jax.tree.leaves(updates):
        finite &= jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, jnp.ndim(leaf))))
    if losses is not None:
        finite &= jnp.isfinite(losses)
    asked = jnp.ones(rows, bool) if mask is None else jnp.asarray(mask, bool)
    return asked, finite


def as_rows(values: Array, leaf: Array) -> Array:
    """``[K]`` in the shape that broadcasts against a leaf ``[K, *param]``.

    Example:
      >>> (as_rows(jnp.array([1.0, 2.0]), jnp.ones((2, 1, 2))) * jnp.ones(2)).tolist()
      [[[1.0, 1.0]], [[2.0, 2.0]]]
    """
    return values.reshape((-1,) + (1,) * (jnp.ndim(leaf) - 1))


def _named(path: tuple[Any, ...], leaf: Any) -> str:
    name = jax.tree_util.keystr(path)
    what = f"leaf {name}" if name else "the array"
    return f"{what} has shape {jnp.shape(leaf)}"
