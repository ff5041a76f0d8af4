"""GradDrop: signs drawn coordinate by coordinate."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fairjax


@functools.cache
def compiled(**options):
    """An update and its first state."""
    transform = fairjax.graddrop(**options)
    return jax.jit(transform.update), transform.init(None)


def drop(rows, **options):
    update, state = compiled(num_objectives=len(rows), **options)
    return update(jnp.asarray(rows), state)[0]


def test_a_sign_is_drawn_by_its_share_of_the_sizes():
    """Of 3 and −1, the sum of the positive ones with probability ½ (1 + 2/4) = ¾."""
    rows = np.tile([[2.0], [-1.0], [1.0]], (1, 20_000))
    found = np.asarray(drop(rows, key=1))
    assert set(found.tolist()) == {3.0, -1.0}
    np.testing.assert_allclose((found == 3).mean(), 0.75, atol=0.012)


def test_what_leaks():
    found = np.asarray(drop([[2.0], [-1.0]] * 1, leak=(0.5, 0.25)))
    # + keeps 2 and leaks a quarter of −1; − keeps −1 and leaks half of 2.
    assert found[0] in (1.75, 0.0)
    np.testing.assert_array_equal(drop([[2.0], [-1.0]], leak=1.0), [1.0])


@pytest.mark.slow
@hypothesis.given(
    hnp.arrays(np.float32, (3, 5), elements=st.integers(-6, 6)), st.integers(0, 9)
)
def test_a_coordinate_has_one_sign(rows, key):
    found = np.asarray(drop(rows, key=key))
    positive = np.maximum(rows, 0).sum(axis=0)
    negative = np.minimum(rows, 0).sum(axis=0)
    assert ((found == positive) | (found == negative)).all()
    agreed = (positive == 0) | (negative == 0)
    np.testing.assert_array_equal(found[agreed], rows.sum(axis=0)[agreed])


def test_each_update_draws_anew():
    rows = jnp.asarray(np.tile([[1.0], [-1.0]], (1, 500)))
    transform = fairjax.graddrop(num_objectives=2)
    update = jax.jit(transform.update)
    first, state = update(rows, transform.init(None))
    second, _ = update(rows, state)
    assert 0.3 < np.mean(np.asarray(first) == np.asarray(second)) < 0.7


@pytest.mark.parametrize("leak", [-0.1, 1.5, [0.5, 2.0]])
def test_bad_leaks(leak):
    with pytest.raises(ValueError, match=r"leak must lie in \[0, 1\]"):
        fairjax.graddrop(num_objectives=2, leak=leak)
    with pytest.raises(ValueError, match="one number or 3"):
        fairjax.graddrop(num_objectives=3, leak=[0.1, 0.2])
