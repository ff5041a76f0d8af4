import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fairjax.metrics import hypervolume

REFERENCE = np.array([0.5, 1.0], np.float32)
coordinate = st.floats(0, 1.5, width=32)
compiled = jax.jit(hypervolume)
fronts = st.lists(st.tuples(coordinate, coordinate), min_size=5, max_size=5)


def area_by_cells(points):
    """Adds up every cell of the grid of all coordinates that some point dominates."""
    points = np.asarray(points, np.float64)
    x = np.unique(np.append(points[:, 0], REFERENCE[0]))
    y = np.unique(np.append(points[:, 1], REFERENCE[1]))
    x, y = x[x >= REFERENCE[0]], y[y <= REFERENCE[1]]
    total = 0.0
    for left, right in itertools.pairwise(x):
        for low, high in itertools.pairwise(y):
            covered = (points[:, 0] >= right) & (points[:, 1] <= low)
            total += covered.any() * (right - left) * (high - low)
    return total


@given(fronts)
def test_equals_the_area_of_the_dominated_cells(points):
    points = np.array(points, np.float32)
    result = compiled(points, REFERENCE)
    np.testing.assert_allclose(result, area_by_cells(points), atol=1e-6)


@given(fronts, st.randoms())
def test_order_and_dominated_points_do_not_matter(points, random):
    points = np.array(points, np.float32)
    shuffled = points[random.sample(range(len(points)), len(points))]
    worse = points + np.array([-0.125, 0.125], np.float32)
    more = np.concatenate([shuffled, worse])
    value = compiled(points, REFERENCE)
    np.testing.assert_allclose(compiled(more, REFERENCE), value, atol=1e-6)


def test_orientation_first_up_second_down():
    better_auroc = compiled(np.array([[1.0, 0.5]]), REFERENCE)
    better_gap = compiled(np.array([[0.75, 0.0]]), REFERENCE)
    neither = compiled(np.array([[0.75, 0.5]]), REFERENCE)
    assert (better_auroc, better_gap, neither) == (0.25, 0.25, 0.125)


def test_points_outside_or_undefined_add_nothing():
    outside = np.array(
        [[0.5, 0.0], [0.9, 1.0], [0.4, -1.0], [np.nan, 0.0], [1.0, np.nan]]
    )
    assert compiled(outside, REFERENCE) == 0


def test_maps_over_replicates():
    batch = jnp.array(np.random.default_rng(0).random((5, 4, 2)), jnp.float32)
    mapped = jax.jit(jax.vmap(hypervolume, (0, None)))(batch, REFERENCE)
    np.testing.assert_allclose(mapped, [area_by_cells(p) for p in batch], atol=1e-6)
