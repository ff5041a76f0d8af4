"""Evaluation of out-of-fold predictions: intervals, noise floors and paired tests."""

from fairjax.evaluation._level_measures import BY_LEVEL, limits
from fairjax.evaluation.cohorts import (
    MIN_SUPPORT,
    WORST_GROUP_SUPPORT,
    Cohort,
    cohort,
    left_out,
)
from fairjax.evaluation.comparison import (
    Comparison,
    Evaluation,
    Tests,
    compare,
    compare_all,
    compare_fronts,
    contrast,
    front_area,
    holm,
)
from fairjax.evaluation.evaluator import Evaluator, measure
from fairjax.evaluation.methods import MethodComparison, compare_methods, out_of_fold
from fairjax.evaluation.names import STANDARD, full_names, gap_metrics
from fairjax.groups import Grouping, crossed_name

__all__ = [
    "BY_LEVEL",
    "MIN_SUPPORT",
    "STANDARD",
    "WORST_GROUP_SUPPORT",
    "Cohort",
    "Comparison",
    "Evaluation",
    "Evaluator",
    "Grouping",
    "MethodComparison",
    "Tests",
    "cohort",
    "compare",
    "compare_all",
    "compare_fronts",
    "compare_methods",
    "contrast",
    "crossed_name",
    "front_area",
    "full_names",
    "gap_metrics",
    "holm",
    "left_out",
    "limits",
    "measure",
    "out_of_fold",
]
