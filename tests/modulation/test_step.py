"""A modulated step stays on the device: nothing in it asks the host."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.bench.modulation_steps import (
    MODALITIES,
    SMALL,
    Problem,
    host_transfers,
    make_steps,
)
from fairjax import modulation
from fairjax.models import MultimodalOutputs

B, FEATURES, WIDTH = 24, 3, 4
STEPS = (
    "plain",
    "OGM-GE",
    "MultiFair, released",
    "MultiFair, paper, magnitudes",
    "MultiFair, paper",
    "dual level",
)


def linear(params, inputs):
    return inputs @ params["kernel"] + params["bias"]


def apply(params, inputs):
    """As the multimodal classifier, but with linear encoders and no attention."""
    tokens = [jnp.tanh(linear(params["encoders"][m], inputs[m])) for m in MODALITIES]
    fused = jnp.tanh(sum(tokens) + params["embeddings"].sum(0))

    def alone(tokens):
        logits = [
            linear(params["auxiliary"][m], token)
            for m, token in zip(MODALITIES, tokens, strict=True)
        ]
        return jnp.stack(logits, axis=1)

    cut = jax.lax.stop_gradient(tokens)
    return MultimodalOutputs(
        linear(params["classifier"], fused),
        alone(cut),
        alone(tokens),
        fused,
        jnp.stack(list(cut), axis=1),
    )


@pytest.fixture(scope="module")
def problem():
    """The benchmark's, with a model that traces and compiles in no time."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def layer(inputs, outputs):
        return {"kernel": draw(inputs, outputs), "bias": draw(outputs)}

    params = {
        "encoders": {m: layer(FEATURES, WIDTH) for m in MODALITIES},
        "auxiliary": {m: layer(WIDTH, 1) for m in MODALITIES},
        "embeddings": draw(2, WIDTH),
        "classifier": layer(WIDTH, 1),
    }
    labels = modulation.modality_labels(
        params,
        {m: [f"encoders/{m}"] for m in MODALITIES},
        shared=["auxiliary", "embeddings", "classifier"],
    )
    groups = jnp.asarray(rng.integers(0, 2, B), jnp.int32)
    batch = {
        "inputs": {m: draw(B, FEATURES) for m in MODALITIES},
        "labels": jnp.asarray(rng.integers(0, 2, B), jnp.float32),
        "groups": groups,
        "cells": groups,
    }
    return Problem(SMALL, 2, params, labels, batch, apply)


@pytest.fixture(scope="module")
def steps(problem):
    return make_steps(problem)


@pytest.mark.slow
def test_all_steps_are_tested(steps):
    assert tuple(steps) == STEPS


# The others do no more than parts of these.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MultiFair, released", "MultiFair, paper", "dual level"]
)
def test_no_transfer_between_host_and_device(problem, steps, name):
    step, state = steps[name]
    compiled = jax.jit(step).lower(state, problem.batch).compile()
    assert host_transfers(compiled.as_text()) == []
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, info = compiled(state, problem.batch)
    assert bool(info.finite)
    assert int(state.step) == 2
    moved = jax.tree.map(
        lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))),
        state.params,
        problem.params,
    )
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: jax.pure_callback(np.sort, x, x),
        lambda x: jax.experimental.io_callback(np.sort, x, x),
        lambda x: jax.debug.print("{}", x) or x,
    ],
    ids=["pure_callback", "io_callback", "print"],
)
def test_what_asks_the_host_is_found(asks):
    compiled = jax.jit(asks).lower(jnp.ones(3)).compile()
    assert host_transfers(compiled.as_text())


@pytest.mark.parametrize(
    "line",
    [
        "%x = ((f32[3], u32[]), token[]) infeed(token[] %t)",
        "%x = token[] outfeed(f32[3] %y, token[] %t)",
        'custom-call(f32[3] %y), custom_call_target="MoveToHost"',
        'custom-call(f32[3] %y), custom_call_target="xla_ffi_python_gpu_callback"',
    ],
)
def test_what_other_devices_call_it_is_found(line):
    assert len(host_transfers(line)) == 1


def test_arithmetic_is_no_transfer():
    compiled = jax.jit(lambda x: jnp.linalg.eigh(x @ x.T)).lower(jnp.eye(3)).compile()
    assert host_transfers(compiled.as_text()) == []


@pytest.mark.slow
def test_heads_have_an_optimiser_of_their_own(problem, steps):
    """The parts of `optax.partition`: MultiFair scales encoders, the heads none."""
    tx = problem.optimiser(problem.multifair("released"))
    plain = problem.optimiser(optax.identity())
    extra = {
        "unimodal_scores": jnp.array([[0.9, 0.4], [0.1, 0.6]]),
        "scores": jnp.array([0.9, 0.1]),
        "labels": jnp.array([1, 0]),
        "groups": jnp.array([0, 1]),
    }
    # Both AUCs go from .5, the first to 1 and the second to 0: B is ½ for each. Adam's
    # second step sees that the gradient fell from its first, a zero.
    ones = jax.tree.map(lambda leaf: 1e-3 * jnp.ones_like(leaf), problem.params)
    state = jax.jit(tx.init)(problem.params)
    updates, state = jax.jit(tx.update)(ones, state, problem.params, **extra)
    np.testing.assert_allclose(optax.tree.get(state, "modality_balance"), 0.5)
    np.testing.assert_allclose(optax.tree.get(state, "modality_auc"), [1, 0])
    moments = optax.tree.get_all_with_path(state, "mu")
    by_part = {
        "auxiliary" if "auxiliary" in str(path) else "model": value
        for path, value in moments
    }
    # Adam's first moment is a tenth of the gradient that reached it.
    scaled = by_part["model"]["encoders"]["labs"]["kernel"]
    np.testing.assert_allclose(scaled, 0.1 * 1.2 * 0.5 * 1e-3, rtol=1e-5)
    shared = by_part["model"]["classifier"]["kernel"]
    np.testing.assert_allclose(shared, 0.1 * 1e-3, rtol=1e-5)
    state = jax.jit(plain.init)(problem.params)
    theirs, _ = jax.jit(plain.update)(ones, state, problem.params)
    for key in ("auxiliary", "classifier"):
        jax.tree.map(np.testing.assert_array_equal, updates[key], theirs[key])
