"""Nash-MTL and alpha-fair FairGrad: fixed points, and what is said where none is."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from fairjax import solvers
from fairjax.reconcilers import bargaining

ALPHAS = (0.5, 1.0, 2.0, 10.0)
SIZES = [
    *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 2, 3)),
    8,
    *(pytest.param(size, marks=pytest.mark.slow) for size in (32, 128)),
]


@functools.cache
def compiled():
    return jax.jit(
        jax.vmap(
            lambda gram, alpha: solvers.fairgrad_alpha(gram, alpha=alpha), (0, None)
        )
    )


def rows_of(kind, size, rng):
    rows = rng.normal(size=(size, 2 * size))
    if kind == "square":
        rows = rng.normal(size=(size, size + 1))
    if kind == "norms":
        rows *= 10 ** rng.uniform(-2, 1, (size, 1))
    if kind == "dependent":
        rows = rng.normal(size=(size, max(1, size // 3)))
        rows[:, 0] = np.abs(rows[:, 0]) + 0.3
    if kind == "near":
        rows -= 0.9 * rows.mean(axis=0)
    if kind == "zero":
        rows[0] = 0
    if kind == "stationary":
        rows -= rows.mean(axis=0)
    return rows * 10 ** rng.uniform(-10, 10)


def gramians(kind, size, number, seed=0):
    rng = np.random.default_rng((seed, size))
    rows = [rows_of(kind, size, rng) for _ in range(number)]
    return np.stack([row @ row.T for row in rows]).astype(np.float32)


def departures(grams, weights, alpha):
    """Of the fixed point, in float64, relative, for the rows that are not zero."""
    grams, weights = np.asarray(grams, np.float64), np.asarray(weights, np.float64)
    inner = np.einsum("nij,nj->ni", grams, weights)
    # A weight below the least float32 is 0, which the update does not feel.
    lost = (weights == 0) & (alpha * np.log10(np.maximum(inner, 1e-99)) > 37)
    used = (np.diagonal(grams, axis1=1, axis2=2) > 0) & ~lost
    powers = np.where(used, weights, 1.0) ** (1 / alpha)
    return np.where(used, np.abs(inner * powers - 1), 0.0).max(axis=1)


@pytest.mark.parametrize(
    "kind", ["plain", "square", "norms", "dependent", "near", "zero"]
)
@pytest.mark.parametrize("size", SIZES)
def test_fixed_points(kind, size):
    number = {32: 10, 128: 3}.get(size, 20)
    grams = gramians(kind, size, number)
    for alpha in ALPHAS:
        found = compiled()(grams, alpha)
        own = departures(grams, found.weights, alpha)
        assert own.max() < 1e-3
        np.testing.assert_allclose(found.residual, own, atol=5e-4)
        assert (np.asarray(found.iterations) <= bargaining.MAX_ITERATIONS).all()
        if alpha <= 2:
            used = np.diagonal(grams, axis1=1, axis2=2) > 0
            np.testing.assert_array_equal(np.asarray(found.weights) > 0, used)


@pytest.mark.parametrize("size", [SIZES[0], SIZES[1], *SIZES[3:5]])
def test_few_iterations_are_enough(size):
    """For unrelated gradients; the bound is 64."""
    found = compiled()(gramians("plain", size, 10 if size == 32 else 20), 1.0)
    assert np.max(found.iterations) <= 8


@pytest.mark.parametrize("size", SIZES[1:5])
def test_no_bargain_is_said(size):
    """No direction descends all: the weights stay bounded, the residual tells."""
    grams = gramians("stationary", size, 10 if size == 32 else 20)
    norms = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))
    for alpha in ALPHAS:
        found = compiled()(grams, alpha)
        assert (np.asarray(found.residual) > 0.9).all()
        assert np.isfinite(found.weights).all()
    relative = np.asarray(compiled()(grams, 1.0).weights) * norms
    assert relative.max() < 1e5


def test_known_value():
    rows = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    found = solvers.nash_mtl(jnp.asarray(rows @ rows.T, jnp.float32))
    update = np.asarray(found.weights) @ rows
    np.testing.assert_allclose(update, [0.0766, 0.9985, 0.9985], atol=1e-4)


def test_two_equal_opponents_by_hand():
    """Cosine −½: G w = w(1 − ½) = w^{−p} for equal weights."""
    gram = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
    for alpha in ALPHAS:
        found = solvers.fairgrad_alpha(gram, alpha=alpha)
        wanted = 2.0 ** (1 / (1 + 1 / alpha))
        np.testing.assert_allclose(found.weights, [wanted] * 2, rtol=1e-5)


@pytest.mark.slow
def test_alpha_near_0_is_the_sum_and_nash_is_alpha_1():
    gram = jnp.eye(4) + 0.2
    sum_like = solvers.fairgrad_alpha(gram, alpha=0.02).weights
    np.testing.assert_allclose(sum_like, np.ones(4), atol=0.02)
    np.testing.assert_array_equal(
        solvers.nash_mtl(gram).weights, solvers.fairgrad_alpha(gram).weights
    )


@pytest.mark.slow
@hypothesis.given(st.integers(0, 2**16), st.sampled_from([2, 8]))
def test_nash_ignores_the_rows_lengths(seed, size):
    """Each row's weight takes its length off: the update stays, and is √m long."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, 2 * size))
    scaled = rows * 10 ** rng.uniform(-3, 3, (size, 1))
    grams = np.stack([rows @ rows.T, scaled @ scaled.T]).astype(np.float32)
    weights = np.asarray(compiled()(grams, 1.0).weights, np.float64)
    one, other = weights[0] @ rows, weights[1] @ scaled
    np.testing.assert_allclose(one, other, atol=2e-3 * np.linalg.norm(one))
    np.testing.assert_allclose(np.linalg.norm(one), np.sqrt(size), rtol=1e-3)


def test_masked_rows_change_nothing():
    gram = gramians("plain", 5, 1)[0]
    mask = np.array([True, False, True, True, False])
    solve = jax.jit(solvers.fairgrad_alpha)
    for alpha in ALPHAS:
        alone = solve(gram[mask][:, mask], alpha=alpha)
        masked = solve(gram, alpha=alpha, mask=mask)
        weights = np.asarray(masked.weights)
        np.testing.assert_allclose(weights[mask], alone.weights, rtol=1e-4)
        np.testing.assert_array_equal(weights[~mask], [0, 0])


def test_nothing_in_use():
    found = solvers.nash_mtl(jnp.zeros((3, 3)))
    np.testing.assert_array_equal(found.weights, [0, 0, 0])
    assert found.residual == 0


def test_float64_is_solved_in_float64():
    with jax.enable_x64(True):
        rows = rows_of("near", 6, np.random.default_rng(0))
        gram = rows @ rows.T
        found = solvers.nash_mtl(jnp.asarray(gram))
        assert found.weights.dtype == jnp.float64
        assert found.residual.dtype == jnp.float32
        assert departures(gram[None], found.weights[None], 1.0).max() < 1e-10


def test_a_hessian_that_rounding_has_spoilt_gives_its_diagonals_step():
    hessian = jnp.array([[4.0, 8.0], [8.0, 4.0]])  # Its factor would have a root of -3.
    found = bargaining._newton_direction(hessian, jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(found, [0.25, 0.5], rtol=1e-6)
