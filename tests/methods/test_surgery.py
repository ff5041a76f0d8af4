"""PCGrad's published variants, against loops over vectors in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from fairjax import solvers


def loop(rows, orders, *, include_self, reduction="sum"):
    """As the published programs have it: vectors, one projection after the other."""
    projected = []
    for number, order in enumerate(orders):
        row = rows[number].copy()
        for other in order:
            if other == number and not include_self:
                continue
            inner = row @ rows[other]
            if inner < 0:
                row = row - inner / (rows[other] @ rows[other]) * rows[other]
        projected.append(row)
    return getattr(np, reduction)(projected, axis=0)


def draws(number, size):
    rng = np.random.default_rng(size)
    for _ in range(number):
        rows = rng.normal(size=(size, 3))
        yield rows - 0.8 * rows.mean(axis=0), rng


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize(
    "size", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 8))]
)
def test_projections_with_and_without_the_row_itself(size, include_self):
    changed = 0
    project = jax.jit(
        functools.partial(solvers.project_conflicts, include_self=include_self)
    )
    for number, (rows, rng) in enumerate(draws(400, size)):
        orders = np.stack([rng.permutation(size) for _ in range(size)])
        expected = loop(rows, orders, include_self=include_self)
        other = loop(rows, orders, include_self=not include_self)
        differs = not np.allclose(expected, other)
        changed += differs
        if number > 20 and not differs:
            continue
        gram = jnp.asarray(rows @ rows.T, jnp.float32)
        found = project(gram, jnp.asarray(orders))
        np.testing.assert_allclose(found.sum(axis=0) @ rows, expected, atol=2e-4)
    # With two rows, a projected row never conflicts with what it was.
    assert (changed > 0) == (size > 2)


def test_the_authors_code_meets_objectives_in_the_order_of_their_numbers():
    transform = fairjax.pcgrad(
        num_objectives=5, **fairjax.PCGRAD_VARIANTS["tensorflow"]
    )
    update = jax.jit(transform.update)
    for rows, _ in draws(20, 5):
        found, _ = update(jnp.asarray(rows), transform.init(None))
        expected = loop(rows, [range(5)] * 5, include_self=True)
        np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("name", ["pytorch", "libmtl"])
def test_random_variants(name):
    """The update is that of the loop under one of the orders that it may draw."""
    options = fairjax.PCGRAD_VARIANTS[name]
    reduction = options.get("reduction", "sum")
    make = functools.partial(fairjax.pcgrad, num_objectives=2, **options)
    rows = np.array([[1.0, 0.2], [-2.0, 1.0]])
    found, _ = jax.jit(make().update)(jnp.asarray(rows), make().init(None))
    expected = loop(rows, [[0, 1]] * 2, include_self=True, reduction=reduction)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "torchjd"])
def test_the_papers_options_are_the_defaults(name):
    rows = jnp.asarray(next(draws(1, 4))[0])
    one = fairjax.pcgrad(num_objectives=4, **fairjax.PCGRAD_VARIANTS[name])
    other = fairjax.pcgrad(
        num_objectives=4, include_self=False, order="random", reduction="sum"
    )
    found = one.update(rows, one.init(None))[0]
    np.testing.assert_array_equal(found, other.update(rows, other.init(None))[0])
