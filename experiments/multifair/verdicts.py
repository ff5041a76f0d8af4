"""The metrics that MultiFair's answers are about, and what is better in each."""

from fairjax.evaluation import Comparison
from fairjax.evaluation.names import AUROC_GAP, EQUITY, GAP, PARITY

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


def judged(metric: str, c: Comparison) -> str:
    """Whether the difference is for better or for worse.

    Example:
      >>> judged("auroc", Comparison(-0.1, -0.2, 0.0, 0.04))
      'worse'
    """
    more = metric.partition("/")[0] in _MORE_IS_BETTER
    return "better" if (c.difference > 0) == more else "worse"
