"""Checks of the users' columns of patients: labels, groups and weights."""

import math
from typing import Any

import numpy as np

# Bounds of a sum of weights in single precision, with room for rounding.
_MOST = 1e38
_LEAST = 1e-30


def check_lengths(**columns: Any) -> None:
    """Checks that columns are one-dimensional and equally long.

    Raises:
      ValueError: If they are not.

    Example:
      >>> check_lengths(labels=[0, 1], groups=[0, 0], weights=None)
    """
    shapes = {name: np.shape(c) for name, c in columns.items() if c is not None}
    if any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"columns must be one-dimensional; got shapes {shapes}.")
    sizes = {name: shape[0] for name, shape in shapes.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"columns must have equal lengths; got {sizes}.")


def check_each(values: np.ndarray, valid: Any, must: str) -> None:
    """Checks that all values are valid; the message shows the first other value.

    Raises:
      ValueError: If a value is not.

    Example:
      >>> check_each(np.array([0.5, 1.0]), np.array([True, True]), "x must be positive")
    """
    if not valid.all():
        raise ValueError(f"{must}; got {values[~valid].flat[0]}.")


def binary(labels: Any) -> np.ndarray:
    """Returns labels as int64.

    Raises:
      ValueError: If a label is neither 0 nor 1.

    Example:
      >>> binary([0.0, 1.0])
      array([0, 1])
    """
    labels = np.asarray(labels)
    check_each(labels, np.isin(labels, (0, 1)), "labels must be 0 or 1")
    return labels.astype(np.int64)


def finite(what: str, values: Any) -> np.ndarray:
    """Returns values as float64.

    Raises:
      ValueError: If a value is not finite.

    Example:
      >>> finite("scores", [1, 2])
      array([1., 2.])
    """
    values = np.asarray(values, np.float64)
    check_each(values, np.isfinite(values), f"{what} must be finite")
    return values


def check_fraction(name: str, value: Any, *, above: bool = False) -> None:
    """Checks that a setting is a number in [0, 1], or in (0, 1] with ``above``.

    Raises:
      ValueError: If the setting is not.

    Example:
      >>> check_fraction("tolerance", 0.1)
    """
    number = as_number(value)
    if not 0 <= number <= 1 or (above and number == 0):
        least = "(0" if above else "[0"
        raise ValueError(f"{name} must lie in {least}, 1]; got {value!r}.")


def as_number(value: Any) -> float:
    """Returns a number of Python, NumPy or JAX as a float; NaN for anything else.

    Example:
      >>> as_number(np.float32(0.5)), as_number("0.5"), as_number([0.5])
      (0.5, nan, nan)
    """
    if isinstance(value, str | bytes) or np.ndim(value) > 0:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def group_ids(groups: Any, num_groups: int, *, least: int = 0) -> np.ndarray:
    """Returns groups as int64, in ``least .. num_groups - 1``.

    Raises:
      ValueError: If groups are not integers, or are out of range.

    Example:
      >>> group_ids(np.array([1, -1, 0]), 2, least=-1)
      array([ 1, -1,  0])
    """
    groups = np.asarray(groups)
    if groups.dtype.kind not in "biuf" or (groups != np.floor(groups)).any():
        raise ValueError(
            f"groups must be integers in 0 .. {num_groups - 1}; got {groups.flat[:3]}"
            ". Number them, as by numpy.unique(groups, return_inverse=True)."
        )
    if groups.size and (groups.min() < least or groups.max() >= num_groups):
        none = ", or be -1 for a row in no group" if least < 0 else ""
        raise ValueError(
            f"groups must lie in 0 .. {num_groups - 1}{none}; got {groups.min()} to "
            f"{groups.max()}. Leave other rows out, or raise num_groups."
        )
    return groups.astype(np.int64)


def as_weights(weights: Any, rows: int) -> np.ndarray:
    """Returns weights as float64, ones by default.

    Raises:
      ValueError: If weights are negative or not finite, or their sum is not finite.

    Example:
      >>> as_weights(None, 2)
      array([1., 1.])
    """
    if weights is None:
        return np.ones(rows)
    weights = np.asarray(weights)
    try:
        if weights.dtype.kind in "US":
            raise TypeError
        weights = weights.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"weights must be numbers; got {weights.dtype}.") from None
    valid = np.isfinite(weights) & (weights >= 0)
    check_each(weights, valid, "weights must be finite and at least 0")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not np.isfinite(total):
        raise ValueError(f"weights must have a finite sum; got {total}. Rescale them.")
    return weights


def check_single(weights: Any) -> None:
    """Checks that counts in float32, or in int32, can hold weights.

    Raises:
      ValueError: As :func:`as_weights`; if the sum is too large, or the weights are so
        small that they count for nothing.

    Example:
      >>> check_single(np.array([0.5, 2.0]))
    """
    whole = np.asarray(weights).dtype.kind in "biu"
    weights = as_weights(weights, 0)
    largest = weights.max(initial=0.0)
    most = np.iinfo(np.int32).max if whole else _MOST
    if weights.sum() > most or 0 < largest < _LEAST:
        raise ValueError(
            f"weights must suit counts of 32 bits; got weights up to {largest:g}. "
            "Divide them by the largest."
        )


def near_one(values: np.ndarray) -> np.ndarray:
    """Returns values times a power of two, the largest below 1; digits stay exact.

    Values 1e300 times smaller than the largest become 0.

    Example:
      >>> near_one(np.array([3e-300, 6e-300])).round(3).tolist()
      [0.251, 0.502]
    """
    _, exponent = np.frexp(np.abs(values).max(initial=0.0))
    return np.ldexp(values, -int(exponent))


def check_patients(masses: np.ndarray, names: Any) -> None:
    """Checks that every group has patients of positive weight.

    Args:
      masses: ``[G, 2]``, the weight of negatives and of positives.
      names: Names of the groups.

    Raises:
      ValueError: If a group has none.

    Example:
      >>> check_patients(np.array([[1.0, 0.0]]), ["a"])
    """
    empty = np.flatnonzero(~(masses > 0).any(axis=1))
    if len(empty):
        raise ValueError(
            "every group must have patients of positive weight; got none in "
            f"{[names[int(group)] for group in empty]}. Leave those groups out."
        )
