"""The reduction against fairlearn's, to the same gap."""

import functools
import warnings
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from experiments.bench.mitigation_tasks import Row, measured, table_of
from fairjax.mitigation import ExponentiatedGradient, FlaxClassifier

# Both libraries stop at this gap to the best mixture of their classifiers. As these
# classifiers differ, errors and violations are reported too.
GAP = 1e-3


def measure_reduction(rows: int, features: int, groups: int, *, rounds: int) -> Row:
    """Measures exponentiated gradient around logistic regression, to the same gap."""
    values, group = table_of(rows, features, groups)
    rng = np.random.default_rng(1)
    slope = 0.5 * rng.standard_normal(features)
    chance = 1 / (1 + np.exp(-values @ slope - 0.2 * (group - groups / 2)))
    label = (rng.random(rows) < chance).astype(np.int64)
    values = (values - values.mean(axis=0)) / values.std(axis=0)

    def fit(estimator: Any) -> ExponentiatedGradient:
        fair = ExponentiatedGradient(estimator, gap_tolerance=GAP, random_state=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no mixture of the learner's")
            return fair.fit(values, label, sensitive_features=group)

    def reached_besides(last: dict[str, ExponentiatedGradient]) -> str:
        gaps, missed = (
            ", ".join(f"{getattr(fair, name):.4f}" for fair in last.values())
            for name in ("best_gap_", "violation_")
        )
        return f"error; gaps {gaps}; bound missed by {missed}"

    return measured(
        functools.partial(
            Row, "reduction, logistic regression", rows, features, groups
        ),
        lambda: fit(FlaxClassifier()),
        lambda: fit(LogisticRegression()),
        lambda fair: fair.cost_,
        rounds=rounds,
        against="fairlearn",
        of=reached_besides,
    )
