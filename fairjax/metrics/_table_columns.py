"""Columns of a table, as users have them, to checked NumPy arrays."""

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
      weights: float64 ``[n]``; None for ones.
    """

    labels: np.ndarray
    predictions: np.ndarray
    scores: np.ndarray | None
    weights: np.ndarray | None


def read_rows(labels: Any, predictions: Any, threshold: Any, weights: Any) -> Rows:
    """Returns the columns, checked.

    Raises:
      ValueError: If they differ in length or hold values that they must not.
    """
    labels = _binary("labels", labels, "")
    scores = None
    if threshold is None:
        hint = "; scores need a threshold"
        predictions = _binary("predictions", predictions, hint)
    else:
        scores = _numbers("scores", predictions)
        refuse("scores", np.isnan(scores), "missing")
        # In the type that the scores came in, as `predictions_at` does: the float32
        # nearest to .7 is below .7, and at that threshold.
        own = float_dtype(predictions)
        predictions = scores.astype(own) >= np.asarray(threshold).astype(own)
        predictions = predictions.astype(np.int8)
    if weights is not None:
        weights = _numbers("weights", weights)
        bad = ~(np.isfinite(weights) & (weights >= 0))
        refuse("weights", bad, "missing, infinite or negative")
    columns = {"labels": labels, "predictions": predictions, "weights": weights}
    lengths = {name: len(c) for name, c in columns.items() if c is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The columns have different numbers of rows: {lengths}.")
    if not len(labels):
        raise ValueError("The table has no rows.")
    return Rows(labels, predictions, scores, weights)


def read_attributes(attributes: Any, rows: int) -> dict[str, Any]:
    """Returns the attributes' columns by name.

    Raises:
      ValueError: If there is none, or one has another number of rows.
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
                f"Attribute {name!r} has {len(column)} rows, the labels have {rows}."
            )
    return columns


def count_rows(rows: Rows, codes: np.ndarray, num_groups: int) -> np.ndarray:
    """Returns confusion counts, int64 or, if weighted, float64 ``[G, 2, 2]``."""
    columns = rows.labels, rows.predictions, codes
    with jax.enable_x64(True):
        counts = group_counts(*columns, num_groups=num_groups, weights=rows.weights)
        return np.asarray(counts.counts)


def _numbers(name: str, column: Any) -> np.ndarray:
    # A data frame's index must not matter: columns are matched by position.
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
        raise ValueError(f"The {name} must be numbers: {error}.") from error


def _binary(name: str, column: Any, hint: str) -> np.ndarray:
    numbers = _numbers(name, column)
    refuse(name, (numbers != 0) & (numbers != 1), f"neither 0 nor 1{hint}")
    return numbers.astype(np.int8)


def float_dtype(column: Any) -> np.dtype:
    """The floating-point type of a column; float64 where it has none."""
    dtype = getattr(column, "dtype", None)
    # A nullable or Arrow column of pandas has a type of its own around NumPy's.
    dtype = getattr(dtype, "numpy_dtype", dtype)
    if isinstance(dtype, np.dtype) and jnp.issubdtype(dtype, jnp.floating):
        return dtype
    return np.dtype(np.float64)


def refuse(name: str, bad: np.ndarray, what: str) -> None:
    """Raises if any row is bad, with their number and the first one's position.

    Raises:
      ValueError: If so.
    """
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(bad)} rows have {name} that are {what}, the "
            f"first at position {int(bad.argmax())}."
        )
