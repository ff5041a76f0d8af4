"""Families of groups: each attribute's levels, and the intersections of attributes."""

import itertools
from collections.abc import Sequence

from fairjax.groups import Grouping, cross

# More groups than this fill a report that nobody reads.
MAX_GROUPS = 60


def families(
    attributes: Sequence[Grouping], max_depth: int
) -> tuple[tuple[Grouping, ...], tuple[str, ...]]:
    """Each attribute, and each combination of up to ``max_depth`` of them.

    All combinations of declared levels are groups, so that one without patients stays
    visible; where there are more than ``MAX_GROUPS``, only those with patients are.

    Args:
      attributes: Of the table.
      max_depth: Greatest number of attributes to cross; 1 for none.

    Returns:
      The families, single attributes first, and the names of the crossings that are
      left out because they have too many groups.
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
