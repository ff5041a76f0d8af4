"""Mitigation before, in and after training, for scikit-learn and for JAX.

The estimators need the extra ``mitigation`` (``pip install 'fairjax[mitigation]'``) and
are imported when they are first used; quantile repair, reweighing and thresholds
(:mod:`fairjax.mitigation.quantile_repair`, :mod:`fairjax.mitigation.reweighing`,
:mod:`fairjax.mitigation.thresholds`) need nothing more than fairjax does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairjax.mitigation.constraints import ParityConstraints, parity_constraints
    from fairjax.mitigation.decision_rules import (
        DecisionRules,
        expected_counts,
        selection_probability,
    )
    from fairjax.mitigation.disparate_impact import DisparateImpactRemover
    from fairjax.mitigation.equal_rates import FittedRules, equal_rate_rules
    from fairjax.mitigation.equalized_odds import EqualizedOdds
    from fairjax.mitigation.exponentiated_gradient import ExponentiatedGradient
    from fairjax.mitigation.flax_responses import FlaxClassifier
    from fairjax.mitigation.reduction import Reduction, solve_reduction
    from fairjax.mitigation.thresholds import (
        Thresholds,
        threshold_counts,
        tune_thresholds,
    )

_HOMES = {
    "DecisionRules": "decision_rules",
    "DisparateImpactRemover": "disparate_impact",
    "EqualizedOdds": "equalized_odds",
    "ExponentiatedGradient": "exponentiated_gradient",
    "FittedRules": "equal_rates",
    "FlaxClassifier": "flax_responses",
    "ParityConstraints": "constraints",
    "Reduction": "reduction",
    "Thresholds": "thresholds",
    "equal_rate_rules": "equal_rates",
    "expected_counts": "decision_rules",
    "parity_constraints": "constraints",
    "selection_probability": "decision_rules",
    "solve_reduction": "reduction",
    "threshold_counts": "thresholds",
    "tune_thresholds": "thresholds",
}

__all__ = [
    "DecisionRules",
    "DisparateImpactRemover",
    "EqualizedOdds",
    "ExponentiatedGradient",
    "FittedRules",
    "FlaxClassifier",
    "ParityConstraints",
    "Reduction",
    "Thresholds",
    "equal_rate_rules",
    "expected_counts",
    "parity_constraints",
    "selection_probability",
    "solve_reduction",
    "threshold_counts",
    "tune_thresholds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
