"""Fairness metrics from counts and scores, with intervals and tests."""

import inspect

# "as" marks a name as exported for type checkers.
from fairjax.metrics._numbers import student_equivalent as student_equivalent
from fairjax.metrics.auroc_covariance import DeLong as DeLong
from fairjax.metrics.auroc_covariance import JointDeLong as JointDeLong
from fairjax.metrics.auroc_covariance import delong as delong
from fairjax.metrics.auroc_covariance import delong_joint as delong_joint
from fairjax.metrics.auroc_intervals import auroc_interval as auroc_interval
from fairjax.metrics.auroc_intervals import logit_interval as logit_interval
from fairjax.metrics.auroc_intervals import newcombe_interval as newcombe_interval
from fairjax.metrics.bootstrap import bootstrap_interval as bootstrap_interval
from fairjax.metrics.bootstrap import multinomial_bootstrap as multinomial_bootstrap
from fairjax.metrics.calibration import CalibrationCurve as CalibrationCurve
from fairjax.metrics.calibration import brier_score as brier_score
from fairjax.metrics.calibration import calibration_curve as calibration_curve
from fairjax.metrics.calibration import (
    expected_calibration_error as expected_calibration_error,
)
from fairjax.metrics.calibration import group_brier as group_brier
from fairjax.metrics.calibration import (
    group_calibration_error as group_calibration_error,
)
from fairjax.metrics.clusters import ClusterRates as ClusterRates
from fairjax.metrics.clusters import cluster_interval as cluster_interval
from fairjax.metrics.clusters import cluster_label_rates as cluster_label_rates
from fairjax.metrics.clusters import cluster_rate_covariance as cluster_rate_covariance
from fairjax.metrics.conditional_gaps import ConditionalGap as ConditionalGap
from fairjax.metrics.conditional_gaps import conditional as conditional
from fairjax.metrics.correction import CorrectedGap as CorrectedGap
from fairjax.metrics.correction import bias_corrected_gap as bias_corrected_gap
from fairjax.metrics.correction import shrunken_rates as shrunken_rates
from fairjax.metrics.counts import GroupCounts as GroupCounts
from fairjax.metrics.counts import conditional_counts as conditional_counts
from fairjax.metrics.counts import group_counts as group_counts
from fairjax.metrics.counts import merge as merge
from fairjax.metrics.counts import multilabel_counts as multilabel_counts
from fairjax.metrics.counts import one_vs_rest_counts as one_vs_rest_counts
from fairjax.metrics.counts import predictions_at as predictions_at
from fairjax.metrics.curves import auprc as auprc
from fairjax.metrics.curves import cross_auroc as cross_auroc
from fairjax.metrics.curves import equity_scaled_auroc as equity_scaled_auroc
from fairjax.metrics.curves import group_auprc as group_auprc
from fairjax.metrics.curves import grouped_auprc_from_order as grouped_auprc_from_order
from fairjax.metrics.decision_curves import NetBenefit as NetBenefit
from fairjax.metrics.decision_curves import net_benefit as net_benefit
from fairjax.metrics.discovery import Intersections as Intersections
from fairjax.metrics.discovery import intersection_names as intersection_names
from fairjax.metrics.discovery import worst_intersections as worst_intersections
from fairjax.metrics.discovery import (
    worst_mean_intersections as worst_mean_intersections,
)
from fairjax.metrics.gap_intervals import GapInterval as GapInterval
from fairjax.metrics.gap_intervals import (
    difference_and_ratio_intervals as difference_and_ratio_intervals,
)
from fairjax.metrics.gap_intervals import gap_interval as gap_interval
from fairjax.metrics.gap_intervals import ratio_interval as ratio_interval
from fairjax.metrics.gap_tables import gap_table as gap_table
from fairjax.metrics.gaps import compared_groups as compared_groups
from fairjax.metrics.gaps import difference as difference
from fairjax.metrics.gaps import equalized_odds_difference as equalized_odds_difference
from fairjax.metrics.gaps import equalized_odds_ratio as equalized_odds_ratio
from fairjax.metrics.gaps import rate_difference as rate_difference
from fairjax.metrics.gaps import rate_ratio as rate_ratio
from fairjax.metrics.gaps import ratio as ratio
from fairjax.metrics.gaps import valid_groups as valid_groups
from fairjax.metrics.gaps import zero_reference as zero_reference
from fairjax.metrics.inequality import EntropySplit as EntropySplit
from fairjax.metrics.inequality import differential_fairness as differential_fairness
from fairjax.metrics.inequality import entropy_split as entropy_split
from fairjax.metrics.inequality import (
    generalized_entropy_index as generalized_entropy_index,
)
from fairjax.metrics.influence import influence_variance as influence_variance
from fairjax.metrics.intervals import Interval as Interval
from fairjax.metrics.intervals import beta_quantile as beta_quantile
from fairjax.metrics.intervals import jeffreys_interval as jeffreys_interval
from fairjax.metrics.intervals import midp_interval as midp_interval
from fairjax.metrics.intervals import wilson_interval as wilson_interval
from fairjax.metrics.multiplicity import benjamini_hochberg as benjamini_hochberg
from fairjax.metrics.multiplicity import holm as holm
from fairjax.metrics.noise import GapNoise as GapNoise
from fairjax.metrics.noise import gap_noise as gap_noise
from fairjax.metrics.order import GroupedOrder as GroupedOrder
from fairjax.metrics.order import grouped_score_order as grouped_score_order
from fairjax.metrics.order import score_order as score_order
from fairjax.metrics.paired import PairedTest as PairedTest
from fairjax.metrics.paired import paired_test as paired_test
from fairjax.metrics.pareto import hypervolume as hypervolume
from fairjax.metrics.parity import accuracy_difference as accuracy_difference
from fairjax.metrics.parity import average_odds_difference as average_odds_difference
from fairjax.metrics.parity import (
    demographic_parity_difference as demographic_parity_difference,
)
from fairjax.metrics.parity import demographic_parity_ratio as demographic_parity_ratio
from fairjax.metrics.parity import disparate_impact as disparate_impact
from fairjax.metrics.parity import (
    equal_opportunity_difference as equal_opportunity_difference,
)
from fairjax.metrics.parity import equal_opportunity_ratio as equal_opportunity_ratio
from fairjax.metrics.parity import error_rate_difference as error_rate_difference
from fairjax.metrics.parity import error_rate_ratio as error_rate_ratio
from fairjax.metrics.parity import (
    false_negative_rate_difference as false_negative_rate_difference,
)
from fairjax.metrics.parity import (
    false_positive_rate_difference as false_positive_rate_difference,
)
from fairjax.metrics.parity import (
    negative_predictive_value_difference as negative_predictive_value_difference,
)
from fairjax.metrics.parity import (
    predictive_parity_difference as predictive_parity_difference,
)
from fairjax.metrics.parity import (
    statistical_parity_difference as statistical_parity_difference,
)
from fairjax.metrics.parity import (
    treatment_equality_difference as treatment_equality_difference,
)
from fairjax.metrics.permutation import PermutationNull as PermutationNull
from fairjax.metrics.permutation import (
    cluster_permutation_null as cluster_permutation_null,
)
from fairjax.metrics.permutation import permutation_null as permutation_null
from fairjax.metrics.permutation import permutation_p_value as permutation_p_value
from fairjax.metrics.permutation import score_permutation_null as score_permutation_null
from fairjax.metrics.ranking import WorstGroup as WorstGroup
from fairjax.metrics.ranking import auroc as auroc
from fairjax.metrics.ranking import auroc_from_order as auroc_from_order
from fairjax.metrics.ranking import group_auroc as group_auroc
from fairjax.metrics.ranking import grouped_auroc_from_order as grouped_auroc_from_order
from fairjax.metrics.ranking import worst_group as worst_group
from fairjax.metrics.ranking_changes import positive_sum as positive_sum
from fairjax.metrics.rates import Trials as Trials
from fairjax.metrics.rates import accuracy as accuracy
from fairjax.metrics.rates import balanced_accuracy as balanced_accuracy
from fairjax.metrics.rates import error_rate as error_rate
from fairjax.metrics.rates import f1_score as f1_score
from fairjax.metrics.rates import false_negative_rate as false_negative_rate
from fairjax.metrics.rates import false_positive_rate as false_positive_rate
from fairjax.metrics.rates import group_rate as group_rate
from fairjax.metrics.rates import negative_predictive_value as negative_predictive_value
from fairjax.metrics.rates import positive_predictive_value as positive_predictive_value
from fairjax.metrics.rates import prevalence as prevalence
from fairjax.metrics.rates import rate_support as rate_support
from fairjax.metrics.rates import rate_trials as rate_trials
from fairjax.metrics.rates import selection_rate as selection_rate
from fairjax.metrics.rates import treatment_ratio as treatment_ratio
from fairjax.metrics.rates import true_negative_rate as true_negative_rate
from fairjax.metrics.rates import true_positive_rate as true_positive_rate
from fairjax.metrics.recalibration import Recalibration as Recalibration
from fairjax.metrics.recalibration import (
    logistic_recalibration as logistic_recalibration,
)
from fairjax.metrics.resampling import bootstrap_auroc as bootstrap_auroc
from fairjax.metrics.resampling import (
    patient_bootstrap_counts as patient_bootstrap_counts,
)
from fairjax.metrics.resampling import (
    patient_bootstrap_weights as patient_bootstrap_weights,
)
from fairjax.metrics.resampling import (
    stratified_bootstrap_weights as stratified_bootstrap_weights,
)
from fairjax.metrics.roc import RocCurve as RocCurve
from fairjax.metrics.roc import abroca as abroca
from fairjax.metrics.roc import roc_curve_at as roc_curve_at
from fairjax.metrics.shrinkage import PosteriorRates as PosteriorRates
from fairjax.metrics.shrinkage import beta_binomial_posterior as beta_binomial_posterior
from fairjax.metrics.shrinkage import posterior_rates as posterior_rates
from fairjax.metrics.standard_gaps import auroc_gap_interval as auroc_gap_interval
from fairjax.metrics.standard_gaps import (
    equalized_odds_interval as equalized_odds_interval,
)
from fairjax.metrics.standard_gaps import rate_gap_interval as rate_gap_interval
from fairjax.metrics.standard_gaps import rate_ratio_interval as rate_ratio_interval
from fairjax.metrics.support import support_status as support_status
from fairjax.metrics.suppression import Suppression as Suppression
from fairjax.metrics.suppression import suppress_small_cells as suppress_small_cells
from fairjax.metrics.suppression import suppress_small_counts as suppress_small_counts
from fairjax.metrics.tables import by_group as by_group
from fairjax.metrics.verdicts import VERDICTS as VERDICTS
from fairjax.metrics.verdicts import PositiveSum as PositiveSum
from fairjax.metrics.verdicts import positive_sum_of as positive_sum_of

# Constants, then classes, then functions: all imports except modules.
__all__ = sorted(  # pyright: ignore[reportUnsupportedDunderAll]
    (
        name
        for name, value in globals().items()
        if not name.startswith("_") and not inspect.ismodule(value)
    ),
    key=lambda name: (not name.isupper(), name[0].islower(), name),
)
