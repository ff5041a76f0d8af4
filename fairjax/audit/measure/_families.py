"""Groupings of rows: by each attribute, and by intersections of attributes."""

import itertools
from collections.abc import Sequence

from fairjax.groups import Grouping, cross

# A report with more groups is too long to read.
MAX_GROUPS = 60


def families(
    attributes: Sequence[Grouping], max_depth: int
) -> tuple[tuple[Grouping, ...], tuple[str, ...]]:
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
            family = parts[0] if depth == 1 else cross(parts, most=MAX_GROUPS)
            if depth > 1 and family.size > MAX_GROUPS:
                too_many.append(family.name)
            else:
                found.append(family)
    return tuple(found), tuple(too_many)
