"""Projection onto the dual cone, against an active-set method in float64."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

from fairjax import solvers, steps
from fairjax.reconcilers.quadratic import (
    MAX_ITERATIONS,
    nonnegative_qp,
    nonnegative_qps,
    scale_rows,
)

# How many matrices of each kind for each number of rows.
COUNTS = {1: 4, 2: 22, 3: 22, 8: 24, 32: 16, 128: 4}
SIZES = [
    size if size == 8 else pytest.param(size, marks=pytest.mark.slow) for size in COUNTS
]
project = jax.jit(solvers.dual_cone)
closest = jax.jit(solvers.closest_update, static_argnames="reference")


@jax.jit
def upgrad(gram):
    step = steps.upgrad()
    return step.update(jnp.eye(len(gram)), gram, step.init(len(gram)))


def random(rng, size):
    return rng.normal(size=(size, 2 * size + 4))


def of_rank(rank, rng, size):
    rank = max(min(rank, size), 1)
    return rng.normal(size=(size, rank)) @ rng.normal(size=(rank, 2 * size + 4))


def pairs(sign, least, rng, size):
    """Rows in pairs, alike or opposite but for a share of down to ``least``."""
    half = rng.normal(size=((size + 1) // 2, 2 * size + 4))
    noise = 10 ** rng.uniform(np.log10(least), -0.5)
    both = np.concatenate([half, sign * half])[:size]
    return both + noise * rng.normal(size=both.shape)


def one_sum(rng, size):
    """The first row is the mean of the others, as a task's loss is of its groups'."""
    rows = random(rng, size)
    if size > 1:
        rows[0] = rows[1:].mean(axis=0)
    return rows


def one_zero(rng, size):
    rows = random(rng, size)
    rows[rng.integers(size)] = 0
    return rows


def scaled(rng, size):
    return random(rng, size) * 10 ** rng.uniform(-10, 10)


def scaled_rows(rng, size):
    return random(rng, size) * 10 ** rng.uniform(-9, 9, (size, 1))


def all_conflicting(rng, size):
    """Unit vectors pulled so far from their sum that all pairs conflict."""
    corners = np.eye(size, 2 * size + 4) * rng.uniform(0.9, 1.1, (size, 1))
    return corners - rng.uniform(0.9, 0.99) * corners.mean(axis=0)


KINDS = {
    "random": random,
    "half_rank": lambda rng, size: of_rank(size // 4, rng, size),
    "rank_3": functools.partial(of_rank, 3),
    "near_equal": functools.partial(pairs, 1, 1e-5),
    "near_opposite": functools.partial(pairs, -1, 3e-2),
    "repeated": lambda rng, size: random(rng, size)[np.arange(size) // 2],
    "one_sum": one_sum,
    "one_zero": one_zero,
    "scaled": scaled,
    "scaled_rows": scaled_rows,
    "all_conflicting": all_conflicting,
}
# Matrices of which float32 holds too little for that.
HARD = {
    "nearer_opposite": functools.partial(pairs, -1, 1e-3),
    # As many rows as twice the dimension: as likely as not 0 is in their hull.
    "critical_rank": lambda rng, size: of_rank(size // 2, rng, size),
}
# Of these the rounding of G alone may move the solution: the float32 G is solved.
ROUNDED = ("near_equal", "near_opposite", "nearer_opposite")


def gram_of(rows):
    return (rows @ rows.T).astype(np.float32)


def factor_of(gram):
    """Columns whose inner products are the matrix, in float64."""
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def reference(columns, wanted):
    """The projection of ``columns @ wanted``, by Lawson and Hanson's method."""
    norms = np.linalg.norm(columns, axis=0)
    unit = columns / np.where(norms > 0, norms, 1)
    start = columns @ wanted
    size = np.linalg.norm(start) or 1.0
    raised, _ = optimize.nnls(unit, -start / size, maxiter=100 * len(wanted))
    return start + size * (unit @ raised)


def preferences(rng, size):
    """The mean, one row, and any weights."""
    one = np.eye(size)[rng.integers(size)]
    return np.stack([np.full(size, 1 / size), one, rng.uniform(size=size)])


def problems(kind, size):
    """Yields the columns, ``u`` and ``v`` of each, all in float64."""
    rng = np.random.default_rng([size, *kind.encode()])
    for _ in range(COUNTS[size]):
        rows = (KINDS | HARD)[kind](rng, size)
        gram = gram_of(rows)
        columns = factor_of(gram) if kind in ROUNDED else rows.T
        wanted = preferences(rng, size).astype(np.float32)
        solved = project(gram, wanted)
        assert (np.asarray(solved.iterations) <= MAX_ITERATIONS).all()
        weights = np.asarray(solved.weights, np.float64)
        assert (weights[:, np.diagonal(gram) == 0] == 0).all()
        for one, given in zip(weights, wanted.astype(np.float64), strict=True):
            yield columns, given, one


def test_there_are_a_thousand_matrices():
    assert sum(COUNTS.values()) * len(KINDS) >= 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_float64_solution(kind, size):
    """But for 1e-4 of the length of the vector that is projected."""
    for columns, wanted, found in problems(kind, size):
        error = np.linalg.norm(columns @ found - reference(columns, wanted))
        assert error <= 1e-4 * np.linalg.norm(columns @ wanted)


def others_of(rng, rows):
    """Columns of the task and the groups, and margins that some update leaves."""
    columns = rows.T
    lengths = np.linalg.norm(columns, axis=0)
    point = columns @ (rng.normal(size=len(rows)) / np.where(lengths > 0, lengths, 1))
    point *= 0.2 * lengths[0] / max(np.linalg.norm(point), 1e-300)
    both = np.where(lengths > 0, lengths, 1) * max(lengths[0], 1e-300)
    return columns, point, (columns.T @ point / both).astype(np.float32)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ROUNDED])
@pytest.mark.parametrize("size", SIZES)
def test_closest_update_equals_the_float64_solution(kind, size):
    """But for 1e-4 of the task's length; with margins, m = Jp, in p's coordinates."""
    rng = np.random.default_rng([size, 1, *kind.encode()])
    for _ in range(COUNTS[size]):
        rows = (KINDS | HARD)[kind](rng, size)
        if kind == "scaled_rows":
            # Margins are cosines; where lengths differ by 1e18 they are beyond float32.
            rows = random(rng, size) * 10 ** rng.uniform(-3, 3, (size, 1))
        if not rows[0].any():
            continue
        gram = gram_of(rows)
        columns, point, margins = others_of(rng, rows)
        unit = columns[:, 1:] / np.maximum(
            np.linalg.norm(columns[:, 1:], axis=0), 1e-300
        )
        length = np.linalg.norm(columns[:, 0])
        for asked, shift in ((None, 0.0), (margins, point)):
            if asked is not None and kind in ("repeated", "rank_3", "half_rank"):
                # Rounded margins of dependent rows contradict each other.
                continue
            found = closest(gram, asked)
            assert int(found.iterations) <= 2 * MAX_ITERATIONS
            assert bool(found.feasible)
            start = columns[:, 0] - shift
            size_of = np.linalg.norm(start) or 1.0
            expected = columns[:, 0].copy()
            if size > 1:
                raised, _ = optimize.nnls(unit, -start / size_of, maxiter=100 * size)
                expected += size_of * (unit @ raised)
            update = columns @ np.asarray(found.weights, np.float64)
            assert np.linalg.norm(update - expected) <= 1e-4 * length


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES[:-1])
def test_upgrad_equals_the_float64_solution(kind, size):
    """But for 1e-4 of the rows' mean length: the sum of as many projections as rows."""
    rng = np.random.default_rng([size, 2, *kind.encode()])
    for _ in range(COUNTS[size] if size <= 8 else 2):
        rows = KINDS[kind](rng, size)
        gram = gram_of(rows)
        columns = factor_of(gram) if kind in ROUNDED else rows.T
        weights, state = upgrad(gram)
        assert int(state.iterations) <= MAX_ITERATIONS
        used = np.flatnonzero(np.diagonal(gram) > 0)
        wanted = np.eye(size)[used] / max(len(used), 1)
        expected = sum(reference(columns, one) for one in wanted)
        update = columns @ np.asarray(weights[0], np.float64)
        scale = np.linalg.norm(columns, axis=0).sum() / max(len(used), 1)
        assert np.linalg.norm(update - expected) <= 1e-4 * scale


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("size", SIZES)
def test_float32_at_its_limit(kind, size):
    """But for 3e-3 of the lengths of the rows that are projected."""
    for columns, wanted, found in problems(kind, size):
        error = np.linalg.norm(columns @ found - reference(columns, wanted))
        assert error <= 3e-3 * (np.linalg.norm(columns, axis=0) @ wanted)


@pytest.mark.slow
@pytest.mark.parametrize("size", [8])
def test_float64_has_no_such_limit(size):
    with jax.enable_x64(True):
        rng = np.random.default_rng(size)
        rows = pairs(-1, 1e-4, rng, size)
        wanted = preferences(rng, size)
        solved = project(jnp.asarray(rows @ rows.T), jnp.asarray(wanted))
        found = np.asarray(solved.weights)
        assert found.dtype == np.float64
    for one, given in zip(found, wanted, strict=True):
        error = np.linalg.norm(rows.T @ one - reference(rows.T, given))
        assert error < 1e-6 * np.linalg.norm(rows.T @ given)


# Most steps that all problems of a kind share: each is one product of K×K matrices.
STEPS = {"random": 100, "half_rank": 200, "all_conflicting": 200, "near_opposite": 700}


@pytest.mark.parametrize("size", [64, pytest.param(128, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", STEPS)
def test_every_row_projected_in_shared_steps(kind, size):
    """As UPGrad does: the work is bounded, and no problem factorizes a matrix."""
    rows = KINDS[kind](np.random.default_rng(0), size)
    gram, wanted = gram_of(rows), np.eye(size, dtype=np.float32)
    solved = project(gram, wanted)
    assert np.asarray(solved.residual).max() < 2e-6
    assert len(set(solved.iterations.tolist())) == 1
    assert solved.iterations[0] <= STEPS[kind]
    columns = factor_of(gram) if kind in ROUNDED else rows.T
    weights = np.asarray(solved.weights, np.float64)
    for row in range(0, size, size // 8):
        error = columns @ weights[row] - reference(columns, np.eye(size)[row])
        assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(columns[:, row])


def test_by_hand():
    # (1, 0) against (−1, 1): half of the second is added.
    found = project(jnp.array([[1.0, -1.0], [-1.0, 2.0]]), jnp.eye(2))
    np.testing.assert_allclose(found.weights, [[1, 0.5], [1, 1]], rtol=1e-6)
    np.testing.assert_array_less(found.residual, 1e-6)


def test_masked_and_zero_rows_do_not_count():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 9))
    rows[2] = 0
    used = np.array([True, False, True, True, True])
    wanted = rng.uniform(size=(3, 5)).astype(np.float32)
    found = np.asarray(project(gram_of(rows), wanted, mask=used).weights)
    kept = [0, 3, 4]
    alone = project(gram_of(rows[kept]), wanted[:, kept]).weights
    np.testing.assert_array_equal(found[:, [1, 2]], 0)
    np.testing.assert_allclose(found[:, kept], alone, rtol=1e-5)


def test_no_rows_in_use():
    found = project(np.zeros((3, 3), np.float32), np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(found.weights, 0)
    np.testing.assert_array_equal(found.residual, 0)


def test_no_minimum_is_not_silent():
    """A linear term that the matrix does not bound."""
    found = solvers.nonnegative_qp(jnp.zeros((2, 2)), jnp.array([-1.0, 1.0]))
    assert found.residual >= 1
    assert found.iterations == MAX_ITERATIONS


@pytest.mark.slow
def test_newton_steps_finish_what_shared_steps_leave():
    """Shared steps come nowhere near the rounding of float64."""
    with jax.enable_x64(True):
        rows = pairs(-1, 1e-4, np.random.default_rng(8), 8)
        scaled = scale_rows(jnp.asarray(rows @ rows.T))
        found = nonnegative_qps(scaled.gramian, scaled.gramian)
        assert found.residual.max() < 1e-14


# Whole numbers: zero, equal and opposite rows are frequent.
matrices = hnp.arrays(np.float32, (3, 4), elements=st.integers(-6, 6))


@hypothesis.given(matrices)
def test_kkt_conditions(rows):
    size = len(rows)
    solved = project(rows @ rows.T, np.eye(size, dtype=np.float32))
    used = (rows != 0).any(axis=1)
    for row in np.flatnonzero(used):
        raised = np.asarray(solved.weights[row], np.float64) - np.eye(size)[row]
        update = (raised + np.eye(size)[row]) @ rows
        slack = rows @ update
        scale = np.abs(rows).max() * np.abs(rows[row]).max() + 1
        assert (raised[used] >= 0).all()
        assert (slack >= -2e-3 * scale).all()
        assert (np.minimum(raised[used], slack[used] / scale) <= 2e-3).all()


@hypothesis.given(matrices)
def test_shared_steps_find_what_newton_steps_find(rows):
    scaled = scale_rows(jnp.asarray(rows @ rows.T))
    linear = jnp.where(scaled.used, scaled.gramian, 0.0)
    shared = np.asarray(nonnegative_qps(scaled.gramian, linear).solution)
    alone = np.asarray(jax.vmap(nonnegative_qp, (None, 0))(scaled.gramian, linear)[0])
    assert (shared >= 0).all()
    columns = rows.T / np.asarray(scaled.scales)
    np.testing.assert_allclose(columns @ shared.T, columns @ alone.T, atol=2e-3)


@hypothesis.given(matrices, st.integers(-8, 8))
def test_weights_do_not_depend_on_a_common_scale(rows, exponent):
    gram = rows @ rows.T
    wanted = np.eye(len(rows), dtype=np.float32)
    one, other = project(gram, wanted), project(gram * 4.0**exponent, wanted)
    np.testing.assert_array_equal(one.weights, other.weights)


class TestClosestUpdate:
    def solve(self, rows, margins=None, **options):
        rows = np.asarray(rows, np.float64)
        if margins is not None:
            margins = jnp.asarray(margins, jnp.float32)
        found = closest(gram_of(rows), margins, **options)
        return found, np.asarray(found.weights, np.float64) @ rows

    def test_by_hand(self):
        found, update = self.solve([[1, 0], [-1, 1]])
        np.testing.assert_allclose(update, [0.5, 0.5], atol=1e-6)
        # A cosine of .5 with (0, 1) beside (1, 0).
        found, update = self.solve([[1, 0], [0, 1]], [0, 0.5])
        np.testing.assert_allclose(update, [1, 0.5], atol=1e-6)
        assert found.feasible

    def test_no_conflict_leaves_the_reference(self):
        _, update = self.solve([[1, 0], [1, 1], [0, 3]], reference=1)
        np.testing.assert_array_equal(update, [1, 1])

    def test_contradictory_margins_fall_back_to_none(self):
        rows = [[1, 0], [0, 1], [0, -1]]
        found, update = self.solve(rows, [0, 0.1, 0.1])
        assert not found.feasible
        np.testing.assert_allclose(update, [1, 0], atol=1e-6)
        assert found.residual < 1e-6

    def test_limit(self):
        rows = [[1, 0], [-1, 0.1]]
        free, _ = self.solve(rows, [0, 0.5])
        bound, update = self.solve(rows, [0, 0.5], limit=1.2)
        assert free.feasible
        assert not bound.feasible
        np.testing.assert_allclose(update @ rows[1], 0, atol=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [3, 32])
    def test_kkt_conditions(self, size):
        rng = np.random.default_rng(size)
        feasible = 0
        for _ in range(30):
            rows = random(rng, size) * rng.uniform(0.1, 10, (size, 1))
            margins = rng.uniform(-0.1, 0.3, size) * (rng.random(size) < 0.5)
            reference = int(rng.choice([0, size - 1]))
            found, update = self.solve(rows, margins, reference=reference)
            feasible += bool(found.feasible)
            lengths = np.linalg.norm(rows, axis=1)
            lengths *= lengths[reference]
            others = np.arange(size) != reference
            pull = np.asarray(found.weights)[others]
            slack = (rows @ update / lengths - margins)[others]
            assert np.asarray(found.weights)[reference] == 1
            assert (pull >= 0).all()
            assert (slack >= -1e-5).all()
            np.testing.assert_array_less(slack[pull > 1e-4], 1e-5)
        assert feasible == 30

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [3, 32])
    def test_equals_a_projection_in_float64(self, size):
        rng = np.random.default_rng(size)
        for _ in range(20):
            rows = random(rng, size)
            _, update = self.solve(rows)
            unit = rows[1:].T
            raised, _ = optimize.nnls(unit, -rows[0])
            expected = rows[0] + unit @ raised
            error = np.linalg.norm(update - expected)
            assert error < 1e-5 * np.linalg.norm(rows[0])
            # The task is not harmed either.
            np.testing.assert_allclose(update @ rows[0], update @ update, rtol=1e-3)

    @pytest.mark.parametrize("masked", [0, 1])
    def test_masked_and_zero_rows(self, masked):
        mask = jnp.arange(3) != masked
        found, update = self.solve([[1, 0], [-1, 1], [0, 0]], mask=mask)
        np.testing.assert_array_equal(update, [0, 0] if masked == 0 else [1, 0])
        np.testing.assert_array_equal(np.asarray(found.weights)[[masked, 2]], 0)
