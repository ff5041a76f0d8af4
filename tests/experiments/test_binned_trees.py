"""Trees on bins that are made once are XGBoost's."""

import numpy as np
import pytest
from sklearn.base import clone

from experiments.intersectional.binned_trees import BinnedXGBoost, Bins

xgboost = pytest.importorskip("xgboost")


@pytest.fixture
def patients():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(600, 5)).astype(np.float32)
    inputs[rng.random(inputs.shape) < 0.05] = np.nan
    label = (np.nansum(inputs, axis=1) + rng.normal(size=600) > 0).astype(int)
    return inputs, label, rng.random(600)


def plain(weights=None, *, inputs, label):
    learner = xgboost.XGBClassifier(
        n_estimators=10, max_depth=3, learning_rate=0.15, n_jobs=1
    )
    return learner.fit(inputs, label, sample_weight=weights).predict_proba(inputs)


def test_without_weights_it_is_the_plain_classifier(patients):
    inputs, label, _ = patients
    ours = BinnedXGBoost(num_trees=10).fit(inputs, label)
    expected = plain(inputs=inputs, label=label)
    np.testing.assert_allclose(ours.predict_proba(inputs), expected, rtol=1e-5)
    assert set(ours.predict(inputs)) == {0, 1}


def test_weights_count_and_do_not_stay(patients):
    inputs, label, weights = patients
    ours = BinnedXGBoost(num_trees=10, bins=Bins())
    weighted = clone(ours).fit(inputs, label, sample_weight=weights)
    # The weighted quantiles that the plain one sorts into are others.
    expected = plain(weights, inputs=inputs, label=label)
    gap = np.abs(weighted.predict_proba(inputs) - expected)
    assert 0 < gap.mean() < 0.03
    assert np.abs(expected - plain(inputs=inputs, label=label)).mean() > gap.mean()
    after = clone(ours).fit(inputs, label)
    fresh = BinnedXGBoost(num_trees=10).fit(inputs, label)
    np.testing.assert_array_equal(
        after.predict_proba(inputs), fresh.predict_proba(inputs)
    )


def test_clones_share_the_bins_of_one_table(patients):
    inputs, *_ = patients
    ours = BinnedXGBoost(bins=Bins())
    first = clone(ours).bins
    assert first is ours.bins
    assert first.of(inputs) is first.of(inputs)
    assert first.of(inputs) is not first.of(inputs.copy())
