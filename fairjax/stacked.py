"""Stacked gradients ``[K, *param]``: their validation, and a form of factors."""

import abc
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.types import Gramian, Jacobian, Params


class FactoredRows(abc.ABC):
    """Gradients ``[K, *param]`` that are never stored.

    A transformation that reads gradients by :func:`fairjax.gramian` and
    :func:`fairjax.combine` alone takes them in place of a Jacobian.

    Example:
      >>> import jax.numpy as jnp
      >>> class Scaled(FactoredRows):
      ...     scales, row = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
      ...     num_objectives = 2
      ...
      ...     def gramian(self):
      ...         return jnp.outer(self.scales, self.scales) * (self.row @ self.row)
      ...
      ...     def combine(self, weights):
      ...         return (weights @ self.scales) * self.row
      >>> Scaled().gramian()
      Array([[ 25.,  50.],
             [ 50., 100.]], dtype=float32)
      >>> Scaled().combine(jnp.array([1.0, 1.0]))
      Array([ 9., 12.], dtype=float32)
    """

    @property
    @abc.abstractmethod
    def num_objectives(self) -> int:
        """The number of objectives, K."""

    @abc.abstractmethod
    def gramian(self) -> Gramian:
        """Computes inner products of the gradients, ``[K, K]``."""

    @abc.abstractmethod
    def combine(self, weights: Float[Array, " K"]) -> Params:
        """Computes a weighted sum of the gradients, ``[*param]``."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses to be taken for an array."""
        raise TypeError("factored gradients are not an array")


def num_objectives(jacobian: Jacobian) -> int:
    """Returns K, the common length of the leaves' leading axes.

    Raises:
      ValueError: There are no leaves, a leaf is a scalar, or leading axes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> num_objectives({"w": jnp.zeros((3, 2)), "b": jnp.zeros(3)})
      3
    """
    if isinstance(jacobian, FactoredRows):
        return jacobian.num_objectives
    leaves = jax.tree_util.tree_leaves_with_path(jacobian)
    lengths = Counter(jnp.shape(leaf)[:1] for _, leaf in leaves)
    if len(lengths) != 1 or () in lengths:
        # The most common length is likely right: list leaves of other lengths first.
        usual, _ = (lengths or Counter([()])).most_common(1)[0]
        leaves.sort(key=lambda named: jnp.shape(named[1])[:1] == usual)
        shown = "; ".join(_named(path, leaf) for path, leaf in leaves[:8])
        raise ValueError(
            "stacked gradients must have one leading axis of the same length on every "
            f"leaf, [K, *param]; got: {shown or 'no leaves'}"
            f"{'; ...' if len(leaves) > 8 else ''}."
        )
    return jnp.shape(leaves[0][1])[0]


def check_rows(
    updates: Jacobian, expected: int, what: str, params: Params | None = None
) -> None:
    """Checks that gradients are stacked, ``[K, *param]``, for this many objectives.

    Args:
      updates: The gradients.
      expected: K.
      what: The part of fairjax that reads the gradients, as a subject in messages.
      params: The parameters, if they are to be compared with the gradients.

    Raises:
      ValueError: As :func:`num_objectives`; K differs; or, where parameters are given,
        a leaf does not have its parameter's shape behind the leading axis.

    Example:
      >>> import jax.numpy as jnp
      >>> check_rows({"w": jnp.zeros((3, 2))}, 3, "this reconciler")
      >>> check_rows({"w": jnp.zeros((2, 2))}, 3, "this reconciler")
      Traceback (most recent call last):
        ...
      ValueError: this reconciler was made for 3 objectives; ...2 rows: ...
    """
    rows = num_objectives(updates)
    if isinstance(updates, FactoredRows):
        params = None
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    if rows != expected:
        shown = f": {_named(*leaves[0])}, where ({expected}, *param) is needed."
        raise ValueError(
            f"{what} was made for {expected} objectives; the gradients have {rows} rows"
            f"{'.' if isinstance(updates, FactoredRows) else shown}"
        )
    if params is None:
        return
    if jax.tree.structure(params) != jax.tree.structure(updates):
        have = {path for path, _ in leaves}
        for path, param in jax.tree_util.tree_leaves_with_path(params):
            # Trees of another kind with as many leaves may use other names.
            if path not in have and len(jax.tree.leaves(params)) > len(leaves):
                raise ValueError(
                    "the gradients have no leaf for parameter "
                    f"{jax.tree_util.keystr(path)} of shape {jnp.shape(param)}."
                )
        return
    for (path, leaf), param in zip(leaves, jax.tree.leaves(params), strict=True):
        if jnp.shape(leaf) != (expected, *jnp.shape(param)):
            raise ValueError(
                f"gradients must be stacked, [K, *param]: {_named(path, leaf)}, and "
                f"its parameter {jnp.shape(param)}; with {expected} objectives "
                f"{(expected, *jnp.shape(param))} is needed."
            )


def check_update(updates: Any, params: Params) -> None:
    """Checks that a transformation returns one update, ``[*param]``, not K rows.

    Optax adds an update of shape ``[K, *param]`` to a parameter of shape ``[*param]``
    without an error, by broadcasting.

    Raises:
      ValueError: A leaf does not have its parameter's shape.

    Example:
      >>> check_update({"w": jnp.zeros(2)}, {"w": jnp.zeros(2)})
      >>> check_update({"w": jnp.zeros((3, 2))}, {"w": jnp.zeros(2)})
      Traceback (most recent call last):
        ...
      ValueError: the transformation must return one update, [*param]; ...
    """
    if jax.tree.structure(updates) != jax.tree.structure(params):
        return  # Optax names the difference.
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    for (path, leaf), param in zip(leaves, jax.tree.leaves(params), strict=True):
        if jnp.shape(leaf) != jnp.shape(param):
            raise ValueError(
                "the transformation must return one update, [*param]; "
                f"{_named(path, leaf)}, where its parameter has {jnp.shape(param)}. "
                "Every parameter's stacked gradients, [K, *param], must pass through a "
                "reconciler, such as fairjax.pcgrad, once: begin the optax.chain with "
                "one, and give parts of the parameters theirs by fairjax.per_label."
            )


def check_per_objective(name: str, values: Any, expected: int) -> None:
    """Checks that an extra argument has one value for each objective.

    Raises:
      ValueError: The shape is not ``[K]``.

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
    """Returns which objectives the mask selects, and which are entirely finite.

    Raises:
      ValueError: Losses or a mask do not have K values.

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


def within_range(update: Params) -> tuple[Params, Bool[Array, ""]]:
    """Returns an update, or zeros if its type cannot hold it, and whether it can.

    Only types of a smaller range than the rows' norms are read, such as float16.

    Example:
      >>> within_range({"w": jnp.array([1.0, jnp.inf], jnp.float16)})
      ({'w': Array([0., 0.], dtype=float16)}, Array(False, dtype=bool))
    """
    leaves = jax.tree.leaves(update)
    narrow = [leaf for leaf in leaves if float(jnp.finfo(leaf.dtype).max) < 1e19]
    held = jnp.ones((), bool)
    for leaf in narrow:
        held &= jnp.all(jnp.isfinite(leaf))
    if narrow:
        update = jax.tree.map(lambda leaf: jnp.where(held, leaf, 0), update)
    return update, held


def as_rows(values: Array, leaf: Array) -> Array:
    """Reshapes ``[K]`` to broadcast against a leaf ``[K, *param]``.

    Example:
      >>> (as_rows(jnp.array([1.0, 2.0]), jnp.ones((2, 1, 2))) * jnp.ones(2)).tolist()
      [[[1.0, 1.0]], [[2.0, 2.0]]]
    """
    return values.reshape((-1,) + (1,) * (jnp.ndim(leaf) - 1))


def _named(path: tuple[Any, ...], leaf: Any) -> str:
    name = jax.tree_util.keystr(path)
    what = f"leaf {name}" if name else "the array"
    return f"{what} has shape {jnp.shape(leaf)}"
