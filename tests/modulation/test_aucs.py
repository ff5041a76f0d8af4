"""AUCs of batches: by hand, against scikit-learn, and as properties."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fairjax import modulation
from tests.modulation import transcription

group_aucs = jax.jit(modulation.group_aucs, static_argnames=("num_groups", "kind"))

KINDS = {
    "exact": transcription.step_function,
    "released": transcription.released_surrogate,
    "paper": transcription.paper_surrogate,
}
ROWS, MODALITIES, GROUPS = 12, 2, 3


def test_by_hand():
    """One positive at .5 against negatives at 0, .5 and 1: a win, a tie, a loss."""
    scores = jnp.array([[0.5], [0.0], [0.5], [1.0]])
    labels = jnp.array([1, 0, 0, 0])
    found = {
        kind: group_aucs(scores, labels, kind=kind).values.item() for kind in KINDS
    }
    losses = [math.log(1 + math.exp(d)) for d in (-0.5, 0.0, 0.5)]
    wanted = {
        "exact": 0.5,
        "released": 1 - sum(losses) / 3,
        "paper": 1 - sum(losses) / 3 / (2 * math.log(2)),
    }
    assert found == pytest.approx(wanted, rel=1e-6)


def test_groups_and_modalities_by_hand():
    scores = jnp.array([[0.9, 0.2], [0.4, 0.6], [0.6, 0.6], [0.1, 0.7]])
    labels, groups = jnp.array([1, 0, 1, 0]), jnp.array([0, 0, 1, 1])
    found = group_aucs(scores, labels, groups, num_groups=3)
    np.testing.assert_array_equal(found.values, [[1, 1, 0.5], [0, 0, 0.5]])
    np.testing.assert_array_equal(found.defined, [[True, True, False]] * 2)


@pytest.mark.parametrize("seed", range(4))
def test_exact_is_that_of_scikit_learn(seed):
    """By modality and group, with ties and with modalities that rows lack."""
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(0, 2, 60), rng.integers(0, GROUPS, 60)
    scores = np.round(rng.random((60, MODALITIES)) + 0.3 * labels[:, None], 1)
    scores = scores.astype(np.float32)
    present = rng.random(scores.shape) < 0.7
    found = group_aucs(
        jnp.asarray(scores),
        jnp.asarray(labels),
        jnp.asarray(groups),
        num_groups=GROUPS,
        present=jnp.asarray(present),
    )
    assert found.defined.all()
    for m, g in itertools.product(range(MODALITIES), range(GROUPS)):
        rows = (groups == g) & present[:, m]
        wanted = roc_auc_score(labels[rows], scores[rows, m])
        np.testing.assert_allclose(found.values[m, g], wanted, rtol=1e-6)


@st.composite
def batches(draw):
    """Scores on a grid, so that some tie; labels and groups of which some are none."""
    numbers = draw(
        st.lists(
            st.tuples(
                st.integers(0, 8),
                st.integers(0, 8),
                st.integers(-1, 1),
                st.integers(-1, GROUPS),
                st.booleans(),
                st.booleans(),
            ),
            min_size=ROWS,
            max_size=ROWS,
        )
    )
    table = np.array(numbers)
    return {
        "scores": jnp.asarray(table[:, :2] / 8, jnp.float32),
        "labels": jnp.asarray(table[:, 2]),
        "groups": jnp.asarray(table[:, 3]),
        "present": jnp.asarray(table[:, 4:], bool),
    }


def aucs(batch, kind):
    return jax.tree.map(np.asarray, group_aucs(**batch, num_groups=GROUPS, kind=kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(batch=batches(), seed=st.integers(0, 1000))
def test_properties(kind, batch, seed):
    rng = np.random.default_rng(seed)
    found = aucs(batch, kind)
    numpy = {name: np.asarray(value) for name, value in batch.items()}
    for m, g in itertools.product(range(MODALITIES), range(GROUPS)):
        rows = np.flatnonzero((numpy["groups"] == g) & numpy["present"][:, m])
        wanted = transcription.mean_over_pairs(
            KINDS[kind], numpy["scores"][:, m].astype(np.float64), numpy["labels"], rows
        )
        assert found.defined[m, g] == (wanted is not None)
        # A surrogate is 1 less a loss, and rounded as 1 is where it is near 0.
        wanted = 0.5 if wanted is None else wanted
        np.testing.assert_allclose(found.values[m, g], wanted, rtol=2e-6, atol=6e-8)
    # Whatever the order of rows, modalities and groups.
    order = rng.permutation(ROWS)
    close(aucs({name: value[order] for name, value in batch.items()}, kind), found)
    swapped = {name: batch[name][:, ::-1] for name in ("scores", "present")}
    close(aucs(batch | swapped, kind), [part[::-1] for part in found])
    place = rng.permutation(GROUPS)
    inside = (numpy["groups"] >= 0) & (numpy["groups"] < GROUPS)
    renamed = np.where(inside, np.append(place, -1)[numpy["groups"]], -1)
    close(
        [
            part[:, place]
            for part in aucs(batch | {"groups": jnp.asarray(renamed)}, kind)
        ],
        found,
    )
    # Whatever stands where nothing counts.
    nowhere = ~numpy["present"] | (numpy["labels"] < 0)[:, None]
    holes = jnp.where(nowhere, jnp.nan, batch["scores"])
    close(aucs(batch | {"scores": holes}, kind), found, exactly=True)
    padding = {
        "scores": jnp.array([[jnp.nan, 0.3], [0.9, jnp.inf]]),
        "labels": jnp.array([-1, 1]),
        "groups": jnp.array([0, -1]),
        "present": jnp.ones((2, 2), bool),
    }
    longer = {name: jnp.concatenate([batch[name], padding[name]]) for name in batch}
    close(aucs(longer, kind), found)


def close(one, other, exactly=False):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0 if exactly else 1e-6)


def slope(kind, **sizes):
    """The derivative of the sum of AUCs by the scores, compiled."""
    return jax.jit(
        jax.grad(lambda *rows: jnp.sum(group_aucs(*rows, **sizes, kind=kind).values))
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_scores_that_are_not_finite_are_absent_and_touch_no_other_group(kind):
    scores = jnp.array([[0.9], [0.1], [jnp.nan], [0.4], [jnp.inf], [0.7]])
    labels, groups = jnp.array([1, 0, 1, 0, 1, 1]), jnp.array([0, 0, 1, 1, 1, 1])
    found = group_aucs(scores, labels, groups, num_groups=2, kind=kind)
    finite = jnp.isfinite(scores)
    wanted = group_aucs(
        jnp.where(finite, scores, 0.0),
        labels,
        groups,
        num_groups=2,
        kind=kind,
        present=finite,
    )
    close(found, wanted, exactly=True)
    assert np.isfinite(found.values).all()
    slopes = slope(kind, num_groups=2)(scores, labels, groups)
    assert np.isfinite(slopes).all()


def test_tiny_scores_are_told_apart():
    """Their differences are below the smallest normal number."""
    scores = jnp.array([[1.3e-38], [1.2e-38]])
    assert group_aucs(scores, jnp.array([1, 0])).values.item() == 1


@pytest.mark.slow
def test_half_precision_is_widened_and_double_kept():
    labels = jnp.array([1, 0])
    scores = jnp.array([[0.75], [0.25]], jnp.bfloat16)
    found = group_aucs(scores, labels, kind="paper").values
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, transcription.paper_surrogate(0.5), rtol=1e-6)
    with jax.enable_x64(True):
        scores = jnp.array([[0.5 + 1e-12], [0.5]], jnp.float64)
        assert group_aucs(scores, labels).values.item() == 1
        found = group_aucs(scores, labels, kind="paper").values.item()
        assert found - 0.5 == pytest.approx(1e-12 / (4 * math.log(2)), rel=1e-3)


def test_only_the_surrogates_have_a_derivative():
    scores, labels = jnp.array([[0.6], [0.4]]), jnp.array([1, 0])
    slopes = {kind: slope(kind)(scores, labels)[:, 0] for kind in KINDS}
    steep = 1 / (1 + math.exp(0.2))
    np.testing.assert_array_equal(slopes["exact"], [0, 0])
    np.testing.assert_allclose(slopes["released"], [steep, -steep], rtol=1e-6)
    scaled = steep / (2 * math.log(2))
    np.testing.assert_allclose(slopes["paper"], [scaled, -scaled], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "scale"), [("released", 1), ("paper", 2 * math.log(2))]
)
def test_tied_scores_are_pulled_apart(kind, scale):
    """The logistic loss has the slope -1/2 at 0: a head that starts at 0 must learn."""
    scores, labels = jnp.full((4, 1), 0.5), jnp.array([1, 1, 0, 0])
    slopes = slope(kind)(scores, labels)
    expected = np.array([1, 1, -1, -1]) / (4 * scale)
    np.testing.assert_allclose(slopes[:, 0], expected, rtol=1e-6)
