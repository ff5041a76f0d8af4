import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fairjax.metrics import (
    auroc,
    auroc_from_order,
    group_auroc,
    grouped_auroc_from_order,
    grouped_score_order,
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


@pytest.mark.slow
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


@pytest.mark.slow
@given(rows)
def test_equals_the_sum_over_pairs_and_weights_equal_repetition(table):
    labels, scores, weights = (np.array(c) for c in zip(*table, strict=True))
    scores = scores.astype(np.float32)
    weighted = auroc(labels, scores, weights)
    np.testing.assert_allclose(weighted, pairs(labels, scores, weights), atol=1e-6)
    repeated = pairs(np.repeat(labels, weights), np.repeat(scores, weights), 1)
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_order_of_a_table_by_hand():
    scores = np.array([0.7, 0.1, np.nan, 0.1, 0.7, 0.3, 0.2], np.float32)
    groups = np.array([2, 0, 2, 0, 2, -1, 2])
    order = grouped_score_order(scores, groups, num_groups=3)
    assert order.order.tolist() == [1, 3, 6, 0, 4, 2, 5]
    assert order.group.tolist() == [0, 0, 2, 2, 2, 2, 3]
    assert order.starts.tolist() == [0, 2, 2, 6]
    assert order.first.tolist() == [0, 0, 2, 3, 3, 5, 6]
    assert order.last.tolist() == [2, 2, 3, 5, 5, 6, 7]
    assert order.missing.tolist() == [False] * 5 + [True, False]
    assert order.num_groups == 3


grouped_rows = st.lists(
    st.tuples(
        st.integers(0, 1), st.integers(-2, 2), st.integers(-1, 2), st.integers(0, 3)
    ),
    min_size=24,
    max_size=24,
)


@pytest.mark.slow
@given(grouped_rows, st.randoms(use_true_random=False))
def test_groups_of_any_composition(table, random):
    """Groups alone, over pairs; in any order of rows; weights as copies or floats."""
    labels, scores, groups, weights = (np.array(c) for c in zip(*table, strict=True))
    scores = scores.astype(np.float32)
    found = group_auroc(labels, scores, groups, num_groups=3, weights=weights)
    floats = group_auroc(
        labels, scores, groups, num_groups=3, weights=weights.astype(np.float32)
    )
    shuffled = np.array(random.sample(range(24), 24))
    again = group_auroc(
        labels[shuffled],
        scores[shuffled],
        groups[shuffled],
        num_groups=3,
        weights=weights[shuffled],
    )
    np.testing.assert_allclose(floats, found, atol=1e-6)
    np.testing.assert_allclose(again, found, atol=1e-6)
    for group in range(3):
        copies = np.where(groups == group, weights, 0)
        expected = pairs(np.repeat(labels, copies), np.repeat(scores, copies), 1)
        np.testing.assert_allclose(found[group], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_a_small_group_after_a_heavy_one_keeps_its_digits(weighted):
    """A running sum over all rows would lose them: 10¹² after 0.01 in float32."""
    labels, scores, rng = case(5, rows=400, levels=10**4)
    groups = np.repeat([0, 1], 200)
    scale = np.repeat([1e9, 1e-2], 200) if weighted else np.repeat([10**6, 1], 200)
    kind = np.float32 if weighted else np.int32
    weights = (scale * rng.integers(1, 5, 400)).astype(kind)
    found = group_auroc(labels, scores, groups, num_groups=2, weights=weights)
    for group in (0, 1):
        at = groups == group
        expected = roc_auc_score(labels[at], scores[at], sample_weight=weights[at])
        np.testing.assert_allclose(found[group], expected, rtol=2e-6)


@pytest.mark.slow
def test_many_rows_in_many_groups():
    labels, scores, rng = case(6, rows=300_000, levels=10**4)
    groups = rng.integers(0, 60, 300_000)
    found = group_auroc(labels, scores, groups, num_groups=60)
    for group in (0, 31, 59):
        at = groups == group
        expected = roc_auc_score(labels[at], scores[at])
        np.testing.assert_allclose(found[group], expected, rtol=3e-6)


@pytest.mark.slow
def test_a_perfect_order_is_exactly_one():
    """Whatever the counts: a share is divided by its total, not scaled."""
    labels = np.repeat([0, 1], [49, 41])
    scores = np.arange(90, dtype=np.float32)
    assert auroc(labels, scores) == 1
    assert auroc(labels, -scores) == 0


def test_a_missing_score_spoils_its_own_group_alone():
    labels, groups = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    scores = np.array([0.2, np.nan, 0.3, 0.4], np.float32)
    found = group_auroc(labels, scores, groups, num_groups=2)
    assert np.isnan(found[0])
    assert found[1] == 1
    kept = group_auroc(labels, scores, np.array([0, -1, 1, 1]), num_groups=2)
    assert np.isnan(kept[0])
    assert kept[1] == 1


def test_no_rows_at_all():
    nothing = np.zeros(0)
    found = group_auroc(
        nothing, nothing.astype(np.float32), nothing.astype(int), num_groups=2
    )
    assert np.isnan(found).all()


@pytest.mark.slow
def test_grouped_replicates_equal_a_loop_and_do_not_sort():
    labels, scores, rng = case(7)
    groups = rng.integers(-1, 3, 200)
    weights = rng.integers(0, 4, (6, 200))
    order = grouped_score_order(scores, groups, num_groups=3)
    mapped = jax.lax.map(
        lambda w: grouped_auroc_from_order(order, labels, w), weights, batch_size=2
    )
    for row, found in zip(weights, mapped, strict=True):
        alone = group_auroc(labels, scores, groups, num_groups=3, weights=row)
        np.testing.assert_allclose(found, alone, rtol=1e-6)
    jaxpr = jax.make_jaxpr(grouped_auroc_from_order)(order, labels, weights[0])
    assert "sort[" not in str(jaxpr)


@pytest.mark.slow
def test_double_precision_is_kept():
    labels, scores, rng = case(8, levels=10**9)
    scores = labels * 0.3 + rng.random(200)
    groups, weights = rng.integers(0, 2, 200), rng.random(200)
    with jax.enable_x64(True):
        found = group_auroc(labels, scores, groups, num_groups=2, weights=weights)
    assert found.dtype == np.float64
    for group in (0, 1):
        at = groups == group
        expected = roc_auc_score(labels[at], scores[at], sample_weight=weights[at])
        np.testing.assert_allclose(found[group], expected, rtol=1e-13)


@pytest.mark.usefixtures("untyped")
def test_columns_of_unequal_length_are_refused():
    scores = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="of one length; got {'scores': \\(3,\\)"):
        grouped_score_order(scores, np.zeros(2, int), num_groups=1)
    with pytest.raises(ValueError, match="num_groups must be at least 1"):
        grouped_score_order(scores, np.zeros(3, int), num_groups=0)
