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

import functools

import jax
import numpy as np
import pytest

import fairjax
from fairjax import steps

torch = pytest.importorskip("torch")
torchjd = pytest.importorskip("torchjd")

pytestmark = pytest.mark.oracle
SIZES = [1, 2, 8, 32]
NUM_MATRICES = 9  # In all tests, so that each method is compiled once a size.
CONES = ("UPGrad", "DualProj")


def their_update(name, rows, **options):
    from torchjd import aggregation

    method = getattr(aggregation, name)(**options)
    return method(torch.tensor(rows, dtype=torch.float64)).numpy()


@functools.partial(jax.jit, static_argnames="names")
def _updates(names, rows, options):
    def update(name, rows):
        step = getattr(steps, name.lower())(**options)
        transform = fairjax.reconcile(step, num_objectives=len(rows))
        return transform.update(rows, transform.init(None))[0]

    return {name: jax.vmap(functools.partial(update, name))(rows) for name in names}


def our_updates(names, rows, **options):
    """Name of a method -> its update of each matrix ``[N, K, D]``."""
    return jax.tree.map(np.asarray, _updates(names, rows, options))


def draws(size):
    rng = np.random.default_rng(size)
    drawn = [
        rng.normal(size=(size, size + 4)) * rng.uniform(0.3, 3, (size, 1))
        for _ in range(NUM_MATRICES)
    ]
    return np.array(drawn, np.float32)


def distance(one, other, rows):
    return np.linalg.norm(one - other) / np.linalg.norm(rows, axis=1).mean()


def compare(names, matrices, within, ours, theirs):
    """Whether all updates of all matrices agree; one options each."""
    found = our_updates(names, matrices, **ours)
    for name in names:
        for rows, update in zip(matrices, found[name], strict=True):
            assert distance(update, their_update(name, rows, **theirs), rows) < within


@pytest.mark.parametrize("size", SIZES)
def test_upgrad_and_dualproj_with_their_ridge(size):
    compare(CONES, draws(size), 1e-5, {"ridge": 1e-4}, {})


@pytest.mark.parametrize("size", SIZES)
def test_upgrad_and_dualproj_without_a_ridge(size):
    from torchjd.linalg import QuadprogProjector

    # As little as quadprog can do with.
    exact = {"projector": QuadprogProjector(reg_eps=1e-12)}
    compare(CONES, draws(size), 1e-5, {"ridge": 0.0}, exact)


@pytest.mark.parametrize("size", SIZES)
def test_mgda(size):
    matrices = draws(size)
    updates = our_updates(("MGDA",), matrices)["MGDA"]
    # Theirs takes long.
    for rows, ours in zip(matrices[:3], updates[:3], strict=True):
        theirs = their_update("MGDA", rows, epsilon=1e-6, max_iters=2000)
        length = np.linalg.norm(rows, axis=1).mean()
        assert np.linalg.norm(ours) <= np.linalg.norm(theirs) + 1e-5 * length
        # The point of the hull nearest to 0: none lies on the near side of it.
        assert (rows @ ours).min() >= ours @ ours - 1e-5 * length**2
        assert distance(ours, theirs, rows) < 1e-2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_cagrad(size, c):
    compare(("CAGrad",), draws(size), 1e-3, {"c": c}, {"c": c})


@pytest.mark.parametrize("size", [2, 8])
def test_preferences(size):
    """A row of preference 0 among them, which is not to be harmed."""
    given = np.random.default_rng(size).uniform(size=size).astype(np.float32)
    given[0] = 0
    ours = {"preference": given, "ridge": 1e-4}
    theirs = {"pref_vector": torch.tensor(given, dtype=torch.float64)}
    compare(CONES, draws(size), 1e-5, ours, theirs)


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


@pytest.mark.parametrize("size", [2, 8, 32, 128])
def test_matrices_of_other_kinds(size):
    kinds, rng = (all_conflicting, dependent, scaled), np.random.default_rng(size)
    matrices = [kinds[i % 3](rng, size) for i in range(NUM_MATRICES)]
    # Their UPGrad of 128 rows solves 128 programs one by one.
    names = CONES if size < 128 else ("DualProj",)
    compare(names, np.array(matrices, np.float32), 1e-4, {"ridge": 1e-4}, {})


def test_a_zero_row_counts_in_their_mean():
    """Ours leaves it out: theirs times 8 is ours times 7."""
    rng = np.random.default_rng(0)
    matrices = [zero_row(rng, 8) for _ in range(NUM_MATRICES)]
    matrices = np.array(matrices, np.float32)
    for name, ours in our_updates(CONES, matrices, ridge=1e-4).items():
        theirs = np.array([their_update(name, rows) for rows in matrices])
        np.testing.assert_allclose(7 * ours, 8 * theirs, atol=2e-3)


@pytest.mark.parametrize("progress", [0.0, 0.02, 0.3])
def test_pcd_over_updates(progress):
    from torchjd.aggregation import PCD

    rng = np.random.default_rng(0)
    theirs = PCD(tau=progress, beta=0.9)
    tx = fairjax.pcd(num_objectives=4, progress=progress, decay=0.9)
    state, update = tx.init(np.zeros(6, np.float32)), jax.jit(tx.update)
    for _ in range(20):
        rows = rng.normal(size=(4, 6)).astype(np.float32)
        rows[1] *= 10
        found, state = update(rows, state)
        expected = theirs(torch.tensor(rows, dtype=torch.float64)).numpy()
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
