"""Numbers into levels: age 67 into "65 and over"."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int32

_DIGITS = 4  # significant digits of a quantile in a level's name


def cut(
    values: Float[np.ndarray, " n"], edges: Sequence[float | int]
) -> tuple[Int32[np.ndarray, " n"], tuple[str, ...]]:
    """Levels of numbers between the edges: an edge belongs to the level above it.

    ``k`` edges make ``k + 1`` levels, ``x < e_1``, ``e_1 <= x < e_2``, ...,
    ``e_k <= x``, and each keeps its place even if no row is in it. Where edges and
    values are whole numbers, so are the names: ages cut at 18 and 40 are "under 18",
    "18 to 39" and "40 and over", not "18 to under 40".

    Args:
        values: ``[n]``; NaN where missing.
        edges: ``[k]``, ascending.

    Returns:
        The level of each row, ``[n]``, -1 where it is missing; and the levels' names.

    Example:
        >>> import numpy as np
        >>> codes, names = cut(np.array([17.0, 40.0, np.nan, 39.0]), (18, 40))
        >>> codes.tolist(), names
        ([0, 2, -1, 1], ('under 18', '18 to 39', '40 and over'))
    """
    codes = np.searchsorted(np.asarray(edges, float), values, side="right")
    missing = np.isnan(values)
    codes = np.where(missing, -1, codes).astype(np.int32)
    # NaN is no whole number, but has no say.
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
    """Edges that cut values into levels of about as many rows each.

    The edges are values that occur, rounded to four significant digits unless that
    would make two of them one. Where many rows share a value there are fewer edges
    than ``num_levels - 1``: rows of one value are never parted.

    Args:
        values: ``[n]``; NaN where missing, which counts for nothing.
        num_levels: Levels asked for, 2 or more.

    Returns:
        At most ``num_levels - 1`` edges, ascending; none if all values are one.

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
    shares = np.arange(1, num_levels) / num_levels
    # Level k holds the rows of ranks k·n/levels and up, counted from 0.
    ranks = np.minimum((shares * present.size).astype(int), present.size - 1)
    lowest = present.min()
    exact = np.unique(np.partition(present, ranks)[ranks])
    exact = exact[exact > lowest]
    # A value with many rows may hide behind the lowest: then it is the next one up.
    if not exact.size and present.max() > lowest:
        exact = np.array([present[present > lowest].min()])
    rounded = [float(f"{edge:.{_DIGITS}g}") for edge in exact]
    apart = len(set(rounded)) == len(rounded) and all(e > lowest for e in rounded)
    return tuple(rounded if apart else exact.tolist())


def number(value: float | int) -> str:
    """A number as a level's name has it: no trailing zeros, no exponent if whole.

    Example:
        >>> number(18.0), number(0.25), number(1500000.0)
        ('18', '0.25', '1500000')
    """
    value = float(value)
    return str(int(value)) if value.is_integer() else repr(value)
