"""Thresholds tuned on validation patients."""

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from fairjax import metrics
from fairjax.mitigation.thresholds import GRID, threshold_counts, tune_thresholds


def cohort(seed=0, rows=300, num_groups=3):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, rows)
    labels = (rng.random(rows) < 0.3).astype(int)
    scores = (rng.random(rows) * 0.6 + 0.4 * labels * (1 + groups) / 3).round(2)
    return labels, scores.astype(np.float32), groups


def test_the_published_grid():
    assert len(GRID) == 80
    assert GRID[0] == 0.1
    assert GRID[-1] == 0.89


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.permutations([0.2, 0.5, 0.5, 0.81, -1.0]))
def test_counts_are_those_of_each_threshold(seed, thresholds):
    labels, scores, groups = cohort(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(labels))
    thresholds = np.array(thresholds, np.float32)
    found = threshold_counts(
        labels, scores, groups, thresholds, num_groups=3, weights=weights
    )
    for threshold, counts in zip(thresholds, found.counts, strict=True):
        expected = metrics.group_counts(
            labels, scores >= threshold, groups, num_groups=3, weights=weights
        )
        np.testing.assert_array_equal(counts, expected.counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "oracle", "by_group"),
    [
        (metrics.f1_score, f1_score, True),
        (metrics.balanced_accuracy, balanced_accuracy_score, False),
    ],
)
def test_the_best_of_the_grid_is_scikit_learns(metric, oracle, by_group):
    labels, scores, groups = cohort()
    tuned = tune_thresholds(
        labels, scores, groups, num_groups=3, metric=metric, by_group=by_group
    )
    for group in range(3):
        mine = groups == group if by_group else groups >= 0
        values = [oracle(labels[mine], scores[mine] >= t) for t in GRID]
        assert tuned.reached[group] == pytest.approx(max(values), abs=1e-6)
        assert tuned.values[group] == pytest.approx(GRID[int(np.argmax(values))])


def test_rows_of_no_use_count_nowhere():
    labels, scores, groups = cohort()
    expected = tune_thresholds(labels, scores, groups, num_groups=3)
    more = tune_thresholds(
        np.append(labels, [1]),
        np.append(scores, np.float32([0.2])),
        np.append(groups, [-1]),
        num_groups=3,
    )
    jax.tree.map(np.testing.assert_array_equal, more, expected)


def test_a_group_without_patients_has_the_common_threshold():
    labels, scores, groups = cohort(num_groups=2)
    tuned = tune_thresholds(labels, scores, groups, num_groups=3)
    common = tune_thresholds(labels, scores, groups, num_groups=3, by_group=False)
    assert tuned.values[2] == common.values[0]
    assert np.isnan(tuned.reached[2])


@pytest.mark.parametrize("outcome", [0, 1])
@pytest.mark.parametrize("metric", [metrics.f1_score, metrics.accuracy])
def test_a_group_of_one_outcome_has_the_common_threshold(outcome, metric):
    """Else F1, which is 0 at each, selects most of a group without positives."""
    labels, scores, groups = cohort()
    labels = np.where(groups == 2, outcome, labels)
    options = {"num_groups": 3, "metric": metric}
    tuned = tune_thresholds(labels, scores, groups, **options)
    common = tune_thresholds(labels, scores, groups, by_group=False, **options)
    assert tuned.values[2] == common.values[0]
    mine = groups == 2
    counts = metrics.group_counts(
        labels[mine], scores[mine] >= common.values[0], groups[mine] * 0, num_groups=1
    )
    np.testing.assert_allclose(tuned.reached[2], metric(counts)[0])


def test_a_group_that_no_threshold_divides_has_the_common_threshold():
    labels, scores, groups = cohort()
    scores = np.where(groups == 2, np.float32(0.95), scores)
    tuned = tune_thresholds(labels, scores, groups, num_groups=3)
    common = tune_thresholds(labels, scores, groups, num_groups=3, by_group=False)
    assert tuned.values[2] == common.values[0]


def test_rows_that_threshold_counts_does_not_count():
    labels, scores, groups = cohort()
    expected = threshold_counts(labels, scores, groups, GRID, num_groups=3)
    more = threshold_counts(
        np.append(labels, [2, 1, 1]),
        np.append(scores, np.float32([0.5, np.nan, 0.2])),
        np.append(groups, [0, 0, -1]),
        GRID,
        num_groups=3,
    )
    np.testing.assert_array_equal(more.counts, expected.counts)


def test_a_score_at_the_threshold_is_selected_by_it():
    # As many rows and groups as elsewhere, whose programs then serve.
    scores = np.repeat([0.1, 0.05], 150)
    labels = np.repeat([1, 0], 150)
    tuned = tune_thresholds(labels, scores, np.zeros(300, int), num_groups=3)
    assert tuned.reached[0] == 1
    np.testing.assert_array_equal(scores >= tuned.values[0], labels == 1)


def test_columns_of_pandas():
    labels, scores, groups = cohort()
    tuned = tune_thresholds(*map(pd.Series, (labels, scores, groups)), num_groups=3)
    expected = tune_thresholds(labels, scores, groups, num_groups=3)
    jax.tree.map(np.testing.assert_array_equal, tuned, expected)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_groups": 2}, "or be -1 for a row in no group; got 0 to 2"),
        ({"groups": np.full(300, -2)}, "; got -2 to -2"),
        ({"groups": np.arange(300) % 3 + 0.5}, "must be integers in 0 .. 2; got"),
        (
            {"groups": np.array(["a", "b", "c"] * 100)},
            "must be integers in 0 .. 2; got",
        ),
        ({"groups": np.full(300, np.nan)}, "must be integers in 0 .. 2; got"),
        ({"groups": np.zeros(299, int)}, "columns must have equal lengths; got"),
        ({"num_groups": 0}, "num_groups must be at least 1"),
        ({"weights": np.full(300, np.nan)}, "finite and at least 0; got nan"),
        ({"weights": np.full(300, np.inf)}, "finite and at least 0; got inf"),
        ({"weights": np.append(np.ones(299), -1)}, "finite and at least 0; got -1"),
        (
            {"weights": np.full(300, 1e37)},
            r"suit counts of 32 bits; got weights up to 1e\+37",
        ),
        (
            {"weights": np.full(300, 1e-50)},
            "suit counts of 32 bits; got weights up to 1e-50",
        ),
        (
            {"weights": np.full(300, 10**8)},
            r"suit counts of 32 bits; got weights up to 1e\+08",
        ),
        ({"weights": np.full(300, "1")}, "weights must be numbers; got <U1"),
    ],
)
def test_groups_and_weights_that_cannot_be(change, words):
    labels, scores, groups = cohort()
    given_ = {"labels": labels, "scores": scores, "groups": groups, "num_groups": 3}
    with pytest.raises(ValueError, match=words):
        tune_thresholds(**(given_ | change))


def test_what_cannot_be_is_refused():
    labels, scores, groups = cohort()
    options = {"num_groups": 3}
    with pytest.raises(ValueError, match="labels must be 0 or 1; got -1"):
        tune_thresholds(2 * labels - 1, scores, groups, **options)
    with pytest.raises(ValueError, match="scores must be finite; got nan"):
        tune_thresholds(labels, np.full(300, np.nan), groups, **options)
    with pytest.raises(ValueError, match=r"a list of thresholds; got shape \(0,\)"):
        tune_thresholds(labels, scores, groups, grid=np.zeros(0), **options)
    with pytest.raises(ValueError, match=r"must give \(80, 4\) numbers.*; got \(80,\)"):
        tune_thresholds(
            labels,
            scores,
            groups,
            metric=metrics.demographic_parity_difference,
            **options,
        )
    with pytest.raises(
        ValueError, match="must be defined at a threshold of grid; got only NaN"
    ):
        tune_thresholds(
            np.zeros(300), scores, groups, metric=metrics.true_positive_rate, **options
        )
