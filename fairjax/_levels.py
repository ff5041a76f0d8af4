"""One attribute's values to its levels: order, names, and who has no level of its own.

`fairjax.groups` crosses the levels of several attributes to cells.
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
    """A column as positions among its distinct values.

    Attributes:
        name: Name of the column.
        codes: Position of each row's value, [n]; -1 where it is missing.
        values: The distinct values; a category that no row has is among them.
        counts: Rows of each value, then missing rows, [len(values) + 1].
        ordered: Whether `values` are in the order that a categorical type declares.
    """

    name: str
    codes: Int[np.ndarray, " n"]
    values: list[Any]
    counts: Int[np.ndarray, " levels_and_missing"]
    ordered: bool


class Policy(NamedTuple):
    """What `fairjax.groups.partition` was told of levels; see its arguments."""

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
        own: How many of them stand for one value; the rest are of missing and of
            merged values.
        index: Position of each known value's level.
        missing: Position of the level of missing values, or -1 for none.
        other: Position of the level of merged values, or -1 for none.
        policy: The policies for missing and unseen values.
    """

    attribute: str
    names: tuple[str, ...]
    own: int
    index: Mapping[Any, int]
    missing: int
    other: int
    policy: Policy

    def positions(self, column: Column, *, has_pooled: bool) -> Int[np.ndarray, " n"]:
        """Returns the level of each row, [n]; -1 where only the pooled cell has room.

        Raises:
            ValueError: If a row has no level and the policy gives it none.
        """
        _check_missing(column, self.policy)
        # The last entry is the missing value's, which is where code -1 points.
        level = np.array([self.index.get(v, -1) for v in column.values] + [-1])
        level[-1] = self.missing
        homeless = (level < 0) & (column.counts > 0)
        if homeless.any():
            unseen = self.policy.unseen
            home = {"other": self.other, "missing": self.missing}.get(unseen, -1)
            if home < 0 and not (unseen == "other" and has_pooled):
                found = [*column.values, self.policy.missing_name]
                found = [found[i] for i in np.flatnonzero(homeless)]
                raise ValueError(
                    f"column {self.attribute!r} has {rows(column.counts[homeless])} "
                    f"whose levels the partition does not have: {quote(found)}; it has "
                    f"{quote(self.names)}{no_place(unseen)}"
                )
            level[homeless] = home
        return level[column.codes]


def read_columns(
    attributes: pd.DataFrame | Mapping[str, Any],
    required: Sequence[str] | None = None,
) -> list[Column]:
    """Returns the columns of a table, or the required ones of it.

    Raises:
        ValueError: If there is no column, a required one is absent, a name is no
            string or repeated, or the columns' lengths or dimensions are wrong.
    """
    found = list(attributes.keys())
    if not found:
        raise ValueError("there are no attributes; give one column or more")
    names = found if required is None else list(required)
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise ValueError(f"attribute names must be strings, not {quote(odd)}")
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"no column {quote(absent)}; the table has {quote(found)}")
    repeated = [name for name in names if found.count(name) > 1]
    if repeated:
        raise ValueError(f"column {repeated[0]!r} occurs more than once")
    columns = [_read_column(name, attributes[name]) for name in names]
    lengths = {column.name: len(column.codes) for column in columns}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise ValueError(f"the columns have different numbers of rows: {listed}")
    return columns


def fit_levels(
    column: Column, declared: Sequence[Any] | None, policy: Policy
) -> Levels:
    """Returns the levels of one attribute; `fairjax.groups.partition` says the rules.

    Raises:
        ValueError: If the column is entirely missing, has missing or undeclared values
            that the policy forbids, has one level, or has clashing level names.
    """
    name = column.name
    _check_missing(column, policy)
    count_of = dict(zip(column.values, column.counts.tolist(), strict=False))
    present = [value for value, count in count_of.items() if count]
    if not present:
        raise ValueError(f"column {name!r} is missing in every row")
    if declared is None:
        own, keep_missing = _in_order(column), False
    else:
        own, keep_missing = _read_declared(name, declared)
    undeclared = sorted(set(present) - set(own), key=repr)
    strays = sum(count_of[value] for value in undeclared)
    if undeclared and policy.unseen == "error":
        raise ValueError(
            f"column {name!r} has {rows(strays)} whose levels are not declared: "
            f"{quote(undeclared)}; declared are {quote(own)}"
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
        alike = [value for value in own if names.count(display(value)) > 1]
        raise ValueError(f"column {name!r} has levels that look alike: {quote(alike)}")
    extra = [policy.missing_name] if has_missing and not merges_missing else []
    extra += [policy.other] if has_other else []
    clash = [level for level in extra if (names + extra).count(level) > 1]
    if clash:
        raise ValueError(
            f"column {name!r} would have two levels named {clash[0]!r}; choose another "
            "name with the arguments other and missing_name"
        )
    other = len(names) + len(extra) - 1 if has_other else -1
    if len(names + extra) == 1 and policy.single_level == "error":
        raise ValueError(
            f"column {name!r} has the single level {(names + extra)[0]!r}, so it can "
            'show no gap; drop it, or pass single_level="allow"'
        )
    return Levels(
        attribute=name,
        names=tuple(names + extra),
        own=len(names),
        index={v: i for i, v in enumerate(own)} | dict.fromkeys(merged, other),
        # Merged, missing values are of the next level, which is then `other`.
        missing=len(names) if has_missing else -1,
        other=other,
        policy=policy,
    )


def quote(values: Sequence[Any]) -> str:
    """Returns the first few values as a message shows them."""
    shown = ", ".join(repr(value) for value in values[:_SHOWN])
    more = len(values) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def rows(counts: Any) -> str:
    """Returns a count of rows as a message shows it."""
    total = int(np.sum(counts))
    return f"{total} row" if total == 1 else f"{total} rows"


def no_place(unseen: str) -> str:
    """Returns why the policy for unseen levels did not help, to end a message."""
    return "" if unseen == "error" else f' (unseen="{unseen}", but there is none)'


def _read_column(name: str, values: Any) -> Column:
    is_list = isinstance(values, list | tuple)
    shape = (len(values),) if is_list else getattr(values, "shape", None)
    if shape is None or len(shape) != 1:
        raise ValueError(f"column {name!r} must have one dimension, not shape {shape}")
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
                f"column {name!r} has values that cannot be levels: {error}"
            ) from error
        if len(uniques) > _MAX_VALUES:
            raise ValueError(
                f"column {name!r} has {len(uniques)} distinct values, too many to be "
                "levels; bin numbers and leave identifiers out"
            )
        values = uniques.tolist()
    counts = np.bincount(codes.astype(np.int64) + 1, minlength=len(values) + 1)
    return Column(name, codes, values, np.roll(counts, -1), ordered)


def _read_declared(name: str, declared: Sequence[Any]) -> tuple[list[Any], bool]:
    if isinstance(declared, str):
        raise ValueError(
            f"levels of {name!r} must be a list, not the string {declared!r}"
        )
    own = [value for value in declared if not pd.isna(value)]
    if not own:
        raise ValueError(f"no level of {name!r} is declared")
    repeated = [value for value in own if own.count(value) > 1]
    if repeated:
        raise ValueError(f"level {repeated[0]!r} of {name!r} is declared twice")
    return own, len(own) < len(declared)


def _check_missing(column: Column, policy: Policy) -> None:
    if policy.missing == "error" and column.counts[-1]:
        raise ValueError(
            f"column {column.name!r} is missing in {rows(column.counts[-1])}"
        )


def _in_order(column: Column) -> list[Any]:
    if column.ordered:
        return list(column.values)
    try:
        return sorted(column.values)
    except TypeError:
        return sorted(column.values, key=_mixed_order)


def _mixed_order(value: Any) -> tuple[int, Any, str]:
    """Numbers by value, then strings, then the rest by type and text."""
    if isinstance(value, int | float):
        return 0, value, ""
    if isinstance(value, str):
        return 1, value, ""
    return 2, type(value).__name__, str(value)


def display(value: Any) -> str:
    """The name of a value's level."""
    # A column of integers with missing values arrives as floats.
    if isinstance(value, float | np.floating) and value.is_integer():
        return str(int(value))
    return str(value)
