"""Subgroup metrics against fairlearn, AIF360 and scikit-learn.

Deliberate differences, each shown below:

- A group without positives has no true positive rate here and in AIF360 (NaN), and is
  passed over by our gaps; fairlearn calls the rate 0.
- AIF360's differences are signed, unprivileged less privileged; its average odds
  difference cancels gaps of opposite signs.
"""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from fairjax import metrics

fairlearn = pytest.importorskip("fairlearn.metrics")

pytestmark = pytest.mark.oracle

# (negatives predicted 0, 1; positives predicted 0, 1): worked in docs/conventions.md.
TABLE = np.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]], [[5, 5], [4, 1]]])


def rows_of(table):
    """Labels, predictions and groups with these counts."""
    cells = np.indices(table.shape).reshape(3, -1)
    groups, labels, predictions = np.repeat(cells, table.ravel(), axis=1)
    return labels, predictions, groups


def ours(labels, predictions, groups, weights=None):
    counts = metrics.group_counts(
        jnp.asarray(labels),
        jnp.asarray(predictions),
        jnp.asarray(groups),
        num_groups=int(groups.max()) + 1,
        weights=None if weights is None else jnp.asarray(weights),
    )
    return {
        "dpd": metrics.demographic_parity_difference(counts),
        "eopp": metrics.equal_opportunity_difference(counts),
        "eod": metrics.equalized_odds_difference(counts),
        "eod_mean": metrics.equalized_odds_difference(counts, agg="mean"),
    }


def theirs(labels, predictions, groups, weights=None):
    options = {"sensitive_features": groups, "sample_weight": weights}
    given = (labels, predictions)
    return {
        "dpd": fairlearn.demographic_parity_difference(*given, **options),
        "eopp": fairlearn.equal_opportunity_difference(*given, **options),
        "eod": fairlearn.equalized_odds_difference(*given, **options),
        "eod_mean": fairlearn.equalized_odds_difference(*given, agg="mean", **options),
    }


def agree(found, expected, tolerance=1e-6):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (2, {"dpd": 0.0667, "eopp": 0.25, "eod": 0.25, "eod_mean": 0.1667}),
        (3, {"dpd": 0.0667, "eopp": 0.55, "eod": 0.55}),
    ],
)
def test_the_table_worked_by_hand(groups, expected):
    rows = rows_of(TABLE[:groups])
    found = ours(*rows)
    agree(found, expected, 5e-5)
    agree(found, theirs(*rows))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_fairlearn_on_random_rows(seed, weighted):
    rng = np.random.default_rng(seed)
    number, size = (2, 5, 8)[seed % 3], 500  # Few shapes to compile.
    groups = rng.integers(0, number, size)
    labels = rng.random(size) < rng.uniform(0.2, 0.8, number)[groups]
    predictions = rng.random(size) < rng.uniform(0, 1, (2, number))[labels * 1, groups]
    weights = rng.uniform(0.1, 3, size).astype(np.float32) if weighted else None
    rows = (labels.astype(int), predictions.astype(int), groups, weights)
    agree(ours(*rows), theirs(*rows), 2e-6)


def test_a_group_without_positives_is_passed_over_not_called_zero():
    table = TABLE.copy()
    table[2, 1] = 0
    rows = rows_of(table)
    found = ours(*rows)["eopp"]
    np.testing.assert_allclose(found, 0.25, atol=1e-6)
    np.testing.assert_allclose(theirs(*rows)["eopp"], 0.75)


def test_aif360_on_the_table():
    aif360 = pytest.importorskip("aif360.sklearn.metrics")
    labels, predictions, groups = rows_of(TABLE[:2])
    truth = pd.Series(labels, index=pd.Index(groups, name="group"))
    options = {"prot_attr": "group", "priv_group": 0}
    found = ours(labels, predictions, groups)
    signed = {
        "dpd": aif360.statistical_parity_difference(truth, predictions, **options),
        "eopp": aif360.equal_opportunity_difference(truth, predictions, **options),
        "eod_mean": aif360.average_odds_error(truth, predictions, **options),
    }
    agree(found, {name: abs(value) for name, value in signed.items()})
    assert signed["dpd"] < 0
    assert signed["eopp"] < 0
    # -1/4 and +1/12: their mean cancels in part, ours of the sizes does not.
    average = aif360.average_odds_difference(truth, predictions, **options)
    np.testing.assert_allclose(average, -1 / 12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_on_ranking_and_calibration(seed, ties):
    from sklearn.metrics import brier_score_loss, roc_auc_score

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 500)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).astype(np.float32)
    scores = np.round(scores, 1) if ties else scores
    weights = rng.uniform(0.1, 3, 500).astype(np.float32)
    for mass in (None, weights):
        given = (jnp.asarray(labels), jnp.asarray(scores))
        mine = None if mass is None else jnp.asarray(mass)
        auroc = roc_auc_score(labels, scores, sample_weight=mass)
        np.testing.assert_allclose(metrics.auroc(*given, mine), auroc, rtol=1e-5)
        brier = brier_score_loss(labels, scores, sample_weight=mass)
        np.testing.assert_allclose(metrics.brier_score(*given, mine), brier, rtol=1e-5)


def test_scikit_learn_on_groups_that_are_hardly_there():
    """One class alone, every score tied, no weight at all, and a plain group."""
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), 40)
    labels = np.where(groups == 1, 1, rng.integers(0, 2, 200))
    labels = np.where(groups == 2, 0, labels)
    scores = np.round(rng.random(200), 2).astype(np.float32)
    scores = np.where(groups == 3, np.float32(0.5), scores)
    weights = rng.uniform(0.1, 3, 200).astype(np.float32)
    # Of the plain group half of the rows weigh nothing, of the last one all.
    weights = np.where((groups == 0) & (rng.random(200) < 0.5), np.float32(0), weights)
    weights = np.where(groups == 4, np.float32(0), weights)
    options = {"num_groups": 5, "weights": weights}
    area = metrics.group_auroc(labels, scores, groups, **options)
    precision = metrics.group_auprc(labels, scores, groups, **options)
    brier = metrics.group_brier(labels, scores, groups, **options)
    for group in range(4):
        at = groups == group
        given = {"sample_weight": weights[at]}
        expected = brier_score_loss(labels[at], scores[at], **given)
        np.testing.assert_allclose(brier[group], expected, rtol=1e-5)
        if group != 2:
            expected = average_precision_score(labels[at], scores[at], **given)
            np.testing.assert_allclose(precision[group], expected, rtol=1e-5)
        if group in (0, 3):
            expected = roc_auc_score(labels[at], scores[at], **given)
            np.testing.assert_allclose(area[group], expected, rtol=1e-5)
    # scikit-learn warns, raises or divides by zero here; a number would be invented.
    assert np.isnan(area).tolist() == [False, True, True, False, True]
    assert np.isnan(precision).tolist() == [False, False, True, False, True]
    assert np.isnan(brier).tolist() == [False] * 4 + [True]
