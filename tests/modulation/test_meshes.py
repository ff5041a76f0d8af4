"""Batches that lie in parts on a mesh, of either kind of axes."""

from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fairjax import modulation
from tests.modulation import transcription

NAMES = ("image", "notes")
LABELS = {"image": "image", "notes": "notes", "head": "shared"}
PARAMS = {name: np.ones(4, np.float32) for name in LABELS}


def step(params, state, batch):
    """A penalty's gradient, and an update of all transformations."""
    averages = {
        name: optax.tree.get(state, name)
        for name in ("modality_auc", "group_auc", "group_seen")
    }

    def total(scores):
        inputs = jnp.concatenate([scores, scores**2], axis=1)
        fused = modulation.last_layer_gradient(
            inputs,
            inputs @ params["head"],
            batch["labels"],
            weights=batch["labels"] >= 0,
        )
        return modulation.multifair_penalty(
            fused_gradient=fused,
            unimodal_gradients=jnp.stack([params["image"], -params["notes"]]),
            **batch | {"unimodal_scores": scores},
            **averages,
        ).total

    gradient = jax.grad(total)(batch["unimodal_scores"])
    return gradient, transform().update(params, state, params, **batch)


compiled_step = jax.jit(step)


def transform():
    return optax.chain(
        modulation.multifair(LABELS, NAMES, num_groups=2, tau=0.01),
        modulation.ogm_ge(LABELS, NAMES, alpha=0.3),
        optax.clip_by_global_norm(0.8),
    )


def whole_and_sharded(compute, state, kind):
    """The result for a batch, and for the batch in parts on a mesh of such axes."""
    batch = asdict(transcription.draw(1, 32, 2, 2))
    batch = jax.tree.map(jnp.asarray, batch)
    wanted = compute(PARAMS, state, batch)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):

        def put(tree, *axes):
            place = NamedSharding(mesh, PartitionSpec(*axes))
            return jax.tree.map(lambda leaf: jax.device_put(leaf, place), tree)

        return wanted, compute(put(PARAMS), put(state), put(batch, "data")), mesh


def assert_close(found, wanted):
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6),
        jax.device_get(found),
        wanted,
    )


@pytest.mark.slow
def test_an_update_for_a_sharded_batch():
    method = modulation.multifair(LABELS, NAMES, num_groups=2, tau=0.01)
    wanted, found, _ = whole_and_sharded(
        jax.jit(lambda params, state, batch: method.update(params, state, **batch)),
        method.init(PARAMS),
        AxisType.Explicit,
    )
    assert_close(found, wanted)
    scales = {name: float(update[0]) for name, update in wanted[0].items()}
    assert scales["head"] == 1
    assert 0 < scales["image"] < scales["notes"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_batches(kind):
    state = transform().init(PARAMS)
    wanted, found, mesh = whole_and_sharded(compiled_step, state, kind)
    assert found[0].sharding.is_equivalent_to(
        NamedSharding(mesh, PartitionSpec("data")), 2
    )
    assert_close(found, wanted)
