"""IMTL-G, Aligned-MTL and ConFIG against NumPy in float64, and what they promise."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from fairjax import solvers

KNOWN = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
METHODS = {
    "imtl_g": solvers.imtl_g,
    "imtl_g absolute": functools.partial(solvers.imtl_g, normalization="absolute"),
    "aligned_mtl": solvers.aligned_mtl,
    "aligned_mtl median": functools.partial(solvers.aligned_mtl, scale="median"),
    "aligned_mtl rmse": functools.partial(solvers.aligned_mtl, scale="rmse"),
    "conflict_free": solvers.conflict_free,
}
COMPILED = {name: jax.jit(method) for name, method in METHODS.items()}
SEEDS = st.integers(0, 2**16)


def gramian(rows):
    rows = np.asarray(rows, np.float64)
    return (rows @ rows.T).astype(np.float32)


def draw(seed, size):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 2 * size)) * 10 ** rng.uniform(-0.5, 0.5, (size, 1))


def expected(name, rows):
    """The update in float64, from the vectors themselves."""
    rows = np.asarray(rows, np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if name == "conflict_free":
        direction = np.linalg.pinv(units) @ np.ones(len(rows))
        direction /= np.linalg.norm(direction)
        return (rows @ direction).sum() * direction
    if name.startswith("imtl_g"):
        weights = np.linalg.solve(rows @ rows.T, np.linalg.norm(rows, axis=1))
        total = np.abs(weights).sum() if "absolute" in name else weights.sum()
        return weights @ rows / total
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    level = {
        "aligned_mtl": values.min(),
        "aligned_mtl median": np.sort(values)[(len(values) - 1) // 2],
        "aligned_mtl rmse": np.sqrt((values**2).mean()),
    }[name]
    return (level * left @ right).mean(axis=0)


@pytest.mark.parametrize(
    ("name", "update"),
    [
        ("imtl_g", [0.0767, 1, 1]),
        ("aligned_mtl", [0.2133, 0.9673, 0.9673]),
        ("conflict_free", [0.1588, 2.0706, 2.0706]),
    ],
)
def test_published_updates(name, update):
    np.testing.assert_allclose(
        COMPILED[name](gramian(KNOWN)) @ KNOWN, update, atol=1e-4
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "size",
    [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 32, 128))],
)
def test_equals_the_vectors_own_solution(name, size):
    for seed in range(2 if size > 32 else 4):
        rows = draw(seed, size)
        wanted = expected(name, rows)
        found = np.asarray(COMPILED[name](gramian(rows)), np.float64) @ rows
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        # IMTL-G divides by a sum of weights of both signs that may nearly cancel.
        assert error < (2e-3 if name == "imtl_g" else 2e-4)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("exponent", [-10, -5, 5, 10])
def test_weights_do_not_depend_on_a_common_scale(name, exponent):
    rows = draw(0, 5)
    one = COMPILED[name](gramian(rows))
    other = COMPILED[name](gramian(rows * 10.0**exponent))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        # A space parts a variant's name from its method's.
        pytest.param(name, marks=pytest.mark.slow if " " in name else ())
        for name in METHODS
    ],
)
def test_rows_out_of_use_change_nothing(name):
    rows = draw(1, 5)
    alone = COMPILED[name](gramian(rows[:3]))
    masked = COMPILED[name](gramian(rows), mask=np.arange(5) < 3)
    np.testing.assert_allclose(masked, [*alone, 0, 0], rtol=1e-4, atol=1e-6)
    rows[3:] = 0
    np.testing.assert_allclose(
        COMPILED[name](gramian(rows)), [*alone, 0, 0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", METHODS)
def test_nothing_in_use(name):
    np.testing.assert_array_equal(
        COMPILED[name](np.zeros((3, 3), np.float32)), [0, 0, 0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_float64_is_solved_in_float64(name):
    rows = draw(2, 6)
    with jax.enable_x64(True):
        weights = COMPILED[name](jnp.asarray(rows @ rows.T))
        assert weights.dtype == jnp.float64
        np.testing.assert_allclose(weights @ rows, expected(name, rows), rtol=1e-9)


@hypothesis.given(SEEDS, st.sampled_from([2, 3, 5]))
def test_imtl_g_projects_equally_on_all_unit_rows(seed, size):
    rows = draw(seed, size)
    weights = np.asarray(COMPILED["imtl_g absolute"](gramian(rows)), np.float64)
    projections = rows @ (weights @ rows) / np.linalg.norm(rows, axis=1)
    assert projections.min() > 0
    np.testing.assert_allclose(projections, projections.mean(), rtol=5e-2)
    np.testing.assert_allclose(np.abs(weights).sum(), 1, rtol=1e-5)


@hypothesis.given(SEEDS, st.sampled_from([2, 3, 5]))
def test_config_is_imtl_g_of_another_length(seed, size):
    rows = draw(seed, size)
    one = np.asarray(COMPILED["conflict_free"](gramian(rows)) @ rows)
    other = np.asarray(COMPILED["imtl_g absolute"](gramian(rows)) @ rows)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert cosine > 1 - 1e-5
    direction = one / np.linalg.norm(one)
    np.testing.assert_allclose(np.linalg.norm(one), (rows @ direction).sum(), rtol=1e-3)


def test_imtl_g_with_a_negative_sum_of_weights():
    """As published it then ascends every objective; the absolute sum does not."""
    # Unit rows (1, 0), (.8, .6) and (.6, .8), the middle one between the others: its
    # share is negative, and the shortest row makes it the greatest weight.
    rows = np.array([[1.0, 0.0, 0.1], [0.008, 0.006, 0.0], [0.6, 0.8, 0.1]])
    gram = gramian(rows)
    published = np.asarray(COMPILED["imtl_g"](gram), np.float64)
    absolute = np.asarray(COMPILED["imtl_g absolute"](gram), np.float64)
    assert (rows @ (published @ rows) < 0).all()
    assert (rows @ (absolute @ rows) > 0).all()
    np.testing.assert_allclose(published.sum(), 1, rtol=1e-4)


def test_dependent_rows():
    """One row stands twice."""
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    gram = gramian(rows)
    # Unit rows (1, 0), (0, 1), (0, 1): projections are equal along (1, 1).
    found = COMPILED["imtl_g"](gram) @ rows
    np.testing.assert_allclose(found, [2 / 3, 2 / 3], rtol=1e-5)
    # The projections add up to (1 + 2 + 2)/√2.
    found = COMPILED["conflict_free"](gram) @ rows
    np.testing.assert_allclose(found, [2.5, 2.5], rtol=1e-5)
    # Singular values 1 and √8: aligned rows (1, 0), (0, √½), (0, √½), of which a third.
    found = COMPILED["aligned_mtl"](gram) @ rows
    np.testing.assert_allclose(found, [1 / 3, np.sqrt(2) / 3], rtol=1e-5)


def test_opposite_rows():
    gram = gramian([[1.0, 0.0], [-1.0, 0.0]])
    for name in METHODS:
        found = np.asarray(COMPILED[name](gram)) @ np.array([[1.0, 0.0], [-1.0, 0.0]])
        np.testing.assert_allclose(found, [0, 0], atol=1e-6)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_rows_are_orthogonal_and_of_one_length(scale):
    rows = draw(3, 4)
    aligned_mtl = jax.jit(functools.partial(solvers.aligned_mtl, scale=scale))
    each = [
        aligned_mtl(gramian(rows), preference=row)
        for row in np.eye(4, dtype=np.float32)
    ]
    aligned = np.asarray(each, np.float64) @ rows
    level = {"min": 0, "median": 1}.get(scale)
    values = np.linalg.eigvalsh(rows @ rows.T)
    square = values.mean() if level is None else values[level]
    np.testing.assert_allclose(
        aligned @ aligned.T, square * np.eye(4), atol=2e-4 * square
    )


def test_tolerance_leaves_small_eigenvalues_out():
    gram = np.diag(np.float32([1.0, 0.01]))
    aligned_mtl = COMPILED["aligned_mtl"]
    np.testing.assert_allclose(aligned_mtl(gram), [0.05, 0.5], rtol=1e-5)
    np.testing.assert_allclose(aligned_mtl(gram, tolerance=0.1), [0.5, 0], rtol=1e-5)


def test_preferences_by_hand():
    gram, preference = np.eye(2, dtype=np.float32), np.float32([3, 4])
    found = COMPILED["aligned_mtl"](gram, preference=preference)
    np.testing.assert_allclose(found, [3, 4], rtol=1e-6)
    # Direction (.6, .8), along which the rows add up to 1.4.
    found = COMPILED["conflict_free"](gram, preference=preference)
    np.testing.assert_allclose(found, [0.84, 1.12], rtol=1e-6)


@pytest.mark.slow
@hypothesis.given(SEEDS, st.sampled_from(sorted(METHODS)))
def test_permuted_rows_give_permuted_weights(seed, name):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(5, 9))
    moved = rng.permutation(5)
    one = np.asarray(COMPILED[name](gramian(rows)))
    other = COMPILED[name](gramian(rows[moved]))
    np.testing.assert_allclose(other, one[moved], rtol=2e-3, atol=2e-4)
