"""The one search by halving, against square roots and NumPy's search in sorted rows."""

import jax.numpy as jnp
import numpy as np

from fairjax._bisection import bisect


def test_ends_enclose_what_is_sought():
    squares = jnp.array([0.25, 0.5, 1.0])
    low, high = bisect(
        lambda x: x**2 < squares, jnp.zeros(3), jnp.array([1.0, 2.0, 1.0]), 10
    )
    roots = np.sqrt(squares)
    assert (low <= roots).all()
    assert (roots <= high).all()
    np.testing.assert_array_equal(high - low, np.array([1.0, 2.0, 1.0]) / 2**10)


def test_positions_are_the_first_that_are_not_below():
    row = jnp.array([1, 1, 2, 5, 5, 5, 9])
    wanted = jnp.arange(11)

    def is_below(place):
        return row[jnp.minimum(place, len(row) - 1)] < wanted

    low, high = bisect(
        is_below, jnp.zeros(11, int), jnp.full(11, len(row)), len(row).bit_length()
    )
    np.testing.assert_array_equal(low, np.searchsorted(row, wanted))
    np.testing.assert_array_equal(low, high)
