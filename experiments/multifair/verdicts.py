"""The metrics that MultiFair's answers are about, and what is better in each."""

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
"""The metrics that the answers are about, and what they are called there."""


def judged(metric: str, c: Comparison) -> str:
    """Whether the difference is for better or for worse.

    Example:
      >>> judged("auroc", Comparison(-0.1, -0.2, 0.0, 0.04))
      'worse'
    """
    name = metric.partition("/")[0]
    # Less is better of what is not in the table, but for this one.
    more = name == EQUITY or (
        name in METRICS and METRICS[name].higher_is_better is True
    )
    return "better" if (c.difference > 0) == more else "worse"
