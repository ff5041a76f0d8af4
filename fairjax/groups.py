"""Partition of a table's rows into cells, the combinations of attribute levels.

Each row lies in exactly one cell, such as ``sex=female, race=black``. Groups of one
attribute, or of several, are unions of cells. This module uses NumPy and pandas on the
host: it runs once, before training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int32, Int64

from fairjax._levels import (
    Column,
    Levels,
    Policy,
    fit_levels,
    quote,
    read_columns,
    rows,
    unseen_advice,
)
from fairjax.types import check_choice, check_nonnegative

ATTRIBUTE_JOINT: Final = " × "
LEVEL_JOINT: Final = ", "

# Bounds the memory of the lookup, and catches identifiers and unbinned numbers.
_MAX_COMBINATIONS = 1_000_000


@dataclass(frozen=True, eq=False)
class Grouping:
    """The rows of a table in groups, by one attribute or by several crossed.

    Attributes:
        name: The attribute, or the attributes joined by ``" × "``.
        levels: Names of the ``G`` groups.
        codes: The group of each row, int32 ``[n]``; -1 for a row in none.
        compared: Which groups have enough rows to be compared, bool ``[G]``; all by
            default.
        reference: Position of the group that all others are measured against, or None.
        attributes: Names of the ``A`` attributes; the name alone by default.
        places: Level of each attribute in each group, int ``[G, A]``; by default each
            level of one attribute is a group.
        binned: How numbers became levels, in words; None if they were not numbers.
    """

    name: str
    levels: tuple[str, ...]
    codes: Any
    compared: Bool[np.ndarray, " G"] = field(default_factory=lambda: np.ones(0, bool))
    reference: int | None = None
    attributes: tuple[str, ...] = ()
    places: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    binned: str | None = None

    def __post_init__(self) -> None:
        """Fills in the defaults."""
        if not self.attributes:
            object.__setattr__(self, "attributes", (self.name,))
            object.__setattr__(self, "places", np.arange(self.size)[:, None])
        if not self.compared.size:
            object.__setattr__(self, "compared", np.ones(self.size, bool))

    @property
    def size(self) -> int:
        """Number of groups ``G``."""
        return len(self.levels)

    @property
    def intersection(self) -> bool:
        """Whether several attributes are crossed."""
        return len(self.attributes) > 1


def cross(parts: Sequence[Grouping], *, most: int | None = None) -> Grouping:
    """Crosses groupings of one attribute each: one group a combination of levels.

    Args:
        parts: The attributes' groupings of the same rows.
        most: Where there are more combinations, only those that have rows are groups.

    Returns:
        The grouping, with the combinations in row-major order of the levels.

    Example:
        >>> import numpy as np
        >>> sex = Grouping("sex", ("f", "m"), np.array([0, 1, 1], np.int32))
        >>> old = Grouping("old", ("no", "yes"), np.array([1, 1, 0], np.int32))
        >>> both = cross([sex, old])
        >>> both.name, both.levels[:2], both.codes.tolist()
        ('sex × old', ('f, no', 'f, yes'), [1, 3, 2])
    """
    shape = tuple(part.size for part in parts)
    codes = np.ravel_multi_index([part.codes for part in parts], shape)
    present = np.arange(math.prod(shape))
    if most is not None and len(present) > most:
        present, codes = np.unique(codes, return_inverse=True)
    places = np.stack(np.unravel_index(present, shape), axis=1)
    levels = tuple(
        LEVEL_JOINT.join(part.levels[i] for part, i in zip(parts, place, strict=True))
        for place in places
    )
    names = tuple(part.name for part in parts)
    return Grouping(
        name=crossed_name(names),
        levels=levels,
        codes=codes.astype(np.int32),
        attributes=names,
        places=places,
    )


def crossed_name(attributes: Sequence[str]) -> str:
    """Returns what the crossing of attributes is called.

    Example:
        >>> crossed_name(("sex", "age"))
        'sex × age'
    """
    return ATTRIBUTE_JOINT.join(attributes)


@dataclass(frozen=True, eq=False)
class Partition:
    """Cells of attribute levels, as made by :func:`partition`; encodes rows as cells.

    Attributes:
      attributes: Names of the ``A`` attributes.
      levels: Each attribute's level names, in order.
      names: Names of the ``C`` cells, such as ``"sex=female, race=black"``, in
        row-major order of the levels; a pooled cell comes last.
      counts: Number of rows of the partitioned table in each cell, int64 ``[C]``.
        Empty cells are kept, with count 0.
      codes: Level of each attribute in each cell, int32 ``[C, A]``; -1 where a
        pooled cell may hold rows of different levels.
    """

    attributes: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    counts: Int64[np.ndarray, " C"]
    codes: Int32[np.ndarray, "C A"]
    _attribute_levels: tuple[Levels, ...] = field(repr=False)
    _cell_of: Int32[np.ndarray, " combinations"] = field(repr=False)
    _pooled: int = field(repr=False)

    @property
    def num_cells(self) -> int:
        """The number of cells, ``C``."""
        return len(self.names)

    def encode(
        self, attributes: pd.DataFrame | Mapping[str, Any]
    ) -> Int32[np.ndarray, " n"]:
        """Returns the cell of each row, int32 ``[n]`` in ``[0, C)``.

        Missing and unseen values follow the options given to :func:`partition`. Where
        an attribute has no level for missing values, a missing value is an unseen one.

        Args:
          attributes: The columns that the partition was made from, under the same
            names. Other columns are ignored. There may be no rows.

        Raises:
          ValueError: A column is absent, columns differ in length, or a row fits no
            cell and the options give it none.

        Example:
          >>> cells = partition({"sex": ["f", "m", "m"]})
          >>> cells.encode({"sex": ["m", "f"]})
          array([1, 0], dtype=int32)
        """
        columns = read_columns(attributes, self.attributes)
        combination, unplaced = _cross(
            self._attribute_levels, columns, has_pooled=self._pooled >= 0
        )
        cells = self._cell_of[combination]
        cells[unplaced] = self._pooled
        absent = cells < 0
        if absent.any():
            unseen = self._attribute_levels[0].policy.unseen
            if unseen != "other" or self._pooled < 0:
                shape = tuple(len(levels) for levels in self.levels)
                codes = _codes(np.unique(combination[absent]), shape)
                names = _combination_names(self.attributes, self.levels, codes)
                raise ValueError(
                    f"{rows(absent)} have combinations of levels that no row of the "
                    f"partition's own table has: {quote(names)}. "
                    f"{unseen_advice(unseen)}"
                )
            cells[absent] = self._pooled
        return cells

    def membership(
        self, attributes: str | Sequence[str]
    ) -> tuple[tuple[str, ...], Bool[np.ndarray, "G C"]]:
        """Returns groups as unions of cells.

        The product ``members @ per_cell`` turns sums over cells into sums over groups.

        Args:
          attributes: One attribute, whose groups are its levels, empty levels
            included; or several, whose groups are the combinations of their levels
            that occur in at least one cell.

        Returns:
          The names of the ``G`` groups, and bool ``[G, C]``, True where the group
          contains the cell. Every cell lies in exactly one group.

        Raises:
          ValueError: An attribute is unknown or repeated, or the pooled cell mixes
            its levels, so that the groups are not unions of cells.

        Example:
          >>> cells = partition({"sex": ["f", "m"], "age": ["<65", ">=65"]})
          >>> names, members = cells.membership("age")
          >>> names
          ('age=<65', 'age=>=65')
          >>> members @ cells.counts
          array([1, 1])
        """
        chosen = (attributes,) if isinstance(attributes, str) else tuple(attributes)
        if not chosen:
            raise ValueError("membership needs at least one attribute; got none.")
        unknown = [name for name in chosen if name not in self.attributes]
        if unknown:
            raise ValueError(
                f"the partition has no attribute {quote(unknown)}; "
                f"its attributes are {quote(self.attributes)}."
            )
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"attributes must not be repeated; got {quote(chosen)}.")
        positions = [self.attributes.index(name) for name in chosen]
        mixed = [self.attributes[a] for a in positions if (self.codes[:, a] < 0).any()]
        if mixed:
            raise ValueError(
                f"cell {self.names[self._pooled]!r} pools rows of different levels of "
                f"{quote(mixed)}, so the groups are not unions of cells; merge rare "
                "levels first, with min_level_count, or lower min_count."
            )
        levels = [self.levels[a] for a in positions]
        shape = tuple(len(names) for names in levels)
        group_of_cell = np.asarray(
            np.ravel_multi_index(tuple(self.codes[:, positions].T), shape)
        )
        # One attribute keeps all its levels, so that empty groups are listed too.
        groups = np.arange(shape[0]) if len(chosen) == 1 else np.unique(group_of_cell)
        names = _combination_names(chosen, levels, _codes(groups, shape))
        return tuple(names), groups[:, None] == group_of_cell[None, :]

    def names_a_value(self, attribute: str) -> Bool[np.ndarray, " G"]:
        """Returns which levels of an attribute stand for a single value.

        Args:
          attribute: One of the attributes.

        Returns:
          Bool ``[G]``, in the order of ``membership(attribute)``: False for the
          levels of missing and of merged values.

        Raises:
          ValueError: The attribute is unknown.

        Example:
          >>> partition({"died": [0, 1, None]}).names_a_value("died")
          array([ True,  True, False])
        """
        names, _ = self.membership(attribute)
        levels = self._attribute_levels[self.attributes.index(attribute)]
        return np.arange(len(names)) < levels.num_values


def partition(
    attributes: pd.DataFrame | Mapping[str, Any],
    *,
    levels: Mapping[str, Sequence[Any]] | None = None,
    cells: str = "all",
    min_count: int = 0,
    min_level_count: int = 0,
    other: str = "Other",
    missing: str = "level",
    missing_name: str = "missing",
    unseen: str = "error",
    single_level: str = "error",
) -> Partition:
    """Divides the rows of a table into cells, the combinations of attribute levels.

    Levels are in the order of a categorical column's categories. In any other column
    they are in the order of their values: numbers by size, then strings. The level of
    missing values and then the level of merged values come last.

    Args:
      attributes: A data frame, or a mapping from name to a column of ``n`` values of
        any type: strings, booleans, numbers, categories, nullable types.
      levels: Declared values of some attributes, in order. A declared level without
        rows stays, with count 0; declare None to keep a level for missing values. The
        categories of a categorical column count as declared.
      cells: ``"all"`` keeps every combination of levels; ``"observed"`` keeps those
        that at least one row has.
      min_count: Cells with fewer rows, empty cells included, are pooled into one cell
        named ``other``, which comes last. The pooled cell stays even if it has fewer
        rows itself; its count shows that.
      min_level_count: Levels of an attribute with fewer rows are first merged into a
        level of the attribute named ``other``. Empty levels and the level of missing
        values count as levels too.
      other: Name of the pooled cell and of each attribute's merged level.
      missing: ``"level"`` gives each attribute with missing values a level for them;
        ``"error"`` raises.
      missing_name: Name of the level of missing values.
      unseen: How to treat a row whose level is not declared or, in
        :meth:`Partition.encode`, not in the partition. ``"error"`` raises. ``"other"``
        uses the attribute's level ``other`` or, without one, the pooled cell.
        ``"missing"`` uses the level of missing values. Without such a level or cell,
        ``encode`` raises. With ``cells="observed"``, a row of an unobserved combination
        goes to the pooled cell under ``"other"``, and raises otherwise.
      single_level: ``"error"`` raises where an attribute has a single level, which
        cannot show a gap; ``"allow"`` does not.

    Returns:
      The partition.

    Raises:
      ValueError: The table has no rows, or columns of different lengths; an attribute
        is missing in every row, has a single level, or has undeclared levels; names
        clash; all cells would be pooled; or an option is not one of the above.

    Example:
      >>> cells = partition(
      ...     {"sex": ["f", "f", "f", "m", "m"], "race": ["b", "w", "w", "w", None]},
      ...     min_count=1,
      ... )
      >>> for name, count in zip(cells.names, cells.counts):
      ...     print(f"{name}: {count}")
      sex=f, race=b: 1
      sex=f, race=w: 2
      sex=m, race=w: 1
      sex=m, race=missing: 1
      Other: 0
    """
    check_choice("cells", cells, "all", "observed")
    check_choice("missing", missing, "level", "error")
    check_choice("unseen", unseen, "error", "other", "missing")
    check_choice("single_level", single_level, "error", "allow")
    check_nonnegative("min_count", min_count)
    check_nonnegative("min_level_count", min_level_count)
    columns = read_columns(attributes)
    names = tuple(column.name for column in columns)
    if not len(columns[0].codes):
        raise ValueError(f"the table of {quote(names)} has no rows.")
    levels = {} if levels is None else levels
    unknown = [name for name in levels if name not in names]
    if unknown:
        raise ValueError(
            f"levels are declared for {quote(unknown)}, but the table has "
            f"{quote(names)}."
        )
    policy = Policy(min_level_count, other, missing, missing_name, unseen, single_level)
    fitted = tuple(fit_levels(c, levels.get(c.name), policy) for c in columns)
    level_names = tuple(attribute.names for attribute in fitted)
    shape = tuple(len(attribute.names) for attribute in fitted)
    if math.prod(shape) > _MAX_COMBINATIONS:
        sizes = ", ".join(f"{len(a.names)} of {a.attribute!r}" for a in fitted)
        raise ValueError(
            f"the levels ({sizes}) have {math.prod(shape)} combinations, more than "
            f"{_MAX_COMBINATIONS}; bin numbers and leave identifiers out."
        )
    combination, _ = _cross(fitted, columns, has_pooled=False)
    counts = np.bincount(combination, minlength=math.prod(shape)).astype(np.int64)

    candidate = counts > 0 if cells == "observed" else np.ones_like(counts, bool)
    kept = np.flatnonzero(candidate & (counts >= min_count))
    pooled = np.flatnonzero(candidate & (counts < min_count))
    if not kept.size:
        raise ValueError(
            f"every cell has fewer than min_count={min_count} rows, so no cell is left "
            f"to compare; the largest has {counts.max()}. Lower min_count."
        )
    codes = _codes(kept, shape)
    cell_names = _combination_names(names, level_names, codes)
    cell_counts = counts[kept]
    cell_of = np.full(len(counts), -1, np.int32)
    cell_of[kept] = np.arange(kept.size)
    if pooled.size:
        clash = [a.attribute for a in fitted if other in a.names[: a.num_values]]
        if clash:
            raise ValueError(
                f"the pooled cell would be named {other!r}, as is a level of "
                f"{quote(clash)}; choose another name with the argument other."
            )
        # Where rows of unseen levels may join the pooled cell, its levels are unknown.
        may_join = unseen == "other" and (
            cells == "observed" or any(a.other < 0 for a in fitted)
        )
        members = _codes(pooled, shape)
        certain = (members == members[0]).all(0) & (not may_join)
        codes = np.vstack([codes, np.where(certain, members[0], -1)])
        cell_names.append(other)
        cell_counts = np.append(cell_counts, counts[pooled].sum())
        cell_of[pooled] = kept.size
    if len(set(cell_names)) < len(cell_names):
        repeated = next(name for name in cell_names if cell_names.count(name) > 1)
        raise ValueError(f"two cells would be named {repeated!r}; rename a level.")
    codes = codes.astype(np.int32)
    for array in (cell_counts, codes, cell_of):
        array.setflags(write=False)
    return Partition(
        attributes=names,
        levels=level_names,
        names=tuple(cell_names),
        counts=cell_counts,
        codes=codes,
        _attribute_levels=fitted,
        _cell_of=cell_of,
        _pooled=kept.size if pooled.size else -1,
    )


def _cross(
    fitted: Sequence[Levels], columns: Sequence[Column], *, has_pooled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each row's combination of levels, [n], and which rows have none, [n]."""
    combination = np.zeros(len(columns[0].codes), np.int64)
    unplaced = np.zeros(len(combination), bool)
    for attribute, column in zip(fitted, columns, strict=True):
        position = attribute.positions(column, has_pooled=has_pooled)
        unplaced |= position < 0
        combination *= len(attribute.names)
        combination += np.maximum(position, 0)
    return combination, unplaced


def _codes(combinations: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.unravel_index(combinations, shape), axis=-1)


def _combination_names(
    attributes: Sequence[str], levels: Sequence[Sequence[str]], codes: np.ndarray
) -> list[str]:
    parts = [
        [f"{attribute}={name}" for name in names]
        for attribute, names in zip(attributes, levels, strict=True)
    ]
    return [
        ", ".join(part[i] for part, i in zip(parts, code, strict=True))
        for code in codes.tolist()
    ]
