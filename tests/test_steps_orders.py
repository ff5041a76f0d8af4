"""Drawn orders: permutations, each row's its own, every one as likely as another."""

import functools
import itertools

import jax
import numpy as np
import pytest

from fairjax import steps
from fairjax.reconcilers._orders import row_orders


@functools.partial(jax.jit, static_argnums=1)
def orders_of(key, rows):
    return row_orders("random", rows, key)[0]


def drawn(seed, rows):
    return np.asarray(orders_of(jax.random.PRNGKey(seed), rows))


@pytest.mark.parametrize(
    "rows", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 64))]
)
def test_each_row_draws_a_permutation_of_its_own(rows):
    orders = drawn(0, rows)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(rows), (rows, 1)))
    if rows == 64:
        assert len(np.unique(orders, axis=0)) == rows


@pytest.mark.slow
def test_permutations_are_equally_likely():
    """Of three rows; 600 draws, and a χ² of five degrees of freedom."""
    keys = jax.random.split(jax.random.PRNGKey(1), 200)
    orders = jax.vmap(lambda key: row_orders("random", 3, key)[0])(keys)
    found = [tuple(order) for order in np.asarray(orders).reshape(-1, 3).tolist()]
    counts = np.array([found.count(one) for one in itertools.permutations(range(3))])
    assert counts.sum() == 600
    assert ((counts - 100) ** 2 / 100).sum() < 20.5


@pytest.mark.parametrize(
    "order", [[0, 0], [1, 2], [0.0, 1.0], [[0, 1], [1, 1]], [[[0, 1]]], 0]
)
def test_an_order_that_is_no_permutation_is_refused(untyped, order):
    with pytest.raises(ValueError, match="hold each row's number, from 0, once; got"):
        steps.project_conflicts(order=order)
