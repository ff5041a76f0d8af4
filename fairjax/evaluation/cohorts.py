"""Cohorts: the patients' outcomes, and the groups that are large enough to compare.

A cohort is built once from all patients, so methods and resamples do not change its
groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from fairjax.evaluation.names import SUMMARIES
from fairjax.groups import Grouping, Partition, crossed_name, partition

MIN_SUPPORT = 10
WORST_GROUP_SUPPORT = 50


@dataclass(frozen=True, eq=False)
class Cohort:
    """The outcomes and groups of patients, as metrics use them.

    Attributes:
      labels: int32 ``[n]``, the outcomes.
      attributes: One grouping per attribute, in order.
      crossed: The grouping by all attributes together, if requested.
      judged: int32 ``[J, m]``, rows of the intersections assessed as the worst group,
        padded with -1.
      patients: int32 ``[n]``, each row's patient; None where all rows are different
        patients.
      folds: int ``[R, n]``, the fold in which each row is tested in each repeat, or
        None.
    """

    labels: jax.Array
    attributes: tuple[Grouping, ...]
    crossed: Grouping | None
    judged: jax.Array
    patients: np.ndarray | None = None
    folds: np.ndarray | None = None

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        """The groupings of the attributes, and the crossed grouping if present."""
        return self.attributes + (() if self.crossed is None else (self.crossed,))

    def exchanged(self, rows: jax.Array) -> "Cohort":
        """Returns a cohort where patient i has the attributes of ``rows[i]``.

        Example:
          >>> made = cohort([0, 1] * 40, {"sex": ["f", "m", "m", "f"] * 20})
          >>> moved = made.exchanged(jnp.arange(80) ^ 1)
          >>> moved.attributes[0].codes[:4].tolist(), moved.labels[:4].tolist()
          ([1, 0, 0, 1], [0, 1, 0, 1])
        """
        each = [replace(g, codes=g.codes[rows]) for g in self.groupings]
        *attributes, crossed = each if self.crossed is not None else [*each, None]
        return replace(self, attributes=tuple(attributes), crossed=crossed)


def cohort(
    labels: Any,
    attributes: Any,
    *,
    patients: Any = None,
    folds: Any = None,
    intersections: bool = False,
    references: Mapping[str, str] | None = None,
    min_support: int = MIN_SUPPORT,
) -> Cohort:
    """Builds the cohort of a table of patients.

    Args:
      labels: ``[n]``, 0 or 1.
      attributes: Sensitive attributes as :func:`fairjax.partition` takes them: a data
        frame, or a mapping from name to ``n`` values. Missing values are a group.
      patients: ``[n]``, identifiers of the patients, where a patient may have several
        rows: resamples draw patients. By default every row is a different patient.
      folds: Integers ``[n]`` or ``[R, n]``, the fold in which each row is tested (in
        each of R repeats of the cross-validation). Needed for scores by fold only.
      intersections: Whether to compare the intersections of all attributes too, as an
        additional attribute. A single attribute has no intersections.
      references: Attribute -> its reference category, for the metrics of
        :data:`fairjax.evaluation.BY_LEVEL` that need a reference.
      min_support: Fewest rows of each outcome for a group to be compared.

    Raises:
      ValueError: If labels are not 0 or 1; if a column has another length; if a fold
        is negative; if an attribute has the name of a summary; if a grouping has fewer
        than two comparable groups; if a reference is not a comparable group.

    Example:
      >>> found = cohort([0, 1] * 40, {"sex": ["f", "m", "m", "f"] * 20})
      >>> found.attributes[0].levels, found.attributes[0].compared
      (('f', 'm'), array([ True,  True]))
    """
    label = _checked_labels(labels)
    cells = partition(attributes)
    taken = [name for name in cells.attributes if name in SUMMARIES]
    if taken:
        raise ValueError(
            f"attributes must not be named as a summary, {' or '.join(SUMMARIES)}; got "
            f"{taken[0]!r}. Rename the column."
        )
    row_cells = cells.encode(attributes)
    numbers = None if patients is None else _numbered(patients)
    _check_rows(label, attributes=row_cells, patients=numbers)

    def grouping(names: Sequence[str], reference: str | None = None) -> Grouping:
        codes, levels, places = _members(cells, row_cells, names)
        compared = _enough(label, codes, len(levels), min_support)
        return Grouping(
            name=crossed_name(names),
            levels=levels,
            codes=jnp.asarray(codes, jnp.int32),
            compared=compared,
            reference=_reference(names, levels, compared, min_support, reference),
            attributes=tuple(names),
            places=places,
        )

    chosen = references or {}
    groupings = tuple(grouping((n,), chosen.get(n)) for n in cells.attributes)
    several = len(groupings) > 1
    codes, levels, _ = _members(cells, row_cells, cells.attributes)
    large = _enough(label, codes, len(levels), WORST_GROUP_SUPPORT)
    return Cohort(
        labels=jnp.asarray(label, jnp.int32),
        attributes=groupings,
        crossed=grouping(cells.attributes) if intersections and several else None,
        judged=jnp.asarray(
            filled_up([np.flatnonzero(codes == g) for g in np.flatnonzero(large)])
        ),
        patients=numbers,
        folds=None if folds is None else _checked_folds(folds, len(label)),
    )


def filled_up(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks row numbers of parts, int32 ``[parts, longest]``, padded with -1.

    Example:
      >>> filled_up([np.array([2, 5]), np.array([7])]).tolist()
      [[2, 5], [7, -1]]
    """
    rows = np.full((len(parts), max(map(len, parts), default=0)), -1, np.int32)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return rows


def left_out(cohort: Cohort) -> dict[str, list[str]]:
    """Returns grouping -> its groups that are too small to compare, if any.

    Example:
      >>> groups = {"site": ["a", "a", "b", "b"] * 10 + ["c"]}
      >>> left_out(cohort([0, 1] * 20 + [0], groups))
      {'site': ['c']}
    """
    return {
        grouping.name: np.array(grouping.levels)[~grouping.compared].tolist()
        for grouping in cohort.groupings
        if not grouping.compared.all()
    }


def _checked_labels(labels: Any) -> np.ndarray:
    label = np.asarray(labels)
    if label.ndim != 1 or not label.size or not np.isin(label, (0, 1)).all():
        raise ValueError(
            "labels must be one column of 0s and 1s; got an array of shape "
            f"{label.shape} with the values {pd.unique(label.ravel())[:5].tolist()}. "
            "Encode the outcome as 1 for patients who have it and 0 for the others."
        )
    return label.astype(np.int8)


def _numbered(patients: Any) -> np.ndarray:
    numbers = pd.factorize(np.asarray(patients), sort=True)[0]
    missing = int((numbers < 0).sum())
    if missing:
        raise ValueError(
            f"patients must name each row's patient; got {missing:,} missing names."
        )
    return numbers.astype(np.int32)


def _check_rows(label: np.ndarray, **columns: np.ndarray | None) -> None:
    for name, column in columns.items():
        if column is not None and len(column) != len(label):
            raise ValueError(
                f"{name} must have {len(label):,} rows, as labels; got {len(column):,}."
            )


def _checked_folds(folds: Any, rows: int) -> np.ndarray:
    found = np.atleast_2d(np.asarray(folds))
    if found.ndim != 2 or found.shape[1] != rows or found.dtype.kind not in "iu":
        raise ValueError(
            f"folds must be integers [{rows}] or [repeats, {rows}], each row's test "
            f"fold; got {found.dtype} of shape {np.shape(folds)}."
        )
    untested = np.argwhere(found < 0)
    if len(untested):
        repeat, row = untested[0].tolist()
        raise ValueError(
            "folds must test every row once in each repeat; got "
            f"{len(untested):,} negative folds, row {row} of repeat {repeat} first."
        )
    return found


def _reference(
    attributes: Sequence[str],
    levels: tuple[str, ...],
    compared: np.ndarray,
    support: int,
    reference: str | None,
) -> int | None:
    """The position of the reference, where the groups can be compared at all."""
    name = crossed_name(attributes)
    if compared.sum() < 2:
        raise ValueError(
            f"attribute {name!r} must have two groups of {support} rows or more of "
            f"each outcome; got {compared.sum()}. Lower min_support or merge groups."
        )
    able = [level for level, enough in zip(levels, compared, strict=True) if enough]
    if reference is not None and reference not in able:
        raise ValueError(
            f"the reference of {name!r} must be one of its groups with {support} "
            f"rows of each outcome or more, {', '.join(able)}; got {reference}."
        )
    return None if reference is None else levels.index(reference)


def _members(
    cells: Partition, row_cells: np.ndarray, attributes: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Returns each row's group, and the groups' names and levels."""
    _, members = cells.membership(attributes)
    # The first cell of each group gives the group's name.
    first = members.argmax(axis=1)
    columns = [cells.attributes.index(attribute) for attribute in attributes]
    places = cells.codes[first][:, columns]
    levels = tuple(
        crossed_name([cells.levels[c][i] for c, i in zip(columns, row, strict=True)])
        for row in places
    )
    return members.argmax(axis=0)[row_cells], levels, places


def _enough(
    label: np.ndarray, codes: np.ndarray, size: int, support: int
) -> np.ndarray:
    """Returns whether each group has enough rows of each outcome, bool ``[G]``."""
    counts = np.bincount(2 * codes + label, minlength=2 * size)
    return np.all(counts.reshape(-1, 2) >= support, axis=1)
