"""The classifiers around which the pipeline is built."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Literal

from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from experiments.intersectional.binned_trees import BinnedXGBoost, Bins

LearnerName = Literal["xgboost", "logistic", "boosting"]


def check_learner(name: str) -> None:
    """Refuses a learner whose package is not installed, before any work is done.

    Raises:
      ModuleNotFoundError: If XGBoost is needed and not installed.
    """
    if name == "xgboost" and importlib.util.find_spec("xgboost") is None:
        raise ModuleNotFoundError(
            "--learner xgboost must have the package xgboost, which is not installed. "
            "Run pip install xgboost-cpu (on Linux; elsewhere xgboost), or choose "
            "--learner boosting or --learner logistic.",
            name="xgboost",
        )


def _boosting(seed: int) -> Any:
    return HistGradientBoostingClassifier(
        learning_rate=0.15,
        max_iter=50,
        max_leaf_nodes=8,
        l2_regularization=1.0,
        random_state=seed,
    ).set_params(early_stopping=False)


_MAKERS: Mapping[str, Callable[[int], Any]] = {
    "xgboost": lambda seed: BinnedXGBoost(50, 3, 0.15, seed, bins=Bins()),
    "boosting": _boosting,
    "logistic": lambda seed: LogisticRegression(
        C=0.1, max_iter=1000, random_state=seed
    ),
}
DESCRIBED: Mapping[str, str] = {
    "xgboost": "XGBoost, 50 trees of depth 3, learning rate .15",
    "boosting": "histogram gradient boosting, 50 trees of 8 leaves, learning rate .15",
    "logistic": "logistic regression, L2 penalty, C = .1",
}


def make_learner(name: str, seed: int) -> Any:
    """Makes a scikit-learn classifier that takes sample weights."""
    return _MAKERS[name](seed)
