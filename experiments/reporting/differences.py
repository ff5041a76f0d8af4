"""Checks and texts of paired differences, tested or not."""

import math
from collections.abc import Iterable

from experiments.reporting import markdown
from fairjax.evaluation import Comparison

LEVEL = 0.05


def clear(c: Comparison) -> bool:
    """Checks whether a difference is significant after Holm's correction.

    Example:
      >>> clear(Comparison(0.1, 0.05, 0.15, 0.001, 0.01))
      True
    """
    return c.p_holm < LEVEL


def untested(found: Iterable[Comparison]) -> bool:
    """Checks whether no comparison has a p-value, as with a single repeat.

    Example:
      >>> untested([Comparison(0.1, 0.0, 0.2, math.nan)])
      True
    """
    return all(math.isnan(c.p_holm) for c in found)


def p_text(c: Comparison) -> str:
    """Formats the p-value after Holm's correction, or without if there is none.

    Example:
      >>> p_text(Comparison(0.1, 0.0, 0.2, 0.04))
      '0.040'
    """
    return markdown.p_value(c.p if math.isnan(c.p_holm) else c.p_holm)


def span(c: Comparison, digits: str = ".4f") -> str:
    """Formats the difference and its interval.

    Example:
      >>> span(Comparison(0.1, 0.0, 0.2, 0.04))
      '+0.1000 [+0.0000, +0.2000]'
    """
    if math.isnan(c.difference):
        return "not defined"
    return f"{c.difference:+{digits}} [{c.low:+{digits}}, {c.high:+{digits}}]"


def with_p(c: Comparison, digits: str = ".4f") -> str:
    """Formats the difference, its interval and its p-value.

    Example:
      >>> with_p(Comparison(0.1, 0.0, 0.2, 0.04))
      '+0.1000 [+0.0000, +0.2000], p 0.040'
    """
    return f"{span(c, digits)}, p {p_text(c)}"
