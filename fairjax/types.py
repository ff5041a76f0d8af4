"""Array aliases, protocols and checks that the rooms share."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

Params: TypeAlias = PyTree
"""Any pytree of floating-point arrays: the parameters of a model."""

Jacobian: TypeAlias = PyTree
"""A pytree like ``Params`` with a leading objective axis: ``[K, *param]``."""

Batch: TypeAlias = Mapping[str, Any]
"""Arrays whose leading axis is the example: ``cells`` and whatever the model reads."""

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
    """Whether a value is known now, rather than traced.

    Example:
      >>> is_known(0.5)
      True
    """
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse a setting that shapes depend on, unless it is a whole number known now.

    Example:
      >>> check_whole("num_objectives", 3)
      >>> check_whole("num_objectives", 0)
      Traceback (most recent call last):
        ...
      ValueError: num_objectives is at least 1, not 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(
            f"{name} is a whole number that shapes depend on, so it is no array, not "
            f"{value!r}; with optax.inject_hyperparams, name it in static_args."
        )
    if value < least:
        raise ValueError(f"{name} is at least {least}, not {value}.")


def check_nonnegative(name: str, value: Any) -> None:
    """Refuse a number below 0, or NaN, if it is known now.

    Example:
      >>> check_nonnegative("epsilon", 0.0)
      >>> check_nonnegative("epsilon", -1.0)
      Traceback (most recent call last):
        ...
      ValueError: epsilon must be 0 or more, not -1.0.
    """
    if is_known(value) and not value >= 0:
        raise ValueError(f"{name} must be 0 or more, not {value}.")


def check_positive(name: str, value: Any) -> None:
    """Refuse a number of 0 or less, or NaN, if it is known now.

    Example:
      >>> check_positive("alpha", 0.5)
      >>> check_positive("alpha", 0.0)
      Traceback (most recent call last):
        ...
      ValueError: alpha must be positive, not 0.0.
    """
    if is_known(value) and not value > 0:
        raise ValueError(f"{name} must be positive, not {value}.")


def check_choice(name: str, value: Any, *choices: Any, other: str = "") -> None:
    """Refuse a setting that is not one of the choices.

    Args:
      name: The setting, for the message.
      value: What it was set to.
      *choices: What it may be.
      other: What else it may be, in words, where the caller has ruled that out.

    Raises:
      ValueError: The value is none of the choices.

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
    """Refuse the decay of a moving average outside [0, 1), if it is known now.

    Example:
      >>> check_decay(0.9)
      >>> check_decay(1.0)
      Traceback (most recent call last):
        ...
      ValueError: decay must lie in [0, 1), not 1.0.
    """
    if is_known(value) and not 0 <= value < 1:
        raise ValueError(f"decay must lie in [0, 1), not {value}.")


def gathered(rows: Any) -> Array:
    """The array, whole on every device if it lies in parts over explicit axes.

    A sort, a scatter, or rows compared with rows are an error there; over automatic
    axes the compiler places the parts by itself.

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
        """The values."""
        ...
