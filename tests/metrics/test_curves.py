import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from fairjax.metrics import (
    auprc,
    cross_auroc,
    equity_scaled_auroc,
    group_auprc,
    group_auroc,
    grouped_auprc_from_order,
    grouped_score_order,
)


def case(seed, rows=200, levels=15):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    scores = (rng.integers(0, levels, rows) + labels).astype(np.float32) / levels
    return labels, scores, rng.integers(-1, 3, rows), rng


@pytest.mark.parametrize("levels", [1, 2, 15, 10**6])
def test_average_precision_equals_sklearn(levels):
    labels, scores, _, rng = case(levels, levels=levels)
    weights = rng.random(200).astype(np.float32)
    np.testing.assert_allclose(
        auprc(labels, scores), average_precision_score(labels, scores), rtol=1e-6
    )
    np.testing.assert_allclose(
        auprc(labels, scores, weights),
        average_precision_score(labels, scores, sample_weight=weights),
        rtol=2e-6,
    )


def test_average_precision_by_hand():
    """Tied at .5: both are selected together, at precision 2/3."""
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.9, 0.5, 0.5, 0.1], np.float32)
    np.testing.assert_allclose(auprc(labels, scores), 0.5 * 1 + 0.5 * 2 / 3, rtol=1e-6)


@pytest.mark.slow
def test_average_precision_of_one_class():
    scores = np.array([0.1, 0.2, 0.9], np.float32)
    assert auprc(np.ones(3, int), scores) == 1
    assert np.isnan(auprc(np.zeros(3, int), scores))
    missing = np.array([0.1, np.nan, 0.9], np.float32)
    assert np.isnan(auprc(np.array([1, 0, 1]), missing))
    assert auprc(np.array([1, 0, 1]), missing, np.array([1, 0, 1])) == 1


@pytest.mark.slow
def test_the_top_of_a_long_list_keeps_its_precision():
    """The first hits weigh most, where differences of totals would cancel."""
    rng = np.random.default_rng(0)
    labels = (rng.random(50_000) < 1e-3).astype(int)
    scores = rng.random(50_000).astype(np.float32) + labels
    weights = rng.uniform(0.5, 2, 50_000).astype(np.float32)
    groups = np.zeros(50_000, int)
    found = group_auprc(labels, scores, groups, num_groups=2, weights=weights)
    expected = average_precision_score(labels, scores, sample_weight=weights)
    np.testing.assert_allclose(found[0], expected, rtol=2e-6)


grouped_rows = st.lists(
    st.tuples(
        st.integers(0, 1), st.integers(-2, 2), st.integers(-1, 2), st.integers(0, 3)
    ),
    min_size=24,
    max_size=24,
)


@pytest.mark.slow
@given(grouped_rows, st.randoms(use_true_random=False))
def test_average_precision_of_groups(table, random):
    labels, scores, groups, weights = (np.array(c) for c in zip(*table, strict=True))
    scores = scores.astype(np.float32)
    found = group_auprc(labels, scores, groups, num_groups=3, weights=weights)
    shuffled = np.array(random.sample(range(24), 24))
    columns = (c[shuffled] for c in (labels, scores, groups))
    again = group_auprc(*columns, num_groups=3, weights=weights[shuffled])
    np.testing.assert_allclose(again, found, atol=1e-6)
    for group in range(3):
        copies = np.where(groups == group, weights, 0)
        if (labels * copies).sum() == 0:
            assert np.isnan(found[group])
        else:
            expected = average_precision_score(
                np.repeat(labels, copies), np.repeat(scores, copies)
            )
            np.testing.assert_allclose(found[group], expected, atol=1e-6)


@pytest.mark.slow
def test_average_precision_maps_over_weights():
    labels, scores, groups, rng = case(1)
    weights = rng.integers(0, 4, (3, 200))
    order = grouped_score_order(scores, groups, num_groups=3)
    mapped = jax.vmap(grouped_auprc_from_order, (None, None, 0))(order, labels, weights)
    for row, found in zip(weights, mapped, strict=True):
        alone = group_auprc(labels, scores, groups, num_groups=3, weights=row)
        np.testing.assert_allclose(found, alone, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_auroc_equals_sklearn_on_the_two_groups(weighted):
    labels, scores, groups, rng = case(2)
    weights = rng.random(200).astype(np.float32) if weighted else None
    found = cross_auroc(labels, scores, groups, num_groups=4, weights=weights)
    for a in range(3):
        for b in range(3):
            at = ((groups == a) & (labels == 1)) | ((groups == b) & (labels == 0))
            mass = None if weights is None else weights[at]
            expected = roc_auc_score(labels[at], scores[at], sample_weight=mass)
            np.testing.assert_allclose(found[a, b], expected, rtol=2e-6)
    own = group_auroc(labels, scores, groups, num_groups=4, weights=weights)
    np.testing.assert_allclose(jnp.diag(found), own, rtol=2e-6)
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 3]).all()


def test_cross_auroc_with_a_missing_score():
    """Only the pairs that the row is in are undefined."""
    labels, groups = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    scores = np.array([0.2, np.nan, 0.3, 0.4], np.float32)
    found = cross_auroc(labels, scores, groups, num_groups=2)
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [1, 1]


def test_equity_scaled_auroc_of_a_published_table():
    """fairlearn's fixture, by its first attribute."""
    overall, groups = 0.4358974359, np.array([0.3181818182, 0.5652173913])
    with jax.enable_x64(True):
        found = equity_scaled_auroc(np.array(overall), groups)
    np.testing.assert_allclose(found, 0.3495469137, atol=1e-9)


@pytest.mark.slow
def test_equity_scaled_auroc_aggregates():
    overall, groups = jnp.array(0.75), jnp.array([0.5, 1.0, jnp.nan])
    assert equity_scaled_auroc(overall, groups) == 0.5
    np.testing.assert_allclose(equity_scaled_auroc(overall, groups, agg="mean"), 0.6)
    assert np.isnan(equity_scaled_auroc(overall, jnp.full(2, jnp.nan)))
    batch = equity_scaled_auroc(jnp.full(2, 0.75), jnp.stack([groups, groups]))
    assert batch.tolist() == [0.5, 0.5]
