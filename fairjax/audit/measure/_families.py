"""Groupings of rows: by each attribute, and by intersections of attributes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from fairjax.audit.reading.data import Attribute
from fairjax.audit.rules import ATTRIBUTE_JOINT, LEVEL_JOINT

# A report with more groups is too long to read.
MAX_GROUPS = 60


@dataclass(frozen=True, eq=False)
class Family:
    """A grouping: groups that are compared, where every row is in exactly one group.

    Attributes:
      name: An attribute, or the crossed attributes joined by ``" × "``.
      attributes: The attributes of the grouping.
      levels: Names of the groups.
      codes: int32 ``[n]``, group of each row.
      places: ``[G, attributes]``, category of each group in every attribute.
      binned: How a continuous attribute was cut, in words; None for other attributes.
    """

    name: str
    attributes: tuple[str, ...]
    levels: tuple[str, ...]
    codes: np.ndarray
    places: np.ndarray
    binned: str | None = None

    @property
    def intersection(self) -> bool:
        """Whether the grouping crosses attributes."""
        return len(self.attributes) > 1


def families(
    attributes: Sequence[Attribute], max_depth: int
) -> tuple[tuple[Family, ...], tuple[str, ...]]:
    """Returns groupings by each attribute, and by up to ``max_depth`` attributes.

    All combinations of declared categories are groups, so that empty groups stay
    visible. If there are more than ``MAX_GROUPS`` combinations, only combinations with
    patients are groups.

    Args:
      attributes: Attributes of the table.
      max_depth: Largest number of attributes to cross; 1 for no crossings.

    Returns:
      The groupings, single attributes first, and the names of crossings that are left
      out because they have too many groups.
    """
    found, too_many = [], []
    for depth in range(1, min(max_depth, len(attributes)) + 1):
        for parts in itertools.combinations(attributes, depth):
            if depth == 1:
                (one,) = parts
                places = np.arange(len(one.levels))[:, None]
                family = Family(
                    one.name, (one.name,), one.levels, one.codes, places, one.binned
                )
            else:
                family = _cross(parts)
            if depth > 1 and len(family.levels) > MAX_GROUPS:
                too_many.append(family.name)
            else:
                found.append(family)
    return tuple(found), tuple(too_many)


def _cross(parts: Sequence[Attribute]) -> Family:
    shape = tuple(len(part.levels) for part in parts)
    codes = np.ravel_multi_index([part.codes for part in parts], shape)
    present = np.arange(prod(shape))
    if len(present) > MAX_GROUPS:
        present, codes = np.unique(codes, return_inverse=True)
    places = np.stack(np.unravel_index(present, shape), axis=1)
    levels = tuple(
        LEVEL_JOINT.join(part.levels[i] for part, i in zip(parts, place, strict=True))
        for place in places
    )
    names = tuple(part.name for part in parts)
    return Family(
        ATTRIBUTE_JOINT.join(names), names, levels, codes.astype(np.int32), places
    )
