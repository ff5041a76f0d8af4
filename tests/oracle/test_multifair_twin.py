"""MultiFair's released algorithm against the same in PyTorch, on the same weights.

The twin is :mod:`experiments.bench.torch_multifair`. Both see the same batches, and
compared are outputs, AUCs, balance, factors, gate, modulated gradients and parameters.
Deliberate differences: the twin's AUCs are scikit-learn's, in float64, and its states
Python numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.bench.modulation import distance
from experiments.bench.modulation_steps import (
    MODALITIES,
    Problem,
    Size,
    joint_loss,
    make_steps,
)

torch = pytest.importorskip("torch")
pytest.importorskip("torchjd")

pytestmark = pytest.mark.oracle

SIZE = Size("tested", width=8, depth=2, num_heads=2, num_features=5, length=10)


@pytest.fixture(autouse=True)
def one_thread():
    """Small steps on several threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batches(batch_size, num_groups, number=3):
    return [
        Problem.make(SIZE, batch_size, num_groups, seed=seed).batch
        for seed in range(number)
    ]


def twin_of(problem, *, released):
    from experiments.bench.torch_multifair import Twin

    return Twin(problem, released=released)


def test_the_models_are_the_same():
    problem = Problem.make(SIZE, 32, 4)
    theirs, alone = twin_of(problem, released=True).outputs()
    ours = problem.apply(problem.params, problem.batch["inputs"])
    np.testing.assert_allclose(ours.logits[:, 0], theirs.detach().numpy(), atol=5e-6)
    for m, name in enumerate(MODALITIES):
        np.testing.assert_allclose(
            ours.unimodal_logits[:, m, 0], alone[name].detach().numpy(), atol=5e-6
        )


# The gate stays shut where the gap is below the threshold, as that of two groups is
# here, and where a group has one patient or none, as one of six among few has.
@pytest.mark.parametrize(
    ("batch_size", "num_groups", "gates"),
    [(100, 2, {False}), (64, 6, {True}), (16, 6, {False})],
)
def test_three_steps_are_the_same(batch_size, num_groups, gates):
    given = batches(batch_size, num_groups)
    problem = Problem.make(SIZE, batch_size, num_groups)
    twin = twin_of(problem, released=True)
    step, state = make_steps(problem)["MultiFair, released"]
    step = jax.jit(step)
    transform = problem.multifair("released")
    gradient = jax.jit(jax.grad(joint_loss(problem), has_aux=True))
    modulate = jax.jit(transform.update)
    modulated = transform.init(problem.params)
    seen = set()
    for batch in given:
        found, extra = gradient(state.params, batch, None)
        scaled, modulated = modulate(found, modulated, None, **extra)
        state, _ = step(state, batch)
        twin.give(batch)
        twin.backward()
        signals = twin.signals

        def of(name, modulated=modulated):
            return np.asarray(optax.tree.get(modulated, name))

        for name, value in (
            ("modality_auc", signals.modality_auc),
            ("modality_balance", signals.balance),
            ("fairness_factors", signals.factors),
            ("group_auc", signals.group_auc),
        ):
            expected = np.reshape(list(value.values()), of(name).shape)
            np.testing.assert_allclose(of(name), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(of("fused_gap"), signals.fused_gap, atol=1e-5)
        assert of("fairness_gate") == signals.gate
        seen.add(signals.gate)
        gradients = twin.gradients()
        for name in MODALITIES:
            nothing = jax.tree.map(jnp.zeros_like, gradients["encoders"][name])
            theirs = gradients["encoders"][name]
            assert distance(nothing, scaled["encoders"][name], theirs) < 1e-4
        nothing = jax.tree.map(jnp.zeros_like, gradients)
        assert distance(nothing, scaled, gradients) < 1e-4
        twin.apply()
        assert distance(problem.params, state.params, twin.arrays()) < 5e-3
    assert seen == gates, seen


def test_the_plain_steps_are_the_same_and_differ_from_the_modulated():
    problem = Problem.make(SIZE, 64, 6)
    step, state = make_steps(problem)["plain"]
    step = jax.jit(step)
    plain, released = (twin_of(problem, released=flag) for flag in (False, True))
    for batch in batches(64, 6):
        state, _ = step(state, batch)
        for twin in (plain, released):
            twin.give(batch)
            twin.step()
    assert distance(problem.params, state.params, plain.arrays()) < 5e-3
    assert distance(problem.params, state.params, released.arrays()) > 0.02
