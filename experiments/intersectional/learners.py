"""The classifiers that the pipeline is built around, and fairness put on top of one."""

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from experiments.intersectional.binned_trees import BinnedXGBoost, Bins
from fairjax.mitigation import ExponentiatedGradient
from fairjax.mitigation.constraints import Parity
from fairjax.mitigation.costs import Objective

LearnerName = Literal["xgboost", "logistic", "boosting"]


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
    return BinnedXGBoost(
        num_trees=50, depth=3, learning_rate=0.15, seed=seed, bins=Bins()
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


class Fitted(NamedTuple):
    """What a model predicts, and how far it misses what it was held to.

    Attributes:
      scores: ``[k]``, in [0, 1].
      missed: By how much the worst subgroup's rate is beyond the bound on the training
        rows, at most 0 if none is; NaN of a model that was held to none.
    """

    scores: np.ndarray
    missed: float


def plain(
    learner: Any, inputs: np.ndarray, label: np.ndarray, others: np.ndarray
) -> Fitted:
    """A learner's probabilities of the rows ``others``."""
    chance = learner.fit(inputs, label).predict_proba(others)[:, 1]
    return Fitted(np.asarray(chance, np.float64), np.nan)


def reduced(
    learner: Any,
    inputs: np.ndarray,
    label: np.ndarray,
    codes: np.ndarray,
    others: np.ndarray,
    *,
    constraint: Parity,
    objective: Objective,
    iterations: int,
) -> Fitted:
    """Exponentiated gradient around a learner: exact chances of the rows ``others``."""
    model = ExponentiatedGradient(
        learner, constraint=constraint, objective=objective, max_iterations=iterations
    )
    with warnings.catch_warnings():
        # How often and by how much is in the report.
        warnings.filterwarnings("ignore", message="no mixture of the learner's")
        model.fit(inputs, label, sensitive_features=codes)
    return Fitted(model.predict_proba(others)[:, 1], model.violation_)
