"""MultiFair's released algorithm against the same in PyTorch, on the same weights.

The twin is :mod:`experiments.bench.torch_multifair`. Both see the same batches, and
compared are outputs, AUCs, balance, factors, gate, modulated gradients and parameters.
Deliberate differences: the twin's AUCs are scikit-learn's, in float64, and its states
Python numbers.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.bench.modulation import distance
from experiments.bench.modulation_steps import MODALITIES, Problem, Size, make_steps

torch = pytest.importorskip("torch")
pytest.importorskip("torchjd")

pytestmark = pytest.mark.oracle

SIZE = Size("tested", width=8, depth=1, num_heads=2, num_features=5, length=10)
BATCH_SIZE, NUM_GROUPS = 192, 6


@pytest.fixture(autouse=True)
def one_thread():
    """Small steps on several threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recorded(name):
    """Keep what a transformation is given in its state, under a name."""
    return optax.GradientTransformation(
        lambda params: {name: jax.tree.map(jnp.zeros_like, params)},
        lambda updates, state, params=None: (updates, {name: updates}),
    )


class Recorded(Problem):
    """A problem whose optimisers show the gradients, and the model's modulated."""

    def optimiser(self, transform):
        modulated = optax.chain(transform, recorded("modulated"))
        return optax.chain(recorded("gradients"), super().optimiser(modulated))


@functools.cache
def problem_and_batches(number=3):
    """One problem, and as many batches of its size."""
    problem = Recorded.make(SIZE, number * BATCH_SIZE, NUM_GROUPS)
    drawn = jax.tree.map(np.asarray, problem.batch)
    batches = [
        jax.tree.map(lambda leaf, part=part: leaf[part::number], drawn)
        for part in range(number)
    ]
    return dataclasses.replace(problem, batch=batches[0]), batches


def alike(batch):
    """A batch of groups of unequal sizes that have almost the same patients."""
    times = [3, 3, 2, 2, 1, 1]
    number = BATCH_SIZE // sum(times)
    tiled = jax.tree.map(lambda leaf: np.concatenate([leaf[:number]] * 12), batch)
    features = tiled["inputs"]["labs"]["inputs"]
    noise = np.random.default_rng(0).normal(size=features.shape)
    tiled["inputs"]["labs"]["inputs"] = features + 0.05 * noise.astype(np.float32)
    groups = np.repeat(np.arange(NUM_GROUPS, dtype=np.int32), number * np.array(times))
    return tiled | {"groups": groups, "cells": groups}


def with_one_alone(batch):
    """The batch, but the last group has a single patient, and the one before none."""
    groups = batch["groups"].copy()
    groups[np.flatnonzero(groups == NUM_GROUPS - 1)[1:]] = 0
    groups[groups == NUM_GROUPS - 2] = 1
    return batch | {"groups": groups, "cells": groups}


def twin_of(problem, *, released):
    from experiments.bench.torch_multifair import Twin

    return Twin(problem, released=released)


def test_the_models_are_the_same():
    problem = Problem.make(dataclasses.replace(SIZE, depth=2), 32, 4)
    theirs, alone = twin_of(problem, released=True).outputs()
    ours = jax.jit(problem.apply)(problem.params, problem.batch["inputs"])
    np.testing.assert_allclose(ours.logits[:, 0], theirs.detach().numpy(), atol=5e-6)
    for m, name in enumerate(MODALITIES):
        np.testing.assert_allclose(
            ours.unimodal_logits[:, m, 0], alone[name].detach().numpy(), atol=5e-6
        )


def test_steps_are_the_same_whether_the_gate_is_open_or_shut():
    """Shut where the gap is below the threshold, or a group has a single patient."""
    problem, (first, second, third) = problem_and_batches()
    given = [first, alike(second), with_one_alone(third), second]
    twin = twin_of(problem, released=True)
    step, state = make_steps(problem)["MultiFair, released"]
    step, seen = jax.jit(step), []
    for batch in given:
        state, _ = step(state, batch)
        twin.give(batch)
        twin.backward()
        signals = twin.signals

        def of(name, state=state.opt_state):
            return optax.tree.get(state, name)

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
        seen.append(signals.gate)
        gradients = twin.gradients()
        # The heads' are not modulated.
        ours = of("modulated") | {"auxiliary": of("gradients")["auxiliary"]}
        for name in MODALITIES:
            nothing = jax.tree.map(np.zeros_like, gradients["encoders"][name])
            theirs = gradients["encoders"][name]
            assert distance(nothing, ours["encoders"][name], theirs) < 1e-4
        nothing = jax.tree.map(np.zeros_like, gradients)
        assert distance(nothing, ours, gradients) < 1e-4
        twin.apply()
        assert distance(problem.params, state.params, twin.arrays()) < 5e-3
    assert seen == [True, False, False, True]


def test_the_plain_steps_are_the_same_and_differ_from_the_modulated():
    problem, batches = problem_and_batches()
    step, state = make_steps(problem)["plain"]
    step = jax.jit(step)
    plain, released = (twin_of(problem, released=flag) for flag in (False, True))
    for batch in batches:
        state, _ = step(state, batch)
        for twin in (plain, released):
            twin.give(batch)
            twin.step()
    assert distance(problem.params, state.params, plain.arrays()) < 5e-3
    assert distance(problem.params, state.params, released.arrays()) > 0.02
