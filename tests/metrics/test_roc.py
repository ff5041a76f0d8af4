import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from fairjax.metrics import abroca, group_auroc, roc_curve_at


def case(seed, rows=200, levels=15, groups=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    group = rng.integers(-1, groups, rows)
    shift = labels * (1 + np.maximum(group, 0))
    scores = (rng.integers(0, levels, rows) + shift).astype(np.float32)
    return labels, scores / levels, group, rng


def curve(labels, scores, weights):
    fpr, tpr, _ = roc_curve(
        labels, scores, sample_weight=weights, drop_intermediate=False
    )
    return fpr, tpr


def area_between(one, other):
    """The integral of the absolute difference, interval by interval, in float64.

    The lines are found from two points inside each interval, where no curve jumps.
    """
    ends = np.union1d(one[0], other[0])
    start, width = ends[:-1], np.diff(ends)
    first, second = (
        np.interp(start + width * t, *one) - np.interp(start + width * t, *other)
        for t in (1 / 3, 2 / 3)
    )
    left, right = 2 * first - second, 2 * second - first
    sizes = np.abs(left) + np.abs(right)
    crossing = (left**2 + right**2) / np.where(sizes > 0, sizes, 1)
    return (np.where(left * right < 0, crossing, sizes) / 2 * width).sum()


def test_area_between_curves_that_cross_by_hand():
    """(0,0)-(1,1) against (0,0)-(.5,0)-(.5,1)-(1,1): two triangles of 1/8."""
    labels = np.array([0, 1, 0, 1, 0])
    scores = np.array([0.5, 0.5, 0.9, 0.5, 0.1], np.float32)
    groups = np.array([0, 0, 1, 1, 1])
    found = abroca(labels, scores, groups, num_groups=2)
    np.testing.assert_allclose(found, [[0, 0.25], [0.25, 0]], atol=1e-6)
    # Equal areas under them: what a difference of AUROCs does not see.
    np.testing.assert_allclose(
        group_auroc(labels, scores, groups, num_groups=2), [0.5, 0.5]
    )


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 3, 15, 10**6])
@pytest.mark.parametrize("weighted", [False, True])
def test_area_equals_that_between_sklearns_curves(levels, weighted):
    labels, scores, groups, rng = case(levels, levels=levels)
    weights = rng.random(200).astype(np.float32) if weighted else None
    found = abroca(labels, scores, groups, num_groups=5, weights=weights)
    curves = []
    for group in range(4):
        at = groups == group
        mass = None if weights is None else weights[at]
        curves.append(curve(labels[at], scores[at], mass))
    expected = [[area_between(a, b) for a in curves] for b in curves]
    np.testing.assert_allclose(found[:4, :4], expected, atol=2e-6)
    assert np.isnan(found[4]).all()
    assert np.isnan(found[:, 4]).all()


@pytest.mark.slow
def test_area_of_more_rows_than_a_block():
    """Lines are carried from one block of intervals to the next."""
    labels, scores, groups, _ = case(3, rows=6000, levels=10**5, groups=40)
    found = abroca(labels, scores, groups, num_groups=40)
    for a, b in ((0, 1), (7, 33), (39, 2)):
        one, other = (
            curve(labels[groups == g], scores[groups == g], None) for g in (a, b)
        )
        np.testing.assert_allclose(found[a, b], area_between(one, other), atol=2e-6)


grouped_rows = st.lists(
    st.tuples(
        st.integers(0, 1), st.integers(-2, 2), st.integers(-1, 2), st.integers(0, 3)
    ),
    min_size=24,
    max_size=24,
)


@pytest.mark.slow
@settings(max_examples=10)
@given(grouped_rows, st.randoms(use_true_random=False))
def test_area_properties(table, random):
    labels, scores, groups, weights = (np.array(c) for c in zip(*table, strict=True))
    scores = scores.astype(np.float32)
    found = abroca(labels, scores, groups, num_groups=3, weights=weights)
    floats = weights.astype(np.float32)
    found_of_floats = abroca(labels, scores, groups, num_groups=3, weights=floats)
    np.testing.assert_allclose(found_of_floats, found, atol=1e-6)
    shuffled = np.array(random.sample(range(24), 24))
    columns = (c[shuffled] for c in (labels, scores, groups))
    again = abroca(*columns, num_groups=3, weights=weights[shuffled])
    np.testing.assert_allclose(again, found, atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-7)
    aurocs = group_auroc(labels, scores, groups, num_groups=3, weights=weights)
    apart = np.abs(np.subtract.outer(aurocs, aurocs))
    assert (np.isnan(found) == np.isnan(apart)).all()
    assert (np.nan_to_num(found) >= np.nan_to_num(apart) - 1e-6).all()
    known = np.flatnonzero(~np.isnan(aurocs))
    for a in known:
        for b in known:
            one, other = (
                curve(labels[groups == g], scores[groups == g], weights[groups == g])
                for g in (a, b)
            )
            np.testing.assert_allclose(found[a, b], area_between(one, other), atol=1e-6)


@pytest.mark.slow
def test_a_missing_score_spoils_its_group_alone():
    labels, scores, groups, _ = case(4)
    scores[np.flatnonzero(groups == 1)[0]] = np.nan
    found = abroca(labels, scores, groups, num_groups=5)
    assert np.isnan(found[1]).all()
    assert not np.isnan(found[0, 2])
    drawn = roc_curve_at(labels, scores, groups, num_groups=3).tpr
    assert np.isnan(drawn[1]).all()
    assert not np.isnan(drawn[0]).any()


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 3, 15, 10**6])
def test_drawn_curves_equal_sklearns(levels):
    labels, scores, groups, rng = case(levels, levels=levels)
    weights = rng.integers(1, 4, 200)
    # A prime number of intervals: its points are at nobody's jumps, but for the ends.
    drawn = roc_curve_at(
        labels, scores, groups, num_groups=5, num_points=98, weights=weights
    )
    assert np.isnan(drawn.tpr[4]).all()
    for group in range(4):
        at = groups == group
        fpr, tpr = curve(labels[at], scores[at], weights[at])
        inner = np.interp(np.arange(1, 97) / 97, fpr, tpr)
        np.testing.assert_allclose(drawn.tpr[group, 1:-1], inner, atol=2e-5)
        # The upper end of the rise at 0.
        np.testing.assert_allclose(drawn.tpr[group, 0], tpr[fpr == 0].max(), atol=1e-6)
        assert drawn.tpr[group, -1] == 1


def test_a_drawn_curve_takes_the_upper_end_of_a_rise():
    labels = np.array([0, 1, 1, 0])
    scores = np.array([0.9, 0.6, 0.6, 0.1], np.float32)
    drawn = roc_curve_at(labels, scores, np.zeros(4, int), num_groups=1, num_points=5)
    assert drawn.fpr.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert drawn.tpr.tolist() == [[0, 0, 1, 1, 1]]


@pytest.mark.slow
def test_drawing_without_rows_and_with_too_few_points():
    nothing = np.zeros(0, np.float32)
    groups = np.zeros(0, int)
    drawn = roc_curve_at(nothing, nothing, groups, num_groups=2, num_points=3)
    assert np.isnan(drawn.tpr).all()
    assert np.isnan(abroca(nothing, nothing, groups, num_groups=2)).all()
    with pytest.raises(ValueError, match="num_points must be at least 2"):
        roc_curve_at(nothing, nothing, groups, num_groups=2, num_points=1)


@pytest.mark.slow
def test_mapped_equals_a_loop():
    labels, _, groups, rng = case(5)
    scores = rng.random((3, 200)).astype(np.float32)
    mapped = jax.vmap(lambda s: abroca(labels, s, groups, num_groups=3))(scores)
    for row, found in zip(scores, mapped, strict=True):
        alone = abroca(labels, row, groups, num_groups=3)
        np.testing.assert_allclose(found, alone, atol=1e-6)
