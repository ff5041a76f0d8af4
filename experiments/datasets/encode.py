"""Turns a clinical table into numbers, with training rows' statistics only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from experiments.datasets.table import MISSING, ClinicalTable


class Winsorizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Clips each column to two quantiles of the rows it was fitted on.

    A lab value recorded as 29 where 5 is the physiological limit then weighs no more
    than the most extreme plausible value.

    Attributes:
        lower: Quantile below which values are raised to it.
        upper: Quantile above which values are lowered to it.

    Example:
        >>> import numpy as np
        >>> winsorizer = Winsorizer(lower=0.0, upper=0.5)
        >>> values = np.array([[1.0], [2.0], [9.0]])
        >>> winsorizer.fit(values).transform(values).tolist()
        [[1.0], [2.0], [2.0]]
    """

    def __init__(self, lower: float = 0.01, upper: float = 0.99) -> None:
        self.lower = lower
        self.upper = upper

    def fit(self, X: Float[np.ndarray, "n d"], y: object = None) -> "Winsorizer":
        """Learns the limits `[d]` from the rows of X."""
        del y
        self.n_features_in_ = X.shape[1]
        self.limits_ = np.quantile(X, [self.lower, self.upper], axis=0)
        return self

    def transform(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Returns X `[n, d]` within the limits."""
        return np.clip(X, *self.limits_)


def encoder(features: pd.DataFrame) -> ColumnTransformer:
    """Returns an unfitted encoder whose output width depends on the table alone.

    A numeric column is filled with the training median, clipped to the 1st and 99th
    training percentile and standardised to z. Its two outputs are z and z²
    (standardised again). The risk is seldom monotone in a vital sign or a lab: a low
    and a high temperature are both bad. Each numeric column with a missing value
    anywhere in the table also gives a 0/1 indicator. A categorical column is one-hot
    over its declared categories, plus a category for missing values if the table has
    any; an undeclared category gives zeros.

    Only the set of columns with missing values and the categories are read from the
    whole table, so that every split has the same columns.

    Args:
        features: `[n, d]`, the whole table's features, as `validate` accepts them.

    Returns:
        A transformer to fit on training rows only; its outputs are float `[n, d']`.

    Example:
        >>> import numpy as np, pandas as pd
        >>> features = pd.DataFrame({
        ...     "sodium": [140.0, np.nan, 120.0, 150.0],
        ...     "sepsis": pd.Categorical(["no", "yes", "no", "no"])})
        >>> fitted = encoder(features).fit(features.iloc[[0, 2, 3]])
        >>> fitted.get_feature_names_out().tolist()
        ['sodium', 'sodium_squared', 'missing_sodium', 'sepsis_no', 'sepsis_yes']
        >>> fitted.transform(features)[:, 2:].astype(int).tolist()
        [[0, 1, 0], [1, 0, 1], [0, 1, 0], [0, 1, 0]]
    """
    categorical = list(features.select_dtypes("category"))
    numeric = [column for column in features.columns if column not in categorical]
    incomplete = [column for column in numeric if features[column].isna().any()]
    levels: Any = [_levels(features[column]) for column in categorical]
    numbers = make_pipeline(
        # A column that is empty in the training rows is kept, as a constant.
        SimpleImputer(strategy="median", keep_empty_features=True),
        Winsorizer(),
        StandardScaler(),
        FunctionTransformer(_with_squares, feature_names_out=_with_squares_names),
        StandardScaler(),
    )
    indicators = FunctionTransformer(_are_missing, feature_names_out=_missing_names)
    choices = make_pipeline(
        FunctionTransformer(_missing_level, feature_names_out="one-to-one"),
        OneHotEncoder(categories=levels, handle_unknown="ignore", sparse_output=False),
    )
    return ColumnTransformer(
        [
            ("numeric", numbers, numeric),
            ("incomplete", indicators, incomplete),
            ("categorical", choices, categorical),
        ],
        sparse_threshold=0.0,
        verbose_feature_names_out=False,
    )


def encode_splits(
    table: ClinicalTable, train_indices: Sequence[np.ndarray]
) -> Float32[np.ndarray, "splits n d"]:
    """Returns every row of the table, encoded once for each split.

    Each split's medians, limits and scales come from its training rows only.

    Args:
        table: The table, of n rows.
        train_indices: For each split, its training row numbers, or a mask `[n]`.

    Returns:
        `[splits, n, d]` float32: one design for all splits, ready to be batched.

    Raises:
        ValueError: If there is no split, or a split has no training row.

    Example:
        >>> from experiments.datasets import load
        >>> table = load("support2")
        >>> encode_splits(table, [np.arange(5000), np.arange(4000, 9105)]).shape
        (2, 9105, 69)
    """
    if not len(train_indices):
        raise ValueError("train_indices holds no split")
    encoded = []
    for split, rows in enumerate(train_indices):
        train = table.features.iloc[rows]
        if train.empty:
            raise ValueError(f"split {split} has no training rows")
        fitted = encoder(table.features).fit(train)
        encoded.append(fitted.transform(table.features).astype(np.float32))
    return np.stack(encoded)


def _levels(column: pd.Series) -> list[object]:
    declared = list(column.cat.categories)
    return [*declared, MISSING] if column.isna().any() else declared


def _with_squares(z: np.ndarray) -> np.ndarray:
    # A column of two equal halves has z² = 1 up to rounding errors, and dividing by
    # their deviation would give numbers of 10^14. Rounding makes the column constant.
    return np.hstack([z, np.round(z * z, 6)])


def _with_squares_names(_: object, names: Sequence[str]) -> list[str]:
    return [*names, *(f"{name}_squared" for name in names)]


def _are_missing(frame: pd.DataFrame) -> np.ndarray:
    return frame.isna().to_numpy()


def _missing_names(_: object, names: Sequence[str]) -> list[str]:
    return [f"missing_{name}" for name in names]


def _missing_level(frame: pd.DataFrame) -> pd.DataFrame:
    objects = frame.astype(object)
    return objects.where(objects.notna(), MISSING)
