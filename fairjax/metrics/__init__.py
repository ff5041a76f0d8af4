"""Fairness metrics from counts and scores, and the inference that goes with them."""

from fairjax.metrics.correction import CorrectedGap, bias_corrected_gap, shrunken_rates
from fairjax.metrics.counts import GroupCounts, group_counts, merge, predictions_at
from fairjax.metrics.gaps import (
    demographic_parity_difference,
    difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    false_positive_rate_difference,
    valid_groups,
)
from fairjax.metrics.inference import (
    PairedTest,
    PermutationNull,
    holm,
    paired_test,
    patient_bootstrap_weights,
    permutation_null,
    permutation_p_value,
)
from fairjax.metrics.pareto import hypervolume
from fairjax.metrics.ranking import (
    ScoreOrder,
    WorstGroup,
    auroc,
    auroc_from_order,
    brier_score,
    group_auroc,
    score_order,
    worst_group,
)
from fairjax.metrics.rates import (
    accuracy,
    balanced_accuracy,
    false_negative_rate,
    false_positive_rate,
    negative_predictive_value,
    positive_predictive_value,
    selection_rate,
    true_negative_rate,
    true_positive_rate,
)

__all__ = [
    "CorrectedGap",
    "GroupCounts",
    "PairedTest",
    "PermutationNull",
    "ScoreOrder",
    "WorstGroup",
    "accuracy",
    "auroc",
    "auroc_from_order",
    "balanced_accuracy",
    "bias_corrected_gap",
    "brier_score",
    "demographic_parity_difference",
    "difference",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "false_negative_rate",
    "false_positive_rate",
    "false_positive_rate_difference",
    "group_auroc",
    "group_counts",
    "holm",
    "hypervolume",
    "merge",
    "negative_predictive_value",
    "paired_test",
    "patient_bootstrap_weights",
    "permutation_null",
    "permutation_p_value",
    "positive_predictive_value",
    "predictions_at",
    "score_order",
    "selection_rate",
    "shrunken_rates",
    "true_negative_rate",
    "true_positive_rate",
    "valid_groups",
    "worst_group",
]
