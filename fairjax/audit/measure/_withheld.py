"""Which groups are withheld because their counts are small, and what protects them.

It is decided from counts alone, before anything is measured. A group with a small cell
is withheld whole. So is what the sums in the report would give it back by: a report
holds every attribute, its intersections and the total, and a group is the sum of its
own intersections.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fairjax.audit._errors import AuditError, row_count
from fairjax.audit.glossary import RANKING
from fairjax.audit.reading.data import AuditData
from fairjax.groups import Grouping

# What may be left, for rounding, of a group that is a combination of the others.
_TOLERANCE = 1e-6
# A group whose scores take so few values tells how many of its patients have each, by
# its AUROC, its Brier score and its calibration.
_FEW_VALUES = 20


class Withheld(NamedTuple):
    """What is not shown.

    Attributes:
      floor: The smallest count that may be shown.
      groups: Family -> ``[G]``, of which nothing is shown.
      decisions: For each model, family -> ``[G]``, of which nothing is shown that rests
        on decisions; the groups that are withheld whole are among them.
      overall: For each model, whether its decisions over all rows are withheld.
      ranking: For each model, family -> ``[G]``, of which nothing is shown that rests
        on the score itself: the groups, and those where it takes few values and few
        have one of them, or whose decisions are withheld.
      overall_ranking: For each model, whether that is withheld over all rows.
      shared: Families in which a patient has rows in several groups.
    """

    floor: int
    groups: Mapping[str, np.ndarray]
    decisions: tuple[Mapping[str, np.ndarray], ...]
    overall: tuple[bool, ...]
    ranking: tuple[Mapping[str, np.ndarray], ...]
    overall_ranking: tuple[bool, ...]
    shared: frozenset[str]

    def hidden(self, family: str, model: int, metric: str) -> np.ndarray:
        """``[G]``, which groups of a family do not show a model's metric."""
        return (self.ranking if metric in RANKING else self.decisions)[model][family]

    def hidden_overall(self, model: int, metric: str) -> bool:
        """Whether a model's metric over all rows is withheld."""
        return (self.overall_ranking if metric in RANKING else self.overall)[model]


def withhold(families: Sequence[Grouping], data: AuditData, floor: int) -> Withheld:
    """Decides what is withheld: cells of labels, then of labels by decisions.

    Where patients are known, a cell counts patients and not rows.

    Args:
      families: Each attribute, then their crossings, fewer attributes first.
      data: The rows.
      floor: The smallest count that may be shown.

    Raises:
      AuditError: All rows together have too few with the outcome, or without it.
    """
    labels = data.labels.astype(np.int64)
    everyone = Grouping("", ("",), np.zeros(len(labels), np.int32))
    total = count(everyone, labels, 2, data.patients)
    if _small(total, floor).any():
        raise AuditError(
            f"of {row_count(len(labels))} fewer than {floor:,} have the outcome, or "
            "are without it: nothing could be shown with --suppress-below"
        )

    shared = _shared(families, data)

    def hide(
        cell: np.ndarray, number: int, besides: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        tables = {f.name: count(f, cell, number, data.patients) for f in families}
        return withheld(families, tables, floor, besides, shared)

    groups = hide(labels, 2)
    cells = [2 * labels + model.decisions for model in data.models]
    decisions = tuple(hide(cell, 4, groups) for cell in cells)
    overall = tuple(
        bool(_small(count(everyone, cell, 4, data.patients), floor).any())
        for cell in cells
    )
    ranking, overall_ranking = [], []
    for model, gone, all_gone in zip(data.models, decisions, overall, strict=True):
        value = np.unique(model.scores, return_inverse=True)[1]

        def told(family: Grouping, value: np.ndarray = value) -> _Told:
            return _told(family, labels, value, data.patients, floor)

        tables, besides = {}, {}
        for family in families:
            found = told(family)
            # A group counts 1 that must be hidden, and enough where it need not be.
            some = np.where(found.small, 1, np.where(found.occurs, floor, 0))
            cells = count(family, labels, 2, data.patients)
            tables[family.name] = np.column_stack([cells, some])
            besides[family.name] = groups[family.name] | (found.few & gone[family.name])
        ranking.append(withheld(families, tables, floor, besides, shared))
        whole = told(everyone)
        overall_ranking.append(bool((whole.small | (whole.few & all_gone)).any()))
    return Withheld(
        floor,
        groups,
        decisions,
        overall,
        tuple(ranking),
        tuple(overall_ranking),
        shared,
    )


class _Told(NamedTuple):
    """What the score alone tells of the groups.

    Attributes:
      few: ``[G]``, whether it takes few values in the group.
      small: ``[G]``, whether moreover one of them, with one outcome, is had by few.
      occurs: ``[G]``, whether the group has rows.
    """

    few: np.ndarray
    small: np.ndarray
    occurs: np.ndarray


def _told(
    family: Grouping,
    labels: np.ndarray,
    value: np.ndarray,
    patients: np.ndarray | None,
    floor: int,
) -> _Told:
    """Finds groups of few values from rows coded by value."""
    size, values = len(family.levels), int(value.max()) + 1
    pairs = np.unique(family.codes.astype(np.int64) * values + value)
    number = np.bincount(pairs // values, minlength=size)
    few = (number > 0) & (number <= _FEW_VALUES)
    inside = few[family.codes]
    place = family.codes[inside].astype(np.int64) * values + value[inside]
    place = 2 * place + labels[inside]
    if patients is not None:
        place = _once(place, patients[inside])
    cells, counts = np.unique(place, return_counts=True)
    small = np.zeros(size, bool)
    small[cells[counts < floor] // (2 * values)] = True
    return _Told(few, small, number > 0)


def _shared(families: Sequence[Grouping], data: AuditData) -> frozenset[str]:
    """Families in which a patient has rows in several groups."""
    varying = {a.name for a in data.attributes if data.varying(a).any()}
    return frozenset(f.name for f in families if varying & set(f.attributes))


def without(family: Grouping, hidden: np.ndarray) -> Grouping:
    """The family with the rows of withheld groups in no group, code -1."""
    # The last entry is where code -1 points.
    kept = np.append(np.where(hidden, -1, np.arange(len(hidden))), -1)
    return replace(family, codes=kept[family.codes].astype(np.int32))


def count(
    family: Grouping, cells: np.ndarray, number: int, patients: np.ndarray | None
) -> np.ndarray:
    """Rows, or distinct patients, of each group in each of K cells: ``[G, K]``."""
    place = family.codes.astype(np.int64) * number + cells
    if patients is not None:
        place = _once(place, patients)
    size = len(family.levels) * number
    return np.bincount(place, minlength=size).reshape(-1, number)


def _once(place: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The places of rows, those of one patient in one place but once."""
    several = int(patients.max(initial=0)) + 1
    return np.unique(place * several + patients) // several


def withheld(
    families: Sequence[Grouping],
    cells: Mapping[str, np.ndarray],
    floor: int,
    besides: Mapping[str, np.ndarray] | None = None,
    shared: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Which groups of each family are withheld.

    A group with 1 to ``floor - 1`` in any of its cells is. Where groups of a crossing
    add up to a group that is shown, either none of them is withheld, or two and more
    that have no small cell together; where they add up to one that is withheld, all of
    them are. Last, no group with a small cell is a sum or difference of shown groups,
    of whatever families.

    Args:
      families: Each attribute, then their crossings, fewer attributes first.
      cells: Family -> ``[G, K]`` counts.
      floor: The smallest count that may be shown.
      besides: Family -> ``[G]``, what is withheld for another reason.
      shared: Families whose groups may share patients, whose numbers do not add up.

    Returns:
      Family -> ``[G]``.
    """
    small = {
        name: np.asarray(_small(table, floor).any(axis=1))
        for name, table in cells.items()
    }
    hidden = {name: mask.copy() for name, mask in small.items()}
    for name, mask in (besides or {}).items():
        hidden[name] |= mask
    if not any(mask.any() for mask in hidden.values()):
        return hidden
    sums = _Sums(families)
    while True:
        for family in families:
            _close(family, families, cells, hidden, floor, family.name in shared)
        more = sums.giving_back(small, hidden, cells)
        if not more:
            return hidden
        for name, group in more:
            hidden[name][group] = True


def _small(counts: np.ndarray, floor: int) -> np.ndarray:
    return (counts > 0) & (counts < floor)


def _close(
    family: Grouping,
    families: Sequence[Grouping],
    cells: Mapping[str, np.ndarray],
    hidden: Mapping[str, np.ndarray],
    floor: int,
    shared: bool,
) -> None:
    """Withholds more of a family until what adds up to shown groups hides enough."""
    mine, table = hidden[family.name], cells[family.name]
    filled = np.asarray(table.any(axis=1))
    lines = [] if family.intersection else [np.arange(len(mine))]
    for parent in families:
        if len(parent.attributes) != len(family.attributes) - 1:
            continue
        if not set(parent.attributes) < set(family.attributes):
            continue
        columns = [family.attributes.index(name) for name in parent.attributes]
        for group, place in enumerate(parent.places):
            line = np.flatnonzero((family.places[:, columns] == place).all(axis=1))
            if hidden[parent.name][group]:
                mine[line] |= filled[line]
            else:
                lines.append(line)
    changed = True
    while changed:
        changed = False
        for line in lines:
            inside = line[mine[line] & filled[line]]
            shown = line[~mine[line] & filled[line]]
            # Groups that share patients have together at least those of the largest.
            together = table[inside].max(axis=0, initial=0)
            if not shared:
                together = table[inside].sum(axis=0)
            if len(shown) and (len(inside) == 1 or _small(together, floor).any()):
                mine[shown[table[shown].sum(axis=1).argmin()]] = True
                changed = True


class _Sums:
    """Which groups are sums and differences of which.

    Unknown to a reader is the count of every combination of levels that occurs; a group
    is the sum of those that it holds. Its count can be had from shown ones exactly
    where its indicator over combinations is a linear combination of theirs.
    """

    def __init__(self, families: Sequence[Grouping]) -> None:
        rows = len(families[0].codes)
        combination = np.zeros(rows, np.int64)
        for family in families:
            if not family.intersection:
                code = combination * len(family.levels) + family.codes
                combination = np.unique(code, return_inverse=True)[1]
        first = np.unique(combination, return_index=True)[1]
        # The last of them all is everyone, who is always shown.
        sizes = [*(len(family.levels) for family in families), 1]
        codes = [*(family.codes[first] for family in families), np.zeros_like(first)]
        starts = np.cumsum([0, *sizes])
        # How many combinations two groups share.
        self._shared = np.zeros((starts[-1], starts[-1]))
        for i, j in itertools.product(range(len(sizes)), repeat=2):
            pairs = np.bincount(
                codes[i] * sizes[j] + codes[j], minlength=sizes[i] * sizes[j]
            )
            block = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
            self._shared[block] = pairs.reshape(sizes[i], sizes[j])
        self._names = [
            (family.name, group)
            for family in families
            for group in range(len(family.levels))
        ]

    def giving_back(
        self,
        small: Mapping[str, np.ndarray],
        hidden: Mapping[str, np.ndarray],
        cells: Mapping[str, np.ndarray],
    ) -> list[tuple[str, int]]:
        """Of each group that shown ones give back, the smallest that this needs."""
        secret = np.flatnonzero([small[name][g] for name, g in self._names])
        shown = np.array([not hidden[name][g] for name, g in self._names])
        known = np.flatnonzero([*(shown & (self._shared.diagonal()[:-1] > 0)), True])
        if not secret.size:
            return []
        towards = self._shared[np.ix_(known, secret)]
        weights = np.linalg.lstsq(
            self._shared[np.ix_(known, known)], towards, rcond=1e-10
        )[0]
        size = self._shared[secret, secret]
        left = size - (towards * weights).sum(axis=0)
        found = set()
        for i in np.flatnonzero(left < _TOLERANCE * size):
            used = [
                self._names[k]
                for k, weight in zip(known[:-1], weights[:-1, i], strict=True)
                if abs(weight) > _TOLERANCE
            ]
            if used:
                found.add(min(used, key=lambda one: cells[one[0]][one[1]].sum()))
        return sorted(found)
