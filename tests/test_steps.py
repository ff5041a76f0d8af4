"""Coefficient steps, one at a time, against values worked out by hand."""

import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import fairjax
from fairjax import steps

# Orthogonal rows of the lengths 2, 4 and 6.
LENGTHS = jnp.diag(jnp.array([4.0, 16.0, 36.0]))
# Rows (1, 0) and (−1, −1).
CONFLICT = jnp.array([[1.0, -1.0], [-1.0, 2.0]])


def run(step, gramian, coefficients=None, **extra):
    size = len(gramian)
    if coefficients is None:
        coefficients = jnp.eye(size)
    return step.update(coefficients, gramian, step.init(size), **extra)[0]


def factors(gramian=LENGTHS, mask=None, losses=None, **options):
    step = steps.balance_magnitudes(**options)
    found = run(step, gramian, mask=mask, losses=losses)
    np.testing.assert_array_equal(found, jnp.diag(jnp.diagonal(found)))
    return np.diagonal(found)


class TestProjectConflicts:
    def test_by_hand(self):
        step = steps.project_conflicts(order=[0, 1])
        np.testing.assert_allclose(run(step, CONFLICT), [[1, 0.5], [1, 1]])

    def test_epsilon_is_a_share_of_the_longest_row(self):
        # Half of 2 is added to 2 and to 1.
        step = steps.project_conflicts(order=[0, 1], epsilon=0.5)
        expected = [[1, 1 / 3], [1 / 2, 1]]
        np.testing.assert_allclose(run(step, CONFLICT), expected, rtol=1e-6)
        np.testing.assert_allclose(run(step, 9 * CONFLICT), expected, rtol=1e-6)

    def test_epsilon_passes_over_masked_rows(self):
        gram = jnp.zeros((3, 3)).at[:2, :2].set(CONFLICT).at[2, 2].set(100.0)
        step = steps.project_conflicts(order=[0, 1, 2], epsilon=0.5)
        found = run(step, gram, mask=jnp.array([True, True, False]))
        np.testing.assert_allclose(found[:2, :2], [[1, 1 / 3], [1 / 2, 1]], rtol=1e-6)

    def test_always(self):
        # Rows (1, 0) and (1, 1).
        gram = jnp.array([[1.0, 1.0], [1.0, 2.0]])
        step = steps.project_conflicts(order=[0, 1], condition="always")
        np.testing.assert_allclose(run(step, gram), [[1, -0.5], [-1, 1]])

    def test_rows_that_are_sums_of_gradients(self):
        # Gradients (1, 0), (0, 1), (−1, 0); rows (1, 1) and (−1, 0).
        gradients = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        rows = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        step = steps.project_conflicts(order=[1, 0])
        found = run(step, gradients @ gradients.T, rows)
        np.testing.assert_allclose(found, [[1, 1, 1], [0.5, 0.5, 1]])

    @pytest.mark.parametrize(
        "order", [pytest.param("random", marks=pytest.mark.slow), "shared"]
    )
    def test_drawn_orders(self, order):
        # Three rows that all conflict: the outcome tells the orders apart.
        rows = jnp.array([[1.0, 0.2, 0.0], [-0.8, 1.0, 0.3], [-0.3, -1.1, 1.0]])
        gram = rows @ rows.T
        each = list(itertools.permutations(range(3)))
        chosen = [[o] * 3 for o in each]
        if order == "random":
            chosen = list(itertools.product(each, repeat=3))
        given = jax.jit(
            jax.vmap(lambda o: run(steps.project_conflicts(order=o), gram))
        )(jnp.array(chosen))
        possible = {np.asarray(t).round(4).tobytes() for t in given}
        step = steps.project_conflicts(order=order, key=3)
        states, seen = step.init(3), set()
        update = jax.jit(step.update)
        for _ in range(100):
            found, states = update(jnp.eye(3), gram, states)
            seen.add(np.asarray(found).round(4).tobytes())
        # A row has two orders of the others; "shared" has six, "random" 2³ outcomes.
        assert len(possible) == (6 if order == "shared" else 8)
        assert seen == possible

    def test_seed_raw_key_and_typed_key_are_the_same(self):
        def start(key):
            return steps.project_conflicts(key=key).init(3).key_data

        key = jax.random.key(5)
        data = jax.random.key_data(key)
        for alike in (5, jnp.array(5), key, data):
            np.testing.assert_array_equal(start(alike), data)
        np.testing.assert_array_equal(jax.vmap(start)(jnp.array([4, 5]))[1], data)

    @pytest.mark.parametrize(
        ("order", "message"),
        [
            ([0, 1, 2], r"shape \(2,\) or \(2, 2\) for 2 rows; got \(3,\)"),
            ([0, 0], "each row's number, from 0, once"),
            ([1, 2], "each row's number, from 0, once"),
            (jnp.array([[0, 1], [1, 1]]), "each row's number, from 0, once"),
        ],
    )
    def test_order_that_does_not_fit(self, order, message):
        for wrapped in (lambda f: f, jax.jit):
            with pytest.raises(ValueError, match=message):
                wrapped(
                    lambda gram: run(steps.project_conflicts(order=order), gram)[0]
                )(CONFLICT)

    def test_negative_epsilon(self):
        with pytest.raises(ValueError, match="epsilon must be 0 or more"):
            steps.project_conflicts(epsilon=-0.1)

    @pytest.mark.parametrize(
        "key", [jax.random.key(0, impl="rbg"), jax.random.split(jax.random.key(0), 3)]
    )
    def test_key_that_does_not_fit(self, key):
        with pytest.raises(ValueError, match="one key of JAX's default kind"):
            steps.project_conflicts(key=key).init(2)

    def test_factors_that_cannot_be(self):
        for strength in (-1.0, np.nan, [1.0, -0.5]):
            with pytest.raises(ValueError, match="strength must be 0 or more"):
                steps.balance_magnitudes(strength=strength)
        for clamp in ((2.0, 1.0), (-1.0, 1.0), (0.0, np.nan)):
            with pytest.raises(ValueError, match="clamp must be the least and the gre"):
                steps.balance_magnitudes(clamp=clamp)

    def test_unknown_options(self, untyped):
        with pytest.raises(ValueError, match="'numbered' or numbers; got 'sorted'"):
            steps.project_conflicts(order="sorted")
        with pytest.raises(ValueError, match="'conflict' or 'always'"):
            steps.project_conflicts(condition="never")


class TestBalanceMagnitudes:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, [2, 1, 2 / 3]),
            ({"reference": "min"}, [1, 1 / 2, 1 / 3]),
            ({"reference": "max"}, [3, 3 / 2, 1]),
            ({"reference": 1}, [2, 1, 2 / 3]),
            ({"reference": 0, "strength": 0.3}, [1, 0.15, 0.1]),
            ({"strength": [1.0, 0.5, 2.0]}, [2, 0.5, 4 / 3]),
            ({"strength": jnp.array([1.0, 0.5, 2.0])}, [2, 0.5, 4 / 3]),
            ({"reference": 2, "strength": [1.0, 0.5, 9.0]}, [3, 0.75, 1]),
            ({"clamp": (0.8, 1.5)}, [1.5, 1, 0.8]),
            ({"reference": 0, "strength": 0.3, "clamp": (0.12, 0.5)}, [1, 0.15, 0.12]),
            ({"strength": 0.0}, [0, 0, 0]),
            ({"mode": "none"}, [1, 1, 1]),
            ({"mode": "none", "strength": [1.0, 0.5, 2.0]}, [1, 0.5, 2]),
            ({"mode": "none", "strength": 3.0, "clamp": (0.0, 2.0)}, [2, 2, 2]),
        ],
    )
    def test_by_hand(self, options, expected):
        np.testing.assert_allclose(factors(**options), expected, rtol=1e-6)

    @pytest.mark.parametrize(
        ("reference", "expected"),
        [
            ("mean", [3 / 2, 3 / 4, 1]),
            ("min", [1, 1 / 2, 1]),
            ("max", [2, 1, 1]),
            (0, [1, 1 / 2, 1]),
            (2, [1, 1, 1]),  # A reference out of use gives no length.
        ],
    )
    def test_rows_out_of_use(self, reference, expected):
        masked = factors(reference=reference, mask=jnp.array([True, True, False]))
        np.testing.assert_allclose(masked, expected, rtol=1e-6)
        zero = factors(LENGTHS.at[2, 2].set(0.0), reference=reference)
        np.testing.assert_allclose(zero, expected, rtol=1e-6)

    def test_nothing_in_use(self):
        found = factors(jnp.zeros((3, 3)))
        np.testing.assert_array_equal(found, [1, 1, 1])

    def test_lengths_are_those_of_the_rows(self):
        # Rows g₀ + g₁ of length √20 and 2·g₂ of length 12.
        rows = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
        found = run(steps.balance_magnitudes(reference=0), LENGTHS, rows)
        expected = [[1, 1, 0], [0, 0, 2 * np.sqrt(20) / 12]]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_loss_ratio_over_updates(self):
        step = steps.balance_magnitudes("loss_ratio", strength=[1.0, 1.0, 2.0])
        state = step.init(3)
        expected = {
            (2.0, 4.0, 1.0): [1, 1, 2],
            # Ratios 1/2, 1, 1/4, of the mean 7/12.
            (1.0, 4.0, 0.25): [6 / 7, 12 / 7, 6 / 7],
            # A loss that is not positive and finite keeps its factor, the others'
            # ratios 1/2 and 1 have the mean 3/4.
            (1.0, 4.0, 0.0): [2 / 3, 4 / 3, 2],
            (1.0, 4.0, np.nan): [2 / 3, 4 / 3, 2],
        }
        for losses, wanted in expected.items():
            found, state = step.update(
                jnp.eye(3), LENGTHS, state, losses=jnp.array(losses)
            )
            np.testing.assert_allclose(np.diagonal(found), wanted, rtol=1e-6)
        np.testing.assert_array_equal(state.initial_losses, [2, 4, 1])

    def test_loss_ratio_starts_at_the_first_usable_loss(self):
        step = steps.balance_magnitudes("loss_ratio")
        state = step.init(2)
        seen = [(jnp.inf, 4.0), (2.0, 2.0), (1.0, 4.0)]
        # Then: ratios (1, ½) of the mean ¾; ratios (½, 1) likewise.
        expected = [[1, 1], [4 / 3, 2 / 3], [2 / 3, 4 / 3]]
        for losses, wanted in zip(seen, expected, strict=True):
            found, state = step.update(
                jnp.eye(2), CONFLICT, state, losses=jnp.array(losses)
            )
            np.testing.assert_allclose(np.diagonal(found), wanted, rtol=1e-6)

    def test_loss_ratio_leaves_masked_rows_out_of_the_mean(self):
        step = steps.balance_magnitudes("loss_ratio")
        mask = jnp.array([True, True, False])
        state = step.init(3)
        for losses in ([2.0, 4.0, 1.0], [1.0, 4.0, 9.0]):
            found, state = step.update(
                jnp.eye(3), LENGTHS, state, losses=jnp.array(losses), mask=mask
            )
        np.testing.assert_allclose(np.diagonal(found), [2 / 3, 4 / 3, 1], rtol=1e-6)
        np.testing.assert_array_equal(state.initial_losses, [2, 4, 0])

    @pytest.mark.parametrize(
        ("options", "extra", "message"),
        [
            ({"mode": "loss_ratio"}, {}, "needs the losses"),
            ({"strength": [1.0, 2.0]}, {}, r"one number or 3, .*; got shape \(2,\)"),
            ({"reference": 3}, {}, "reference must be a row, 0 to 2; got 3"),
            ({"reference": -1}, {}, "reference must be at least 0; got -1"),
        ],
    )
    def test_arguments_that_do_not_fit(self, options, extra, message):
        with pytest.raises(ValueError, match=message):
            factors(**options, **extra)

    def test_loss_ratio_after_a_change_of_rows(self):
        step = steps.balance_magnitudes("loss_ratio")
        with pytest.raises(ValueError, match="one loss for each row: 2 rows"):
            run(step, LENGTHS, jnp.ones((2, 3)), losses=jnp.ones(3))

    def test_unknown_options(self, untyped):
        with pytest.raises(ValueError, match="'equal_norms', 'loss_ratio' or 'none'"):
            steps.balance_magnitudes("equal")
        with pytest.raises(ValueError, match="'min', 'max' or a row's number"):
            steps.balance_magnitudes(reference="median")


class TestCombine:
    ROWS = jnp.array([[1.0, 2.0, 0.0], [0.0, 3.0, 5.0]])

    @pytest.mark.parametrize(
        ("reduction", "expected"),
        [
            ("sum", [1, 5, 5]),
            ("mean", [0.5, 2.5, 2.5]),
            ([2.0, 1.0], [2, 7, 5]),
            (jnp.array([0.0, 1.0]), [0, 3, 5]),
        ],
    )
    def test_by_hand(self, reduction, expected):
        found = run(steps.combine(reduction), LENGTHS, self.ROWS)
        np.testing.assert_allclose(found, [expected])

    def test_mean_over_the_rows_in_use(self):
        mask = jnp.array([True, False, True])
        found = run(steps.combine("mean"), LENGTHS, mask=mask)
        np.testing.assert_allclose(found, [[0.5, 0, 0.5]])
        none = run(steps.combine("mean"), LENGTHS, mask=jnp.zeros(3, bool))
        np.testing.assert_array_equal(none, [[0, 0, 0]])

    def test_weights_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"2 weights, one for .* shape \(3,\)"):
            run(steps.combine([1.0, 2.0, 3.0]), LENGTHS, self.ROWS)

    def test_unknown_reduction(self, untyped):
        with pytest.raises(ValueError, match="'sum', 'mean' or weights; got 'median'"):
            steps.combine("median")


STEPS = {
    "project": steps.project_conflicts(order=[0, 1, 2]),
    "project always": steps.project_conflicts(order=[0, 1, 2], condition="always"),
    "project softly": steps.project_conflicts(order=[0, 1, 2], epsilon=0.1),
    "balance": steps.balance_magnitudes(),
    "balance to one": steps.balance_magnitudes(reference=1, strength=0.4),
    "sum": steps.combine("sum"),
    "mean": steps.combine("mean"),
}
COMPILED = {
    name: jax.jit(lambda gram, step=step: run(step, gram))
    for name, step in STEPS.items()
}


@pytest.mark.parametrize("name", STEPS)
@hypothesis.settings(max_examples=15)
@hypothesis.given(st.integers(0, 2**16), st.integers(-10, 10))
def test_coefficients_do_not_depend_on_a_common_scale(name, seed, exponent):
    rows = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    gram = rows @ rows.T
    one, other = COMPILED[name](gram), COMPILED[name](gram * 4.0**exponent)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@hypothesis.given(
    st.lists(st.floats(0.1, 100), min_size=3, max_size=3), st.floats(0.01, 10)
)
def test_strength_is_the_length_in_terms_of_the_reference(lengths, strength):
    gram = jnp.diag(jnp.array(lengths, jnp.float32) ** 2)
    found = factors(gram, reference=0, strength=strength) * np.array(lengths)
    expected = lengths[0] * np.array([1, strength, strength])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_that_would_ascend(bad):
    message = f"got {bad} for row 1, which would ascend"
    for weights in ([1.0, bad, 1.0], np.array([1.0, bad, 1.0]), jnp.array([1.0, bad])):
        with pytest.raises(ValueError, match=message):
            steps.combine(weights)
        with pytest.raises(ValueError, match=message):
            fairjax.equal_norms(num_objectives=3, reduction=weights)
