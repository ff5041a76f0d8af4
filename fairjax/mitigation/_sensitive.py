"""Sensitive features as scikit-learn users give them, to groups by name."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Int64

from fairjax._levels import quote

_MISSING = "missing"

# A level as JSON holds it; None is a missing value.
Level: TypeAlias = str | bool | int | float | None
Cell: TypeAlias = tuple[Level, ...]


class Groups:
    """The groups of a table, one for each observed combination of levels.

    Levels are told apart by what they are, not by how they are written: 1, 1.0 and True
    are one level, ``"1"`` is another. All missing values are one level, ``missing``.

    Attributes:
      columns: Names of the attributes; numbers where they came without names.
      named: Whether they came with names.
      cells: The levels of each group.
      names: Of the groups, for readers.

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
        # Two that read alike are written as Python writes them.
        self.names = tuple(
            name if times[name] == 1 else self._name(cell, repr)
            for name, cell in zip(names, self.cells, strict=True)
        )

    @classmethod
    def of(cls, sensitive_features: Any, *, rows: int) -> "Groups":
        """Those that a table has.

        Raises:
          ValueError: No sensitive features, not one for each row, or levels that are no
            single values.
        """
        table, named = _table(sensitive_features, rows)
        columns, (cells, _) = list(map(str, table.columns)), _cells(table)
        names = dict(zip(cells, cls(columns, named, cells).names, strict=True))
        return cls(columns, named, sorted(cells, key=names.__getitem__))

    @classmethod
    def read(
        cls, sensitive_features: Any, *, rows: int
    ) -> tuple["Groups", Int64[np.ndarray, " n"]]:
        """The groups that a table has, and the group of each of its rows.

        Raises:
          ValueError: As :meth:`of`.
        """
        groups = cls.of(sensitive_features, rows=rows)
        return groups, groups.known(sensitive_features, rows=rows)

    def codes(self, sensitive_features: Any, *, rows: int) -> Int64[np.ndarray, " n"]:
        """The group of each row; -1 for a combination that there is no group of.

        Raises:
          ValueError: No sensitive features, not one for each row, or other columns.
        """
        return self._codes(sensitive_features, rows)[0]

    def known(self, sensitive_features: Any, *, rows: int) -> Int64[np.ndarray, " n"]:
        """The group of each row, each of which has one.

        Raises:
          ValueError: As :meth:`codes`; rows of groups that fitting did not see.
        """
        codes, new = self._codes(sensitive_features, rows)
        if new:
            raise ValueError(
                f"{(codes < 0).sum()} rows are of groups that were not there at fit: "
                f"{quote([self._name(cell) for cell in new])}. Known are "
                f"{', '.join(map(repr, self.names))}."
            )
        return codes

    def _codes(
        self, sensitive_features: Any, rows: int
    ) -> tuple[np.ndarray, list[Cell]]:
        """The group of each row, and the combinations that are none."""
        table, named = _table(sensitive_features, rows)
        columns = tuple(map(str, table.columns))
        other = named and self.named and columns != self.columns
        if other or len(columns) != len(self.columns):
            raise ValueError(
                f"the sensitive features are {list(columns)}; at fit they were "
                f"{list(self.columns)}."
            )
        cells, which = _cells(table)
        places = {cell: place for place, cell in enumerate(self.cells)}
        found = np.array([places.get(cell, -1) for cell in cells], np.int64)
        new = [cell for cell in cells if cell not in places]
        return found[which], sorted(new, key=str)

    def _name(self, cell: Cell, write: Callable[[Any], str] = str) -> str:
        parts = [_MISSING if level is None else write(level) for level in cell]
        if self.named:
            parts = [
                f"{name}={part}" for name, part in zip(self.columns, parts, strict=True)
            ]
        return ", ".join(parts)


def check_not_among(features: Any, groups: Groups) -> None:
    """Refuse a table whose features include a sensitive column, by its name.

    Example:
      >>> sex = Groups(("sex",), True, [("f",)])
      >>> check_not_among(pd.DataFrame({"age": [70]}), sex)
    """
    there = set(map(str, getattr(features, "columns", ())))
    both = [name for name in groups.columns if groups.named and name in there]
    if both:
        raise ValueError(
            f"the sensitive features {both} are among the features; leave them out, "
            "they are given as sensitive_features."
        )


def _cells(table: pd.DataFrame) -> tuple[list[Cell], np.ndarray]:
    """The observed combinations, and which of them each row is."""
    which = np.zeros(len(table), np.int64)
    for place in range(table.shape[1]):
        try:
            own, levels = pd.factorize(table.iloc[:, place])
        except TypeError as error:
            raise ValueError(
                "levels of sensitive features are single values, such as text, numbers "
                f"and dates; {str(table.columns[place])!r} holds others."
            ) from error
        # Numbered anew with each column: combinations are never more than rows.
        _, which = np.unique(which * (len(levels) + 1) + own + 1, return_inverse=True)
    _, first, which = np.unique(which, return_index=True, return_inverse=True)
    rows = table.iloc[first].itertuples(index=False, name=None)
    cells = [tuple(map(_level, row)) for row in rows]
    # Levels that are written in several ways are one.
    distinct = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
    places = np.array([distinct[cell] for cell in cells], np.int64)
    return list(distinct), places[which]


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
    """The sensitive features as a table, and whether its columns have names."""
    if given is None:
        raise ValueError(
            "sensitive_features are needed: the groups to be served alike, one row "
            "each for the rows of X."
        )
    table, named = _framed(given)
    if len(table) != rows:
        raise ValueError(
            f"there are sensitive features of {len(table)} rows; X has {rows}."
        )
    if not table.shape[1]:
        raise ValueError("the sensitive features have no column.")
    return table, named


def _framed(given: Any) -> tuple[pd.DataFrame, bool]:
    if isinstance(given, pd.DataFrame):
        return given, True
    if isinstance(given, Mapping):
        return pd.DataFrame(dict(given)), True
    if isinstance(given, pd.Series):
        named = given.name is not None
        return given.to_frame(given.name if named else "group"), named
    # A list that mixes text with what is missing would else be all text.
    array = given if isinstance(given, np.ndarray) else np.array(given, dtype=object)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"sensitive features are [n] or [n, attributes], not {array.shape}."
        )
    columns = ["group"] if array.ndim == 1 else range(array.shape[1])
    return pd.DataFrame(array, columns=list(columns)), False
