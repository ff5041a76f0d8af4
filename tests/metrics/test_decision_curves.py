import numpy as np
import pytest

from fairjax.metrics import net_benefit


def case(seed, rows=200):
    rng = np.random.default_rng(seed)
    scores = rng.random(rows).astype(np.float32)
    labels = (rng.random(rows) < scores**2).astype(int)
    return labels, scores, rng.integers(-1, 3, rows), rng


@pytest.mark.parametrize("weighted", [False, True])
def test_net_benefit_equals_its_definition(weighted):
    labels, scores, groups, rng = case(4)
    scores = scores.round(1)
    thresholds = np.array([0.3, 0.0, 0.9, 0.5, 0.1], np.float32)
    weights = rng.integers(0, 4, 200) if weighted else np.ones(200, int)
    found = net_benefit(
        labels, scores, groups, thresholds, num_groups=4, weights=weights
    )
    for group in range(3):
        mass = np.where(groups == group, weights, 0)
        for k, t in enumerate(thresholds):
            selected, odds = scores >= t, float(t) / (1 - float(t))
            gain = mass * (labels - odds * (1 - labels))
            np.testing.assert_allclose(
                found.model[group, k], gain @ selected / mass.sum(), atol=1e-5
            )
            np.testing.assert_allclose(
                found.treat_all[group, k], gain.sum() / mass.sum(), atol=1e-5
            )
    assert np.isnan(found.model[3]).all()
    assert np.isnan(found.treat_all[3]).all()


def test_net_benefit_on_thresholds():
    """A score at the threshold is treated; 1 and beyond are no thresholds."""
    labels, scores = np.array([1, 0, 1]), np.array([0.3, 0.3, 0.1], np.float32)
    thresholds = np.array([0.3, 1, -0.5, 0], np.float32)
    found = net_benefit(labels, scores, np.zeros(3, int), thresholds, num_groups=1)
    np.testing.assert_allclose(found.model[0, 0], (1 - 3 / 7) / 3, rtol=1e-6)
    assert np.isnan(found.model[0, 1:3]).all()
    assert np.isnan(found.treat_all[0, 1:3]).all()
    np.testing.assert_allclose(found.model[0, 3], 2 / 3, rtol=1e-6)


def test_a_missing_score_spoils_its_group_alone():
    labels, scores, groups, _ = case(2)
    scores[np.flatnonzero(groups == 1)[0]] = np.nan
    found = net_benefit(labels, scores, groups, np.array([0.5]), num_groups=3)
    assert np.isnan(found.model[:, 0]).tolist() == [False, True, False]


def test_no_rows_at_all():
    nothing, scores = np.zeros(0, int), np.zeros(0, np.float32)
    found = net_benefit(nothing, scores, nothing, np.array([0.5]), num_groups=2)
    assert np.isnan(found.model).all()
