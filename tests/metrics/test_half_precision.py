"""Scores and weights of 16 bits, against float64: as many rows as they cannot count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fairjax import metrics

ROWS = 20_000
ONE = np.zeros(ROWS, int)
# Each function meets one of the two kinds, which are widened in one way.
BRAIN = pytest.mark.parametrize("kind", [jnp.bfloat16])
HALF = pytest.mark.parametrize("kind", [jnp.float16])

# Single precision, where the sums themselves are right.
CLOSE = {"rtol": 2e-4}


def case(kind):
    """Labels, scores and weights of that type, and what they are in float64."""
    rng = np.random.default_rng(0)
    risks = jnp.array(rng.random(ROWS), kind)
    weights = jnp.array(rng.random(ROWS) + 0.5, kind)
    labels = (rng.random(ROWS) < np.asarray(risks, float) ** 1.5).astype(int)
    exact = np.asarray(risks, float), np.asarray(weights, float)
    return labels, risks, weights, *exact


@BRAIN
def test_counts(kind):
    labels, risks, weights, _, w = case(kind)
    predictions = metrics.predictions_at(risks, 0.5)
    found = metrics.group_counts(
        labels, predictions, ONE, num_groups=1, weights=weights
    )
    expected = np.zeros((2, 2))
    np.add.at(expected, (labels, np.asarray(predictions).astype(int)), w)
    assert found.counts.dtype == jnp.float32
    np.testing.assert_allclose(found.counts[0], expected, **CLOSE)
    found = metrics.conditional_counts(
        labels, predictions, ONE, ONE, num_groups=1, num_strata=1, weights=weights
    )
    np.testing.assert_allclose(found.counts[0, 0], expected, **CLOSE)


@pytest.mark.slow
@HALF
def test_ranking(kind):
    labels, risks, weights, s, w = case(kind)
    area = roc_auc_score(labels, s, sample_weight=w)
    precision = average_precision_score(labels, s, sample_weight=w)
    np.testing.assert_allclose(metrics.auroc(labels, risks, weights), area, **CLOSE)
    np.testing.assert_allclose(
        metrics.auprc(labels, risks, weights), precision, **CLOSE
    )
    crossed = metrics.cross_auroc(labels, risks, ONE, num_groups=1, weights=weights)
    np.testing.assert_allclose(crossed, [[area]], **CLOSE)
    curve = metrics.roc_curve_at(labels, risks, ONE, num_groups=1, weights=weights)
    # The drawn curve has 101 points.
    np.testing.assert_allclose(np.trapezoid(curve.tpr[0], curve.fpr), area, rtol=1e-3)
    plain = metrics.delong(labels, risks, ONE, num_groups=1)
    single = metrics.delong(labels, s.astype(np.float32), ONE, num_groups=1)
    np.testing.assert_allclose(plain.covariance, single.covariance, rtol=1e-5)


@pytest.mark.slow
@BRAIN
def test_brier_and_calibration_errors(kind):
    labels, risks, weights, s, w = case(kind)
    expected = np.average((s - labels) ** 2, weights=w)
    np.testing.assert_allclose(
        metrics.brier_score(labels, risks, weights), expected, **CLOSE
    )
    edges = np.asarray(jnp.array([0.25, 0.5, 0.75], kind), float)
    bins = np.searchsorted(edges, s)
    mass = np.bincount(bins, w, 4)
    mean, observed = np.bincount(bins, w * s, 4), np.bincount(bins, w * labels, 4)
    curve = metrics.calibration_curve(
        labels, risks, ONE, num_groups=1, num_bins=4, adaptive=False, weights=weights
    )
    np.testing.assert_allclose(curve.rows[0], mass, **CLOSE)
    np.testing.assert_allclose(curve.mean_score[0], mean / mass, **CLOSE)
    np.testing.assert_allclose(curve.observed[0], observed / mass, **CLOSE)
    error = metrics.expected_calibration_error(
        labels, risks, num_bins=4, adaptive=False, weights=weights
    )
    np.testing.assert_allclose(error, abs(mean - observed).sum() / w.sum(), rtol=1e-3)
    adaptive = metrics.expected_calibration_error(labels, risks, weights=weights)
    single = metrics.expected_calibration_error(
        labels, s.astype(np.float32), weights=w.astype(np.float32)
    )
    np.testing.assert_allclose(adaptive, single, rtol=1e-5)


def test_edges_of_bins_are_rounded_as_the_scores_are():
    for kind in (jnp.bfloat16, jnp.float16, jnp.float32):
        curve = metrics.calibration_curve(
            np.ones(2, int),
            jnp.array([0.3, 0.6], kind),
            np.zeros(2, int),
            num_groups=1,
            adaptive=False,
        )
        # Bins are open below: .3 ends the third, .6 the sixth.
        assert np.flatnonzero(curve.rows[0]).tolist() == [2, 5]


@pytest.mark.slow
@HALF
def test_recalibration(kind):
    labels, risks, weights, s, w = case(kind)
    found = metrics.logistic_recalibration(
        labels, risks, ONE, num_groups=1, weights=weights, clip=0.01
    )
    with jax.enable_x64(True):
        expected = metrics.logistic_recalibration(
            labels, s, ONE, num_groups=1, weights=w, clip=0.01
        )
    assert found.converged.all()
    for value, exact in zip(found[:5], expected[:5], strict=True):
        np.testing.assert_allclose(value, exact, rtol=1e-3)


@pytest.mark.slow
@BRAIN
def test_net_benefit(kind):
    labels, risks, weights, s, w = case(kind)
    found = metrics.net_benefit(
        labels, risks, ONE, jnp.array([0.25, 0.5]), num_groups=1, weights=weights
    )
    for at, threshold in enumerate((0.25, 0.5)):
        value = np.where(labels == 1, 1, -threshold / (1 - threshold))
        expected = np.sum(w * value * (s >= threshold)) / w.sum()
        np.testing.assert_allclose(found.model[0, at], expected, rtol=1e-3)
        np.testing.assert_allclose(
            found.treat_all[0, at], np.average(value, weights=w), rtol=1e-2, atol=1e-4
        )


@pytest.mark.slow
@HALF
def test_inequality_and_influence(kind):
    labels, risks, weights, s, w = case(kind)
    found = metrics.generalized_entropy_index(labels, risks, weights=weights)
    benefits = s - labels + 1
    mean = np.average(benefits, weights=w)
    expected = np.average((benefits / mean) ** 2 - 1, weights=w) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    variance = metrics.influence_variance(risks, ONE, num_groups=1)
    np.testing.assert_allclose(variance[0], (s**2).sum() * ROWS / (ROWS - 1), rtol=1e-4)
