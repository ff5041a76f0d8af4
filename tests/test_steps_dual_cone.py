"""Steps that harm no objective, and those over the simplex."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fairjax
from fairjax import steps

KNOWN = np.array([[-4.0, 1, 1], [6, 1, 1]])
# Step and whether it sees every row alike.
ALL = {
    "upgrad": steps.upgrad(),
    "upgrad_sum": steps.upgrad("sum"),
    "dualproj": steps.dualproj(),
    "positive_sum": steps.positive_sum(),
    "mgda": steps.mgda(),
    "cagrad": steps.cagrad(),
    "cagrad_rescaled": steps.cagrad(rescale=True),
}
# Those with a solver of their own: a sum is a multiple of a mean, so is a rescaled one.
SOLVERS = [name for name in ALL if name not in ("upgrad_sum", "cagrad")]
every = pytest.mark.parametrize("name", SOLVERS)
slow = pytest.mark.slow


def some_of(name):
    """Slow, unless it is one of two: the others of the table call the same solvers."""
    return name if name in ("upgrad", "mgda") else pytest.param(name, marks=slow)


some = pytest.mark.parametrize("name", [some_of(name) for name in SOLVERS])


compiled = functools.cache(lambda step: jax.jit(step.update))


def weights(step, rows, coefficients=None, mask=None, **extra):
    """The weights, compiled once for each step and shape: there is a mask always."""
    rows = np.asarray(rows, np.float32)
    coefficients = np.eye(len(rows)) if coefficients is None else coefficients
    coefficients = np.asarray(coefficients, np.float32)
    mask = np.ones(len(rows), bool) if mask is None else mask
    gram, state = rows @ rows.T, step.init(len(rows))
    return np.asarray(compiled(step)(coefficients, gram, state, mask=mask, **extra)[0])


def update(step, rows, coefficients=None, **extra):
    found = weights(step, rows, coefficients, **extra)
    assert found.shape == (1, len(rows))
    return found[0] @ np.asarray(rows)


def draw(size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, size + 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        # Worked out: each row less its part along the other, halved.
        (ALL["upgrad"], [0.292398, 1.900585, 1.900585]),
        pytest.param(ALL["upgrad_sum"], [0.584795, 3.801170, 3.801170], marks=slow),
        (ALL["dualproj"], [5 / 9, 10 / 9, 10 / 9]),
        (ALL["positive_sum"], [-4 + 6 * 22 / 38, 1 + 22 / 38, 1 + 22 / 38]),
        pytest.param(
            steps.positive_sum(1),
            [6 - 4 * 22 / 18, 1 + 22 / 18, 1 + 22 / 18],
            marks=slow,
        ),
        # As published by TorchJD, whose ridge moves the third digit.
        pytest.param(steps.upgrad(ridge=1e-4), [0.2929, 1.9004, 1.9004], marks=slow),
        pytest.param(steps.dualproj(ridge=1e-4), [0.5563, 1.1109, 1.1109], marks=slow),
        (ALL["mgda"], [0, 1, 1]),
        (steps.cagrad(c=0.5), [0.1835, 1.2041, 1.2041]),
        (steps.cagrad(c=0.5, rescale=True), [0.1468, 0.9633, 0.9633]),
        # Worked out in float64 from the dual problem of one weight, and over 1 + c².
        pytest.param(
            steps.cagrad(c=0.3, rescale=True), [0.46798, 1.02979, 1.02979], marks=slow
        ),
        pytest.param(steps.cagrad(c=0.0), [1, 1, 1], marks=slow),
    ],
)
def test_known_updates(step, expected):
    np.testing.assert_allclose(update(step, KNOWN), expected, atol=5e-5)


@pytest.mark.parametrize("name", [some_of(name) for name in ALL])
def test_one_objective(name):
    expected = {"cagrad": 1.5, "cagrad_rescaled": 1.2}.get(name, 1.0)
    np.testing.assert_allclose(weights(ALL[name], [[3.0, 4.0]]), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("upgrad", [0.5, 0.5]),
        ("upgrad_sum", [1, 1]),
        ("dualproj", [0.5, 0.5]),
        ("positive_sum", [1, 0]),
    ],
)
def test_no_conflict_is_left_exactly(name, expected):
    found = weights(ALL[name], [[1.0, 0.1], [0.2, 3.0]])
    np.testing.assert_array_equal(found, [expected])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(("upgrad", 5), ("mgda", 5)),
        pytest.param("dualproj", 16, marks=slow),
        *(pytest.param("positive_sum", size, marks=slow) for size in (5, 16)),
    ],
)
def test_update_harms_no_objective(name, size):
    for seed in range(5):
        rows = draw(size, seed)
        rows -= 0.5 * rows.mean(axis=0)
        inner = rows @ update(ALL[name], rows)
        assert inner.min() >= -1e-4 * np.square(rows).sum(axis=1).max()


@some
def test_zero_and_masked_rows_do_not_count(name):
    rows = draw(5)
    expected = update(ALL[name], rows[[0, 2, 3]])
    rows[1] = 0
    found = weights(ALL[name], rows, mask=np.arange(5) != 4)
    np.testing.assert_array_equal(found[0, [1, 4]], 0)
    np.testing.assert_allclose(found[0] @ rows, expected, atol=1e-4)


def test_masked_rows_add_nothing_to_the_ridge():
    rows, used = draw(5), np.array([True, False, True, True, False])
    step = steps.upgrad(ridge=0.1)
    found = weights(step, rows, mask=used)[0]
    alone = weights(step, rows[used])[0]
    np.testing.assert_allclose(found[used], alone, rtol=1e-5)
    np.testing.assert_array_equal(found[~used], 0)


@some
def test_no_row_in_use(name):
    rows, mask = draw(5), np.ones(5, bool)
    np.testing.assert_array_equal(weights(ALL[name], rows, mask=~mask), 0)
    np.testing.assert_array_equal(weights(ALL[name], 0 * rows, mask=mask), 0)


@some
def test_rows_that_are_combinations(name):
    """As many rows as there are coefficients, not as there are objectives."""
    gradients = draw(4)
    coefficients = np.array([[1.0, 1, 0, 0], [0, 0, 2, 0], [0, -1, 0, 1]], np.float32)
    found = update(ALL[name], gradients, coefficients)
    expected = update(ALL[name], coefficients @ gradients)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(
    "name", [some_of(name) for name in SOLVERS if name != "positive_sum"]
)
def test_permuted_rows(name):
    rows = draw(5)
    order = np.random.default_rng(1).permutation(5)
    one, other = weights(ALL[name], rows), weights(ALL[name], rows[order])
    np.testing.assert_allclose(other[0], one[0, order], atol=2e-4)


@some
@pytest.mark.parametrize("exponent", [-10, 10])
def test_scale(name, exponent):
    rows = draw(5)
    one = weights(ALL[name], rows)
    other = weights(ALL[name], rows * np.float32(10.0**exponent))
    np.testing.assert_allclose(one, other, atol=2e-4)


@slow
@every
def test_scan_in_a_reconciler_mapped_with_diagnostics(name):
    transform = fairjax.reconcile(ALL[name], num_objectives=5)
    rows = jnp.stack([jnp.asarray(draw(5, seed)) for seed in range(6)])
    rows = rows.reshape(3, 2, 5, -1)
    start = transform.init(jnp.zeros(rows.shape[-1]))

    def body(state, rows):
        updates, state = transform.update(rows, state)
        return state, updates

    run = jax.jit(jax.vmap(lambda rows: jax.lax.scan(body, start, rows)))
    state, found = run(rows)
    for one, each in zip(found.reshape(6, -1), rows.reshape(6, 5, -1), strict=True):
        np.testing.assert_allclose(one, update(ALL[name], each), atol=1e-4)
    for one, each in zip(state.weights, rows[:, -1], strict=True):
        np.testing.assert_allclose(one, weights(ALL[name], each)[0], atol=1e-5)
    assert optax.tree.get(state, "residual").shape == (3,)
    assert (optax.tree.get(state, "residual") < 1e-4).all()
    assert (optax.tree.get(state, "iterations") >= 0).all()
    leaves = jax.tree.leaves(start), jax.tree.leaves(state)
    for before, after in zip(*leaves, strict=True):
        assert before.dtype == after.dtype
        assert before.shape == after.shape[1:]


@slow
@pytest.mark.parametrize(
    "make",
    [
        lambda value: steps.dualproj(ridge=value),
        lambda value: steps.cagrad(value),
        lambda value: steps.positive_sum(
            baseline_losses=jnp.zeros(3), strength=value, limit=value + 1e3
        ),
    ],
)
def test_settings_may_be_traced(make):
    rows = draw(3)
    values = jnp.array([0.0, 0.1, 0.3])

    gram = jnp.asarray(rows @ rows.T)

    def solve(value):
        step = make(value)
        return step.update(jnp.eye(3), gram, step.init(3), losses=jnp.ones(3))[0]

    found = jax.jit(jax.vmap(solve))(values)
    np.testing.assert_allclose(found[1], solve(0.1), atol=1e-5)


class TestPreference:
    def test_by_hand(self):
        # Row 1 alone, projected off row 0, which is not harmed though it adds nothing.
        step = steps.upgrad(preference=[0.0, 1.0])
        expected = np.array([6, 1, 1]) + 22 / 18 * np.array([-4, 1, 1])
        np.testing.assert_allclose(update(step, KNOWN), expected, rtol=1e-5)
        step = steps.dualproj(preference=[0.0, 1.0])
        np.testing.assert_allclose(update(step, KNOWN), expected, rtol=1e-5)

    @slow
    def test_equal_preferences_are_the_default(self):
        rows, equal = draw(5), [1 / 5] * 5
        for name, make in (("upgrad", steps.upgrad), ("dualproj", steps.dualproj)):
            found = update(make(preference=equal), rows)
            np.testing.assert_allclose(found, update(ALL[name], rows), atol=1e-5)

    @pytest.mark.parametrize("make", [steps.upgrad, steps.dualproj])
    def test_bad_preferences(self, make):
        for bad in ([-1.0, 1.0], [0.0, 0.0]):
            with pytest.raises(ValueError, match="preference must hold one number of"):
                make(preference=bad)
        with pytest.raises(ValueError, match="each of the 3 rows"):
            weights(make(preference=[1.0, 2.0]), draw(3))


class TestPositiveSum:
    def solve(self, rows, step=None, losses=None, **options):
        step = step or steps.positive_sum(**options)
        rows = np.asarray(rows, np.float32)
        state = step.init(len(rows))
        eye = np.eye(len(rows), dtype=np.float32)
        return compiled(step)(eye, rows @ rows.T, state, losses=losses)

    def test_groups_that_are_behind_have_a_margin(self):
        rows = jnp.array([[2.0, 0, 0], [0, 3, 0], [0, 0, 1]])
        found, state = self.solve(
            rows,
            baseline_losses=[9.0, 0.5, 0.5],
            strength=0.25,
            losses=jnp.array([1.0, 0.6, 0.4]),
        )
        # A cosine of .25 with the first group, of the task's length 2.
        np.testing.assert_allclose(found @ rows, [[2, 0.5, 0]], atol=1e-6)
        assert state.fallbacks == 0

    def test_the_margins_are_met(self):
        rng = np.random.default_rng(0)
        step = steps.positive_sum(baseline_losses=np.zeros(5), strength=0.2)
        for _ in range(10):
            rows = rng.normal(size=(5, 12)).astype(np.float32)
            found, _ = self.solve(rows, step, losses=jnp.ones(5))
            lengths = np.linalg.norm(rows, axis=1)
            cosines = rows @ np.asarray(found[0] @ rows) / lengths / lengths[0]
            assert cosines[1:].min() >= 0.2 - 1e-5

    def test_fallbacks_are_counted(self):
        rows = jnp.array([[1.0, 0], [0, 1], [0, -1]])
        step = steps.positive_sum(baseline_losses=[0.0, 0, 0])
        state = step.init(3)
        for losses, fallbacks in ((1.0, 1), (-1.0, 1), (2.0, 2)):
            found, state = compiled(step)(
                jnp.eye(3), rows @ rows.T, state, losses=jnp.full(3, losses)
            )
            np.testing.assert_allclose(found @ rows, [[1, 0]], atol=1e-5)
            assert state.fallbacks == fallbacks

    def test_no_update_without_harm_is_none(self):
        found, state = self.solve([[1.0, 0], [-1, 1], [-1, -1]])
        np.testing.assert_allclose(found, [[1, 0.5, 0.5]], atol=1e-4)
        assert state.residual < 1e-5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"strength": 1.5}, "strength must be a cosine from 0 to 1; got 1.5"),
            ({"limit": 0.0}, "limit must be positive; got 0.0"),
            ({"limit": -1.0}, "limit must be positive; got -1.0"),
            ({"reference": 2}, "reference must be a row, 0 to 1; got 2"),
            ({"baseline_losses": [0.0, 0.0]}, "needs the losses"),
            (
                {"baseline_losses": [0.0], "losses": jnp.ones(2)},
                "one loss and one baseline for each row: 2 rows",
            ),
        ],
    )
    def test_bad_input(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.solve([[1.0, 0], [0, 1]], **options)


def test_unknown_options(untyped):
    with pytest.raises(ValueError, match="'mean' or 'sum'; got 'median'"):
        steps.upgrad("median")
    for make in (steps.upgrad, steps.dualproj):
        with pytest.raises(ValueError, match="ridge must be 0 or more"):
            make(ridge=-0.1)
    with pytest.raises(ValueError, match="c must be 0 or more"):
        steps.cagrad(-0.5)


class TestPCD:
    def test_progress_is_kept_at_the_length_of_the_first(self):
        rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
        tx = fairjax.pcd(num_objectives=2, progress=0.1)
        update, state = tx.update(rows, tx.init(jnp.zeros(2)))
        # Normalised: d = (1, 0) + l (-1, 1) / sqrt(2), d . g = .1, so l = .1 + .707.
        weight = (0.1 + np.sqrt(0.5)) / np.sqrt(2)
        direction = np.array([1 - weight, weight])
        np.testing.assert_allclose(
            update, direction / np.linalg.norm(direction), atol=1e-5
        )
        assert int(optax.tree.get(state, "fallbacks")) == 0

    def test_contradictory_constraints_leave_the_first_gradient(self):
        rows = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        tx = fairjax.pcd(num_objectives=3, progress=0.1)
        update, state = tx.update(rows, tx.init(jnp.zeros(2)))
        np.testing.assert_allclose(update, rows[0], atol=1e-6)
        assert int(optax.tree.get(state, "fallbacks")) == 1

    def test_errors(self):
        with pytest.raises(ValueError, match="progress must be from 0 to 1; got 2"):
            fairjax.pcd(num_objectives=2, progress=2.0)
        with pytest.raises(ValueError, match="decay"):
            fairjax.pcd(num_objectives=2, decay=1.0)
        tx = fairjax.pcd(num_objectives=2, reference=2)
        with pytest.raises(ValueError, match="reference must be a row, 0 to 1; got 2"):
            jax.eval_shape(tx.update, jnp.eye(2), tx.init(jnp.zeros(2)))
