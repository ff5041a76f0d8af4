"""Checks of columns, and their conversion to arrays of weights, labels and scores."""

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from fairjax.types import gathered, is_known

ScoreRows: TypeAlias = Float[Array | np.ndarray, " rows"]
PatientRows: TypeAlias = Int[Array | np.ndarray, " rows"]
_P = ParamSpec("_P")
_R = TypeVar("_R")


def check_sizes(**sizes: int) -> None:
    """Checks that each number is at least 1.

    Raises:
      ValueError: If a number is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}.")


def group_sizes(num_groups: int | Sequence[int]) -> tuple[int, ...]:
    """Returns the number of groups of each attribute, for one attribute or several."""
    if isinstance(num_groups, Sequence):
        return tuple(operator.index(number) for number in num_groups)
    return (operator.index(num_groups),)


def check_columns(**columns: Any) -> None:
    """Checks that the columns are one-dimensional and of one length.

    Args:
      **columns: ``[rows]`` each, by name; None is skipped.

    Raises:
      ValueError: If the columns differ in length, or one has more dimensions.
    """
    shapes = {name: np.shape(c) for name, c in columns.items() if c is not None}
    if len(set(shapes.values())) != 1 or any(len(s) != 1 for s in shapes.values()):
        raise ValueError(
            f"The columns must be one-dimensional and of one length; got {shapes}."
        )


def as_columns(**columns: Any) -> tuple[Any, ...]:
    """Returns the columns as arrays, checked by `check_columns`; None stays None."""
    arrays = {n: None if c is None else jnp.asarray(c) for n, c in columns.items()}
    check_columns(**arrays)
    return tuple(arrays.values())


def as_rows(num_groups: int, **columns: Any) -> tuple[Any, ...]:
    """Returns the columns as checked arrays, gathered on every device.

    Args:
      num_groups: Number of groups declared.
      **columns: ``[rows]`` each, by name; None stays None.

    Raises:
      ValueError: If ``num_groups`` is below 1 or the columns differ in length.
    """
    check_sizes(num_groups=num_groups)
    arrays = as_columns(**columns)
    return tuple(None if c is None else gathered(c) for c in arrays)


def float_type(*values: Any) -> Any:
    """Returns the type for sums of the values, with at least single precision.

    A sum of 16-bit floats loses whole rows after a few hundred rows.
    """
    return jnp.promote_types(jnp.result_type(*values, float), jnp.float32)


def as_patients(patients: Any, num_patients: int | None) -> Any:
    """Returns patient codes as an array, checked if concrete; None if not given.

    Raises:
      ValueError: If only one of the two is given, ``num_patients`` is below 1, or a
        code lies outside ``0 .. num_patients - 1``.
    """
    if patients is None and num_patients is None:
        return None
    if patients is None or num_patients is None:
        raise ValueError("Give patients and num_patients together, or neither.")
    check_sizes(num_patients=num_patients)
    if is_known(patients):
        codes = np.asarray(patients)
        outside = (codes < 0) | (codes >= num_patients)
        if outside.any():
            raise ValueError(
                "patients must be codes in 0 .. num_patients - 1, here 0 .. "
                f"{num_patients - 1}; got {outside.sum()} of {codes.size} outside, "
                f"such as {codes[outside][0]}. Number the patients, for example with "
                "numpy.unique(ids, return_inverse=True)."
            )
    return gathered(patients)


def compiled(*static: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Returns a decorator that compiles a function of rows and checks its patients.

    The check comes before the compiled function, where values are traced and a code out
    of range cannot raise an error.

    Args:
      *static: Names of the static arguments, which are not arrays.

    Returns:
      A decorator like ``jax.jit``.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)
        inner = jax.jit(function, static_argnames=static)

        @functools.wraps(function)
        def checked(*args: _P.args, **options: _P.kwargs) -> _R:
            given = signature.bind(*args, **options).arguments
            as_patients(given.get("patients"), given.get("num_patients"))
            return inner(
                **{
                    name: v if v is None or name in static else jnp.asarray(v)
                    for name, v in given.items()
                }
            )

        return checked

    return decorate


def unknown_codes(patients: Array, num_patients: int) -> Bool[Array, " rows"]:
    """Returns the rows with a patient code out of range.

    Traced codes can only be checked at run time. Results that depend on such rows are
    made NaN, because without the rows they would look too certain.
    """
    return (patients < 0) | (patients >= num_patients)


def check_unweighted(table: Array, what: str) -> None:
    """Checks that counts are integers, which count independent rows.

    Args:
      table: The counts.
      what: The function that needs integer counts, as subject of the message.

    Raises:
      ValueError: If the counts are floats.
    """
    if jnp.issubdtype(table.dtype, jnp.inexact):
        raise ValueError(
            f"{what} needs integer counts; got {table.dtype}. Count without "
            "floating-point weights, or resample rows."
        )


def as_mass(weights: Any, rows: int) -> Shaped[Array, " rows"]:
    """Returns integer weights as int32, other weights as floats; ones by default."""
    if weights is None:
        return jnp.ones(rows, jnp.int32)
    weights = jnp.asarray(weights)
    if jnp.issubdtype(weights.dtype, jnp.floating):
        return weights.astype(float_type(weights))
    return weights.astype(jnp.int32)


class BinaryTable(NamedTuple):
    """Columns as arrays, where an ignored row has group -1 and no mass."""

    labels: Int[Array, " rows"]
    scores: Float[Array, " rows"]
    groups: Int[Array, " rows"]
    mass: Shaped[Array, " rows"]


def binary_rows(labels, scores, groups, num_groups: int, weights) -> BinaryTable:
    """Checks the columns, and ignores rows in no group or without a binary label."""
    labels, scores, groups, weights = as_rows(
        num_groups, labels=labels, scores=scores, groups=groups, weights=weights
    )
    mass = as_mass(weights, labels.size)
    kept = (labels == 0) | (labels == 1)
    # A row without weight is ignored, so its score may be missing.
    kept &= (groups >= 0) & (groups < num_groups) & (mass != 0)
    return BinaryTable(
        (labels == 1).astype(jnp.int32),
        jnp.where(kept, scores, 0).astype(float_type(scores)),
        jnp.where(kept, groups, -1).astype(jnp.int32),
        jnp.where(kept, mass, 0),
    )
