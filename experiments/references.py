"""Reference models from scikit-learn, fitted in the same lanes."""

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from experiments.protocol import CrossValidation

INVERSE_PENALTIES = (0.003, 0.03, 0.3)
LEAVES = (4, 8, 16)


def logistic_regression(
    splits: CrossValidation, advance: Callable[[], None]
) -> np.ndarray:
    """Logits ``[L, n]`` of an L2-regularised logistic regression."""
    candidates = [
        LogisticRegression(C=strength, max_iter=1000) for strength in INVERSE_PENALTIES
    ]
    return _fit(candidates, splits, advance)


def gradient_boosting(
    splits: CrossValidation, advance: Callable[[], None]
) -> np.ndarray:
    """Logits ``[L, n]`` of histogram gradient boosting."""
    candidates = [
        HistGradientBoostingClassifier(
            learning_rate=0.06,
            max_iter=120,
            max_leaf_nodes=leaves,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=0,
        )
        for leaves in LEAVES
    ]
    return _fit(candidates, splits, advance)


ALL: Mapping[str, tuple[str, Callable[..., np.ndarray]]] = {
    "logistic_regression": ("Logistic regression", logistic_regression),
    "gradient_boosting": ("Gradient boosting", gradient_boosting),
}


def _fit(candidates, splits: CrossValidation, advance) -> np.ndarray:
    """Each lane's candidate with the best AUROC on the lane's validation fold."""
    label = splits.table.label
    logits = np.empty(splits.inputs.shape[:2], np.float32)
    for lane in range(splits.num_lanes):
        inputs = splits.inputs[lane]
        train, valid = splits.rows(lane, "train"), splits.rows(lane, "valid")
        best = -np.inf
        for model in candidates:
            model.fit(inputs[train], label[train])
            scores = model.decision_function(inputs)
            score = roc_auc_score(label[valid], scores[valid])
            if score > best:
                best, logits[lane] = score, scores
        advance()
    return logits
