"""Names of metrics in evaluations and tables."""

from collections.abc import Sequence

GAP = "equalized_odds_difference"
PARITY = "demographic_parity_difference"
AUROC_GAP = "auroc_gap"
EQUITY = "es_auroc"
IMPACT = "disparate_impact"
STATISTICAL_PARITY = "statistical_parity_difference"
OPPORTUNITY = "equal_opportunity_difference"
AVERAGE_ODDS = "average_odds_difference"
# One value per group, without summaries: `worst_group_auroc` is over intersections.
GROUP_AUROC = "group_auroc"
# The mean over groups.
F1 = "group_f1_score/mean"
SUMMARIES = ("mean", "worst")
# The prefix of a group's name.
DISTANCE = "distance"
# The default metrics.
STANDARD = ("auroc", "worst_group_auroc", "balanced_accuracy", "brier", GAP)


def full_names(metric: str, attributes: Sequence[str]) -> tuple[str, ...]:
    """Returns a group metric's names: each attribute's, the mean and the worst.

    Example:
      >>> full_names("auroc_gap", ("sex",))
      ('auroc_gap/sex', 'auroc_gap/mean', 'auroc_gap/worst')
    """
    return tuple(f"{metric}/{name}" for name in (*attributes, *SUMMARIES))


def gap_metrics(attributes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the equalized-odds gaps.

    Example:
      >>> gap_metrics(("sex",))[0]
      'equalized_odds_difference/sex'
    """
    return full_names(GAP, attributes)
