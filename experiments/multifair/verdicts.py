"""The metrics of MultiFair's answers, and the better direction of each."""

from fairjax.evaluation import Comparison
from fairjax.evaluation.names import AUROC_GAP, EQUITY, GAP, PARITY
from fairjax.metrics.definitions import METRICS

HEADLINE = {
    "auroc": METRICS["auroc"].short,
    f"{EQUITY}/mean": "equity-scaled AUROC",
    f"{AUROC_GAP}/mean": "AUROC gap",
    f"{GAP}/mean": "equalized-odds difference",
    f"{PARITY}/mean": "demographic-parity difference",
}
"""Metric of the answers -> its name in the answers."""


def better_or_worse(metric: str, c: Comparison) -> str:
    """Returns whether a difference is better or worse.

    Example:
      >>> better_or_worse("auroc", Comparison(-0.1, -0.2, 0.0, 0.04))
      'worse'
    """
    name = metric.partition("/")[0]
    # Metrics outside the table are better if lower, except this one.
    more = name == EQUITY or (
        name in METRICS and METRICS[name].higher_is_better is True
    )
    return "better" if (c.difference > 0) == more else "worse"
