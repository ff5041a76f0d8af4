"""Models with a state, and with random numbers, in the train step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType

import fairjax
from fairjax import losses, models, training
from fairjax.checkpoint import Checkpoints

B = 16
RNG = np.random.default_rng(0)
CELLS = fairjax.partition({"sex": ["f", "m"]})
BATCH = {
    "x": jnp.asarray(RNG.normal(size=(B, 3)), jnp.float32),
    "y": jnp.asarray(RNG.integers(0, 2, B), jnp.float32),
    "cells": jnp.asarray(np.tile([0, 1], B // 2)),
}
TRANSFORM = optax.chain(
    fairjax.scalarize(num_objectives=2, reduction="mean"), optax.sgd(0.1)
)


class Network(nnx.Module):
    def __init__(self, norm=True, dropout=0.0):
        rngs = nnx.Rngs(0)
        self.first, self.last = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs) if norm else None
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        x = self.dropout(jnp.tanh(x if self.norm is None else self.norm(x)))
        return self.last(x)[:, 0]


class Sowing(Network):
    def __call__(self, x):
        self.sow(nnx.Intermediate, "inputs", x)
        return super().__call__(x)


def loss(z, y):
    return jax.nn.softplus(z) - y * z


def objectives_of(apply, **options):
    def statistics(params, batch, model_state, key):
        z, model_state = apply(params, model_state, key, batch["x"])
        return {"loss": loss(z, batch["y"])}, model_state

    functions = losses.group_risks(CELLS, "sex")
    return fairjax.cell_objectives(
        statistics, CELLS, functions, has_aux=True, **options
    )


def made(network, transform=TRANSFORM, seed=0, **options):
    apply, params, model_state = models.stateful(network)
    objectives = objectives_of(apply)
    state = training.init_state(params, transform, key=seed, model_state=model_state)
    step = training.make_train_step(objectives, transform, has_state=True, **options)
    return jax.jit(step), state


def close(found, expected, **options):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **options)


def test_statistics_move_as_in_a_plain_loop(tmp_path):
    step, state = made(Network())
    apply, params, model_state = models.stateful(Network())

    @jax.jit
    def plain(params, model_state):
        def mean_risk(params):
            z, new = apply(params, model_state, jax.random.key(0), BATCH["x"])
            return loss(z, BATCH["y"]).mean(), new  # Groups of equal size.

        gradient, new = jax.grad(mean_risk, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), new

    for _ in range(3):
        state, _ = step(state, BATCH)
        params, model_state = plain(params, model_state)
    close(
        (state.params, state.model_state), (params, model_state), rtol=1e-5, atol=1e-7
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
        _, restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
    jax.tree.map(
        np.testing.assert_array_equal, step(restored, BATCH), step(state, BATCH)
    )


def test_dropout_differs_between_steps_and_repeats_with_the_seed():
    """With a rate of 0 for learning, only the dropped units change."""
    still = optax.chain(fairjax.mgda(num_objectives=2), optax.sgd(0.0))
    step, state = made(Network(norm=False, dropout=0.5), still)
    other = state._replace(key_data=jax.random.key_data(jax.random.key(1)))
    found = {}
    for name, one in {"first": state, "again": state, "other": other}.items():
        one, before = step(one, BATCH)
        found[name] = np.stack([before.values, step(one, BATCH)[1].values])
    np.testing.assert_array_equal(found["first"], found["again"])
    assert (found["first"][0] != found["first"][1]).all()
    assert (found["first"] != found["other"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fused", "cells", "jacrev"])
def test_dropped_units_are_the_same_for_all_strategies(strategy):
    reconciler = optax.chain(fairjax.pcgrad(num_objectives=2), optax.sgd(0.1))
    network = Network(norm=False, dropout=0.5)
    step, state = made(network, reconciler, strategy=strategy)
    expected = made(network, reconciler, strategy="pulls")[0]
    close(step(state, BATCH), expected(state, BATCH), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_mesh_averages_the_devices_statistics():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    step, state = made(Network(), mesh=mesh)
    found, info = step(state, BATCH)
    expected, _ = made(Network())[0](state, BATCH)
    close(
        found.model_state["norm"]["mean"],
        expected.model_state["norm"]["mean"],
        rtol=1e-5,
    )
    assert np.isfinite(info.values).all()
    dropped, state = made(Network(norm=False, dropout=0.5), mesh=mesh)
    assert dropped(state, BATCH)[1].finite


class LinenNetwork(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False, momentum=0.5)(nn.Dense(8)(x))
        return nn.Dense(1)(nn.Dropout(0.5, deterministic=False)(jnp.tanh(x)))[:, 0]


@pytest.mark.slow
def test_linen_in_the_running_means_of_outputs():
    network = LinenNetwork()
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = dict(network.init(keys, BATCH["x"]))
    params = variables.pop("params")

    def apply(params, model_state, key, x):
        return network.apply(
            {"params": params, **model_state},
            x,
            rngs={"dropout": key},
            mutable=list(model_state),
        )

    objectives = objectives_of(apply, decay=0.5)
    state = training.init_state(
        params, TRANSFORM, key=0, objectives=objectives, model_state=variables
    )
    step = jax.jit(training.make_train_step(objectives, TRANSFORM, has_state=True))
    state, _ = step(state, BATCH)
    hidden = BATCH["x"] @ params["Dense_0"]["kernel"]
    mean = state.model_state["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.5 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    assert state.objective_state.total > 0


@pytest.mark.filterwarnings("ignore:.*sow:DeprecationWarning")
def test_what_a_model_sows_is_not_its_state():
    model = Sowing()
    apply, params, model_state = models.stateful(model)
    key = jax.random.key(0)
    _, new = jax.eval_shape(apply, params, model_state, key, BATCH["x"])
    assert jax.tree.structure(new) == jax.tree.structure(model_state)
    model.eval()
    apply, params = models.functional(model)
    assert jax.eval_shape(apply, params, BATCH["x"]).shape == (B,)


def test_a_state_without_a_place_is_an_error():
    apply, params = models.functional(Network())
    with pytest.raises(ValueError, match=r"changes \['norm'\]\['mean'\].*stateful"):
        apply(params, BATCH["x"])
    still = Network()
    still.eval()
    apply, params = models.functional(still)
    assert apply(params, BATCH["x"]).shape == (B,)

    _, state = made(Network())
    with pytest.raises(ValueError, match="has_state must equal the has_aux"):
        training.make_train_step(objectives_of(apply), TRANSFORM)

    def values(params, batch, *given):
        return jnp.stack([jnp.mean(params["last"]["kernel"] ** 2)] * 2), *given[:0]

    plain = training.make_train_step(values, TRANSFORM)
    with pytest.raises(ValueError, match="would not update.*has_state=True"):
        jax.eval_shape(plain, state, BATCH)
    lost = training.make_train_step(
        lambda params, batch, model_state, key: (values(params, batch)[0], {}),
        TRANSFORM,
        has_state=True,
    )
    with pytest.raises(ValueError, match="of the structure that init_state got"):
        jax.eval_shape(lost, state, BATCH)


def counting(model_state, change, **options):
    """One step of objectives whose state changes so; numbers that are not examples'."""
    objectives = fairjax.output_objectives(
        lambda params, batch, state, key: (batch["x"] @ params, change(state, batch)),
        {name: lambda z, batch: jnp.mean(z) for name in "ab"},
        has_aux=True,
    )
    step = training.make_train_step(objectives, TRANSFORM, has_state=True, **options)
    params = jnp.ones(BATCH["x"].shape[1])
    state = training.init_state(params, TRANSFORM, key=0, model_state=model_state)
    batch = {"x": BATCH["x"].at[0].set(jnp.arange(params.size))}
    return step(state, batch)[0].model_state


def test_numbers_of_a_state_that_are_not_finite_stay():
    """On a mesh, they are left out of the mean over devices."""
    unknown = jnp.array([1.0, jnp.nan, 3.0])

    def change(state, batch):
        return jnp.where(batch["x"][0, 1] == 1, unknown, jnp.arange(4.0, 7.0))

    start = jnp.full(3, 9.0)
    np.testing.assert_array_equal(counting(start, change), [1, 9, 3])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    np.testing.assert_array_equal(counting(start, change, mesh=mesh), [2.5, 5, 4.5])
    with pytest.raises(ValueError, match="same on all devices, being int32"):
        counting(jnp.int32(0), lambda s, b: s + jnp.sum(b["x"][:, 0] > 0), mesh=mesh)


def test_a_state_keeps_its_shape_and_type():
    half = counting(jnp.zeros(2, jnp.bfloat16), lambda s, b: s + jnp.ones(2))
    assert half.dtype == jnp.bfloat16
    for start, change in (
        (jnp.zeros(()), lambda s, b: s + jnp.ones(2)),
        (jnp.int32(0), lambda s, b: s + 0.5),
    ):
        with pytest.raises(ValueError, match="must have the shapes and kinds"):
            counting(start, change)
