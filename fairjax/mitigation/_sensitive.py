"""Conversion of scikit-learn users' sensitive features to named groups."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Int64

from fairjax._levels import quote

_MISSING = "missing"

# A category as JSON holds it; None is a missing value.
Level: TypeAlias = str | bool | int | float | None
Cell: TypeAlias = tuple[Level, ...]


class Groups:
    """The groups of a table, one for each observed combination of categories.

    Categories are compared by value, not by spelling: 1, 1.0 and True are one category,
    ``"1"`` is another. All missing values are one category, ``missing``.

    Attributes:
      columns: Names of the attributes; positions where attributes have no names.
      named: Whether attributes have names.
      cells: The categories of each group.
      names: Names of the groups, for readers.

    Example:
      >>> import pandas as pd
      >>> groups = Groups.of(pd.DataFrame({"sex": ["f", "m"], "old": [1, 0]}), rows=2)
      >>> groups.names
      ('sex=f, old=1', 'sex=m, old=0')
      >>> groups.codes(pd.DataFrame({"sex": ["m", "m"], "old": [0, 1]}), rows=2)
      array([ 1, -1])
    """

    def __init__(
        self, columns: Sequence[str], named: bool, cells: Sequence[Sequence[Level]]
    ) -> None:
        self.columns, self.named = tuple(columns), named
        self.cells: tuple[Cell, ...] = tuple(map(tuple, cells))
        names = [self._name(cell) for cell in self.cells]
        times = Counter(names)
        # Equal names of different groups are replaced by Python's representations.
        self.names = tuple(
            name if times[name] == 1 else self._name(cell, repr)
            for name, cell in zip(names, self.cells, strict=True)
        )

    @classmethod
    def of(cls, sensitive_features: Any, *, rows: int) -> "Groups":
        """Returns the groups of a table.

        Raises:
          ValueError: If sensitive features are missing, do not have one row per row of
            the table, or hold categories that are not single values.
        """
        table, named = _table(sensitive_features, rows)
        columns, (cells, _) = list(map(str, table.columns)), _cells(table)
        names = dict(zip(cells, cls(columns, named, cells).names, strict=True))
        return cls(columns, named, sorted(cells, key=names.__getitem__))

    @classmethod
    def read(
        cls, sensitive_features: Any, *, rows: int
    ) -> tuple["Groups", Int64[np.ndarray, " n"]]:
        """Returns the groups of a table, and the group of each row.

        Raises:
          ValueError: As :meth:`of`.
        """
        groups = cls.of(sensitive_features, rows=rows)
        return groups, groups.known(sensitive_features, rows=rows)

    def codes(self, sensitive_features: Any, *, rows: int) -> Int64[np.ndarray, " n"]:
        """Returns the group of each row; -1 for a new combination.

        Raises:
          ValueError: If sensitive features are missing, do not have one row per row of
            the table, or have other columns.
        """
        return self._codes(sensitive_features, rows)[0]

    def known(self, sensitive_features: Any, *, rows: int) -> Int64[np.ndarray, " n"]:
        """Returns the group of each row, and refuses new groups.

        Raises:
          ValueError: As :meth:`codes`; if a row's group is new since fit.
        """
        codes, new = self._codes(sensitive_features, rows)
        if new:
            raise ValueError(
                f"groups must be those seen at fit, {', '.join(map(repr, self.names))};"
                f" got {quote([self._name(cell) for cell in new])} in "
                f"{(codes < 0).sum()} rows. Fit on a table that has them."
            )
        return codes

    def _codes(
        self, sensitive_features: Any, rows: int
    ) -> tuple[np.ndarray, list[Cell]]:
        """Returns the group of each row, and the new combinations."""
        table, named = _table(sensitive_features, rows)
        columns = tuple(map(str, table.columns))
        other = named and self.named and columns != self.columns
        if other or len(columns) != len(self.columns):
            raise ValueError(
                f"sensitive_features must have the columns seen at fit, "
                f"{list(self.columns)}; got {list(columns)}."
            )
        cells, which = _cells(table)
        code_of = {cell: code for code, cell in enumerate(self.cells)}
        codes = np.array([code_of.get(cell, -1) for cell in cells], np.int64)
        new = [cell for cell in cells if cell not in code_of]
        return codes[which], sorted(new, key=str)

    def _name(self, cell: Cell, write: Callable[[Any], str] = str) -> str:
        parts = [_MISSING if level is None else write(level) for level in cell]
        if self.named:
            parts = [
                f"{name}={part}" for name, part in zip(self.columns, parts, strict=True)
            ]
        return ", ".join(parts)


def check_not_among(features: Any, groups: Groups) -> None:
    """Checks that a table's features do not include a sensitive column, by name.

    Raises:
      ValueError: If a sensitive column is among the features.

    Example:
      >>> sex = Groups(("sex",), True, [("f",)])
      >>> check_not_among(pd.DataFrame({"age": [70]}), sex)
    """
    there = set(map(str, getattr(features, "columns", ())))
    both = [name for name in groups.columns if groups.named and name in there]
    if both:
        raise ValueError(
            f"X must not include the sensitive features; got {both} among its columns. "
            "Give these columns as sensitive_features only."
        )


def _cells(table: pd.DataFrame) -> tuple[list[Cell], np.ndarray]:
    """Returns the observed combinations, and the combination of each row."""
    which = np.zeros(len(table), np.int64)
    for name, column in table.items():
        try:
            codes, levels = pd.factorize(column)
        except TypeError as error:
            raise ValueError(
                "sensitive features must hold single values, such as text, numbers and "
                f"dates; got others in {str(name)!r}."
            ) from error
        # Renumbered with each column, so that combinations never exceed rows.
        _, which = np.unique(which * (len(levels) + 1) + codes + 1, return_inverse=True)
    _, first, which = np.unique(which, return_index=True, return_inverse=True)
    rows = table.iloc[first].itertuples(index=False, name=None)
    cells = [tuple(map(_level, row)) for row in rows]
    # Categories of several spellings are one.
    distinct = {cell: code for code, cell in enumerate(dict.fromkeys(cells))}
    codes = np.array([distinct[cell] for cell in cells], np.int64)
    return list(distinct), codes[which]


def _level(value: Any) -> Level:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return int(value) if float(value).is_integer() else float(value)
    return str(value)


def _table(given: Any, rows: int) -> tuple[pd.DataFrame, bool]:
    """Returns the sensitive features as a table, and whether columns have names."""
    if given is None:
        raise ValueError(
            "sensitive_features must be given, one row for each row of X; got None. "
            "They say each patient's group."
        )
    table, named = _framed(given)
    if len(table) != rows:
        raise ValueError(
            f"sensitive_features must have the {rows} rows of X; got {len(table)} rows."
        )
    if not table.shape[1]:
        raise ValueError("sensitive_features must have a column or more; got none.")
    return table, named


def _framed(given: Any) -> tuple[pd.DataFrame, bool]:
    if isinstance(given, pd.DataFrame):
        return given, True
    if isinstance(given, Mapping):
        return pd.DataFrame(dict(given)), True
    if isinstance(given, pd.Series):
        named = given.name is not None
        return given.to_frame(given.name if named else "group"), named
    # NumPy would turn missing values among text into text.
    array = given if isinstance(given, np.ndarray) else np.array(given, dtype=object)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"sensitive_features must be [n] or [n, attributes]; got {array.shape}."
        )
    columns = ["group"] if array.ndim == 1 else range(array.shape[1])
    return pd.DataFrame(array, columns=list(columns)), False
