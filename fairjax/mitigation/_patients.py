"""Columns of patients as users have them, checked: labels, groups and weights."""

import math
from typing import Any

import numpy as np

# What a sum of weights may come to in single precision, with room for rounding.
_MOST = 1e38
_LEAST = 1e-30


def check_lengths(**columns: Any) -> None:
    """Refuse columns of other lengths.

    Raises:
      ValueError: They are, or one is no column.

    Example:
      >>> check_lengths(labels=[0, 1], groups=[0, 0], weights=None)
    """
    shapes = {name: np.shape(c) for name, c in columns.items() if c is not None}
    if any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"the columns are one-dimensional, not {shapes}.")
    sizes = {name: shape[0] for name, shape in shapes.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the columns differ in length: {sizes}.")


def binary(labels: Any) -> np.ndarray:
    """Labels as int64.

    Raises:
      ValueError: Others than 0 and 1.

    Example:
      >>> binary([0.0, 1.0])
      array([0, 1])
    """
    labels = np.asarray(labels)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels are 0 or 1.")
    return labels.astype(np.int64)


def finite(what: str, values: Any) -> np.ndarray:
    """Values as float64.

    Raises:
      ValueError: Some are no finite numbers.

    Example:
      >>> finite("scores", [1, 2])
      array([1., 2.])
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{what} are finite numbers; some are not.")
    return values


def check_share(name: str, value: Any, *, above: bool = False) -> None:
    """Refuse a setting that is no number in [0, 1]; with ``above``, 0 too.

    Raises:
      ValueError: It is none.

    Example:
      >>> check_share("tolerance", 0.1)
    """
    number = as_number(value)
    if not 0 <= number <= 1 or (above and number == 0):
        least = "(0" if above else "[0"
        raise ValueError(f"{name} lies in {least}, 1], not {value!r}.")


def as_number(value: Any) -> float:
    """One number, of Python, NumPy or JAX; NaN of anything else.

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
    """Groups as int64, in ``least .. num_groups - 1``.

    Raises:
      ValueError: Groups that are no whole numbers, or out of that range.

    Example:
      >>> group_ids(np.array([1, -1, 0]), 2, least=-1)
      array([ 1, -1,  0])
    """
    groups = np.asarray(groups)
    if groups.dtype.kind not in "biuf" or (groups != np.floor(groups)).any():
        raise ValueError(
            f"groups are whole numbers in 0 .. {num_groups - 1}: number them, as by "
            "numpy.unique(groups, return_inverse=True)."
        )
    if groups.size and (groups.min() < least or groups.max() >= num_groups):
        none = ", or -1 for a row in none" if least < 0 else ""
        raise ValueError(
            f"groups lie in 0 .. {num_groups - 1}{none}; found {groups.min()} to "
            f"{groups.max()}."
        )
    return groups.astype(np.int64)


def own_weights(weights: Any, rows: int) -> np.ndarray:
    """Weights as float64, ones by default.

    Raises:
      ValueError: Weights that are negative or not finite, or whose sum is not.

    Example:
      >>> own_weights(None, 2)
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
        raise ValueError("weights are numbers.") from None
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("weights are finite and at least 0.")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not np.isfinite(total):
        raise ValueError("weights add up to infinity: divide them by the largest.")
    return weights


def check_single(weights: Any) -> None:
    """Refuse weights that counts in single precision, or of int32, cannot hold.

    Raises:
      ValueError: As :func:`own_weights`; sums that are too large, or weights so small
        that they count for nothing.

    Example:
      >>> check_single(np.array([0.5, 2.0]))
    """
    whole = np.asarray(weights).dtype.kind in "biu"
    weights = own_weights(weights, 0)
    largest = weights.max(initial=0.0)
    most = np.iinfo(np.int32).max if whole else _MOST
    if weights.sum() > most or 0 < largest < _LEAST:
        raise ValueError(
            f"weights of {largest:g} are beyond what counts can hold: divide them by "
            "the largest."
        )


def near_one(values: np.ndarray) -> np.ndarray:
    """Values times a power of two, the largest below 1, which changes no digit.

    Those 1e300 times smaller than the largest become 0.

    Example:
      >>> near_one(np.array([3e-300, 6e-300])).round(3).tolist()
      [0.251, 0.502]
    """
    _, exponent = np.frexp(np.abs(values).max(initial=0.0))
    return np.ldexp(values, -int(exponent))


def check_patients(masses: np.ndarray, names: Any) -> None:
    """Refuse groups without patients, or whose patients all weigh 0.

    Args:
      masses: ``[G, 2]``, the weight of negatives and of positives.
      names: Of the groups.

    Raises:
      ValueError: There are such.

    Example:
      >>> check_patients(np.array([[1.0, 0.0]]), ["a"])
    """
    empty = np.flatnonzero(~(masses > 0).any(axis=1))
    if len(empty):
        raise ValueError(
            f"groups without patients: {[names[int(group)] for group in empty]}; "
            "patients of weight 0 are none."
        )
