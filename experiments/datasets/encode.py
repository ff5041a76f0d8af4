"""Turns a clinical table into numbers, with training rows' statistics only."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    OneHotEncoder,
    QuantileTransformer,
)

from experiments.datasets.table import ClinicalTable

_MISSING = "missing"
QUANTILES = 200


def encoder(features: pd.DataFrame) -> ColumnTransformer:
    """Returns an unfitted encoder whose output width depends on the table alone.

    Numeric columns are filled with the training median and mapped to normal scores;
    each that has a missing value anywhere in the table also gets a 0/1 indicator.
    Categorical columns are one-hot over their declared levels, with a level of its own
    for missing where the table has any.

    Args:
        features: `[n, d]`, the whole table's features.

    Returns:
        A transformer to fit on training rows only.
    """
    categorical = [
        column
        for column in features.columns
        if isinstance(features[column].dtype, pd.CategoricalDtype)
    ]
    numeric = [column for column in features.columns if column not in categorical]
    incomplete = [column for column in numeric if features[column].isna().any()]
    levels = [_levels(features[column]) for column in categorical]
    return ColumnTransformer(
        [
            ("numeric", _numeric(), numeric),
            ("missing", MissingIndicator(features="all"), incomplete),
            ("categorical", _one_hot(levels), categorical),
        ],
        sparse_threshold=0.0,
    )


def encode_splits(
    table: ClinicalTable, train_indices: Sequence[np.ndarray]
) -> Float32[np.ndarray, "splits n d"]:
    """Returns every row encoded once for each split.

    Args:
        table: The table.
        train_indices: For each split, the training row numbers.

    Returns:
        `[splits, n, d]` float32.
    """
    encoded = [
        encoder(table.features).fit(table.features.iloc[rows]).transform(table.features)
        for rows in train_indices
    ]
    return np.stack(encoded).astype(np.float32)


def _levels(column: pd.Series) -> list[object]:
    declared = list(column.cat.categories)
    return [*declared, _MISSING] if column.isna().any() else declared


def _numeric() -> Pipeline:
    return make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        QuantileTransformer(
            n_quantiles=QUANTILES,
            output_distribution="normal",
            subsample=None,
        ),
    )


def _one_hot(levels: Sequence[Sequence[object]]) -> Pipeline:
    return make_pipeline(
        SimpleImputer(strategy="constant", fill_value=_MISSING, missing_values=np.nan),
        OneHotEncoder(
            categories=list(levels), handle_unknown="ignore", sparse_output=False
        ),
    )
