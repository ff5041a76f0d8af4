"""One clinical table: what every loader returns and what every experiment reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

NOT_RECORDED = "not recorded"
# The level that stands for a missing value of a categorical feature.
MISSING = "missing"


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Patients, one row each, with an outcome and the attributes to audit.

    Attributes:
        name: The name that `load` takes.
        title: The data set in plain words.
        features: Model inputs `[n, d]`, NaN where missing. Numeric columns are
            floats; categorical columns are pandas categoricals whose declared levels
            do not depend on which rows are kept.
        label: `[n]` int8, 1 where the outcome happened.
        outcome: The outcome in plain words.
        attributes: Sensitive attributes `[n, a]`, categorical, in plain words. A
            missing value is a level of its own, never NaN.
        patient_ids: `[n]`, one id a patient; a patient may own several rows.
        dropped: Source column -> why no model may see it.
        excluded: Reason -> how many rows of the source were left out for it.
        citation: Where the data come from.
        licence: The licence of the package that ships the file.
    """

    name: str
    title: str
    features: pd.DataFrame
    label: np.ndarray
    outcome: str
    attributes: pd.DataFrame
    patient_ids: np.ndarray
    dropped: Mapping[str, str]
    excluded: Mapping[str, int]
    citation: str
    licence: str


def validate(table: ClinicalTable) -> ClinicalTable:
    """Returns the table unchanged, or says what is wrong with it.

    Every loader ends here; call it on a table of your own before an experiment.

    Args:
        table: The table to check.

    Returns:
        The same table.

    Raises:
        ValueError: If the parts differ in length, or the frames in their index; the
            label has NaN, values other than 0 and 1, or a single class; a feature is
            infinite, missing in every row, or neither float nor categorical; an
            attribute is not categorical, has NaN, or has a single level; a patient id
            is missing; a column name is repeated. The message names the column.

    Example:
        >>> import numpy as np, pandas as pd
        >>> own = ClinicalTable(
        ...     name="own", title="Own patients",
        ...     features=pd.DataFrame({"age": [70.0, 50.0]}),
        ...     label=np.array([1, 0]), outcome="death",
        ...     attributes=pd.DataFrame({"sex": pd.Categorical(["f", "m"])}),
        ...     patient_ids=np.array([1, 2]), dropped={}, excluded={},
        ...     citation="", licence="")
        >>> validate(own).name
        'own'
    """
    rows = len(table.features)
    parts = {
        "label": len(table.label),
        "attributes": len(table.attributes),
        "patient_ids": len(table.patient_ids),
    }
    for part, length in parts.items():
        if length != rows:
            raise ValueError(
                f"{table.name}: {part} has {length} rows but features has {rows}"
            )
    if not table.features.index.equals(table.attributes.index):
        raise ValueError(
            f"{table.name}: features and attributes have different indexes, so that "
            "their rows may be of different patients; put them in the same order and "
            "reset_index(drop=True) on both"
        )
    _check_label(table)
    for frame, kind in ((table.features, "feature"), (table.attributes, "attribute")):
        repeated = frame.columns[frame.columns.duplicated()]
        if len(repeated):
            raise ValueError(f"{table.name}: {kind} {repeated[0]!r} appears twice")
        unnamed = [column for column in frame.columns if not isinstance(column, str)]
        if unnamed:
            raise ValueError(
                f"{table.name}: the name of {kind} {unnamed[0]!r} must be a string"
            )
    for column in table.features.columns:
        _check_feature(table.name, table.features[column])
    for column in table.attributes.columns:
        _check_attribute(table.name, table.attributes[column])
    if not isinstance(table.patient_ids, np.ndarray):
        raise ValueError(f"{table.name}: patient_ids must be a NumPy array")
    missing = int(pd.isna(table.patient_ids).sum())
    if missing:
        raise ValueError(f"{table.name}: patient_ids is missing in {missing} rows")
    return table


def bands(
    values: pd.Series, edges: Sequence[float], labels: Sequence[str]
) -> pd.Series:
    """Returns numbers as levels: from each edge, the last open, below the next."""
    cut = pd.cut(values, [*edges, np.inf], right=False, labels=list(labels))
    return pd.Series(cut).cat.as_unordered()


def recode(column: pd.Series, levels: Mapping[Any, str]) -> pd.Series:
    """Returns a categorical column with its levels declared and named in plain words.

    Args:
        column: `[n]` source values.
        levels: Source value -> display name, in the order to declare; several source
            values may share a name. A value not listed becomes missing.

    Returns:
        `[n]`, categorical with every name of `levels`, whether it occurs or not.

    Example:
        >>> import pandas as pd
        >>> sex = recode(pd.Series([1, 2, 1]), {1: "male", 2: "female", 3: "unknown"})
        >>> sex.tolist(), sex.cat.categories.tolist()
        (['male', 'female', 'male'], ['male', 'female', 'unknown'])
    """
    names = list(dict.fromkeys(levels.values()))
    return column.astype(object).map(levels).astype(pd.CategoricalDtype(names))


def _check_label(table: ClinicalTable) -> None:
    label = np.asarray(table.label)
    missing = int(pd.isna(label).sum())
    if missing:
        raise ValueError(
            f"{table.name}: the label ({table.outcome}) is NaN in {missing} of "
            f"{len(label)} rows; exclude those rows and count them in `excluded`"
        )
    levels = set(np.unique(label).tolist())
    if not levels <= {0, 1}:
        raise ValueError(
            f"{table.name}: the label ({table.outcome}) must be 0 or 1, "
            f"found {sorted(levels)[:5]}"
        )
    if len(levels) < 2:
        raise ValueError(
            f"{table.name}: the label ({table.outcome}) has a single class, "
            f"{sorted(levels)} in all {len(label)} rows"
        )


def _check_feature(name: str, column: pd.Series) -> None:
    if column.isna().all():
        raise ValueError(f"{name}: feature {column.name!r} is missing in every row")
    if isinstance(column.dtype, pd.CategoricalDtype):
        odd = [level for level in column.cat.categories if not isinstance(level, str)]
        if odd:
            raise ValueError(
                f"{name}: the levels of feature {column.name!r} must be strings, "
                f"found {odd[0]!r}"
            )
        if column.isna().any() and MISSING in column.cat.categories:
            raise ValueError(
                f"{name}: feature {column.name!r} has a level {MISSING!r} and missing "
                "values as well; make them one"
            )
        return
    if not pd.api.types.is_float_dtype(column.dtype):
        raise ValueError(
            f"{name}: feature {column.name!r} must be float or categorical, "
            f"found {column.dtype}"
        )
    infinite = int(np.isinf(column.to_numpy(dtype=float, na_value=np.nan)).sum())
    if infinite:
        raise ValueError(
            f"{name}: feature {column.name!r} is infinite in {infinite} rows"
        )


def _check_attribute(name: str, column: pd.Series) -> None:
    if not isinstance(column.dtype, pd.CategoricalDtype):
        raise ValueError(
            f"{name}: attribute {column.name!r} must be categorical, "
            f"found {column.dtype}"
        )
    missing = int(column.isna().sum())
    if missing:
        raise ValueError(
            f"{name}: attribute {column.name!r} is NaN in {missing} rows; make it a "
            f"level such as {NOT_RECORDED!r}"
        )
    present = column.unique()
    if len(present) < 2:
        raise ValueError(
            f"{name}: attribute {column.name!r} has a single level, "
            f"{str(present[0])!r}, so it has no groups to compare"
        )
