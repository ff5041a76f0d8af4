"""Sensitive features as scikit-learn users give them, to groups by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

_SHOWN = 5
_MISSING = "missing"


class Groups:
    """The groups of a table, one for each observed combination of levels.

    Example:
      >>> import pandas as pd
      >>> groups = Groups.of(pd.DataFrame({"sex": ["f", "m"], "old": [1, 0]}), rows=2)
      >>> groups.names
      ('sex=f, old=1', 'sex=m, old=0')
      >>> groups.codes(pd.DataFrame({"sex": ["m", "m"], "old": [0, 1]}), rows=2)
      array([ 1, -1])
    """

    def __init__(self, columns: tuple[str, ...], names: tuple[str, ...]) -> None:
        self.columns = columns
        self.names = names

    @classmethod
    def of(cls, sensitive_features: Any, *, rows: int) -> "Groups":
        """Those that a table has.

        Raises:
          ValueError: No sensitive features, or not one for each row.
        """
        columns, row_names = _row_names(sensitive_features, rows)
        return cls(columns, tuple(np.unique(row_names).tolist()))

    def codes(self, sensitive_features: Any, *, rows: int) -> Int64[np.ndarray, " n"]:
        """The group of each row; -1 for a combination that there is no group of.

        Raises:
          ValueError: No sensitive features, not one for each row, or other columns.
        """
        columns, row_names = _row_names(sensitive_features, rows)
        if columns != self.columns:
            raise ValueError(
                f"the sensitive features are {list(columns)}; at fit they were "
                f"{list(self.columns)}."
            )
        return pd.Index(self.names).get_indexer(pd.Index(row_names)).astype(np.int64)

    def known(self, sensitive_features: Any, *, rows: int) -> Int64[np.ndarray, " n"]:
        """The group of each row, each of which has one.

        Raises:
          ValueError: As :meth:`codes`; rows of groups that fitting did not see.
        """
        codes = self.codes(sensitive_features, rows=rows)
        if (codes < 0).any():
            _, row_names = _row_names(sensitive_features, rows)
            new = np.unique(row_names[codes < 0])
            more = f" and {len(new) - _SHOWN} more" if len(new) > _SHOWN else ""
            raise ValueError(
                f"{(codes < 0).sum()} rows are of groups that were not there at fit: "
                f"{', '.join(map(repr, new[:_SHOWN].tolist()))}{more}. Known are "
                f"{', '.join(map(repr, self.names))}."
            )
        return codes


def check_not_among(features: Any, groups: Groups) -> None:
    """Refuse a table whose features include a sensitive column, by its name.

    Example:
      >>> check_not_among(pd.DataFrame({"age": [70]}), Groups(("sex",), ("sex=f",)))
    """
    both = [name for name in groups.columns if name in getattr(features, "columns", ())]
    if both:
        raise ValueError(
            f"the sensitive features {both} are among the features; leave them out, "
            "they are given as sensitive_features."
        )


def _row_names(
    sensitive_features: Any, rows: int
) -> tuple[tuple[str, ...], np.ndarray]:
    if sensitive_features is None:
        raise ValueError(
            "sensitive_features are needed: the groups to be served alike, one row "
            "each for the rows of X."
        )
    table = _table(sensitive_features)
    if len(table) != rows:
        raise ValueError(
            f"there are sensitive features of {len(table)} rows; X has {rows}."
        )
    if not table.shape[1]:
        raise ValueError("the sensitive features have no column.")
    columns = tuple(map(str, table.columns))
    codes, levels = zip(
        *(pd.factorize(table.iloc[:, c]) for c in range(len(columns))), strict=True
    )
    shape = [len(values) + 1 for values in levels]
    combination = np.ravel_multi_index(
        tuple(codes[c] + 1 for c in range(len(shape))), shape
    )
    found, which = np.unique(combination, return_inverse=True)
    places = np.unravel_index(found, shape)
    names = []
    for place in zip(*places, strict=True):
        parts = [
            _MISSING if p == 0 else str(levels[c][p - 1]) for c, p in enumerate(place)
        ]
        if isinstance(sensitive_features, pd.DataFrame | Mapping):
            parts = [
                f"{name}={part}" for name, part in zip(columns, parts, strict=True)
            ]
        names.append(", ".join(parts))
    return columns, np.array(names, dtype=object)[which]


def _table(given: Any) -> pd.DataFrame:
    if isinstance(given, pd.DataFrame):
        return given
    if isinstance(given, Mapping):
        return pd.DataFrame(dict(given))
    if isinstance(given, pd.Series):
        return given.to_frame("group" if given.name is None else given.name)
    array = np.asarray(given)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"sensitive features are [n] or [n, attributes], not {array.shape}."
        )
    if array.ndim == 1:
        return pd.DataFrame({"group": array})
    return pd.DataFrame(array, columns=[f"group {c}" for c in range(array.shape[1])])
