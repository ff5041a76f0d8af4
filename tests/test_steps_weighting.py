"""Steps that weigh rows, one at a time, against values worked out by hand."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fairjax
from fairjax import steps
from fairjax.reconcilers import hulls

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)
GRAM = ROWS @ ROWS.T
TWO = jnp.eye(2)
# Gradients of the lengths 1 and 3, and their sum beside the second: rows of 2 × 3.
LENGTHS = np.diag(np.array([1.0, 9.0, 4.0], np.float32))
CHAINED = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0]], np.float32)


projected = jax.jit(hulls._project)
compiled = functools.cache(lambda step: jax.jit(step.update))


def run(step, gram, coefficients=None, mask=None):
    """An update, compiled once for each step and shape: there is a mask always."""
    coefficients = np.eye(len(gram)) if coefficients is None else coefficients
    coefficients = np.asarray(coefficients, np.float32)
    mask = np.ones(len(gram), bool) if mask is None else mask
    update = compiled(step)
    return update(coefficients, gram, step.init(len(coefficients)), mask=mask)


WEIGHTINGS = {
    "imtl_g": steps.imtl_g(),
    "aligned_mtl": steps.aligned_mtl(),
    "conflict_free": steps.conflict_free(),
    "nash_mtl": steps.nash_mtl(),
    "nash_mtl kept": steps.nash_mtl(update_every=3),
    "fairgrad_alpha": steps.fairgrad_alpha(2.0),
    "random_weighting": steps.random_weighting(),
}


def some(*quick):
    """All weightings, of which those that are not quick are marked slow."""
    names = [
        name if name in quick else pytest.param(name, marks=pytest.mark.slow)
        for name in WEIGHTINGS
    ]
    return pytest.mark.parametrize("name", names)


@pytest.mark.parametrize(
    ("step", "update"),
    [
        (WEIGHTINGS["imtl_g"], [0.0767, 1, 1]),
        (WEIGHTINGS["aligned_mtl"], [0.2133, 0.9673, 0.9673]),
        (WEIGHTINGS["conflict_free"], [0.1588, 2.0706, 2.0706]),
        (steps.nash_mtl(max_norm=1.0), [0.0542, 0.7061, 0.7061]),
        (steps.fairgrad_alpha(1.0), [0.0766, 0.9985, 0.9985]),
    ],
)
def test_published_updates(step, update):
    weights, _ = run(step, GRAM)
    np.testing.assert_allclose(weights[0] @ ROWS, update, atol=1e-4)


@some("imtl_g", "conflict_free")
def test_rows_are_weighed_by_their_own_lengths(name):
    """Rows of the lengths 1 and 5, orthogonal, as if they were gradients."""
    step = WEIGHTINGS[name]
    own = jnp.diag(jnp.array([1.0, 25.0]))
    alone, _ = run(step, own)
    chained, _ = run(step, LENGTHS, CHAINED)
    np.testing.assert_allclose(chained, alone @ CHAINED, rtol=1e-5)


@some("imtl_g", "aligned_mtl", "conflict_free", "nash_mtl")
def test_masked_and_zero_rows_get_nothing(name):
    step = WEIGHTINGS[name]
    masked, _ = run(step, LENGTHS, mask=np.array([True, False, True]))
    assert masked[0, 1] == 0
    assert (masked[0, jnp.array([0, 2])] > 0).all()
    zero, _ = run(step, np.diag(np.array([1.0, 0.0, 4.0], np.float32)))
    np.testing.assert_allclose(zero, masked, rtol=1e-5)
    none, _ = run(step, np.zeros((3, 3), np.float32))
    np.testing.assert_array_equal(none, [[0, 0, 0]])


@pytest.mark.parametrize(
    "step",
    [
        steps.imtl_g(),
        steps.aligned_mtl(),
        steps.conflict_free(),
        pytest.param(steps.nash_mtl(normalize=True), marks=pytest.mark.slow),
        steps.fairgrad_alpha(normalize=True),
        pytest.param(steps.random_weighting(), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("length", [1e-9, 3.0, 1e9])
def test_one_objective_is_left_as_it_is(step, length):
    found, _ = run(step, np.array([[length**2]], np.float32))
    np.testing.assert_allclose(found, [[1]], rtol=1e-5)


class TestNashMTL:
    @pytest.mark.parametrize(
        "scale",
        [1.0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1e-18, 1e-3, 1e18))],
    )
    def test_normalize_and_max_norm(self, scale):
        def length(step):
            weights, _ = run(step, GRAM * scale)
            scaled = np.asarray(weights, np.float64) * np.sqrt(scale)
            return np.linalg.norm(scaled @ ROWS)

        # √m; √(m ‖G‖) = √2 · √‖G‖; and no more than was asked for.
        norm = float(np.sqrt(np.linalg.norm(GRAM) * scale))
        assert length(steps.nash_mtl()) == pytest.approx(2**0.5, 1e-4)
        assert length(steps.nash_mtl(normalize=True)) == pytest.approx(
            norm * 2**0.5, 1e-4
        )
        limited = steps.nash_mtl(normalize=True, max_norm=norm)
        assert length(limited) == pytest.approx(norm, 1e-4)
        wide = steps.nash_mtl(normalize=True, max_norm=norm * 2)
        assert length(wide) == pytest.approx(norm * 2**0.5, 1e-4)

    def test_weights_are_kept_between_solutions(self):
        step = steps.nash_mtl(update_every=3)
        state = step.init(2)
        update = jax.jit(step.update)
        found = []
        for scale in (1.0, 4.0, 9.0, 16.0, 25.0):
            row, state = update(jnp.eye(2), jnp.eye(2) * scale, state)
            found.append(float(row[0, 0]))
        np.testing.assert_allclose(found, [1, 1, 1, 1 / 4, 1 / 4], rtol=1e-5)
        masked, _ = update(jnp.eye(2), jnp.eye(2), state, mask=jnp.array([True, False]))
        np.testing.assert_allclose(masked, [[1 / 4, 0]], rtol=1e-5)

    def test_diagnostics(self):
        transform = fairjax.reconcile(steps.nash_mtl(), num_objectives=2)
        _, state = transform.update(jnp.asarray(ROWS), transform.init(None))
        assert optax.tree.get(state, "residual") < 1e-4
        opposite = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
        updates, state = transform.update(opposite, transform.init(None))
        assert optax.tree.get(state, "residual") > 0.9
        assert optax.tree.get(state, "iterations") <= 64
        np.testing.assert_allclose(updates, [0, 0], atol=1e-4)

    def test_bad_options(self):
        with pytest.raises(ValueError, match="update_every must be at least 1; got 0"):
            steps.nash_mtl(update_every=0)
        with pytest.raises(ValueError, match="max_norm must be positive; got 0"):
            steps.nash_mtl(max_norm=0.0)
        step = steps.nash_mtl(update_every=2)
        with pytest.raises(ValueError, match="keeps 3 weights; got 2 rows"):
            step.update(jnp.asarray(CHAINED), jnp.asarray(LENGTHS), step.init(3))


def test_alpha_may_be_traced():
    def update(alpha):
        return run(steps.fairgrad_alpha(alpha), GRAM)[0]

    both = jax.jit(jax.vmap(update))(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(both[1], update(2.0), rtol=1e-4)
    with pytest.raises(ValueError, match="alpha must be positive; got 0"):
        steps.fairgrad_alpha(0.0)


def test_preferences_that_do_not_fit():
    for make in (steps.conflict_free, steps.aligned_mtl):
        with pytest.raises(ValueError, match="0 or more for each row, not all 0"):
            make(preference=[1.0, -1.0])
        with pytest.raises(ValueError, match=r"has shape \(2,\); one number for each"):
            run(make(preference=[1.0, 2.0]), LENGTHS)
        with pytest.raises(ValueError, match="tolerance must be 0 or more; got -1"):
            make(tolerance=-1.0)
    found, _ = run(steps.conflict_free(preference=[3.0, 4.0]), jnp.eye(2))
    np.testing.assert_allclose(found, [[0.84, 1.12]], rtol=1e-6)


def test_unknown_options(untyped):
    with pytest.raises(ValueError, match="'min', 'median' or 'rmse'; got 'max'"):
        steps.aligned_mtl(scale="max")
    with pytest.raises(ValueError, match="'sum' or 'absolute'; got 'mean'"):
        steps.imtl_g(normalization="mean")
    with pytest.raises(ValueError, match="'regression' or 'classification'"):
        steps.uncertainty_weighting(likelihood="ranking")


class TestGradVac:
    def test_three_updates_by_hand(self):
        """Cosine −½, β = ½: targets 0, −¼, then −3/8 before the third."""
        gram = jnp.array([[1.0, -2.0], [-2.0, 16.0]])
        step = steps.gradvac(order=[0, 1], beta=0.5)
        state = step.init(2)
        for target in (0.0, -1 / 4, -3 / 8):
            np.testing.assert_allclose(state.targets[0, 1], target, atol=1e-6)
            rows, state = step.update(jnp.eye(2), gram, state)
            # To the target: the part aside, √¾, is √(1 − target²) of the new length.
            share = target * np.sqrt(0.75 / (1 - target**2)) + 0.5
            np.testing.assert_allclose(
                rows, [[1, share / 4], [share * 4, 1]], rtol=1e-5
            )

    def test_orders_are_drawn_anew(self):
        rows = jnp.array([[1.0, 0.2, 0.0], [-0.8, 1.0, 0.3], [-0.3, -1.1, 1.0]])
        step = steps.gradvac(beta=0.0, key=3)
        update = jax.jit(step.update)
        state, seen = step.init(3), set()
        for _ in range(60):
            found, state = update(jnp.eye(3), rows @ rows.T, state)
            seen.add(np.asarray(found).round(3).tobytes())
        assert len(seen) == 8

    def test_bad_options(self, untyped):
        with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\]; got 2"):
            steps.gradvac(beta=2.0)
        with pytest.raises(ValueError, match="'numbered' or numbers; got 'sorted'"):
            steps.gradvac(order="sorted")
        step = steps.gradvac()
        with pytest.raises(ValueError, match="of 3 rows; there are 2 rows"):
            step.update(jnp.asarray(CHAINED), jnp.asarray(LENGTHS), step.init(3))


def test_random_weights_are_softmax_of_normals():
    step = steps.random_weighting(key=1)

    def draw(state, _):
        weights, state = step.update(jnp.eye(3), jnp.eye(3), state)
        return state, weights[0]

    _, drawn = jax.lax.scan(draw, step.init(3), length=4000)
    np.testing.assert_allclose(drawn.sum(axis=1), 1, rtol=1e-5)
    assert (drawn > 0).all()
    # Differences of logits are normal with variance 2.
    differences = np.log(drawn[:, 0] / drawn[:, 1])
    assert abs(differences.mean()) < 5 * np.sqrt(2 / 4000)
    np.testing.assert_allclose(differences.var(), 2, rtol=0.12)


class TestAcrossBatches:
    """MoDo and SDMGrad, which read the inner products of two batches."""

    CROSS = np.diag(np.array([1.0, 9.0, np.nan], np.float32))
    STEPS = (
        steps.modo(learning_rate=0.1, weight_decay=0.0),
        steps.sdmgrad(strength=1.0, learning_rate=0.2, iterations=1),
    )

    # MoDo from thirds: (1 − .1) / 3 and (1 − .9) / 3, each with .5 / 3 more. SDMGrad:
    # s = 2 and the slopes (.25, 2.25) (1/3 + 1/2), so that (.2917, −.0417) gets .2083
    # more; the update's weights have half the preference, ½ each, in them.
    @pytest.mark.parametrize(
        ("step", "expected", "shares"),
        [
            (STEPS[0], [1.4 / 3, 0.6 / 3, 0.0], [1.4 / 3, 0.6 / 3]),
            (STEPS[1], [0.5, 1 / 3, 0.0], [0.5, 0.5 / 3]),
        ],
        ids=("modo", "sdmgrad"),
    )
    def test_an_objective_unknown_in_one_batch_keeps_its_weight(
        self, step, expected, shares
    ):
        row, state = compiled(step)(
            np.eye(3, dtype=np.float32),
            np.eye(3, dtype=np.float32),
            step.init(3),
            mask=np.ones(3, bool),
            cross_gramian=self.CROSS,
        )
        np.testing.assert_allclose(row[0], expected, rtol=1e-5)
        np.testing.assert_allclose(state.shares, [*shares, 1 / 3], rtol=1e-5)

    @pytest.mark.parametrize("step", STEPS, ids=("modo", "sdmgrad"))
    def test_shapes_that_do_not_fit(self, step):
        with pytest.raises(ValueError, match=r"for 2 objectives; got shape \(3, 3\)"):
            step.update(TWO, TWO, step.init(2), cross_gramian=self.CROSS)
        with pytest.raises(ValueError, match="and 1 rows"):
            step.update(jnp.ones((1, 2)), TWO, step.init(2))

    def test_modo_ends_at_the_weights_of_mgda(self):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(3, 5)).astype(np.float32)
        step = steps.modo(learning_rate=0.05, weight_decay=0.0)
        gram = jnp.asarray(rows @ rows.T)

        def move(state, _):
            row, state = step.update(jnp.eye(3), gram, state)
            return state, row[0]

        _, weights = jax.lax.scan(move, step.init(3), None, 500)
        expected = run(steps.mgda(), rows @ rows.T)[0][0]
        np.testing.assert_allclose(weights[-1], expected, atol=1e-4)
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    hnp.arrays(np.float32, 4, elements=st.floats(-10, 10, width=32)),
    hnp.arrays(bool, 4),
    st.floats(0, 2, width=32),
)
def test_the_projection_is_the_closest_point(point, used, total):
    """All positive entries fall by one amount, which is enough for the others."""
    found = np.asarray(projected(point, used, total))
    assert (found >= 0).all()
    assert not found[~used].any()
    np.testing.assert_allclose(found.sum(), total if used.any() else 0, atol=1e-5)
    falls = (point - found)[found > 0]
    if falls.size:
        np.testing.assert_allclose(falls, falls[0], atol=1e-5)
        assert (point[used & (found == 0)] <= falls[0] + 1e-5).all()


def test_averaged_weights_by_hand():
    """The second objective is absent at first, and the first one at last."""
    step = steps.cr_mogm(decay=0.75)
    state, found = step.init(2), []
    for weights, mask in (
        ([1.0, 0.0], [True, False]),
        ([0.0, 4.0], [True, True]),
        ([np.nan, 0.0], [False, True]),
        ([0.75, np.inf], [True, True]),
    ):
        row, state = compiled(step)(
            np.array([weights], np.float32),
            np.eye(2, dtype=np.float32),
            state,
            mask=np.array(mask),
        )
        found.append(row[0])
    np.testing.assert_allclose(found, [[1, 0], [0.75, 4], [0, 3], [0.75, 0]])
    np.testing.assert_allclose(state.average, [0.75, 3])
    with pytest.raises(ValueError, match="must get one row of weights; got 2"):
        step.update(TWO, TWO, state)
