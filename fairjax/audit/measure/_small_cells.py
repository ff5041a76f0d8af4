"""Suppression of groups with small counts, and of groups that would reveal them.

The suppression depends on counts alone, before any metric is computed. A group with a
small cell is suppressed completely. Further groups are suppressed if sums in the report
would reveal the group: the report has every attribute, its intersections and the total,
and a group is the sum of its intersections.
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

# Tolerance of rounding for a group that is a linear combination of other groups.
_TOLERANCE = 1e-6
# If scores of a group have at most this number of values, its AUROC, Brier score and
# calibration reveal the number of patients with each value.
_FEW_VALUES = 20


class Suppressed(NamedTuple):
    """The groups and metrics that are suppressed.

    Attributes:
      floor: The smallest count that may be shown.
      groups: Grouping -> ``[G]``, groups that are suppressed completely.
      decisions: For each model, grouping -> ``[G]``, groups whose metrics of decisions
        are suppressed; includes groups that are suppressed completely.
      overall: For each model, whether its decisions over all rows are suppressed.
      ranking: For each model, grouping -> ``[G]``, groups whose metrics of the score
        are suppressed. Includes groups that are suppressed completely. A group whose
        scores have few values is suppressed if few patients have one of the values, or
        if the decisions are suppressed.
      overall_ranking: For each model, whether metrics of the score over all rows are
        suppressed.
      shared: Groupings in which a patient has rows in several groups.
    """

    floor: int
    groups: Mapping[str, np.ndarray]
    decisions: tuple[Mapping[str, np.ndarray], ...]
    overall: tuple[bool, ...]
    ranking: tuple[Mapping[str, np.ndarray], ...]
    overall_ranking: tuple[bool, ...]
    shared: frozenset[str]

    def hidden(self, family: str, model: int, metric: str) -> np.ndarray:
        """Returns ``[G]``, the groups of a grouping whose metric is suppressed."""
        return (self.ranking if metric in RANKING else self.decisions)[model][family]

    def hidden_overall(self, model: int, metric: str) -> bool:
        """Returns whether a model's metric over all rows is suppressed."""
        return (self.overall_ranking if metric in RANKING else self.overall)[model]


def decide(families: Sequence[Grouping], data: AuditData, floor: int) -> Suppressed:
    """Decides what is suppressed, from cells of labels and of labels by decisions.

    If patients are known, cells count patients instead of rows.

    Args:
      families: The groupings: attributes, then their crossings, fewer attributes first.
      data: The rows.
      floor: The smallest count that may be shown.

    Raises:
      AuditError: If too few of all rows have the outcome, or are without the outcome.
    """
    labels = data.labels.astype(np.int64)
    everyone = Grouping("", ("",), np.zeros(len(labels), np.int32))
    total = count(everyone, labels, 2, data.patients)
    if _small(total, floor).any():
        raise AuditError(
            f"at least {floor:,} of {row_count(len(labels))} must be with the outcome, "
            "and as many without; lower --suppress-below to show anything"
        )

    shared = _shared(families, data)

    def hide(
        cell: np.ndarray, number: int, besides: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        tables = {f.name: count(f, cell, number, data.patients) for f in families}
        return suppressed_groups(families, tables, floor, besides, shared)

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

        def values_of(family: Grouping, value: np.ndarray = value) -> _Values:
            return _few_values(family, labels, value, data.patients, floor)

        tables, besides = {}, {}
        for family in families:
            found = values_of(family)
            # Counts 1 in a group that must be hidden, and enough in other groups.
            some = np.where(found.small, 1, np.where(found.occurs, floor, 0))
            cells = count(family, labels, 2, data.patients)
            tables[family.name] = np.column_stack([cells, some])
            besides[family.name] = groups[family.name] | (found.few & gone[family.name])
        ranking.append(suppressed_groups(families, tables, floor, besides, shared))
        whole = values_of(everyone)
        overall_ranking.append(bool((whole.small | (whole.few & all_gone)).any()))
    return Suppressed(
        floor,
        groups,
        decisions,
        overall,
        tuple(ranking),
        tuple(overall_ranking),
        shared,
    )


class _Values(NamedTuple):
    """What the values of a score reveal about the groups.

    Attributes:
      few: ``[G]``, whether the score has few values in the group.
      small: ``[G]``, whether also few patients with one outcome have one of the values.
      occurs: ``[G]``, whether the group has rows.
    """

    few: np.ndarray
    small: np.ndarray
    occurs: np.ndarray


def _few_values(
    family: Grouping,
    labels: np.ndarray,
    value: np.ndarray,
    patients: np.ndarray | None,
    floor: int,
) -> _Values:
    """Finds groups whose scores have few values, from index of each row's value."""
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
    return _Values(few, small, number > 0)


def _shared(families: Sequence[Grouping], data: AuditData) -> frozenset[str]:
    """Returns the groupings in which a patient has rows in several groups."""
    varying = {a.name for a in data.attributes if data.varying(a).any()}
    return frozenset(f.name for f in families if varying & set(f.attributes))


def without(family: Grouping, hidden: np.ndarray) -> Grouping:
    """Returns the grouping with rows of hidden groups in no group, code -1."""
    # Code -1 indexes the last entry.
    kept = np.append(np.where(hidden, -1, np.arange(len(hidden))), -1)
    return replace(family, codes=kept[family.codes].astype(np.int32))


def count(
    family: Grouping, cells: np.ndarray, number: int, patients: np.ndarray | None
) -> np.ndarray:
    """Counts rows, or distinct patients, of each group in each cell: ``[G, K]``."""
    place = family.codes.astype(np.int64) * number + cells
    if patients is not None:
        place = _once(place, patients)
    size = len(family.levels) * number
    return np.bincount(place, minlength=size).reshape(-1, number)


def _once(place: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Returns the cells of rows, with each patient once in each cell."""
    several = int(patients.max(initial=0)) + 1
    return np.unique(place * several + patients) // several


def suppressed_groups(
    families: Sequence[Grouping],
    cells: Mapping[str, np.ndarray],
    floor: int,
    besides: Mapping[str, np.ndarray] | None = None,
    shared: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Returns the groups of each grouping that are suppressed.

    A group with 1 to ``floor - 1`` in any cell is suppressed. Further groups are
    suppressed until these conditions hold:

    - If groups of a crossing add up to a group that is shown, none or at least two of
      them are suppressed. The suppressed groups have no small cell together.
    - If groups of a crossing add up to a suppressed group, all of them are suppressed.
    - A group with a small cell is not a sum or difference of shown groups of any
      groupings.

    Args:
      families: The groupings: attributes, then their crossings, fewer attributes first.
      cells: Grouping -> ``[G, K]`` counts.
      floor: The smallest count that may be shown.
      besides: Grouping -> ``[G]``, groups that are suppressed for other reasons.
      shared: Groupings whose groups may share patients, so that counts do not add up.

    Returns:
      Grouping -> ``[G]``.
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
    """Suppresses further groups until suppressed groups in shown ones hide enough."""
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
            # Groups that share patients have together at least the largest count.
            together = table[inside].max(axis=0, initial=0)
            if not shared:
                together = table[inside].sum(axis=0)
            if len(shown) and (len(inside) == 1 or _small(together, floor).any()):
                mine[shown[table[shown].sum(axis=1).argmin()]] = True
                changed = True


class _Sums:
    """Groups as sums and differences of other groups.

    The unknowns of a reader are the counts of the combinations of categories that
    occur. A group is a sum of combinations. Shown groups reveal its count if and only
    if its indicator over combinations is a linear combination of their indicators.
    """

    def __init__(self, families: Sequence[Grouping]) -> None:
        rows = len(families[0].codes)
        combination = np.zeros(rows, np.int64)
        for family in families:
            if not family.intersection:
                code = combination * len(family.levels) + family.codes
                combination = np.unique(code, return_inverse=True)[1]
        first = np.unique(combination, return_index=True)[1]
        # The last group is all rows, which are always shown.
        sizes = [*(len(family.levels) for family in families), 1]
        codes = [*(family.codes[first] for family in families), np.zeros_like(first)]
        starts = np.cumsum([0, *sizes])
        # Number of combinations that two groups share.
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
        """Returns the smallest shown group behind each small group that is revealed."""
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
