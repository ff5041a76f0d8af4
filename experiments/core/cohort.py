"""Who is compared with whom: a table's outcome, and its groups that are large enough.

It is settled once, from all patients: no method and no resample changes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core.protocol import CrossValidation, filled_up

MIN_SUPPORT = 10
WORST_GROUP_SUPPORT = 50


@dataclass(frozen=True, eq=False)
class Grouping:
    """The groups of one attribute, or those of all attributes crossed.

    Attributes:
      name: The attribute; `crossed_name` of all.
      levels: Names of the G groups.
      codes: int32 ``[n]``, each patient's group.
      compared: bool ``[G]``, which have enough patients of each outcome.
      reference: Position of the group that all others are measured against, or None.
    """

    name: str
    levels: tuple[str, ...]
    codes: jax.Array
    compared: np.ndarray
    reference: int | None = None

    @property
    def size(self) -> int:
        """G."""
        return len(self.levels)


@dataclass(frozen=True, eq=False)
class Cohort:
    """The patients as the metrics see them.

    Attributes:
      labels: int32 ``[n]``.
      attributes: One grouping an attribute, in order.
      crossed: That of all attributes together, where it is asked for.
      judged: int32 ``[J, m]``, rows of the intersections that may be the worst group,
        filled up by -1.
    """

    labels: jax.Array
    attributes: tuple[Grouping, ...]
    crossed: Grouping | None
    judged: jax.Array

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        """The attributes', and the crossed one where there is one."""
        return self.attributes + (() if self.crossed is None else (self.crossed,))

    def exchanged(self, rows: jax.Array) -> "Cohort":
        """The cohort in which patient i has all attributes of patient ``rows[i]``."""

        def moved(grouping: Grouping) -> Grouping:
            return replace(grouping, codes=grouping.codes[rows])

        return replace(
            self,
            attributes=tuple(map(moved, self.attributes)),
            crossed=None if self.crossed is None else moved(self.crossed),
        )


def crossed_name(attributes: Sequence[str]) -> str:
    """What the intersection of attributes is called.

    Example:
      >>> crossed_name(("sex", "age"))
      'sex × age'
    """
    return " × ".join(attributes)


def cohort(
    splits: CrossValidation,
    *,
    crossed: bool = False,
    references: Mapping[str, str] | None = None,
) -> Cohort:
    """The cohort of a cross-validation.

    Args:
      splits: The patients and their cells.
      crossed: Compare the intersections of all attributes too, as if they were one more
        attribute. Nothing is crossed where there is one attribute only.
      references: Attribute -> the level that its others are measured against.

    Raises:
      ValueError: A grouping with fewer than two groups that can be compared; a
        reference that is not one of them.
    """
    attributes = splits.attributes
    groupings = tuple(_grouping(splits, (attribute,)) for attribute in attributes)
    if references:
        groupings = tuple(_referred(g, references.get(g.name)) for g in groupings)
    both = _grouping(splits, attributes) if crossed and len(attributes) > 1 else None
    return Cohort(
        labels=jnp.asarray(splits.table.label, jnp.int32),
        attributes=groupings,
        crossed=both,
        judged=jnp.asarray(_large_intersections(splits)),
    )


def left_out(cohort: Cohort) -> dict[str, list[str]]:
    """Grouping -> its groups that are too small to be compared, where there are any."""
    found = {
        grouping.name: [
            level
            for level, enough in zip(grouping.levels, grouping.compared, strict=True)
            if not enough
        ]
        for grouping in cohort.groupings
    }
    return {name: levels for name, levels in found.items() if levels}


def _grouping(splits: CrossValidation, attributes: Sequence[str]) -> Grouping:
    codes, levels = _members(splits, attributes)
    compared = _enough(splits, codes, len(levels), MIN_SUPPORT)
    name = crossed_name(attributes)
    if compared.sum() < 2:
        # An only attribute cannot be left out.
        several = len(splits.attributes) > 1
        raise ValueError(
            f"attribute {name!r} has {compared.sum()} levels with {MIN_SUPPORT} "
            "patients of each outcome or more; a gap needs two."
            + (" Leave it out with --attributes." if several else "")
        )
    return Grouping(name, levels, jnp.asarray(codes), compared)


def _referred(grouping: Grouping, reference: str | None) -> Grouping:
    if reference is None:
        return grouping
    compared = [grouping.levels[g] for g in np.flatnonzero(grouping.compared)]
    if reference not in compared:
        raise ValueError(
            f"the reference of {grouping.name!r} must be one of its groups with "
            f"{MIN_SUPPORT} patients of each outcome or more, {', '.join(compared)}; "
            f"not {reference}."
        )
    return replace(grouping, reference=grouping.levels.index(reference))


def _members(
    splits: CrossValidation, attributes: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Each patient's group, and the groups' names without the attributes'."""
    cells = splits.partition
    # One attribute's empty levels stay; of combinations there are those that occur.
    wanted = attributes[0] if len(attributes) == 1 else attributes
    names, members = cells.membership(wanted)
    if len(attributes) == 1:
        levels = cells.levels[cells.attributes.index(attributes[0])]
    else:
        columns = [cells.attributes.index(attribute) for attribute in attributes]
        first = cells.codes[members.argmax(axis=1)]
        levels = tuple(
            crossed_name([cells.levels[column][row[column]] for column in columns])
            for row in first
        )
    assert len(levels) == len(names)
    return members.argmax(axis=0)[splits.cells], levels


def _enough(
    splits: CrossValidation, codes: np.ndarray, size: int, support: int
) -> np.ndarray:
    """Which groups have so many patients of each outcome, bool ``[G]``."""
    outcome = splits.table.label.astype(int)
    counts = np.bincount(2 * codes + outcome, minlength=2 * size)
    return np.all(counts.reshape(-1, 2) >= support, axis=1)


def _large_intersections(splits: CrossValidation) -> np.ndarray:
    """Rows of the intersections with enough of both outcomes, filled up by -1."""
    codes, levels = _members(splits, splits.attributes)
    enough = _enough(splits, codes, len(levels), WORST_GROUP_SUPPORT)
    found = [np.flatnonzero(codes == g) for g in np.flatnonzero(enough)]
    return filled_up(found)
