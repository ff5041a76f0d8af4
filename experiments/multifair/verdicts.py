"""The metrics that MultiFair's answers are about, and differences of them in words."""

import math
from collections.abc import Iterable

from experiments.core.comparison import Comparison
from experiments.core.measures import AUROC_GAP, EQUITY, GAP, PARITY
from experiments.reporting import markdown

LEVEL = 0.05
HEADLINE = {
    "auroc": "AUROC",
    f"{EQUITY}/mean": "equity-scaled AUROC",
    f"{AUROC_GAP}/mean": "AUROC gap",
    f"{GAP}/mean": "equalized-odds difference",
    f"{PARITY}/mean": "demographic-parity difference",
}
"""The metrics that the answers are about, and what they are called there."""
# Where more is better; of the others less is.
_MORE_IS_BETTER = ("auroc", EQUITY)


def clear(c: Comparison) -> bool:
    """Whether a difference is beyond noise, after Holm's correction.

    Example:
      >>> clear(Comparison(0.1, 0.05, 0.15, 0.001, 0.01))
      True
    """
    return c.p_holm < LEVEL


def judged(metric: str, c: Comparison) -> str:
    """Whether the difference is for better or for worse.

    Example:
      >>> judged("auroc", Comparison(-0.1, -0.2, 0.0, 0.04))
      'worse'
    """
    more = metric.partition("/")[0] in _MORE_IS_BETTER
    return "better" if (c.difference > 0) == more else "worse"


def untested(comparisons: Iterable[Comparison]) -> bool:
    """Whether none has a p-value, as of a single repeat: then nothing can be shown.

    Example:
      >>> untested([Comparison(0.1, 0.0, 0.2, math.nan)])
      True
    """
    return all(math.isnan(c.p_holm) for c in comparisons)


def p_text(c: Comparison) -> str:
    """The p-value after Holm, or before where there was no correction.

    Example:
      >>> p_text(Comparison(0.1, 0.0, 0.2, 0.04))
      '0.040'
    """
    return markdown.p_value(c.p if math.isnan(c.p_holm) else c.p_holm)


def span(c: Comparison) -> str:
    """The difference and its interval.

    Example:
      >>> span(Comparison(0.1, 0.0, 0.2, 0.04))
      '+0.1000 [+0.0000, +0.2000]'
    """
    if math.isnan(c.difference):
        return "not defined"
    return f"{c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}]"
