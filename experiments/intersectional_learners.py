"""The classifiers that the pipeline is built around, and fairness put on top of one."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from fairjax.mitigation.equal_rates import Objective

LearnerName = Literal["xgboost", "logistic", "boosting"]
Constraint = Literal[
    "demographic_parity",
    "equalized_odds",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
    "error_rate_parity",
]


def check_learner(name: str) -> None:
    """Refuse a learner whose package is not there, before any work is done.

    Raises:
      ModuleNotFoundError: XGBoost is not installed.
    """
    if name == "xgboost" and importlib.util.find_spec("xgboost") is None:
        raise ModuleNotFoundError(
            "the package xgboost is not installed: pip install xgboost-cpu (xgboost "
            "where there is no Linux), or choose --learner boosting or --learner "
            "logistic.",
            name="xgboost",
        )


def _xgboost(seed: int) -> Any:
    from xgboost import XGBClassifier  # an extra of its own, and slow to import

    return XGBClassifier(
        n_estimators=50,
        max_depth=3,
        learning_rate=0.15,
        tree_method="hist",
        n_jobs=1,
        random_state=seed,
    )


def _boosting(seed: int) -> Any:
    return HistGradientBoostingClassifier(
        learning_rate=0.15,
        max_iter=50,
        max_leaf_nodes=8,
        l2_regularization=1.0,
        random_state=seed,
    ).set_params(early_stopping=False)


def _logistic(seed: int) -> Any:
    return LogisticRegression(C=0.1, max_iter=1000, random_state=seed)


_MAKERS: Mapping[str, Callable[[int], Any]] = {
    "xgboost": _xgboost,
    "boosting": _boosting,
    "logistic": _logistic,
}
DESCRIBED: Mapping[str, str] = {
    "xgboost": "XGBoost, 50 trees of depth 3, learning rate .15",
    "boosting": "histogram gradient boosting, 50 trees of 8 leaves, learning rate .15",
    "logistic": "logistic regression, L2 penalty, C = .1",
}


def make_learner(name: str, seed: int) -> Any:
    """A scikit-learn classifier that takes sample weights."""
    return _MAKERS[name](seed)


def plain(
    name: str, seed: int, inputs: np.ndarray, label: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """A fitted learner: inputs ``[k, d]`` to probabilities ``[k]``."""
    model = make_learner(name, seed).fit(inputs, label)
    return lambda rows: np.asarray(model.predict_proba(rows)[:, 1], np.float64)


def reduced(
    name: str,
    seed: int,
    inputs: np.ndarray,
    label: np.ndarray,
    codes: np.ndarray,
    *,
    constraint: Constraint,
    objective: Objective,
    iterations: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """Exponentiated gradient around a learner: inputs ``[k, d]`` to chances ``[k]``.

    The chance is that of the random classifier which the reduction returns, exactly.
    By the balanced error the rates of both errors count alike: by the plain error a
    rare outcome would leave hardly anyone selected, and nothing to compare.
    """
    from fairlearn import reductions

    moments = {
        "demographic_parity": reductions.DemographicParity,
        "equalized_odds": reductions.EqualizedOdds,
        "true_positive_rate_parity": reductions.TruePositiveRateParity,
        "false_positive_rate_parity": reductions.FalsePositiveRateParity,
        "error_rate_parity": reductions.ErrorRateParity,
    }
    share = float(label.mean()) if objective == "balanced_error" else 0.5
    model = reductions.ExponentiatedGradient(
        make_learner(name, seed),
        moments[constraint](difference_bound=0.01),
        objective=reductions.ErrorRate(costs={"fp": 2 * share, "fn": 2 - 2 * share}),
        max_iter=iterations,
    )
    model.fit(inputs, label, sensitive_features=codes)
    return lambda rows: np.asarray(model._pmf_predict(rows)[:, 1], np.float64)
