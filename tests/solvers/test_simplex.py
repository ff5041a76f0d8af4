"""MGDA's and CAGrad's problems: their optimality conditions, in float64."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

from fairjax import solvers
from fairjax.reconcilers.hulls import MAX_SEARCHES
from fairjax.reconcilers.quadratic import MAX_ITERATIONS

min_norm = jax.jit(solvers.min_norm)
conflict_averse = jax.jit(solvers.conflict_averse)
KNOWN = np.array([[-4.0, 1, 1], [6, 1, 1]])
SIZES = [
    *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 2, 3)),
    8,
    *(pytest.param(size, marks=pytest.mark.slow) for size in (32, 128)),
]


def gram_of(rows):
    return (rows @ rows.T).astype(np.float32)


def random(rng, size):
    return rng.normal(size=(size, 2 * size + 4))


def of_rank_3(rng, size):
    return rng.normal(size=(size, 3)) @ rng.normal(size=(3, 2 * size + 4))


def repeated(rng, size):
    return random(rng, size)[np.arange(size) // 2]


def near_equal(rng, size):
    return repeated(rng, size) + 1e-3 * random(rng, size)


def one_zero(rng, size):
    rows = random(rng, size)
    rows[-1] = 0
    return rows


def scaled(rng, size):
    return random(rng, size) * 10 ** rng.uniform(-10, 10)


def scaled_rows(rng, size):
    return random(rng, size) * 10 ** rng.uniform(-1, 1, (size, 1))


def conflicting(rng, size):
    rows = random(rng, size)
    return rows - 0.9 * rows.mean(axis=0)


KINDS = [
    random,
    of_rank_3,
    repeated,
    near_equal,
    one_zero,
    scaled,
    scaled_rows,
    conflicting,
]


def draws(kind, size, number):
    rng = np.random.default_rng([size, *kind.__name__.encode()])
    return [kind(rng, size) for _ in range(number)]


def missed(rows, update, simplex, scale):
    """By how much a row misses the margin that the weights' rows have on average."""
    norms = np.linalg.norm(rows, axis=1)
    used = norms > 0
    inner = rows @ update
    return (
        max(((simplex @ inner - inner)[used] / norms[used]).max(initial=0), 0) / scale
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_min_norm_is_optimal(kind, size):
    for rows in draws(kind, size, 6):
        found = min_norm(gram_of(rows))
        weights = np.asarray(found.weights, np.float64)
        norms = np.linalg.norm(rows, axis=1)
        used = norms > 0
        if not used.any():
            continue
        assert (weights >= 0).all()
        assert (weights[~used] == 0).all()
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
        error = missed(rows, weights @ rows, weights, norms[used].min())
        assert error < 1e-4
        np.testing.assert_allclose(found.residual, error, atol=2e-5)
        assert found.iterations <= 100


def test_min_norm_by_hand():
    found = min_norm(gram_of(KNOWN))
    np.testing.assert_allclose(found.weights @ KNOWN, [0, 1, 1], atol=1e-5)
    # Of orthogonal rows, each has the weight of 1 / its square.
    found = min_norm(jnp.diag(jnp.array([1.0, 4.0])))
    np.testing.assert_allclose(found.weights, [0.8, 0.2], rtol=1e-6)
    # One row within the cone of the others is their shortest point itself.
    found = min_norm(gram_of(np.array([[1.0, 0], [3, 1], [4, -2]])))
    np.testing.assert_allclose(found.weights, [1, 0, 0], atol=1e-6)


def test_min_norm_is_zero_where_pareto_stationary():
    found = min_norm(gram_of(np.array([[1.0, 0], [-1, 1], [-1, -1]])))
    np.testing.assert_allclose(found.weights, [0.5, 0.25, 0.25], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_conflict_averse_is_optimal(kind, size):
    """Within a bounded number of steps."""
    for draw, rows in enumerate(draws(kind, size, 6)):
        c = [0.1, 0.5, 0.9][draw % 3]
        found = conflict_averse(gram_of(rows), c)
        used = np.linalg.norm(rows, axis=1) > 0
        if not used.any():
            continue
        weights = np.asarray(found.weights, np.float64)
        simplex = np.asarray(found.simplex, np.float64)
        mean = rows[used].mean(axis=0)
        length = np.linalg.norm(mean)
        update = weights @ rows
        assert (weights[~used] == 0).all()
        assert np.linalg.norm(update - mean) <= (c + 1e-4) * length
        error = missed(rows, update, simplex, length)
        assert error < 5e-4
        np.testing.assert_allclose(found.residual, error, atol=1e-4)
        assert int(found.iterations) <= MAX_SEARCHES * MAX_ITERATIONS


@pytest.mark.parametrize("size", SIZES[2:4])
def test_conflict_averse_tells_where_lengths_are_beyond_float32(size):
    rng = np.random.default_rng(size)
    for _ in range(10):
        rows = random(rng, size) * 10 ** rng.uniform(-4, 4, (size, 1))
        found = conflict_averse(gram_of(rows), 0.5)
        mean = rows.mean(axis=0)
        update = np.asarray(found.weights, np.float64) @ rows
        simplex = np.asarray(found.simplex, np.float64)
        error = missed(rows, update, simplex, np.linalg.norm(mean))
        assert found.residual >= error - 1e-3
        assert int(found.iterations) <= MAX_SEARCHES * MAX_ITERATIONS


@pytest.mark.slow
def test_nan_is_no_solution():
    for solve in (min_norm, conflict_averse):
        found = solve(jnp.full((2, 2), jnp.nan))
        assert not found.residual < 1 or not np.asarray(found.weights).any()


@pytest.mark.parametrize("size", SIZES[2:4])
def test_conflict_averse_equals_its_dual_in_float64(size):
    """Minimised by another program, and put in the published formula."""
    for rows in draws(random, size, 5):
        mean, c = rows.mean(axis=0), 0.5
        radius = c * np.linalg.norm(mean)

        def dual(w, rows=rows, mean=mean, radius=radius):
            return mean @ (w @ rows) + radius * np.linalg.norm(w @ rows)

        best = optimize.minimize(
            dual,
            np.full(size, 1 / size),
            method="SLSQP",
            bounds=[(0, 1)] * size,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        shortest = best.x @ rows
        expected = mean + radius * shortest / np.linalg.norm(shortest)
        update = np.asarray(conflict_averse(gram_of(rows), c).weights) @ rows
        error = np.linalg.norm(update - expected)
        assert error < 2e-3 * np.linalg.norm(mean)
        found = np.asarray(conflict_averse(gram_of(rows), c).simplex, np.float64)
        assert dual(found) <= dual(best.x) + 1e-5 * mean @ mean


def test_conflict_averse_by_hand():
    found = conflict_averse(gram_of(KNOWN))
    update = found.weights @ KNOWN
    np.testing.assert_allclose(update, [0.1835, 1.2041, 1.2041], atol=5e-5)
    # The mean (1, .5) plus half its length along (0, 1), the worse off of the two.
    found = conflict_averse(gram_of(np.array([[2.0, 0], [0, 1]])), 0.1)
    update = found.weights @ np.array([[2.0, 0], [0, 1]])
    np.testing.assert_allclose(update, [1, 0.5 + 0.1 * np.sqrt(1.25)], atol=1e-5)


def test_conflict_averse_of_radius_zero_is_the_mean():
    for rows in draws(random, 8, 3):
        np.testing.assert_array_equal(conflict_averse(gram_of(rows), 0.0)[0], 0.125)


def test_conflict_averse_with_zero_in_the_hull():
    """The published formula divides by 0; ours is the mean's projection."""
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.3, 1.0]])
    update = np.asarray(conflict_averse(gram_of(rows), 0.5).weights) @ rows
    np.testing.assert_allclose(update, [0, 1 / 3], atol=1e-4)


@pytest.mark.slow
def test_masked_rows_do_not_count():
    rng = np.random.default_rng(0)
    rows = random(rng, 5)
    mask = np.array([True, False, True, True, False])
    for solve in (min_norm, conflict_averse):
        found = solve(gram_of(rows), mask=mask).weights
        alone = solve(gram_of(rows[mask])).weights
        np.testing.assert_array_equal(np.asarray(found)[~mask], 0)
        np.testing.assert_allclose(np.asarray(found)[mask], alone, atol=1e-5)
        nothing = solve(gram_of(rows), mask=np.zeros(5, bool))
        np.testing.assert_array_equal(nothing.weights, 0)
        assert nothing.residual == 0


# Whole numbers: zero, equal and opposite rows are frequent.
matrices = st.sampled_from([2, 3]).flatmap(
    lambda size: hnp.arrays(np.float32, (size, 4), elements=st.integers(-6, 6))
)


@pytest.mark.slow
@hypothesis.given(matrices, st.integers(-8, 8))
def test_weights_do_not_depend_on_a_common_scale(rows, exponent):
    gram = rows @ rows.T
    for solve in (min_norm, conflict_averse):
        one, other = solve(gram), solve(gram * 4.0**exponent)
        np.testing.assert_array_equal(one.weights, other.weights)


@hypothesis.given(matrices)
def test_shortest_is_no_longer_than_any_row(rows):
    weights = np.asarray(min_norm(rows @ rows.T).weights, np.float64)
    norms = np.linalg.norm(rows, axis=1)
    least = norms[norms > 0].min(initial=np.inf)
    assert np.linalg.norm(weights @ rows) <= least * (1 + 1e-4) + 1e-4


@pytest.mark.slow
@hypothesis.given(matrices)
def test_worst_case_is_no_worse_than_the_means(rows):
    used = (rows != 0).any(axis=1)
    hypothesis.assume(used.any())
    mean = rows[used].mean(axis=0)
    update = np.asarray(conflict_averse(rows @ rows.T).weights) @ rows
    slack = 1e-3 * (np.linalg.norm(rows, axis=1).max() * np.linalg.norm(mean) + 1e-3)
    assert (rows[used] @ update).min() >= (rows[used] @ mean).min() - slack
