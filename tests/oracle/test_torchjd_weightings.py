"""Closed-form, bargaining and loss-level methods against TorchJD 0.18.

Deliberate differences:

- IMTL-G and ConFIG: TorchJD's IMTL-G takes the pseudo-inverse of the gradients' Gram
  matrix, ours that of the unit gradients', which is as exact for rows of very unequal
  lengths. They are equal where the rows are independent; else, where a direction of
  equal projections exists, they have the same direction and other lengths, because the
  weights that make it, and so their sum, are not unique. TorchJD's ConFIG works on
  the unit vectors themselves, ours on their Gram matrix, so that nearly dependent rows
  count as dependent at the root of TorchJD's threshold.
- Nash-MTL: TorchJD linearises and calls a conic solver, up to 20 times from the last
  weights; ours is a Newton method for the equation itself. With ``max_norm=1`` (theirs:
  default; ours: None) they agree to what theirs solves to. Where theirs fails it
  silently returns its last weights, so that those matrices are not compared; ours has
  a residual. Dividing the Gram matrix by its norm before solving is a matter of
  accuracy in TorchJD, whose constraint takes it back; ``normalize`` is ours.
- FairGrad-alpha: TorchJD calls least squares from equal weights, which may stop away
  from the solution; compared where it has solved its own equation.
- GradVac: TorchJD draws its orders from torch's global generator; compared where there
  are two rows, and no order, over updates with its ``beta`` of ½ (ours: .01, the
  paper's), and by outcomes over all orders with three rows.
- Random: the generators differ; compared in distribution.
- FAMO: TorchJD compares the losses of one batch before and after the model's update;
  ours does where it is given them, as here.
- DWA: TorchJD is told when an epoch ends; ours counts updates.
- Uncertainty weighting: TorchJD leaves the log-variances to the model's optimiser.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from fairjax import steps

torch = pytest.importorskip("torch")
torchjd = pytest.importorskip("torchjd")

pytestmark = pytest.mark.oracle

KNOWN = np.array([[-4, 1, 1], [6, 1, 1]], np.float32)


def draw(seed, size, width=None):
    rng = np.random.default_rng((seed, size))
    rows = rng.normal(size=(size, width or 2 * size))
    return (rows * rng.uniform(0.3, 3, (size, 1))).astype(np.float32)


def theirs(name, **options):
    from torchjd import aggregation

    return getattr(aggregation, name)(**options)


def their_update(aggregator, rows):
    return aggregator(torch.tensor(rows, dtype=torch.float64)).numpy()


def ours(step, size):
    transform = fairjax.reconcile(step, num_objectives=size)
    return jax.jit(lambda rows: transform.update(rows, transform.init(None)))


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


CLOSED = {
    "imtl_g": (steps.imtl_g(), "IMTLG", {}),
    "conflict_free": (steps.conflict_free(), "ConFIG", {}),
    **{
        f"aligned_mtl {scale}": (
            steps.aligned_mtl(scale=scale),
            "AlignedMTL",
            {"scale_mode": scale},
        )
        for scale in ("min", "median", "rmse")
    },
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("size", [1, 3, 32])
def test_closed_forms(name, size):
    step, their_name, options = CLOSED[name]
    update = ours(step, size)
    for seed in range(20):
        rows = draw(seed, size)
        wanted = their_update(theirs(their_name, **options), rows)
        # IMTL-G's weights may nearly cancel in their sum.
        assert error(update(rows)[0], wanted) < (3e-3 if name == "imtl_g" else 2e-4)


@pytest.mark.parametrize("name", sorted(set(CLOSED) - {"imtl_g"}))
def test_closed_forms_of_dependent_rows(name):
    """Five rows of rank three; IMTL-G's length is another by design, as shown below."""
    step, their_name, options = CLOSED[name]
    update = ours(step, 5)
    for seed in range(10):
        rows = draw(seed, 5, 3)
        wanted = their_update(theirs(their_name, **options), rows)
        assert error(update(rows)[0], wanted) < 2e-3


def test_imtl_g_of_dependent_rows_has_the_same_direction():
    """Unit rows (1, 0), (0, 1), (0, 1): equal projections along (1, 1)."""
    rows = np.array([[1, 0], [0, 2], [0, 3]], np.float32)
    found = np.asarray(ours(steps.imtl_g(), 3)(rows)[0])
    wanted = their_update(theirs("IMTLG"), rows)
    np.testing.assert_allclose(found / found[0], wanted / wanted[0], rtol=1e-4)
    assert abs(found[0] / wanted[0] - 1) > 1e-3


@pytest.mark.parametrize("size", [2, 8])
def test_preferences(size):
    preference = np.linspace(1, 2, size)
    for step, name in (
        (steps.conflict_free(preference=preference.tolist()), "ConFIG"),
        (steps.aligned_mtl(preference=preference.tolist()), "AlignedMTL"),
    ):
        rows = draw(0, size)
        aggregator = theirs(name, pref_vector=torch.tensor(preference))
        assert error(ours(step, size)(rows)[0], their_update(aggregator, rows)) < 2e-4


# CVXPY's advice on TorchJD's problem, and on how well it was solved.
of_their_solver = pytest.mark.filterwarnings(
    "ignore:You are solving a parameterized problem:UserWarning",
    "ignore:Solution may be inaccurate:UserWarning",
)


@of_their_solver
def test_nash_mtl_published_value():
    found = ours(steps.nash_mtl(max_norm=1.0), 2)(KNOWN)[0]
    np.testing.assert_allclose(
        found, their_update(theirs("NashMTL", n_tasks=2), KNOWN), atol=2e-3
    )
    np.testing.assert_allclose(found, [0.0542, 0.7061, 0.7061], atol=1e-4)


@of_their_solver
@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_nash_mtl(size, max_norm):
    step = steps.nash_mtl(max_norm=max_norm or None)
    update = ours(step, size)
    compared = 0
    for seed in range(8):
        rows = draw(seed, size)
        aggregator = theirs("NashMTL", n_tasks=size, max_norm=max_norm)
        wanted = their_update(aggregator, rows)
        weights = aggregator.weighting.prvs_alpha
        gram = rows @ rows.T
        fixed = weights * (gram @ weights)
        if np.abs(fixed - 1).max() > 2e-3:
            continue
        compared += 1
        assert error(update(rows)[0], wanted) < 5e-3
    assert compared >= 5


@jax.jit
def our_fairgrad_alpha(rows, alpha):
    step = steps.fairgrad_alpha(alpha)
    transform = fairjax.reconcile(step, num_objectives=len(rows))
    return transform.update(rows, transform.init(None))


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fairgrad_alpha(size, alpha):
    compared = 0
    for seed in range(15):
        rows = draw(seed, size)
        gram = torch.tensor(rows @ rows.T, dtype=torch.float64)
        weights = theirs("FairGrad", alpha=alpha).gramian_weighting(gram).numpy()
        found, state = our_fairgrad_alpha(rows, alpha)
        assert state.steps[0].residual < 1e-3
        if np.abs(gram.numpy() @ weights * weights ** (1 / alpha) - 1).max() > 1e-4:
            continue
        compared += 1
        assert error(found, weights @ rows) < 1e-3
    assert compared >= 10


def test_gradvac_of_two_rows_over_updates():
    step = steps.gradvac(beta=0.5)
    transform = fairjax.reconcile(step, steps.combine("sum"), num_objectives=2)
    update, state = jax.jit(transform.update), transform.init(None)
    aggregator = theirs("GradVac", beta=0.5)
    for seed in range(30):
        rows = draw(seed, 2)
        found, state = update(rows, state)
        assert error(found, their_update(aggregator, rows)) < 1e-3


def test_gradvac_outcomes_of_three_rows():
    """After two equal updates of TorchJD, each with its own order."""
    rows = np.array([[1, 0.2, 0], [-0.8, 1, 0.3], [-0.3, -1.1, 1]], np.float32)
    each = [
        [(*o, i) for o in itertools.permutations({0, 1, 2} - {i})] for i in range(3)
    ]
    orders = jnp.array(list(itertools.product(*each)))

    def two_updates(first, second):
        start = jnp.zeros((3, 3))
        gram = jnp.asarray(rows @ rows.T)
        _, targets = fairjax.solvers.gradvac(gram, first, start, beta=0.5)
        found, _ = fairjax.solvers.gradvac(gram, second, targets, beta=0.5)
        return found.sum(axis=0) @ rows

    pairs = jax.vmap(jax.vmap(two_updates, (None, 0)), (0, None))
    outcomes = np.asarray(jax.jit(pairs)(orders, orders)).reshape(-1, 3)
    for seed in range(20):
        torch.manual_seed(seed)
        aggregator = theirs("GradVac", beta=0.5)
        their_update(aggregator, rows)
        wanted = their_update(aggregator, rows)
        assert np.abs(outcomes - wanted).max(axis=1).min() < 1e-4


def test_random_weights_are_alike_in_distribution():
    step = steps.random_weighting()

    def one(state, _):
        weights, state = step.update(jnp.eye(3), jnp.eye(3), state)
        return state, weights[0]

    found = np.asarray(jax.lax.scan(one, step.init(3), length=3000)[1])
    torch.manual_seed(0)
    aggregator = theirs("Random")
    wanted = np.stack([their_update(aggregator, np.eye(3)) for _ in range(3000)])
    for power in (1, 2, 3):
        scale = (wanted**power).std(axis=0) / np.sqrt(3000)
        gap = np.abs((found**power).mean(axis=0) - (wanted**power).mean(axis=0))
        assert (gap < 6 * scale).all()


def loss_weights(scalarizer, losses):
    values = torch.tensor(losses, requires_grad=True)
    scalarizer(values).backward()
    return values.grad.numpy()


compiled = functools.cache(lambda step: jax.jit(step.update))


def run(step, state, losses, **extra):
    rows = jnp.eye(len(losses))
    weights, state = compiled(step)(rows, rows, state, losses=losses, **extra)
    return np.asarray(weights[0]), state


def test_famo():
    from torchjd.scalarization import FAMO

    rng = np.random.default_rng(0)
    step = steps.famo(weight_decay=1e-3)
    state, scalarizer, after = step.init(3), FAMO(3), None
    for _ in range(20):
        losses = rng.uniform(0.2, 3, 3).astype(np.float32)
        extra = {} if after is None else {"replayed_losses": after}
        found, state = run(step, state, losses, **extra)
        np.testing.assert_allclose(found, loss_weights(scalarizer, losses), rtol=1e-4)
        after = losses * rng.uniform(0.8, 1.0, 3).astype(np.float32)
        scalarizer.update(torch.tensor(after))


def test_dwa():
    from torchjd.scalarization import DWA

    rng = np.random.default_rng(0)
    step, scalarizer = steps.dwa(every=4), DWA()
    state = step.init(3)
    for update in range(20):
        losses = rng.uniform(0.2, 3, 3).astype(np.float32)
        found, state = run(step, state, losses)
        np.testing.assert_allclose(found, loss_weights(scalarizer, losses), rtol=1e-4)
        if update % 4 == 3:
            scalarizer.step()


def test_uncertainty_weighting():
    from torchjd.scalarization import UW

    rng = np.random.default_rng(0)
    step = steps.uncertainty_weighting(learning_rate=0.1, likelihood="regression")
    state, scalarizer = step.init(3), UW(3)
    optimizer = torch.optim.SGD(scalarizer.parameters(), lr=0.1)
    for _ in range(20):
        losses = rng.uniform(0.2, 3, 3).astype(np.float32)
        found, state = run(step, state, losses)
        optimizer.zero_grad()
        np.testing.assert_allclose(found, loss_weights(scalarizer, losses), rtol=1e-4)
        optimizer.step()


def test_imtl_l():
    from torchjd.scalarization import IMTLL

    rng = np.random.default_rng(0)
    step = steps.imtl_l(learning_rate=0.1)
    state, scalarizer = step.init(3), IMTLL(3)
    optimizer = torch.optim.SGD(scalarizer.parameters(), lr=0.1)
    for _ in range(20):
        losses = rng.uniform(0.2, 3, 3).astype(np.float32)
        found, state = run(step, state, losses)
        optimizer.zero_grad()
        np.testing.assert_allclose(found, loss_weights(scalarizer, losses), rtol=1e-4)
        optimizer.step()


def test_geometric_mean_and_smooth_maximum():
    from torchjd.scalarization import STCH, GeometricMean

    rng = np.random.default_rng(0)
    preference, ideal = [0.2, 1.0, 0.5], [0.1, 0.0, -0.3]
    chosen = {
        steps.geometric_mean(): GeometricMean(),
        steps.stch(mu=0.3): STCH(0.3),
        steps.stch(mu=0.3, preference=preference, ideal=ideal): STCH(
            0.3, torch.tensor(preference), torch.tensor(ideal)
        ),
    }
    for step, scalarizer in chosen.items():
        for _ in range(5):
            losses = rng.uniform(0.2, 3, 3).astype(np.float32)
            found, _ = run(step, step.init(3), losses)
            expected = loss_weights(scalarizer, losses)
            np.testing.assert_allclose(found, expected, rtol=1e-4)


ACROSS = {
    "modo": (steps.modo(), "MoDoWeighting", {}),
    "modo without decay": (
        steps.modo(learning_rate=0.02, weight_decay=0.0),
        "MoDoWeighting",
        {"gamma": 0.02, "rho": 0.0},
    ),
    "sdmgrad": (steps.sdmgrad(), "SDMGradWeighting", {}),
    "sdmgrad preferring": (
        steps.sdmgrad(
            strength=0.6,
            preference=[0.5, 0.3, 0.2],
            learning_rate=0.1,
            momentum=0.8,
            iterations=5,
        ),
        "SDMGradWeighting",
        {
            "lambda_": 0.6,
            "pref_vector": torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
            "lr": 0.1,
            "momentum": 0.8,
            "n_iter": 5,
        },
    ),
}


@pytest.mark.parametrize("name", ACROSS)
def test_weightings_across_batches(name):
    step, other, options = ACROSS[name]
    weighting, state = theirs(other, **options), step.init(3)
    truth = draw(0, 3)
    for update in range(10):
        one, two = (truth + 0.5 * draw(2 * update + i, 3) for i in (1, 2))
        cross, rows = jnp.asarray(one @ two.T), jnp.eye(3)
        found, state = compiled(step)(rows, rows, state, cross_gramian=cross)
        expected = weighting(torch.tensor(np.asarray(cross), dtype=torch.float64))
        np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-4)


def test_averaged_weights():
    weighting = theirs("CRMOGMWeighting", weighting=theirs("MGDAWeighting"), alpha=0.8)
    transform = fairjax.reconcile(
        steps.mgda(), steps.cr_mogm(decay=0.8), num_objectives=2
    )
    state, update = transform.init(None), jax.jit(transform.update)
    for seed in range(10):
        rows = draw(seed, 2)
        _, state = update(rows, state)
        expected = weighting(torch.tensor(rows @ rows.T, dtype=torch.float64))
        np.testing.assert_allclose(state.weights, expected.numpy(), atol=5e-3)
