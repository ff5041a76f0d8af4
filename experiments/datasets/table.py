"""Clinical tables, which loaders return and experiments read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

NOT_RECORDED = "not recorded"
# Name of a column -> its source column, and source value -> display name.
Recoding: TypeAlias = Mapping[str, tuple[str, Mapping[Any, str]]]
# The category of missing values of a categorical feature.
MISSING = "missing"
SOCIAL = (
    "social position: not a clinical feature; enters only as one of the attributes "
    "that are made fair, and not in a blind run"
)
"""Why a source's columns of race, income and the like are not features."""


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Patients, one row each, with an outcome and the attributes to audit.

    Attributes:
        name: The name that `load` takes.
        title: The data set in plain words.
        features: Model inputs `[n, d]`, NaN where missing. Numeric columns are
            floats; categorical columns are pandas categoricals whose declared
            categories do not depend on which rows are kept.
        label: `[n]` int8, 1 where the outcome happened.
        outcome: The outcome in plain words.
        attributes: Sensitive attributes `[n, a]`, categorical, in plain words. A
            missing value is a separate category, never NaN.
        patient_ids: `[n]`, one id for each patient; a patient may have several rows.
        citation: Where the data come from.
        licence: The licence of the package that ships the file.
        dropped: Source column -> why no model may read it.
        excluded: Reason -> how many rows of the source were excluded.
    """

    name: str
    title: str
    features: pd.DataFrame
    label: np.ndarray
    outcome: str
    attributes: pd.DataFrame
    patient_ids: np.ndarray
    citation: str
    licence: str
    dropped: Mapping[str, str] = field(default_factory=dict)
    excluded: Mapping[str, int] = field(default_factory=dict)


def validate(table: ClinicalTable) -> ClinicalTable:
    """Checks a table, and returns it unchanged.

    Every loader calls this function; call it on your own table before an experiment.

    Args:
        table: The table to check.

    Returns:
        The same table.

    Raises:
        ValueError: If the parts differ in length, or the frames in their index; the
            label has NaN, values other than 0 and 1, or a single class; a feature is
            infinite, missing in every row, or neither float nor categorical; an
            attribute is not categorical, has NaN, or has a single category; a patient
            id is missing; a column name is repeated. The message names the column.

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
    problem = next(_problems(table), None)
    if problem is not None:
        raise ValueError(f"{table.name}: {problem}")
    return table


def bands(
    values: pd.Series, edges: Sequence[float], labels: Sequence[str]
) -> pd.Series:
    """Returns numbers as categories, from each edge to below the next edge."""
    cut = pd.cut(values, [*edges, np.inf], right=False, labels=list(labels))
    return pd.Series(cut).cat.as_unordered()


def lowered(*levels: str) -> dict[Any, str]:
    """Returns categories for `recode` whose display names are in lower case.

    Example:
        >>> lowered("No", "Yes")
        {'No': 'no', 'Yes': 'yes'}
    """
    return {level: level.lower() for level in levels}


def recode(column: pd.Series, levels: Mapping[Any, str]) -> pd.Series:
    """Returns a categorical column with categories declared and named in plain words.

    Args:
        column: `[n]` source values.
        levels: Source value -> display name, in the order to declare; several source
            values may share a name. A value not listed becomes missing.

    Returns:
        `[n]`, categorical with every name in `levels`, even if it does not occur.

    Example:
        >>> import pandas as pd
        >>> sex = recode(pd.Series([1, 2, 1]), {1: "male", 2: "female", 3: "unknown"})
        >>> sex.tolist(), sex.cat.categories.tolist()
        (['male', 'female', 'male'], ['male', 'female', 'unknown'])
    """
    names = list(dict.fromkeys(levels.values()))
    return column.astype(object).map(levels).astype(pd.CategoricalDtype(names))


def recoded(frame: pd.DataFrame, columns: Recoding) -> pd.DataFrame:
    """Returns columns that `recode` makes.

    Args:
        frame: Source columns, of n rows.
        columns: Name -> the source column, and its categories.
    """
    found = {name: recode(frame[of], levels) for name, (of, levels) in columns.items()}
    return pd.DataFrame(found)


def counted(before: str, wrong: Any, after: str) -> Iterator[str]:
    """Yields a problem that counts the wrong entries, if there are any.

    Example:
        >>> list(counted("the label is missing in", [True, False], "rows"))
        ['the label is missing in 1 rows']
    """
    number = int(np.sum(wrong))
    if number:
        yield f"{before} {number} {after}".lstrip()


def _problems(table: ClinicalTable) -> Iterator[str]:
    """Yields the problems of a table; only the first is sure to make sense."""
    rows = len(table.features)
    for part in ("label", "attributes", "patient_ids"):
        length = len(getattr(table, part))
        if length != rows:
            yield f"{part} has {length} rows but features has {rows}"
    if not table.features.index.equals(table.attributes.index):
        yield (
            "features and attributes have different indexes, so that their rows may be "
            "of different patients; put them in the same order and "
            "reset_index(drop=True) on both"
        )
    yield from _of_label(np.asarray(table.label), f"the label ({table.outcome})")
    for frame, kind in ((table.features, "feature"), (table.attributes, "attribute")):
        repeated = frame.columns[frame.columns.duplicated()]
        if len(repeated):
            yield f"{kind} {repeated[0]!r} appears twice"
        unnamed = [column for column in frame.columns if not isinstance(column, str)]
        if unnamed:
            yield f"the name of {kind} {unnamed[0]!r} must be a string"
    for column in table.features.columns:
        yield from _of_feature(table.features[column], f"feature {column!r}")
    for column in table.attributes.columns:
        yield from _of_attribute(table.attributes[column], f"attribute {column!r}")
    if not isinstance(table.patient_ids, np.ndarray):
        yield "patient_ids must be a NumPy array"
    yield from counted("patient_ids is missing in", pd.isna(table.patient_ids), "rows")


def _of_label(label: np.ndarray, what: str) -> Iterator[str]:
    rows = f"of {len(label)} rows; exclude those rows and count them in `excluded`"
    yield from counted(f"{what} is NaN in", pd.isna(label), rows)
    levels = set(np.unique(label).tolist())
    if not levels <= {0, 1}:
        yield f"{what} must be 0 or 1; got {sorted(levels)[:5]}"
    if len(levels) < 2:
        yield f"{what} has a single class, {sorted(levels)} in all {len(label)} rows"


def _of_feature(column: pd.Series, what: str) -> Iterator[str]:
    if column.isna().all():
        yield f"{what} is missing in every row"
    if isinstance(column.dtype, pd.CategoricalDtype):
        odd = [level for level in column.cat.categories if not isinstance(level, str)]
        if odd:
            yield f"the categories of {what} must be strings; got {odd[0]!r}"
        if column.isna().any() and MISSING in column.cat.categories:
            both = f"a category {MISSING!r} and missing values as well"
            yield f"{what} has {both}; merge both"
        return
    if not pd.api.types.is_float_dtype(column.dtype):
        yield f"{what} must be float or categorical; got {column.dtype}"
    infinite = np.isinf(column.to_numpy(dtype=float, na_value=np.nan))
    yield from counted(f"{what} is infinite in", infinite, "rows")


def _of_attribute(column: pd.Series, what: str) -> Iterator[str]:
    if not isinstance(column.dtype, pd.CategoricalDtype):
        yield f"{what} must be categorical; got {column.dtype}"
    instead = f"rows; use a category such as {NOT_RECORDED!r}"
    yield from counted(f"{what} is NaN in", column.isna(), instead)
    present = column.unique()
    if len(present) < 2:
        yield (
            f"{what} has a single category, {str(present[0])!r}, so there are no "
            "groups to compare"
        )
