"""The reference models: fitted on training rows, tuned on validation rows."""

import dataclasses

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from experiments.core import references


@pytest.fixture
def one_repeat(splits):
    inputs = splits.inputs[:5, :, :15]
    return dataclasses.replace(splits, folds=splits.folds[:1], inputs=inputs)


def candidates(splits, lane, model):
    """The models that could be chosen, and how well each does on validation."""
    train, valid = splits.rows(lane, "train"), splits.rows(lane, "valid")
    label, inputs = splits.table.label, splits.inputs[lane]
    fitted = model.fit(inputs[train], label[train])
    if hasattr(model, "staged_decision_function"):
        scores = [s.ravel() for s in fitted.staged_decision_function(inputs)][9::10]
    else:
        scores = [fitted.decision_function(inputs)]
    return [(roc_auc_score(label[valid], s[valid]), s) for s in scores]


def test_logistic_regression_takes_the_penalty_of_the_best_validation(one_repeat):
    steps = []
    found = references.logistic_regression(one_repeat, lambda: steps.append(1))
    assert len(steps) == 5
    for lane in range(5):
        each = [
            candidates(one_repeat, lane, LogisticRegression(C=c, max_iter=1000))[0]
            for c in references.INVERSE_PENALTIES
        ]
        _, scores = max(each, key=lambda pair: pair[0])
        np.testing.assert_allclose(found[lane], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_test_rows_are_not_looked_at(one_repeat):
    label = one_repeat.table.label.copy()
    test = one_repeat.rows(2, "test")
    label[test] = 1 - label[test]
    table = dataclasses.replace(one_repeat.table, label=label)
    flipped = dataclasses.replace(one_repeat, table=table)
    found = references.logistic_regression(one_repeat, lambda: None)
    other = references.logistic_regression(flipped, lambda: None)
    np.testing.assert_array_equal(found[2], other[2])
    assert (found[0] != other[0]).any()


@pytest.mark.slow
def test_boosting_takes_the_number_of_trees_of_the_best_validation(one_repeat):
    found = references.gradient_boosting(one_repeat, lambda: None)
    for lane in (1, 4):
        model = HistGradientBoostingClassifier(
            learning_rate=0.08,
            max_leaf_nodes=8,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=0,
        )
        with threadpool_limits(limits=1, user_api="openmp"):
            each = candidates(one_repeat, lane, model)
        assert len(each) == 10
        _, scores = max(each, key=lambda pair: pair[0])
        np.testing.assert_allclose(found[lane], scores, rtol=1e-4, atol=1e-5)
