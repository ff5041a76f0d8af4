"""Mitigation before, in and after training, for scikit-learn and for JAX.

The estimators need the extra ``mitigation`` (``pip install 'fairjax[mitigation]'``) and
are imported at first use. Quantile repair, reweighing and thresholds
(:mod:`fairjax.mitigation.quantile_repair`, :mod:`fairjax.mitigation.reweighing`,
:mod:`fairjax.mitigation.thresholds`) need no extra.
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
    "constraints": ("ParityConstraints", "parity_constraints"),
    "decision_rules": ("DecisionRules", "expected_counts", "selection_probability"),
    "disparate_impact": ("DisparateImpactRemover",),
    "equal_rates": ("FittedRules", "equal_rate_rules"),
    "equalized_odds": ("EqualizedOdds",),
    "exponentiated_gradient": ("ExponentiatedGradient",),
    "flax_responses": ("FlaxClassifier",),
    "reduction": ("Reduction", "solve_reduction"),
    "thresholds": ("Thresholds", "threshold_counts", "tune_thresholds"),
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
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
