"""Levels of one attribute: the categories of its values, their names and their order.

:mod:`fairjax.groups` crosses the levels of several attributes to cells. Missing values
and merged rare values have a level that does not stand for one value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

_SHOWN = 5  # how many names an error message spells out
_MAX_VALUES = 100_000  # more are identifiers or measurements, whatever is declared


class Column(NamedTuple):
    """A column, coded by the positions of its rows' values among the distinct values.

    Attributes:
      name: Name of the column.
      codes: Position of each row's value, [n]; -1 where it is missing.
      values: The distinct values, and the declared categories that no row has.
      counts: Number of rows of each value, then of missing rows, [len(values) + 1].
      ordered: Whether ``values`` are in the order of a categorical type.
    """

    name: str
    codes: Int[np.ndarray, " n"]
    values: list[Any]
    counts: Int[np.ndarray, " levels_and_missing"]
    ordered: bool


class Policy(NamedTuple):
    """Options of :func:`fairjax.groups.partition` about levels; see its arguments."""

    min_level_count: int
    other: str
    missing: str
    missing_name: str
    unseen: str
    single_level: str


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of one attribute.

    Attributes:
      attribute: Name of the attribute.
      names: Level names, in order.
      num_values: Number of levels that stand for one value. They come first; the
        levels of missing and of merged values follow.
      index: Value to position of its level.
      missing: Position of the level of missing values, or -1 for none.
      other: Position of the level of merged values, or -1 for none.
      policy: The policies for missing and unseen values.
    """

    attribute: str
    names: tuple[str, ...]
    num_values: int
    index: Mapping[Any, int]
    missing: int
    other: int
    policy: Policy

    def positions(self, column: Column, *, has_pooled: bool) -> Int[np.ndarray, " n"]:
        """Returns the level of each row, [n]; -1 where only the pooled cell fits.

        Args:
          column: The column.
          has_pooled: Whether there is a pooled cell, which takes rows without a level
            under ``unseen="other"``.

        Raises:
          ValueError: A row has no level, and the policy gives it none.
        """
        _check_missing(column, self.policy)
        # The last entry is the missing value's, which is where code -1 points.
        level = np.array([self.index.get(v, -1) for v in column.values] + [-1])
        level[-1] = self.missing
        unknown = (level < 0) & (column.counts > 0)
        if unknown.any():
            unseen = self.policy.unseen
            fallback = {"other": self.other, "missing": self.missing}.get(unseen, -1)
            if fallback < 0 and not (unseen == "other" and has_pooled):
                values = [*column.values, self.policy.missing_name]
                values = [values[i] for i in np.flatnonzero(unknown)]
                raise ValueError(
                    f"column {self.attribute!r} has {rows(column.counts[unknown])} "
                    f"with levels that the partition does not have: {quote(values)}; "
                    f"its levels are {quote(self.names)}. {unseen_advice(unseen)}"
                )
            level[unknown] = fallback
        return level[column.codes]


def read_columns(
    attributes: pd.DataFrame | Mapping[str, Any],
    required: Sequence[str] | None = None,
) -> list[Column]:
    """Returns the columns of a table, or only the required columns.

    Raises:
      ValueError: There are no columns; a required column is absent; a name is not a
        string, or is repeated; columns differ in length, or have more dimensions than
        one.
    """
    found = list(attributes.keys())
    if not found:
        raise ValueError("there are no attributes; give at least one column.")
    names = found if required is None else list(required)
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise ValueError(f"attribute names must be strings; got {quote(odd)}.")
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"no column {quote(absent)}; the columns are {quote(found)}.")
    repeated = [name for name in names if found.count(name) > 1]
    if repeated:
        raise ValueError(f"column {repeated[0]!r} occurs more than once; rename one.")
    columns = [_read_column(name, attributes[name]) for name in names]
    lengths = {column.name: len(column.codes) for column in columns}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise ValueError(f"columns must have equal numbers of rows; got {listed}.")
    return columns


def fit_levels(
    column: Column, declared: Sequence[Any] | None, policy: Policy
) -> Levels:
    """Returns the levels of one attribute, by the rules of `fairjax.groups.partition`.

    Args:
      column: The column.
      declared: The declared values, in order; None stands for missing values. Without
        declared values, the levels are those of the column.
      policy: The options about levels.

    Raises:
      ValueError: The column is missing in every row; it has missing or undeclared
        values that the policy forbids, or a single level; or two levels have one name.
    """
    name = column.name
    _check_missing(column, policy)
    count_of = dict(zip(column.values, column.counts.tolist(), strict=False))
    present = [value for value, count in count_of.items() if count]
    if not present:
        raise ValueError(f"column {name!r} is missing in every row; leave it out.")
    if declared is None:
        own, keep_missing = _in_order(column), False
    else:
        own, keep_missing = _read_declared(name, declared)
    undeclared = sorted(set(present) - set(own), key=repr)
    strays = sum(count_of[value] for value in undeclared)
    if undeclared and policy.unseen == "error":
        raise ValueError(
            f"column {name!r} has {rows(strays)} with undeclared levels, "
            f"{quote(undeclared)}; declared: {quote(own)}. Declare all, or set unseen."
        )
    missing_count = int(column.counts[-1])
    if policy.unseen == "missing":
        missing_count += strays
    has_missing = keep_missing or missing_count > 0
    merges_missing = has_missing and missing_count < policy.min_level_count
    merged = [v for v in own if count_of.get(v, 0) < policy.min_level_count]
    has_other = bool(merged or merges_missing or (strays and policy.unseen == "other"))
    own = [v for v in own if count_of.get(v, 0) >= policy.min_level_count]

    names = [display(value) for value in own]
    if len(set(names)) < len(names):
        same = [value for value in own if names.count(display(value)) > 1]
        raise ValueError(f"column {name!r} has levels of the same name: {quote(same)}.")
    extra = [policy.missing_name] if has_missing and not merges_missing else []
    extra += [policy.other] if has_other else []
    clash = [level for level in extra if (names + extra).count(level) > 1]
    if clash:
        raise ValueError(
            f"column {name!r} would have two levels named {clash[0]!r}; choose another "
            "name with the arguments other and missing_name."
        )
    other = len(names) + len(extra) - 1 if has_other else -1
    if len(names + extra) == 1 and policy.single_level == "error":
        raise ValueError(
            f"column {name!r} has the single level {(names + extra)[0]!r}, which "
            'cannot show a gap; drop it, or pass single_level="allow".'
        )
    return Levels(
        attribute=name,
        names=tuple(names + extra),
        num_values=len(names),
        index={v: i for i, v in enumerate(own)} | dict.fromkeys(merged, other),
        # Where missing values are merged, this position is that of `other`.
        missing=len(names) if has_missing else -1,
        other=other,
        policy=policy,
    )


def quote(values: Sequence[Any]) -> str:
    """Returns the first few values as text for a message."""
    shown = ", ".join(repr(value) for value in values[:_SHOWN])
    more = len(values) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def rows(counts: Any) -> str:
    """Returns a count of rows as text for a message."""
    total = int(np.sum(counts))
    return f"{total} row" if total == 1 else f"{total} rows"


def unseen_advice(unseen: str) -> str:
    """Returns how to give rows of unseen levels a cell, as the end of a message."""
    other = 'with unseen="other", and min_count or min_level_count to pool rare rows.'
    return f'Under unseen="{unseen}" such rows have no cell: make the partition {other}'


def _read_column(name: str, values: Any) -> Column:
    is_list = isinstance(values, list | tuple)
    shape = (len(values),) if is_list else getattr(values, "shape", None)
    if shape is None or len(shape) != 1:
        raise ValueError(f"column {name!r} must have one dimension; got shape {shape}.")
    is_pandas = isinstance(
        values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray
    )
    series = pd.Series(values if is_list or is_pandas else np.asarray(values))
    ordered = isinstance(series.dtype, pd.CategoricalDtype)
    if ordered:
        codes, values = series.cat.codes.to_numpy(), series.cat.categories.tolist()
    else:
        try:
            codes, uniques = pd.factorize(series)
        except TypeError as error:
            raise ValueError(
                f"column {name!r} has values that cannot be levels: {error}."
            ) from error
        if len(uniques) > _MAX_VALUES:
            raise ValueError(
                f"column {name!r} has {len(uniques)} distinct values, more than "
                f"{_MAX_VALUES}; bin numbers and leave identifiers out."
            )
        values = uniques.tolist()
    counts = np.bincount(codes.astype(np.int64) + 1, minlength=len(values) + 1)
    return Column(name, codes, values, np.roll(counts, -1), ordered)


def _read_declared(name: str, declared: Sequence[Any]) -> tuple[list[Any], bool]:
    if isinstance(declared, str):
        raise ValueError(
            f"levels of {name!r} must be a list; got the string {declared!r}."
        )
    own = [value for value in declared if not pd.isna(value)]
    if not own:
        raise ValueError(f"levels of {name!r} must hold at least one value; got none.")
    repeated = [value for value in own if own.count(value) > 1]
    if repeated:
        raise ValueError(f"level {repeated[0]!r} of {name!r} is declared twice.")
    return own, len(own) < len(declared)


def _check_missing(column: Column, policy: Policy) -> None:
    if policy.missing == "error" and column.counts[-1]:
        raise ValueError(
            f"column {column.name!r} is missing in {rows(column.counts[-1])}; fill in "
            'values, or pass missing="level".'
        )


def _in_order(column: Column) -> list[Any]:
    if column.ordered:
        return list(column.values)
    try:
        return sorted(column.values)
    except TypeError:
        return sorted(column.values, key=_mixed_order)


def _mixed_order(value: Any) -> tuple[int, Any, str]:
    """Returns a sort key: numbers by value, then strings, then other types by text."""
    if isinstance(value, int | float):
        return 0, value, ""
    if isinstance(value, str):
        return 1, value, ""
    return 2, type(value).__name__, str(value)


def display(value: Any) -> str:
    """Returns the name of a value's level."""
    # A column of integers with missing values arrives as floats.
    if isinstance(value, float | np.floating) and value.is_integer():
        return str(int(value))
    return str(value)
