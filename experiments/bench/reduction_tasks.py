"""The reduction beside fairlearn's, to the same gap."""

import functools
import warnings
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from experiments.bench.mitigation_tasks import Row, clocked, table_of
from fairjax.mitigation import ExponentiatedGradient, FlaxClassifier

# Both stop at it: each is as near to the best mixture of the classifiers that it found,
# which are not the same ones, so that errors and violations are told beside it.
GAP = 1e-3


def measure_reduction(
    rows: int, features: int, groups: int, *, rounds: int, fairlearn: bool = True
) -> Row:
    """Exponentiated gradient around logistic regression, to the same gap."""
    values, group = table_of(rows, features, groups)
    rng = np.random.default_rng(1)
    slope = 0.5 * rng.standard_normal(features)
    chance = 1 / (1 + np.exp(-values @ slope - 0.2 * (group - groups / 2)))
    label = (rng.random(rows) < chance).astype(np.int64)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    last: dict[str, ExponentiatedGradient] = {}

    def fit(name: str, estimator: Any) -> None:
        fair = ExponentiatedGradient(estimator, gap_tolerance=GAP, random_state=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no mixture of the learner's")
            last[name] = fair.fit(values, label, sensitive_features=group)

    ours = functools.partial(fit, "ours", FlaxClassifier())
    theirs = functools.partial(fit, "theirs", LogisticRegression())
    found = clocked(ours, theirs if fairlearn else None, rounds)
    found.pop("last")
    gaps, missed = (
        ", ".join(f"{getattr(last[name], told):.4f}" for name in last)
        for told in ("best_gap_", "violation_")
    )
    compared: dict[str, Any] = {}
    if fairlearn:
        compared = {"against": "fairlearn", "their_reached": last["theirs"].cost_}
    return Row(
        "reduction, logistic regression",
        rows,
        features,
        groups,
        reached=last["ours"].cost_,
        of=f"error; gaps {gaps}; bound missed by {missed}",
        **compared,
        **found,
    )
