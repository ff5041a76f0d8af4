import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve as sklearn_curve
from sklearn.metrics import brier_score_loss

from fairjax.metrics import (
    brier_score,
    calibration_curve,
    expected_calibration_error,
    group_brier,
    group_calibration_error,
)


def case(seed, rows=200):
    rng = np.random.default_rng(seed)
    scores = rng.random(rows).astype(np.float32)
    labels = (rng.random(rows) < scores**2).astype(int)
    return labels, scores, rng.integers(-1, 3, rows), rng


def test_brier_equals_sklearn():
    labels, scores, _, rng = case(0)
    weights = rng.integers(0, 3, 200)
    np.testing.assert_allclose(
        brier_score(labels, scores), brier_score_loss(labels, scores), rtol=1e-5
    )
    weighted = jax.jit(brier_score)(labels, scores, weights)
    np.testing.assert_allclose(
        weighted, brier_score_loss(labels, scores, sample_weight=weights), rtol=1e-5
    )
    assert np.isnan(brier_score(labels, scores, np.zeros(200, int)))


def test_brier_of_groups():
    labels, scores, groups, rng = case(1)
    weights = rng.random(200).astype(np.float32)
    found = group_brier(labels, scores, groups, num_groups=4, weights=weights)
    for group in range(3):
        at = groups == group
        expected = brier_score_loss(labels[at], scores[at], sample_weight=weights[at])
        np.testing.assert_allclose(found[group], expected, rtol=1e-5)
    assert np.isnan(found[3])


def test_a_sum_of_many_rows_does_not_stop_growing():
    """In float32, ones added to 2²⁴ one after another leave it as it is."""
    rows, zeros = 2**17, 2**13
    weights = np.ones(rows, np.float32)
    weights[:zeros] = np.where(np.arange(zeros) == 0, 2**24, 0)
    # The heavy row and every other one are wrong.
    scores = np.arange(rows) % 2
    found = brier_score(np.ones(rows, np.int8), scores.astype(np.float32), weights)
    expected = (2**24 + (rows - zeros) / 2) / (2**24 + rows - zeros)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_bins", "adaptive"), [(1, True), (4, False), (10, False), (10, True)]
)
def test_curve_equals_sklearn(num_bins, adaptive):
    """Distinct scores in a number of rows that the bins divide: the same quantiles."""
    labels, scores, _, rng = case(num_bins)
    groups = rng.permutation(np.repeat([0, 1], [120, 80]))
    found = calibration_curve(
        labels, scores, groups, num_groups=2, num_bins=num_bins, adaptive=adaptive
    )
    for group in (0, 1):
        at = groups == group
        observed, mean = sklearn_curve(
            labels[at],
            scores[at],
            n_bins=num_bins,
            strategy="quantile" if adaptive else "uniform",
        )
        np.testing.assert_allclose(found.mean_score[group], mean, rtol=1e-5)
        np.testing.assert_allclose(found.observed[group], observed, rtol=1e-6)
        if adaptive:
            assert (found.rows[group] == at.sum() // num_bins).all()
    np.testing.assert_array_equal(found.rows.sum(1), [120, 80])
    np.testing.assert_array_equal(found.events.sum(1), np.bincount(groups, labels))


def test_equal_width_bins_on_their_edges():
    """A bin holds its upper edge, as in scikit-learn, and the first one holds 0."""
    scores = np.array([0, 0.1, 0.2, 0.3, 0.7, 0.9, 1], np.float32)
    ones = np.ones(7, int)
    found = calibration_curve(
        ones, scores, np.zeros(7, int), num_groups=1, adaptive=False
    )
    assert found.rows[0].tolist() == [2, 1, 1, 0, 0, 0, 1, 0, 1, 1]
    assert np.isnan(found.observed[0, 3])
    double, _ = sklearn_curve(ones, scores.astype(float).round(1), n_bins=10)
    assert len(double) == np.sum(np.asarray(found.rows) > 0)


def test_adaptive_bins_do_not_split_ties():
    scores = np.array([0.1] * 7 + [0.5, 0.6, 0.9], np.float32)
    labels = np.array([0] * 5 + [1] * 5)
    found = calibration_curve(
        labels, scores, np.zeros(10, int), num_groups=1, num_bins=5
    )
    # Mass below, and half of that at it: .35, .75, .85, .95.
    assert found.rows.tolist() == [[0, 7, 0, 1, 2]]
    assert found.events.tolist() == [[0, 2, 0, 1, 2]]


def test_calibration_errors_by_hand():
    """Bins of .1, .1, .2 (one event) and .8, .9, .7 (one event), then group 1."""
    scores = np.array([0.1, 0.1, 0.2, 0.8, 0.9, 0.7, 0.5], np.float32)
    labels, groups = np.array([0, 1, 0, 0, 1, 0, 1]), np.array([0] * 6 + [1])
    options = {"num_groups": 3, "num_bins": 2}
    first, second = abs(1 / 3 - 0.4 / 3), abs(1 / 3 - 2.4 / 3)
    for adaptive in (False, True):
        mean, worst = (
            group_calibration_error(
                labels, scores, groups, adaptive=adaptive, norm=norm, **options
            )
            for norm in ("l1", "max")
        )
        np.testing.assert_allclose(mean[:2], [(first + second) / 2, 0.5], rtol=1e-5)
        np.testing.assert_allclose(worst[:2], [second, 0.5], rtol=1e-5)
        assert np.isnan(mean[2])
        assert np.isnan(worst[2])
    alone = expected_calibration_error(labels[:6], scores[:6], num_bins=2)
    np.testing.assert_allclose(alone, (first + second) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="num_bins must be at least 1"):
        calibration_curve(labels, scores, groups, num_groups=2, num_bins=0)


grouped_rows = st.lists(
    st.tuples(
        st.integers(0, 1), st.integers(0, 6), st.integers(-1, 2), st.integers(0, 3)
    ),
    min_size=24,
    max_size=24,
)


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [False, True])
@given(table=grouped_rows, random=st.randoms(use_true_random=False))
def test_error_properties(adaptive, table, random):
    labels, scores, groups, weights = (np.array(c) for c in zip(*table, strict=True))
    scores = (scores / 6).astype(np.float32)
    options = {"num_groups": 3, "num_bins": 4, "adaptive": adaptive}
    found = group_calibration_error(labels, scores, groups, weights=weights, **options)
    floats = group_calibration_error(
        labels, scores, groups, weights=weights.astype(np.float32), **options
    )
    np.testing.assert_allclose(floats, found, atol=1e-6)
    order = np.array(random.sample(range(24), 24))
    again = group_calibration_error(
        labels[order], scores[order], groups[order], weights=weights[order], **options
    )
    np.testing.assert_allclose(again, found, atol=1e-6)
    # Copies, in a table of one size: what does not fit is in no group.
    copies = np.repeat(np.arange(24), weights)
    rows = np.pad(copies, (0, 72 - copies.size))
    member = np.where(np.arange(72) < copies.size, groups[rows], -1)
    repeated = group_calibration_error(labels[rows], scores[rows], member, **options)
    np.testing.assert_allclose(repeated, found, atol=1e-6)
    # The distance of the means bounds it from below, the worst bin from above.
    worst = group_calibration_error(
        labels, scores, groups, weights=weights, norm="max", **options
    )
    for group in range(3):
        mass = np.where(groups == group, weights, 0)
        if mass.sum():
            distance = abs(mass @ (labels - scores)) / mass.sum()
            assert distance - 1e-6 <= found[group] <= worst[group] + 1e-6
        else:
            assert np.isnan(found[group])


@pytest.mark.slow
def test_a_missing_score_spoils_its_group_alone():
    labels, scores, groups, _ = case(2)
    scores[np.flatnonzero(groups == 1)[0]] = np.nan
    for adaptive in (False, True):
        error = group_calibration_error(
            labels, scores, groups, num_groups=3, adaptive=adaptive
        )
        assert np.isnan(error).tolist() == [False, True, False]
    brier = group_brier(labels, scores, groups, num_groups=3)
    assert np.isnan(brier).tolist() == [False, True, False]


@pytest.mark.slow
def test_curve_maps_over_scores():
    labels, _, groups, rng = case(3)
    scores = rng.random((3, 200)).astype(np.float32)

    def curve(scores):
        return calibration_curve(labels, scores, groups, num_groups=3, num_bins=5)

    mapped, compiled = jax.jit(jax.vmap(curve))(scores), jax.jit(curve)
    for i in range(3):
        alone = compiled(scores[i])
        np.testing.assert_array_equal(mapped.rows[i], alone.rows)
        np.testing.assert_allclose(mapped.mean_score[i], alone.mean_score, rtol=1e-6)


def test_no_rows_at_all():
    nothing = np.zeros(0, int)
    scores = np.zeros(0, np.float32)
    for adaptive in (False, True):
        curve = calibration_curve(
            nothing, scores, nothing, num_groups=2, num_bins=3, adaptive=adaptive
        )
        assert np.isnan(curve.observed).all()
        assert (np.asarray(curve.rows) == np.zeros((2, 3))).all()
