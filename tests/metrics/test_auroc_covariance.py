import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairjax.metrics import delong, delong_joint, group_auroc


def case(seed, rows=240, levels=12, models=2, patients=60):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    common = rng.normal(labels, 1, rows)
    scores = np.round((common + rng.normal(0, 1, (models, rows))) * levels) / levels
    groups = rng.integers(-1, 3, rows)
    return labels, scores.astype(np.float32), groups, rng.integers(0, patients, rows)


def components(labels, scores):
    """Placements of positives and negatives less the AUROC, over all pairs."""
    x, y = scores[:, labels == 1], scores[:, labels == 0]
    wins = (x[:, :, None] > y[:, None]) + 0.5 * (x[:, :, None] == y[:, None])
    auroc = wins.mean((1, 2))
    centred = np.zeros(scores.shape)
    centred[:, labels == 1] = wins.mean(2) - auroc[:, None]
    centred[:, labels == 0] = wins.mean(1) - auroc[:, None]
    return auroc, centred


def by_pairs(labels, scores):
    """DeLong's covariance as published, from all pairs."""
    auroc, centred = components(labels, scores)
    return auroc, sum(
        np.atleast_2d(np.cov(centred[:, labels == y])) / (labels == y).sum()
        for y in (0, 1)
    )


def by_patients(labels, scores, patients):
    """Obuchowski's covariance as published, patient by patient."""
    auroc, centred = components(labels, scores)
    names = np.unique(patients)
    sums = {
        y: np.array(
            [centred[:, (patients == p) & (labels == y)].sum(1) for p in names]
        ).T
        for y in (0, 1)
    }
    size = {y: (labels == y).sum() for y in (0, 1)}
    number = {y: len(np.unique(patients[labels == y])) for y in (0, 1)}
    factor = {y: n / (n - 1) for y, n in number.items()}
    cross = len(names) / (len(names) - 1) * sums[1] @ sums[0].T / (size[0] * size[1])
    return auroc, sum(
        factor[y] * sums[y] @ sums[y].T / size[y] ** 2 for y in (0, 1)
    ) + cross + cross.T


DOUBLE = pytest.mark.parametrize(
    "double", [False, pytest.param(True, marks=pytest.mark.slow)]
)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 12])
@DOUBLE
def test_equals_the_definition_over_all_pairs(levels, double):
    labels, scores, groups, _ = case(levels, levels=levels)
    with jax.enable_x64(double):
        given = scores.astype(float) if double else scores
        found = delong(labels, given, groups, num_groups=4)
    tolerance = 1e-12 if double else 3e-5
    for group in range(3):
        at = groups == group
        auroc, covariance = by_pairs(labels[at], scores[:, at])
        np.testing.assert_allclose(found.auroc[:, group], auroc, rtol=tolerance)
        np.testing.assert_allclose(found.covariance[group], covariance, rtol=tolerance)
    assert np.isnan(found.auroc[:, 3]).all()
    assert np.isnan(found.covariance[3]).all()


def test_a_table_by_hand():
    """Placements 1/2, 1 and 1, 1/2: each has variance 1/8, and there are two."""
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8], "f4")
    found = delong(labels, scores, np.zeros(4, int), num_groups=1)
    assert found.auroc.tolist() == [[0.75]]
    assert found.covariance.tolist() == [[[0.125]]]
    # One negative alone says nothing about how negatives vary.
    lone = delong(np.array([1, 0, 2, 1]), scores, np.zeros(4, int), num_groups=1)
    assert lone.auroc.tolist() == [[0.5]]
    assert np.isnan(lone.covariance).all()


@pytest.mark.slow
def test_a_perfect_auroc_has_no_variance():
    labels = np.tile([0, 0, 1, 1], 60)
    scores = np.tile(np.array([0.1, 0.2, 0.3, 0.4], "f4"), 60)
    scores = np.stack([scores, -scores])
    found = delong(labels, scores, np.zeros(240, int), num_groups=4)
    assert found.auroc[:, 0].tolist() == [1, 0]
    assert (found.covariance[0] == 0).all()


@DOUBLE
def test_patients_equal_the_published_formula(double):
    labels, scores, groups, patients = case(2)
    with jax.enable_x64(double):
        given = scores.astype(float) if double else scores
        found = delong(
            labels, given, groups, num_groups=4, patients=patients, num_patients=60
        )
    tolerance = 1e-12 if double else 1e-4
    for group in range(3):
        at = groups == group
        auroc, covariance = by_patients(labels[at], scores[:, at], patients[at])
        np.testing.assert_allclose(found.auroc[:, group], auroc, rtol=tolerance)
        np.testing.assert_allclose(found.covariance[group], covariance, rtol=tolerance)
    assert np.isnan(found.covariance[3]).all()


@pytest.mark.slow
def test_copies_of_a_patients_row_add_no_information():
    """Three copies of 80 rows, of which the first are the table without copies."""
    labels, scores, groups, _ = case(4, rows=80)
    labels, groups = np.tile(labels, 3), np.tile(groups, 3)
    scores = np.tile(scores, (1, 3))
    first = np.where(np.arange(240) < 80, groups, -1)
    plain = delong(labels, scores, first, num_groups=4)
    patients = np.tile(np.arange(80), 3)
    copied = delong(
        labels, scores, groups, num_groups=4, patients=patients, num_patients=240
    )
    np.testing.assert_allclose(copied.covariance, plain.covariance, rtol=1e-4)
    naive = delong(labels, scores, groups, num_groups=4)
    smaller = naive.covariance[:3, 0, 0] < 0.5 * plain.covariance[:3, 0, 0]
    assert smaller.all()


@pytest.mark.slow
def test_joint_covariance_over_groups():
    """Diagonal blocks are the groups' own; the others are sums over shared patients."""
    labels, scores, groups, patients = case(5)
    options = {"num_groups": 3, "num_patients": 60}
    with jax.enable_x64(True):
        double = scores.astype(float)
        joint = delong_joint(labels, double, groups, patients, **options)
        own = delong(labels, double, groups, patients=patients, **options)
    np.testing.assert_allclose(joint.auroc, own.auroc, rtol=1e-12)
    pieces, factors = [], []
    for group in range(3):
        at = groups == group
        np.testing.assert_allclose(
            joint.covariance[:, group, :, group], own.covariance[group], rtol=1e-10
        )
        _, centred = components(labels[at], scores[:, at])
        piece = np.zeros((2, 2, 60))
        for y in (0, 1):
            mine = labels[at] == y
            for model in (0, 1):
                share = centred[model, mine] / mine.sum()
                np.add.at(piece[y, model], patients[at][mine], share)
        pieces.append(piece)
        numbers = [len(np.unique(patients[at & (labels == y)])) for y in (0, 1)]
        both = len(np.unique(patients[at]))
        correction = [n / (n - 1) for n in (*numbers, both)]
        factors.append(
            np.array([[correction[0], correction[2]], [correction[2], correction[1]]])
        )
    for g in range(3):
        for h in range(3):
            inner = np.einsum("amp,bnp->abmn", pieces[g], pieces[h])
            expected = np.einsum("ab,abmn->mn", np.sqrt(factors[g] * factors[h]), inner)
            np.testing.assert_allclose(
                joint.covariance[:, g, :, h], expected, rtol=1e-9, atol=1e-12
            )
    flat = joint.covariance.reshape(6, 6)
    np.testing.assert_array_equal(flat, flat.T)


@pytest.mark.slow
def test_groups_of_other_patients_are_uncorrelated():
    labels, scores, groups, _ = case(6)
    joint = delong_joint(
        labels, scores, groups, np.arange(240), num_groups=3, num_patients=240
    )
    blocks = np.moveaxis(np.asarray(joint.covariance), 2, 1)
    own = delong(labels, scores, groups, num_groups=4).covariance
    for g in range(3):
        for h in range(3):
            expected = own[g] if g == h else np.zeros((2, 2))
            np.testing.assert_allclose(blocks[:, :, g, h], expected, rtol=1e-4)


grouped_rows = st.lists(
    st.tuples(
        st.integers(0, 1), st.integers(-2, 2), st.integers(-1, 2), st.integers(0, 7)
    ),
    min_size=24,
    max_size=24,
)


@pytest.mark.slow
@given(grouped_rows, st.randoms(use_true_random=False))
def test_properties(table, random):
    labels, scores, groups, patients = (np.array(c) for c in zip(*table, strict=True))
    scores = np.stack([scores, scores**2]).astype(np.float32)
    found = delong(labels, scores, groups, num_groups=3)
    size = {"num_groups": 3, "num_patients": 8}
    clustered = delong(labels, scores, groups, patients=patients, **size)
    order = np.array(random.sample(range(24), 24))
    again = delong(
        labels[order],
        scores[:, order],
        groups[order],
        patients=patients[order],
        **size,
    )
    np.testing.assert_allclose(again.covariance, clustered.covariance, atol=1e-6)
    for model in (0, 1):
        alone = group_auroc(labels, scores[model], groups, num_groups=3)
        np.testing.assert_allclose(found.auroc[model], alone, atol=1e-6)
    for group in range(3):
        at = groups == group
        if min((labels[at] == y).sum() for y in (0, 1)) < 2:
            assert np.isnan(found.covariance[group]).all()
            continue
        _, covariance = by_pairs(labels[at], scores[:, at])
        np.testing.assert_allclose(found.covariance[group], covariance, atol=1e-6)
        both = [len(np.unique(patients[at & (labels == y)])) for y in (0, 1)]
        if min(both) > 1:
            _, covariance = by_patients(labels[at], scores[:, at], patients[at])
            np.testing.assert_allclose(
                clustered.covariance[group], covariance, atol=1e-6
            )
        else:
            assert np.isnan(clustered.covariance[group]).all()


def test_a_missing_score_spoils_its_group_and_model_alone():
    labels, scores, groups, _ = case(7)
    scores[0, np.flatnonzero(groups == 1)[0]] = np.nan
    found = delong(labels, scores, groups, num_groups=3)
    assert np.isnan(found.auroc).tolist() == [[False, True, False], [False] * 3]
    assert np.isnan(found.covariance).any((1, 2)).tolist() == [False, True, False]
    assert np.isfinite(found.covariance[1, 1, 1])


@pytest.mark.slow
def test_mapped_equals_a_loop():
    labels, scores, groups, patients = case(8, models=3)
    clusters = {"num_groups": 3, "patients": patients, "num_patients": 60}
    mapped = jax.vmap(lambda s: delong(labels, s, groups, **clusters))(scores)
    for row, auroc, covariance in zip(scores, *mapped, strict=True):
        alone = delong(labels, row, groups, **clusters)
        np.testing.assert_allclose(auroc, alone.auroc, rtol=1e-6)
        np.testing.assert_allclose(covariance, alone.covariance, rtol=1e-5)


def test_no_rows_at_all():
    nothing = np.zeros(0, int)
    scores = np.zeros((2, 0), np.float32)
    found = delong(
        nothing, scores, nothing, num_groups=3, patients=nothing, num_patients=1
    )
    assert found.auroc.shape == (2, 3)
    assert np.isnan(found.auroc).all()
    assert np.isnan(found.covariance).all()
