"""Array aliases, protocols and checks that all of fairjax shares."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

Params: TypeAlias = PyTree
"""A pytree of floating-point arrays: the parameters of a model."""

Jacobian: TypeAlias = PyTree
"""A pytree like ``Params`` with a leading objective axis: ``[K, *param]``."""

Batch: TypeAlias = Mapping[str, Any]
"""Arrays whose leading axis is the example: ``cells`` and the model's inputs."""

Scalar: TypeAlias = Float[Array, ""] | Float[np.ndarray, ""] | float | int
Numbers: TypeAlias = (
    Sequence[float | int]
    | Float[Array, " R"]
    | Float[np.ndarray, " R"]
    | Int[Array, " R"]
)
Values: TypeAlias = Float[Array, " K"]
Gramian: TypeAlias = Float[Array, "K K"]
Coefficients: TypeAlias = Float[Array, "R K"]
Mask: TypeAlias = Bool[Array, " K"]
CellIds: TypeAlias = Int[Array, " B"]
PerExample: TypeAlias = Float[Array, " B"]


def is_known(value: Any) -> bool:
    """Returns whether a value is concrete, rather than traced.

    Example:
      >>> is_known(0.5)
      True
    """
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Checks that a setting on which array shapes depend is a static integer.

    Args:
      name: The setting, for the message.
      value: The value of the setting.
      least: The least value allowed.

    Raises:
      ValueError: The value is not a static integer, or is below ``least``.

    Example:
      >>> check_whole("num_objectives", 3)
      >>> check_whole("num_objectives", 0)
      Traceback (most recent call last):
        ...
      ValueError: num_objectives must be at least 1; got 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(
            f"{name} must be a static Python int, because array shapes depend on it; "
            f"got {value!r}. With optax.inject_hyperparams, name it in static_args."
        )
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}.")


def known_number(name: str, value: Any) -> Any:
    """Returns a number as NumPy's, or None if it is traced.

    Raises:
      ValueError: The value is not one number.

    Example:
      >>> float(known_number("beta", 0.5))
      0.5
      >>> known_number("beta", [0.5, 0.5])
      Traceback (most recent call last):
        ...
      ValueError: beta must be one number; got shape (2,).
    """
    if not is_known(value):
        return None
    # Under jit, a comparison would trace even an array that is known.
    number = np.asarray(value)
    if number.ndim:
        raise ValueError(f"{name} must be one number; got shape {number.shape}.")
    return number


def check_nonnegative(name: str, value: Any) -> None:
    """Checks that a number is 0 or more; a traced number passes unchecked.

    Raises:
      ValueError: The number is below 0, or NaN.

    Example:
      >>> check_nonnegative("epsilon", 0.0)
      >>> check_nonnegative("epsilon", -1.0)
      Traceback (most recent call last):
        ...
      ValueError: epsilon must be 0 or more; got -1.0.
    """
    number = known_number(name, value)
    if number is not None and not number >= 0:
        raise ValueError(f"{name} must be 0 or more; got {value}.")


def check_positive(name: str, value: Any) -> None:
    """Checks that a number is positive; a traced number passes unchecked.

    Raises:
      ValueError: The number is 0 or less, or NaN.

    Example:
      >>> check_positive("alpha", 0.5)
      >>> check_positive("alpha", 0.0)
      Traceback (most recent call last):
        ...
      ValueError: alpha must be positive; got 0.0.
    """
    number = known_number(name, value)
    if number is not None and not number > 0:
        raise ValueError(f"{name} must be positive; got {value}.")


def check_choice(name: str, value: Any, *choices: Any, other: str = "") -> None:
    """Checks that a setting is one of the choices.

    Args:
      name: The setting, for the message.
      value: The value of the setting.
      *choices: The values allowed.
      other: A further kind of value for the message, in words, such as ``"weights"``.
        The caller has already checked that ``value`` is not of this kind.

    Raises:
      ValueError: The value is not one of the choices.

    Example:
      >>> check_choice("scale", "min", "min", "median")
      >>> check_choice("scale", "max", "min", "median")
      Traceback (most recent call last):
        ...
      ValueError: scale must be 'min' or 'median'; got 'max'.
    """
    if value not in choices:
        *first, last = [*map(repr, choices), *([other] if other else [])]
        raise ValueError(f"{name} must be {', '.join(first)} or {last}; got {value!r}.")


def check_decay(value: Any) -> None:
    """Checks that the decay of a moving average lies in [0, 1), unless it is traced.

    Raises:
      ValueError: The decay lies outside [0, 1), or is NaN.

    Example:
      >>> check_decay(0.9)
      >>> check_decay(1.0)
      Traceback (most recent call last):
        ...
      ValueError: decay must lie in [0, 1); got 1.0.
    """
    number = known_number("decay", value)
    if number is not None and not 0 <= number < 1:
        raise ValueError(f"decay must lie in [0, 1); got {value}.")


def vary(tree: PyTree[Array], axes: Sequence[str]) -> PyTree[Array]:
    """Marks values as varying over mesh axes, where they do not vary yet.

    Within ``jax.shard_map`` a loop's first values must vary like those that follow.

    Example:
      >>> vary(jnp.zeros(2), ())
      Array([0., 0.], dtype=float32)
    """

    def leaf(value: Array) -> Array:
        known = jax.typeof(value).manual_axis_type.varying
        new = tuple(axis for axis in axes if axis not in known)
        return jax.lax.pcast(value, new, to="varying") if new else value

    return jax.tree.map(leaf, tree)


def vary_like(tree: PyTree[Array], like: Array) -> PyTree[Array]:
    """Marks values as varying over the mesh axes over which an array varies.

    Example:
      >>> vary_like(jnp.zeros(2), jnp.eye(2))
      Array([0., 0.], dtype=float32)
    """
    return vary(tree, tuple(jax.typeof(like).manual_axis_type.varying))


def gathered(rows: Any) -> Array:
    """Returns the array, replicated over the mesh if explicit axes shard it.

    JAX raises an error where a sort, a scatter or a comparison of rows with rows meets
    an array that explicit axes shard. Over automatic axes the compiler places the
    shards by itself.

    Example:
      >>> gathered([1, 2])
      Array([1, 2], dtype=int32)
    """
    rows = jnp.asarray(rows)
    sharding = jax.typeof(rows).sharding
    if all(axis is None for axis in sharding.spec):
        return rows
    nowhere = PartitionSpec(*[None] * rows.ndim)
    return jax.sharding.reshard(rows, NamedSharding(sharding.mesh, nowhere))


@runtime_checkable
class ObjectiveFn(Protocol):
    """``objective_fn(params, *args) -> values [K]``."""

    def __call__(self, params: Params, /, *args: Any) -> Any:
        """Returns the values."""
        ...
