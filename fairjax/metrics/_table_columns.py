"""Conversion of a user's columns to checked NumPy arrays."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from fairjax.metrics.counts import group_counts


class Rows(NamedTuple):
    """The columns that every metric reads.

    Attributes:
      labels: int8 ``[n]``, 0 or 1.
      predictions: int8 ``[n]``, 0 or 1.
      scores: float64 ``[n]``; None if predictions were given.
      weights: float64 ``[n]``; None for unit weights.
    """

    labels: np.ndarray
    predictions: np.ndarray
    scores: np.ndarray | None
    weights: np.ndarray | None


def read_rows(labels: Any, predictions: Any, threshold: Any, weights: Any) -> Rows:
    """Returns the checked columns.

    Raises:
      ValueError: If the columns differ in length or hold values that cannot be used.
    """
    labels = _binary("labels", labels, "")
    scores = None
    if threshold is None:
        hint = ", and scores need a threshold"
        predictions = _binary("predictions", predictions, hint)
    else:
        scores = _numbers("scores", predictions)
        refuse("scores", np.isnan(scores), "numbers, not NaN")
        # Compares in the original type of the scores, as `predictions_at` does: the
        # float32 nearest to .7 lies below .7 in float64, but reaches the threshold .7.
        dtype = float_dtype(predictions)
        predictions = scores.astype(dtype) >= np.asarray(threshold).astype(dtype)
        predictions = predictions.astype(np.int8)
    if weights is not None:
        weights = _numbers("weights", weights)
        bad = ~(np.isfinite(weights) & (weights >= 0))
        refuse("weights", bad, "finite and at least 0")
    columns = {"labels": labels, "predictions": predictions, "weights": weights}
    lengths = {name: len(c) for name, c in columns.items() if c is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The columns must have equal numbers of rows; got {lengths}.")
    if not len(labels):
        raise ValueError("The columns must have at least one row; got none.")
    return Rows(labels, predictions, scores, weights)


def read_attributes(attributes: Any, rows: int) -> dict[str, Any]:
    """Returns the columns of the attributes by name.

    Raises:
      ValueError: If an attribute does not have ``rows`` rows.
    """
    columns: dict[str, Any] = {}
    if isinstance(attributes, pd.DataFrame | Mapping):
        for name in attributes:
            columns[str(name)] = attributes[name]
    elif isinstance(attributes, pd.Series) and attributes.name is not None:
        columns = {str(attributes.name): attributes}
    else:
        columns = {"group": attributes}
    for name, column in columns.items():
        if len(column) != rows:
            raise ValueError(
                f"Column {name!r} must have {rows} rows, as labels; got {len(column)}."
            )
    return columns


def count_rows(rows: Rows, codes: np.ndarray, num_groups: int) -> np.ndarray:
    """Returns confusion counts ``[G, 2, 2]``, int64, or float64 if weighted."""
    columns = rows.labels, rows.predictions, codes
    with jax.enable_x64(True):
        counts = group_counts(*columns, num_groups=num_groups, weights=rows.weights)
        return np.asarray(counts.counts)


def _numbers(name: str, column: Any) -> np.ndarray:
    # Columns are matched by position, so the index of a data frame is ignored.
    is_pandas = isinstance(
        column, pd.Series | pd.Index | pd.api.extensions.ExtensionArray
    )
    if not is_pandas:
        column = np.asarray(column)
        if jnp.issubdtype(column.dtype, jnp.floating):
            column = column.astype(np.float64)  # pandas has no bfloat16
    series = pd.Series(column)
    try:
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers; {error}.") from error


def _binary(name: str, column: Any, hint: str) -> np.ndarray:
    numbers = _numbers(name, column)
    refuse(name, (numbers != 0) & (numbers != 1), f"0 or 1{hint}")
    return numbers.astype(np.int8)


def float_dtype(column: Any) -> np.dtype:
    """Returns the floating-point type of a column; float64 for other types."""
    dtype = getattr(column, "dtype", None)
    # A nullable or Arrow column of pandas wraps a NumPy type.
    dtype = getattr(dtype, "numpy_dtype", dtype)
    if isinstance(dtype, np.dtype) and jnp.issubdtype(dtype, jnp.floating):
        return dtype
    return np.dtype(np.float64)


def refuse(name: str, bad: np.ndarray, must: str) -> None:
    """Raises if any row is bad, with the number of bad rows and the first position.

    Args:
      name: Name of the column.
      bad: ``[n]``, True where a value cannot be used.
      must: What the values must be.

    Raises:
      ValueError: If any row is bad.
    """
    if bad.any():
        raise ValueError(
            f"{name} must be {must}; got {int(bad.sum())} of {len(bad)} rows with "
            f"other values, the first at position {int(bad.argmax())}."
        )
