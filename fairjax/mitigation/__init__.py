"""Mitigation before, in and after training, for scikit-learn and for JAX.

The estimators need the extra ``mitigation`` (``pip install 'fairjax[mitigation]'``) and
are imported when they are first used; quantile repair and thresholds
(:mod:`fairjax.mitigation.quantile_repair`, :mod:`fairjax.mitigation.thresholds`) need
nothing more than fairjax does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairjax.mitigation.decision_rules import (
        DecisionRules,
        expected_counts,
        selection_probability,
    )
    from fairjax.mitigation.disparate_impact import DisparateImpactRemover
    from fairjax.mitigation.equal_rates import FittedRules, equal_rate_rules
    from fairjax.mitigation.equalized_odds import EqualizedOdds
    from fairjax.mitigation.thresholds import (
        Thresholds,
        threshold_counts,
        tune_thresholds,
    )

_HOMES = {
    "DecisionRules": "decision_rules",
    "DisparateImpactRemover": "disparate_impact",
    "EqualizedOdds": "equalized_odds",
    "FittedRules": "equal_rates",
    "Thresholds": "thresholds",
    "equal_rate_rules": "equal_rates",
    "expected_counts": "decision_rules",
    "selection_probability": "decision_rules",
    "threshold_counts": "thresholds",
    "tune_thresholds": "thresholds",
}

__all__ = [
    "DecisionRules",
    "DisparateImpactRemover",
    "EqualizedOdds",
    "FittedRules",
    "Thresholds",
    "equal_rate_rules",
    "expected_counts",
    "selection_probability",
    "threshold_counts",
    "tune_thresholds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
