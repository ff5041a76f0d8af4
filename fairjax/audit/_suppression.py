"""Small cells withheld from a document, and what would give them back.

A group with a small count of positives or negatives is withheld whole. So is what the
sums in the report would give it back by: a report holds every attribute, its
intersections and the total, and a group is the sum of its own intersections.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairjax.audit._families import Family
from fairjax.audit.rules import ATTRIBUTE_JOINT, LEVEL_JOINT
from fairjax.metrics import suppress_small_cells

_STATUS = "suppressed"
_KEPT = ("model", "attribute", "group", "metric")


def withheld(
    families: Sequence[Family], labels: np.ndarray, threshold: int
) -> dict[str, np.ndarray]:
    """Which groups of each family are withheld.

    Groups with 1 to ``threshold - 1`` positives or negatives are, and what protects
    them within their family (``fairjax.metrics.suppress_small_cells``). Where groups of
    a crossing add up to a published group, either none of them is withheld, or two and
    more that have ``threshold`` rows together; where they add up to one that is
    withheld, all of them are.

    Args:
      families: Each attribute, then their crossings, fewer attributes first.
      labels: ``[n]``, 0 or 1.
      threshold: The smallest count that may be shown.

    Returns:
      Family -> ``[G]``.
    """
    found: dict[str, np.ndarray] = {}
    by_attributes = {family.attributes: family for family in families}
    for family in families:
        number = len(family.levels)
        cells = np.bincount(2 * family.codes + labels, minlength=2 * number)
        negatives, positives = cells.reshape(number, 2).T
        rows = negatives + positives
        small = suppress_small_cells(positives, negatives, threshold=threshold)
        hidden = _groups(small, number)
        parents = [
            by_attributes[attributes]
            for attributes in itertools.combinations(
                family.attributes, len(family.attributes) - 1
            )
            if attributes in by_attributes
        ]
        lines = [np.arange(number)] if not family.intersection else []
        for parent in parents:
            columns = [family.attributes.index(name) for name in parent.attributes]
            for group, place in enumerate(parent.places):
                line = np.flatnonzero((family.places[:, columns] == place).all(axis=1))
                if found[parent.name][group]:
                    hidden[line] |= rows[line] > 0
                else:
                    lines.append(line)
        found[family.name] = _close(hidden, rows, lines, threshold)
    return found


def _groups(small: Any, number: int) -> np.ndarray:
    """A group is withheld whole where any of its cells is."""
    cells = np.stack([np.asarray(column)[:number] for column in small])
    return np.asarray(cells.any(axis=0))


def _close(
    hidden: np.ndarray, rows: np.ndarray, lines: list[np.ndarray], threshold: int
) -> np.ndarray:
    """Withholds more until no line has too little withheld to hide anything."""
    hidden, changed = hidden.copy(), True
    while changed:
        changed = False
        for line in lines:
            inside = line[hidden[line] & (rows[line] > 0)]
            shown = line[~hidden[line] & (rows[line] > 0)]
            open_ = len(inside) == 1 or 0 < rows[inside].sum() < threshold
            if open_ and len(shown):
                hidden[shown[rows[shown].argmin()]] = True
                changed = True
    return hidden


def suppress(document: dict[str, Any], hidden: Mapping[str, np.ndarray]) -> None:
    """Takes the numbers of withheld groups out of a document.

    Names stay, so that a group is seen to be withheld. Groups found by the search keep
    their rates but not their counts, and are left out where they are withheld.
    """
    levels = {a["name"]: a["levels"] for a in document["data"]["attributes"]}
    gone = {
        (name, level)
        for name, mask in hidden.items()
        for level, withhold in zip(levels[name], mask, strict=True)
        if withhold
    }

    def is_gone(entry: dict[str, Any]) -> bool:
        return (entry["attribute"], entry["group"]) in gone

    for room in ("cohort", "groups"):
        for entry in filter(is_gone, document[room]):
            for name in entry.keys() - _KEPT:
                entry[name] = None
            entry["status"] = _STATUS
    for kind, curves in document["curves"].items():
        document["curves"][kind] = [c for c in curves if not is_gone(c)]
    order = {name: i for i, name in enumerate(levels)}
    document["discovery"] = [
        entry | {"rows": None, "positives": None}
        for entry in document["discovery"]
        if not _names(entry, order) & gone
    ]
    for entry in document["comparison"]:
        entry["groups"] = [
            group
            for group in entry["groups"]
            if (entry["attribute"], group["group"]) not in gone
            and tuple(group["group"].split(" = ", 1)) not in gone
        ]


def _names(entry: Mapping[str, Any], order: Mapping[str, int]) -> set[tuple[str, str]]:
    """The groups that a found one lies in: of single attributes and of crossings."""
    held = sorted(entry["attributes"].items(), key=lambda item: order[item[0]])
    return {
        (
            ATTRIBUTE_JOINT.join(name for name, _ in part),
            LEVEL_JOINT.join(level for _, level in part),
        )
        for depth in range(1, len(held) + 1)
        for part in itertools.combinations(held, depth)
    }
