"""Conversion of numbers to categories: age 67 to "65 and over"."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int32

_DIGITS = 4  # significant digits of a quantile in a category's name


def cut(
    values: Float[np.ndarray, " n"], edges: Sequence[float | int]
) -> tuple[Int32[np.ndarray, " n"], tuple[str, ...]]:
    """Cuts numbers into categories at the edges.

    ``k`` edges make ``k + 1`` categories, ``x < e_1``, ``e_1 <= x < e_2``, ...,
    ``e_k <= x``, including empty categories. If edges and values are integers, the
    names have integers: ages cut at 18 and 40 are "under 18", "18 to 39" and "40 and
    over", not "18 to under 40".

    Args:
        values: Numbers, ``[n]``; NaN if missing.
        edges: Edges, ``[k]``, ascending; each edge belongs to the category above.

    Returns:
        The category of each row, ``[n]``, -1 if missing; and the categories' names.

    Example:
        >>> import numpy as np
        >>> codes, names = cut(np.array([17.0, 40.0, np.nan, 39.0]), (18, 40))
        >>> codes.tolist(), names
        ([0, 2, -1, 1], ('under 18', '18 to 39', '40 and over'))
    """
    codes = np.searchsorted(np.asarray(edges, float), values, side="right")
    missing = np.isnan(values)
    codes = np.where(missing, -1, codes).astype(np.int32)
    # Missing values may be among integers.
    whole = all(float(edge).is_integer() for edge in edges) and bool(
        np.all((np.floor(values) == values) | missing)
    )
    names = [f"under {number(edges[0])}"]
    for lower, upper in itertools.pairwise(edges):
        if not whole:
            names.append(f"{number(lower)} to under {number(upper)}")
        elif upper - lower == 1:
            names.append(number(lower))
        else:
            names.append(f"{number(lower)} to {number(upper - 1)}")
    return codes, (*names, f"{number(edges[-1])} and over")


def quantile_edges(
    values: Float[np.ndarray, " n"], num_levels: int
) -> tuple[float, ...]:
    """Returns edges that cut values into categories of about equal numbers of rows.

    The edges are values that occur, rounded to four significant digits unless rounding
    makes two edges equal. If many rows have equal values, there are fewer edges than
    ``num_levels - 1``, because rows with equal values stay in one category.

    Args:
        values: Numbers, ``[n]``; NaN, for missing, is ignored.
        num_levels: Number of categories, at least 2.

    Returns:
        At most ``num_levels - 1`` edges, ascending; none if all values are equal.

    Example:
        >>> import numpy as np
        >>> quantile_edges(np.arange(100.0), 4)
        (25.0, 50.0, 75.0)
        >>> quantile_edges(np.array([1.0, 1.0, 1.0, 9.0]), 4)
        (9.0,)
    """
    present = values[~np.isnan(values)]
    if not present.size:
        return ()
    fractions = np.arange(1, num_levels) / num_levels
    # Category k has the rows of ranks k·n/num_levels and up, counted from 0.
    ranks = np.minimum((fractions * present.size).astype(int), present.size - 1)
    lowest = present.min()
    exact = np.unique(np.partition(present, ranks)[ranks])
    exact = exact[exact > lowest]
    # If all ranks have the lowest value, the edge is the next higher value.
    if not exact.size and present.max() > lowest:
        exact = np.array([present[present > lowest].min()])
    rounded = [float(f"{edge:.{_DIGITS}g}") for edge in exact]
    apart = len(set(rounded)) == len(rounded) and all(e > lowest for e in rounded)
    return tuple(rounded if apart else exact.tolist())


def number(value: float | int) -> str:
    """Formats a number for a category: no trailing zeros, no exponent for integers.

    Example:
        >>> number(18.0), number(0.25), number(1500000.0)
        ('18', '0.25', '1500000')
    """
    value = float(value)
    return str(int(value)) if value.is_integer() else repr(value)
