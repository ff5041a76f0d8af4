import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from fairjax.metrics import (
    auroc,
    auroc_from_order,
    brier_score,
    group_auroc,
    score_order,
    worst_group,
)


def case(seed, rows=200, levels=15):
    """Rows with many tied scores."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    scores = (rng.integers(0, levels, rows) + labels).astype(np.float32) / levels
    return labels, scores, rng


def pairs(labels, scores, weights):
    """The definition, over all pairs, in float64."""
    win = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
    mass = np.outer(weights * (labels == 1), weights * (labels == 0))
    return (mass * win).sum() / mass.sum() if mass.sum() else np.nan


@pytest.mark.parametrize("levels", [1, 2, 15, 10**6])
def test_equals_sklearn_with_ties_and_weights(levels):
    labels, scores, rng = case(levels, levels=levels)
    weights = rng.random(200).astype(np.float32)
    np.testing.assert_allclose(
        auroc(labels, scores), roc_auc_score(labels, scores), rtol=1e-6
    )
    np.testing.assert_allclose(
        auroc(labels, scores, weights),
        roc_auc_score(labels, scores, sample_weight=weights),
        rtol=2e-6,
    )


def test_is_accurate_on_many_rows():
    labels, scores, _ = case(0, rows=300_000, levels=10**5)
    np.testing.assert_allclose(
        auroc(labels, scores), roc_auc_score(labels, scores), rtol=1e-6
    )


rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 3)),
    min_size=15,
    max_size=15,
)


@given(rows)
def test_equals_the_sum_over_pairs_and_weights_equal_repetition(table):
    labels, scores, weights = (np.array(c) for c in zip(*table, strict=True))
    scores = scores.astype(np.float32)
    weighted = auroc(labels, scores, weights)
    np.testing.assert_allclose(weighted, pairs(labels, scores, weights), atol=1e-6)
    repeated = pairs(np.repeat(labels, weights), np.repeat(scores, weights), 1)
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)


@given(rows)
def test_flipping_labels_or_scores_complements(table):
    labels, scores, weights = (np.array(c) for c in zip(*table, strict=True))
    scores = scores.astype(np.float32)
    value = auroc(labels, scores, weights)
    np.testing.assert_allclose(auroc(1 - labels, scores, weights), 1 - value, atol=1e-6)
    np.testing.assert_allclose(auroc(labels, -scores, weights), 1 - value, atol=1e-6)


def test_one_class_or_a_missing_score_is_undefined():
    scores = np.array([0.1, 0.2, 0.9], np.float32)
    assert np.isnan(auroc(np.ones(3, int), scores))
    assert np.isnan(auroc(np.zeros(3, int), scores))
    assert np.isnan(auroc(np.array([0, 1, 1]), scores, np.array([0, 1, 1])))
    missing = np.array([0.1, 0.2, np.nan], np.float32)
    assert np.isnan(auroc(np.array([0, 1, 1]), missing))
    assert auroc(np.array([0, 1, 1]), missing, np.array([1, 1, 0])) == 1


def test_bootstrap_weights_reuse_one_sort():
    labels, scores, rng = case(3)
    weights = rng.integers(0, 4, (6, 200))
    mapped = jax.jit(jax.vmap(auroc_from_order, (None, None, 0)))(
        score_order(scores), labels, weights
    )
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(mapped, expected, rtol=1e-6)


def test_replicates_do_not_sort_again():
    labels, scores, rng = case(3)
    weights = rng.integers(0, 4, (6, 200))
    jaxpr = jax.make_jaxpr(jax.vmap(auroc_from_order, (None, None, 0)))(
        score_order(scores), labels, weights
    )
    assert "sort[" not in str(jaxpr)
    assert "sort[" in str(jax.make_jaxpr(score_order)(scores))


def test_group_auroc_equals_each_group_alone():
    labels, scores, rng = case(4)
    groups = rng.integers(-1, 3, 200)
    groups[labels == 1] = np.where(groups[labels == 1] == 2, 1, groups[labels == 1])
    weights = rng.random(200).astype(np.float32)
    result = jax.jit(group_auroc, static_argnames="num_groups")(
        labels, scores, groups, num_groups=4, weights=weights
    )
    for group in (0, 1):
        at = groups == group
        expected = roc_auc_score(labels[at], scores[at], sample_weight=weights[at])
        np.testing.assert_allclose(result[group], expected, rtol=2e-6)
    # Group 2 has no positives here and group 3 no rows.
    assert np.isnan(result[2:]).all()


def test_worst_group_skips_groups_without_a_value():
    worst = worst_group(jnp.array([jnp.nan, 0.75, 0.5, 0.5]))
    assert (worst.value, worst.group) == (0.5, 2)
    none = jax.jit(worst_group)(jnp.full(3, jnp.nan))
    assert np.isnan(none.value)
    assert none.group == -1


def test_brier_equals_sklearn():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 50), rng.random(50).astype(np.float32)
    weights = rng.integers(0, 3, 50)
    np.testing.assert_allclose(
        brier_score(labels, scores), brier_score_loss(labels, scores), rtol=1e-5
    )
    weighted = jax.jit(brier_score)(labels, scores, weights)
    np.testing.assert_allclose(
        weighted, brier_score_loss(labels, scores, sample_weight=weights), rtol=1e-5
    )
    assert np.isnan(brier_score(labels, scores, np.zeros(50, int)))
