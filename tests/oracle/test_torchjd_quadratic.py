"""UPGrad, DualProj, MGDA and CAGrad against TorchJD 0.18.

Deliberate differences:

- TorchJD adds 1e-4 of G's trace to its diagonal before it projects, so that its
  updates keep a little conflict. Ours add nothing unless asked to with ``ridge``; with
  ``ridge=1e-4`` they agree.
- TorchJD's MGDA takes at most 100 Frank-Wolfe steps. Ours solves the problem, so its
  update is never the longer one.
- TorchJD solves CAGrad's dual with a cone program on a reduced, normalised Gram
  matrix; ours is closer to optimal, and they agree to its accuracy.
- A zero row counts in TorchJD's mean; ours leaves it out.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from fairjax import steps

torch = pytest.importorskip("torch")
torchjd = pytest.importorskip("torchjd")

pytestmark = pytest.mark.oracle
SIZES = [1, 2, 3, 8, 32]


def their_update(name, rows, **options):
    from torchjd import aggregation

    method = getattr(aggregation, name)(**options)
    return method(torch.tensor(rows, dtype=torch.float64)).numpy()


def our_update(step, rows):
    transform = fairjax.reconcile(step, num_objectives=len(rows))
    return np.asarray(transform.update(jnp.asarray(rows), transform.init(None))[0])


def draws(size, number=20):
    rng = np.random.default_rng(size)
    for _ in range(number):
        rows = rng.normal(size=(size, size + 4)) * rng.uniform(0.3, 3, (size, 1))
        yield rows.astype(np.float32)


def distance(one, other, rows):
    return np.linalg.norm(one - other) / np.linalg.norm(rows, axis=1).mean()


@pytest.mark.parametrize("size", SIZES)
def test_upgrad_and_dualproj_with_their_ridge(size):
    upgrad, dualproj = steps.upgrad(ridge=1e-4), steps.dualproj(ridge=1e-4)
    for rows in draws(size):
        for name, step in (("UPGrad", upgrad), ("DualProj", dualproj)):
            theirs = their_update(name, rows)
            assert distance(our_update(step, rows), theirs, rows) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_upgrad_and_dualproj_without_a_ridge(size):
    from torchjd.linalg import QuadprogProjector

    # As little as quadprog can do with.
    exact = {"projector": QuadprogProjector(reg_eps=1e-12)}
    for rows in draws(size):
        for name, step in (
            ("UPGrad", steps.upgrad()),
            ("DualProj", steps.dualproj()),
        ):
            theirs = their_update(name, rows, **exact)
            assert distance(our_update(step, rows), theirs, rows) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_mgda(size):
    for rows in draws(size, 3):
        ours = our_update(steps.mgda(), rows)
        theirs = their_update("MGDA", rows, epsilon=1e-6, max_iters=20000)
        length = np.linalg.norm(rows, axis=1).mean()
        assert np.linalg.norm(ours) <= np.linalg.norm(theirs) + 1e-5 * length
        assert distance(ours, theirs, rows) < 2e-2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_cagrad(size, c):
    for rows in draws(size, 5):
        ours = our_update(steps.cagrad(c), rows)
        theirs = their_update("CAGrad", rows, c=c)
        assert distance(ours, theirs, rows) < 1e-3


@pytest.mark.parametrize("size", [2, 3, 8])
def test_preferences(size):
    """A row of preference 0 among them, which is not to be harmed."""
    for rows in draws(size, 5):
        given = np.random.default_rng(size).uniform(size=size).astype(np.float32)
        given[0] = 0
        options = {"pref_vector": torch.tensor(given, dtype=torch.float64)}
        for name, make in (("UPGrad", steps.upgrad), ("DualProj", steps.dualproj)):
            ours = our_update(make(preference=given, ridge=1e-4), rows)
            assert distance(ours, their_update(name, rows, **options), rows) < 1e-5


def zero_row(rng, size):
    rows = rng.normal(size=(size, size + 4))
    rows[-1] = 0
    return rows


def all_conflicting(rng, size):
    rows = np.eye(size, size + 4) * rng.uniform(0.9, 1.1, (size, 1))
    return rows - 0.95 * rows.mean(axis=0)


def dependent(rng, size):
    return rng.normal(size=(size, 2)) @ rng.normal(size=(2, size + 4))


def scaled(rng, size):
    return rng.normal(size=(size, size + 4)) * 100.0


@pytest.mark.parametrize("kind", [all_conflicting, dependent, scaled])
@pytest.mark.parametrize("size", [2, 8, 32, 128])
def test_matrices_of_other_kinds(kind, size):
    rows = kind(np.random.default_rng(size), size).astype(np.float32)
    for name, step in (
        ("UPGrad", steps.upgrad(ridge=1e-4)),
        ("DualProj", steps.dualproj(ridge=1e-4)),
    ):
        if name == "UPGrad" and size == 128:
            continue  # Theirs solves 128 programs one by one.
        assert distance(our_update(step, rows), their_update(name, rows), rows) < 1e-4


def test_a_zero_row_counts_in_their_mean():
    """Ours leaves it out: theirs times 4 is ours times 3."""
    rows = zero_row(np.random.default_rng(0), 4).astype(np.float32)
    for name, step in (
        ("UPGrad", steps.upgrad(ridge=1e-4)),
        ("DualProj", steps.dualproj(ridge=1e-4)),
    ):
        theirs = their_update(name, rows)
        np.testing.assert_allclose(3 * our_update(step, rows), 4 * theirs, atol=2e-3)
