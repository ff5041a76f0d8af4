"""Names of metrics, as evaluations and their tables have them."""

from collections.abc import Sequence

GAP = "equalized_odds_difference"
PARITY = "demographic_parity_difference"
AUROC_GAP = "auroc_gap"
EQUITY = "es_auroc"
IMPACT = "disparate_impact"
STATISTICAL_PARITY = "statistical_parity_difference"
OPPORTUNITY = "equal_opportunity_difference"
AVERAGE_ODDS = "average_odds_difference"
# One value a group, and no summary: `worst_group_auroc` is one of the intersections.
GROUP_AUROC = "group_auroc"
# Of the groups, on average.
F1 = "group_f1_score/mean"
SUMMARIES = ("mean", "worst")
# Before the name of a group.
DISTANCE = "distance"
# What is evaluated where nothing else is asked for.
STANDARD = ("auroc", "worst_group_auroc", "balanced_accuracy", "brier", GAP)


def full_names(metric: str, attributes: Sequence[str]) -> tuple[str, ...]:
    """A group metric's names: each attribute's, their mean, and the worst.

    Example:
      >>> full_names("auroc_gap", ("sex",))
      ('auroc_gap/sex', 'auroc_gap/mean', 'auroc_gap/worst')
    """
    return tuple(f"{metric}/{name}" for name in (*attributes, *SUMMARIES))


def gap_metrics(attributes: Sequence[str]) -> tuple[str, ...]:
    """The names of the equalized-odds gaps.

    Example:
      >>> gap_metrics(("sex",))[0]
      'equalized_odds_difference/sex'
    """
    return full_names(GAP, attributes)
