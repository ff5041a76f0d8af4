"""PCGrad against TorchJD 0.18.

TorchJD's ``PCGradWeighting`` maps a Gram matrix to the weights of the sum, as
``reconcile`` does. Deliberate differences:

- TorchJD draws each row's order from torch's global generator; ours come from a key, or
  are given. Where the order matters we therefore compare the sets of outcomes over all
  orders, not single draws.
- A row that is not finite makes TorchJD's update not finite; ours leaves the row out
  (tests/test_reconcile.py). The matrices here have none.
- Epsilon, the mean, a shared order and unconditional projection are ours alone.
"""

import itertools

import jax
import numpy as np
import pytest

import fairjax

torch = pytest.importorskip("torch")
torchjd = pytest.importorskip("torchjd")

pytestmark = pytest.mark.oracle


def their_update(rows, seed=0):
    from torchjd.aggregation import PCGrad

    torch.manual_seed(seed)
    return PCGrad()(torch.tensor(rows, dtype=torch.float64)).numpy()


@jax.jit
def _updates(rows, orders):
    def update(order):
        transform = fairjax.pcgrad(num_objectives=len(rows), order=order)
        return transform.update(rows, transform.init(None))[0]

    return jax.vmap(update)(orders)


def our_updates(rows, orders):
    """Updates for each of the orders [N, K, K]."""
    return np.asarray(_updates(rows, orders))


def all_orders(size):
    """Every row's every order of the others, itself last."""
    each = [
        [(*order, i) for order in itertools.permutations(set(range(size)) - {i})]
        for i in range(size)
    ]
    return np.array(list(itertools.product(*each)))


def draw(seed, size):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, 6)) * rng.uniform(0.3, 3, (size, 1))
    return rows.astype(np.float32)


def test_published_value():
    rows = np.array([[-4, 1, 1], [6, 1, 1]], np.float32)
    theirs, ours = their_update(rows), our_updates(rows, all_orders(2))[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(ours, [0.5848, 3.8012, 3.8012], atol=5e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_equal_where_no_order_matters(size):
    transform = fairjax.pcgrad(num_objectives=size)
    update = jax.jit(lambda rows: transform.update(rows, transform.init(None))[0])
    for seed in range(50):
        rows = draw(seed, size)
        np.testing.assert_allclose(update(rows), their_update(rows), atol=1e-5)


@pytest.mark.parametrize("size", [3, 4])
def test_every_outcome_is_one_of_ours(size):
    # The projections of a row depend on its own order only: 2³ and 6⁴ combinations.
    orders = all_orders(size)
    for seed in range(5):
        rows = draw(seed, size)
        ours = our_updates(rows, orders)
        for chance in range(10):
            theirs = their_update(rows, chance)
            distance = np.abs(ours - theirs).max(axis=1).min()
            assert distance < 1e-5 * max(1, np.abs(rows).max())


def test_all_outcomes_of_three_rows_are_reached():
    """Over many draws both see the same outcomes, alike often."""
    rows = np.array([[1, 0.2, 0], [-0.8, 1, 0.3], [-0.3, -1.1, 1]], np.float32)
    ours = our_updates(rows, all_orders(3))
    outcomes = np.unique(ours.round(4), axis=0)
    draws = 400
    theirs = np.stack([their_update(rows, seed) for seed in range(draws)])
    np.testing.assert_allclose(np.unique(theirs.round(4), axis=0), outcomes, atol=2e-4)
    assert len(outcomes) == 8
    # Five standard errors of the mean over their draws.
    error = ours.std(axis=0) / np.sqrt(draws)
    assert (np.abs(theirs.mean(axis=0) - ours.mean(axis=0)) <= 5 * error + 1e-5).all()
