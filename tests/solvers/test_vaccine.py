"""GradVac in coefficient space, against the vectors themselves."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from fairjax import solvers

COMPILED = jax.jit(solvers.gradvac)
PCGRAD = jax.jit(solvers.project_conflicts)
SEEDS = st.integers(0, 2**16)


def sizes(quick, *slow):
    """Each is compiled once; of one rule, a size is enough at first."""
    marked = (pytest.param(size, marks=pytest.mark.slow) for size in slow)
    return pytest.mark.parametrize("size", [quick, *marked])


def vaccinated(rows, order, targets, beta, used=None):
    """Algorithm 1 of the paper in float64, one vector at a time."""
    rows, targets = np.asarray(rows, np.float64), np.array(targets, np.float64)
    used = np.ones(len(rows), bool) if used is None else used
    result = rows.copy()
    for i in range(len(rows)):
        for j in order[i]:
            if j == i or not (used[i] and used[j]):
                continue
            length, other = np.linalg.norm(result[i]), np.linalg.norm(rows[j])
            cosine = result[i] @ rows[j] / length / other
            aim = targets[i, j]
            if cosine < aim:
                rise = aim * np.sqrt(1 - cosine**2) - cosine * np.sqrt(1 - aim**2)
                result[i] += length * rise / (other * np.sqrt(1 - aim**2)) * rows[j]
            targets[i, j] = (1 - beta) * aim + beta * cosine
    return result, targets


def draw(seed, size):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, 8)) * rng.uniform(0.3, 3, (size, 1))
    order = np.stack([rng.permutation(size) for _ in range(size)])
    targets = rng.uniform(-0.6, 0.6, (size, size))
    return rows.astype(np.float32), order, targets.astype(np.float32)


def scale(rows):
    return np.abs(rows).max()


@sizes(3, 1, 2, 6)
@hypothesis.given(seed=SEEDS, beta=st.floats(0, 1))
def test_equals_the_published_algorithm(size, seed, beta):
    rows, order, targets = draw(seed, size)
    found, after = COMPILED(rows @ rows.T, order, targets, beta=beta)
    wanted, expected = vaccinated(rows, order, targets, beta)
    error = 2e-3 * max(scale(wanted), 1)
    np.testing.assert_allclose(np.asarray(found, float) @ rows, wanted, atol=error)
    np.testing.assert_allclose(after, expected, atol=1e-3)


@sizes(2, 4)
@hypothesis.given(seed=SEEDS)
def test_targets_of_0_are_pcgrad(size, seed):
    rows, order, _ = draw(seed, size)
    gram = rows @ rows.T
    found, after = COMPILED(gram, order, np.zeros((size, size), np.float32), beta=0.0)
    wanted = PCGRAD(gram, order)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(after, np.zeros((size, size)))


@hypothesis.given(SEEDS, st.floats(-0.9, 0.9))
def test_two_rows_reach_their_target(seed, target):
    rows, order, _ = draw(seed, 2)
    targets = np.full((2, 2), target, np.float32)
    found, _ = COMPILED(rows @ rows.T, order, targets, beta=0.5)
    raised = np.asarray(found, float) @ rows
    before = rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    for i in range(2):
        norms = np.linalg.norm(raised[i]) * np.linalg.norm(rows[1 - i])
        cosine = raised[i] @ rows[1 - i] / norms
        np.testing.assert_allclose(cosine, max(before, target), atol=1e-3)


def test_rows_out_of_use_are_left_and_keep_their_targets():
    rows, order, targets = draw(3, 5)
    rows[1] = 0
    used = np.array([True, False, True, False, True])
    mask = jnp.array([True, True, True, False, True])
    found, after = COMPILED(rows @ rows.T, order, targets, beta=0.3, mask=mask)
    wanted, expected = vaccinated(rows, order, targets, 0.3, used)
    np.testing.assert_allclose(np.asarray(found) @ rows, wanted, atol=1e-4)
    np.testing.assert_allclose(after, expected, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(after)[~used], targets[~used])
    np.testing.assert_array_equal(np.asarray(found)[~used], np.eye(5)[~used])


def test_extreme_cosines_stay_finite():
    rows = np.array([[1, 0], [-1, 0], [2, 0]], np.float32)
    order = np.tile(np.arange(3), (3, 1))
    for target in (-1.0, 0.0, 1.0):
        targets = np.full((3, 3), target, np.float32)
        found, after = COMPILED(rows @ rows.T, order, targets, beta=0.5)
        assert np.isfinite(found).all()
        assert np.isfinite(after).all()


def test_coefficients_do_not_depend_on_a_common_scale():
    rows, order, targets = draw(0, 4)
    one, _ = COMPILED(rows @ rows.T, order, targets)
    for factor in (1e-10, 1e10):
        small = (rows.astype(float) @ rows.T.astype(float)) * factor**2
        other, _ = COMPILED(small.astype(np.float32), order, targets)
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)
