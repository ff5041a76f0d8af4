"""Projection in coefficient space, against projection of the vectors themselves."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairjax import solvers


@functools.cache
def compiled(condition="conflict"):
    return jax.jit(functools.partial(solvers.project_conflicts, condition=condition))


def projected_vectors(rows, order, condition="conflict", epsilon=0.0):
    """PCGrad as published, in float64, one vector at a time."""
    rows = np.asarray(rows, np.float64)
    result = []
    for i, start in enumerate(rows):
        row = start.copy()
        for j in order[i]:
            square = rows[j] @ rows[j]
            if j == i or square == 0 or start @ start == 0:
                continue
            inner = row @ rows[j]
            if condition == "always" or inner < 0:
                row = row - inner / (square + epsilon) * rows[j]
        result.append(row)
    return np.stack(result)


def coefficients(rows, order=None, **options):
    rows = jnp.asarray(rows, jnp.float32)
    if order is None:
        order = np.tile(np.arange(len(rows)), (len(rows), 1))
    return np.asarray(
        solvers.project_conflicts(rows @ rows.T, jnp.asarray(order), **options)
    )


def random_rows(rng, size):
    """Rows of unequal lengths."""
    rows = rng.normal(size=(size, 12)) * rng.uniform(0.3, 3, (size, 1))
    return rows.astype(np.float32)


def random_orders(rng, size):
    return np.stack([rng.permutation(size) for _ in range(size)])


@pytest.mark.parametrize(
    ("rows", "update"),
    [
        ([[-4, 1, 1], [6, 1, 1]], [0.5848, 3.8012, 3.8012]),
        ([[1, 0], [-1, -1]], [0.5, -1.5]),
        ([[-1, 1], [1, 0]], [0.5, 1.5]),
        ([[1, 2], [3, 4]], [4, 6]),
    ],
)
def test_published_updates(rows, update):
    total = coefficients(rows).sum(axis=0) @ np.asarray(rows)
    np.testing.assert_allclose(total, update, atol=5e-5)


A, B, C = [1, 0], [1, 1], [0, 2]


@pytest.mark.parametrize(
    ("rows", "order", "expected"),
    [
        ([A, B], [[0, 1], [0, 1]], [[1, -0.5], [-1, 1]]),
        # a: off b leaves (.5, −.5), off c adds c/4; b: off a leaves (0, 1), off c
        # takes c/2; c: a is orthogonal, off b takes b.
        (
            [A, B, C],
            [[0, 1, 2]] * 3,
            [[1, -0.5, 0.25], [-1, 1, -0.5], [0, -1, 1]],
        ),
        # Other orders: a meets c while orthogonal to it; c meets a after b.
        (
            [A, B, C],
            [[2, 1, 0], [0, 2, 1], [1, 0, 2]],
            [[1, -0.5, 0], [-1, 1, -0.5], [1, -1, 1]],
        ),
    ],
)
def test_unconditional_projection_by_hand(rows, order, expected):
    found = coefficients(rows, order, condition="always")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_epsilon_by_hand():
    found = coefficients([[1, 0], [-1, -1]], epsilon=1.0)
    np.testing.assert_allclose(found, [[1, 1 / 3], [1 / 2, 1]], atol=1e-6)


def test_masked_row_is_left_alone_and_out():
    rows = [[1, 0], [-1, -1], [-1, 1]]
    found = coefficients(rows, mask=jnp.array([True, False, True]))
    expected = [[1, 0, 0.5], [0, 1, 0], [1, 0, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_zero_row_is_never_divided_by():
    found = coefficients([[0, 0], [1, 0], [-1, 1]], condition="always")
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0], [1, 0, 0])
    np.testing.assert_array_equal(found[1:, 0], [0, 0])


def test_unknown_condition(untyped):
    with pytest.raises(ValueError, match="'conflict' or 'always'; got 'never'"):
        coefficients([A, B], condition="never")


@pytest.mark.parametrize("condition", ["conflict", "always"])
@pytest.mark.parametrize(
    "size", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 5, 16))]
)
def test_equals_projection_of_vectors(size, condition):
    rng = np.random.default_rng(size)
    for _ in range(20):
        rows, order = random_rows(rng, size), random_orders(rng, size)
        found = np.asarray(compiled(condition)(rows @ rows.T, order), np.float64)
        expected = projected_vectors(rows, order, condition)
        np.testing.assert_allclose(found @ rows, expected, atol=3e-4)


@pytest.mark.parametrize("condition", ["conflict", "always"])
def test_rows_in_use_are_projected_as_if_alone(condition):
    rng = np.random.default_rng(0)
    for size in range(1, 17):
        rows, order = random_rows(rng, 16), random_orders(rng, 16)
        used = rng.permutation(16) < size
        found = compiled(condition)(rows @ rows.T, order, mask=jnp.asarray(used))
        inside = np.cumsum(used) - 1
        kept = [inside[[j for j in order[i] if used[j]]] for i in np.flatnonzero(used)]
        expected = rows.astype(np.float64)
        expected[used] = projected_vectors(rows[used], kept, condition)
        np.testing.assert_allclose(np.asarray(found) @ rows, expected, atol=3e-4)


def test_epsilon_equals_projection_of_vectors():
    rng = np.random.default_rng(0)
    rows, order = rng.normal(size=(5, 7)), random_orders(rng, 5)
    found = coefficients(rows, order, epsilon=0.7) @ rows
    expected = projected_vectors(rows, order, epsilon=0.7)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_three_rows_may_still_conflict():
    """PCGrad promises no common descent direction from three objectives on."""
    rows = np.array([[-1, 0], [1, 1], [0, -1]])
    total = coefficients(rows).sum(axis=0) @ rows
    np.testing.assert_allclose(total, [0, -0.5], atol=1e-6)
    assert total @ rows[1] < -0.4


# Whole numbers: their Gram matrices are exact, zero and equal rows are frequent.
matrices = st.sampled_from([1, 3, 5]).flatmap(
    lambda size: hnp.arrays(np.float32, (size, 4), elements=st.integers(-6, 6))
)


@hypothesis.given(matrices, st.integers(0, 2**16))
def test_coefficients_keep_the_row_and_add_of_the_others(rows, seed):
    order = random_orders(np.random.default_rng(seed), len(rows))
    found = np.asarray(compiled()(rows @ rows.T, order))
    np.testing.assert_array_equal(np.diagonal(found), 1)
    assert (found >= 0).all()


@hypothesis.given(matrices, st.integers(0, 2**16))
def test_no_conflict_leaves_every_row(rows, seed):
    order = random_orders(np.random.default_rng(seed), len(rows))
    gram = np.abs(rows) @ np.abs(rows).T
    np.testing.assert_array_equal(compiled()(gram, order), np.eye(len(rows)))


@hypothesis.given(matrices, st.integers(0, 2**16))
def test_permuted_rows_give_permuted_coefficients(rows, seed):
    rng = np.random.default_rng(seed)
    order = random_orders(rng, len(rows))
    moved = rng.permutation(len(rows))
    place = np.argsort(moved)
    one = np.asarray(compiled()(rows @ rows.T, order))
    other = compiled()(rows[moved] @ rows[moved].T, place[order[moved]])
    np.testing.assert_allclose(other, one[np.ix_(moved, moved)], rtol=1e-5, atol=1e-5)


@hypothesis.given(matrices, st.integers(0, 2**16), st.integers(-8, 8))
def test_coefficients_do_not_depend_on_a_common_scale(rows, seed, exponent):
    order = random_orders(np.random.default_rng(seed), len(rows))
    gram = rows @ rows.T
    one, other = compiled()(gram, order), compiled()(gram * 4.0**exponent, order)
    np.testing.assert_array_equal(one, other)


@hypothesis.given(hnp.arrays(np.float32, (2, 4), elements=st.integers(-6, 6)))
def test_two_rows_conflict_no_more(rows):
    order = np.array([[0, 1], [0, 1]])
    found = np.asarray(compiled()(rows @ rows.T, order), np.float64) @ rows
    assert found[0] @ rows[1] >= -1e-4
    assert found[1] @ rows[0] >= -1e-4
