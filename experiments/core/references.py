"""Reference models from scikit-learn, fitted in the same lanes."""

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from experiments.core.protocol import CrossValidation

INVERSE_PENALTIES = (0.003, 0.03, 0.3)


def logistic_regression(
    splits: CrossValidation,
    advance: Callable[[], None],
    *,
    inputs: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Computes logits ``[L, n]`` of an L2-regularised logistic regression.

    Each lane uses the penalty with the best AUROC on the lane's validation fold.

    Args:
      splits: The patients and their folds.
      advance: Called after every lane.
      inputs: ``[L, n, d]``, in place of the table's inputs.
      weights: ``[n]``, weights of the patients in the fit and in the AUROC.
    """

    def candidates(inputs, label, train):
        own = None if weights is None else weights[train]
        for strength in INVERSE_PENALTIES:
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(inputs[train], label[train], sample_weight=own)
            yield model.decision_function(inputs)

    inputs = splits.inputs if inputs is None else inputs
    # With one thread the models do not depend on the number of cores. There are so few
    # patients that threads would wait for each other longer than they work.
    with threadpool_limits(limits=1, user_api="blas"):
        return _best(candidates, splits, inputs, advance, weights)


def gradient_boosting(
    splits: CrossValidation, advance: Callable[[], None]
) -> np.ndarray:
    """Computes logits ``[L, n]`` of histogram gradient boosting.

    Each lane uses the number of trees with the best AUROC on its validation fold.
    """

    def candidates(inputs, label, train):
        model = HistGradientBoostingClassifier(
            learning_rate=0.08,
            max_iter=100,
            max_leaf_nodes=8,
            l2_regularization=1.0,
            random_state=0,
        ).set_params(early_stopping=False)
        model.fit(inputs[train], label[train])
        for number, scores in enumerate(model.staged_decision_function(inputs)):
            if number % 10 == 9:
                yield scores.reshape(-1)

    with threadpool_limits(limits=1, user_api="openmp"):
        return _best(candidates, splits, splits.inputs, advance)


ALL: Mapping[str, tuple[str, Callable[..., np.ndarray]]] = {
    "logistic_regression": ("Logistic regression", logistic_regression),
    "gradient_boosting": ("Gradient boosting", gradient_boosting),
}


def _best(
    candidates, splits: CrossValidation, inputs, advance, weights=None
) -> np.ndarray:
    """Chooses each lane's candidate with the best AUROC on its validation fold."""
    label = splits.table.label
    logits = np.empty(inputs.shape[:2], np.float32)
    for lane in range(splits.num_lanes):
        train, valid = splits.rows(lane, "train"), splits.rows(lane, "valid")
        best = -np.inf
        own = None if weights is None else weights[valid]
        for scores in candidates(inputs[lane], label, train):
            auroc = roc_auc_score(label[valid], scores[valid], sample_weight=own)
            if auroc > best:
                best, logits[lane] = auroc, scores
        advance()
    return logits
