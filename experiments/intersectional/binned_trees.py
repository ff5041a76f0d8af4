"""XGBoost that bins a table's values once for all fits.

A reduction fits the same patients a hundred times, with different labels and weights.
Binning takes two thirds of the time of a plain fit. The bins are quantiles of the
patients without weights; a plain `XGBClassifier` uses weighted quantiles.
"""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

_THREADS = {"nthread": 1}


class Bins:
    """The binned values of the last table, which clones of a learner share."""

    def __init__(self) -> None:
        """Begins without a table."""
        self._table: np.ndarray | None = None
        self._binned: Any = None

    def of(self, table: np.ndarray) -> Any:
        """Returns XGBoost's matrix of a table; the same matrix for the same array."""
        from xgboost import QuantileDMatrix  # an extra of its own, and slow to import

        if self._table is not table:
            self._table, self._binned = table, QuantileDMatrix(table, **_THREADS)
        return self._binned

    def __sklearn_clone__(self) -> "Bins":
        """Returns itself, so that clones share the bins."""
        return self


class BinnedXGBoost(ClassifierMixin, BaseEstimator):
    """Gradient boosting of trees for an outcome of 0 and 1, on one thread.

    Args:
      num_trees: Number of trees.
      depth: Depth of each tree.
      learning_rate: Learning rate of the boosting.
      seed: Seed of XGBoost.
      bins: Bins to share; by default, each fit makes its bins.
    """

    classes_ = np.array([0, 1])

    def __init__(
        self,
        num_trees: int = 50,
        depth: int = 3,
        learning_rate: float = 0.15,
        seed: int = 0,
        bins: Bins | None = None,
    ) -> None:
        """Keeps the settings."""
        self.num_trees = num_trees
        self.depth = depth
        self.learning_rate = learning_rate
        self.seed = seed
        self.bins = bins

    def fit(self, X: np.ndarray, y: Any, sample_weight: Any = None) -> "BinnedXGBoost":
        """Fits numbers ``[n, d]`` to an outcome ``[n]``."""
        import xgboost

        binned = (self.bins or Bins()).of(X)
        binned.set_label(np.asarray(y))
        weights = np.ones(len(X)) if sample_weight is None else sample_weight
        binned.set_weight(np.asarray(weights))
        settings = {
            "objective": "binary:logistic",
            "tree_method": "hist",
            "max_depth": self.depth,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            **_THREADS,
        }
        self.booster_ = xgboost.train(settings, binned, num_boost_round=self.num_trees)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Predicts probabilities ``[n, 2]``."""
        check_is_fitted(self)
        probability = np.asarray(self.booster_.inplace_predict(X))
        return np.stack([1 - probability, probability], axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predicts the more probable outcome, ``[n]``."""
        return (self.predict_proba(X)[:, 1] > 0.5).astype(int)
