"""GradDrop and fixed weights against TorchJD 0.18.

Deliberate differences: ours leaks by one number for all objectives too; where all
gradients are zero at a coordinate TorchJD compares with NaN, which gives zero as well.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import fairjax

torch = pytest.importorskip("torch")
torchjd = pytest.importorskip("torchjd")

pytestmark = pytest.mark.oracle


def rows_of(size, width, seed=0):
    return np.random.default_rng(seed).normal(size=(size, width)).astype(np.float32)


def theirs(name, rows, **options):
    method = getattr(torchjd.aggregation, name)(**options)
    return method(torch.tensor(rows)).numpy()


def ours(transform, rows):
    return np.asarray(transform.update(jnp.asarray(rows), transform.init(None))[0])


@pytest.mark.parametrize("leak", [None, [0.2, 0.0, 0.9]])
def test_graddrop_draws_either_sign_as_often(leak):
    """One column 20,000 times: both reach the same two values, as often."""
    rows = np.repeat([[2.0], [-1.5], [0.25]], 20_000, axis=1).astype(np.float32)
    options = {} if leak is None else {"leak": torch.tensor(leak)}
    torch.manual_seed(0)
    their_values, their_counts = np.unique(
        theirs("GradDrop", rows, **options).round(4), return_counts=True
    )
    transform = fairjax.graddrop(num_objectives=3, leak=0.0 if leak is None else leak)
    values, counts = np.unique(ours(transform, rows).round(4), return_counts=True)
    np.testing.assert_allclose(values, their_values, rtol=1e-5)
    np.testing.assert_allclose(counts / 20_000, their_counts / 20_000, atol=0.02)


@pytest.mark.parametrize("size", [1, 8])
def test_graddrop_without_conflict_or_with_all_leaked(size):
    rows = rows_of(size, 40)
    transform = fairjax.graddrop(num_objectives=size)
    agreed = np.abs(rows)
    np.testing.assert_allclose(
        ours(transform, agreed), theirs("GradDrop", agreed), rtol=1e-5
    )
    leaking = fairjax.graddrop(num_objectives=size, leak=1.0)
    expected = theirs("GradDrop", rows, leak=torch.ones(size))
    np.testing.assert_allclose(ours(leaking, rows), expected, rtol=1e-4, atol=1e-5)


def test_a_coordinate_of_zeros():
    rows = np.array([[0.0, 1.0], [0.0, 2.0]], np.float32)
    np.testing.assert_array_equal(
        ours(fairjax.graddrop(num_objectives=2), rows), [0, 3]
    )
    # NaN is below no number, so that theirs keeps nothing, which is zero too.
    np.testing.assert_array_equal(theirs("GradDrop", rows), [0, 3])


@pytest.mark.parametrize("size", [1, 8])
def test_fixed_weights(size):
    rows = rows_of(size, 12, seed=1)
    weights = np.random.default_rng(2).uniform(size=size).astype(np.float32)
    for name, options, reduction in (
        ("Sum", {}, "sum"),
        ("Mean", {}, "mean"),
        ("Constant", {"weights": torch.tensor(weights)}, jnp.asarray(weights)),
    ):
        transform = fairjax.scalarize(num_objectives=size, reduction=reduction)
        found = ours(transform, rows)
        expected = theirs(name, rows, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
