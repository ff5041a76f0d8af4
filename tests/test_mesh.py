"""Train steps whose batch is spread over a mesh, against one device."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import fairjax
from fairjax import losses, models, training
from fairjax.jacobian._scattered import project
from tests.conformance import CASES
from tests.mesh_worker import (
    BATCH,
    CELLS,
    DEVICES,
    PARAMS,
    RNG,
    initial,
    logits,
    loss,
    main,
    of_cells,
    of_outputs,
    ranking,
    transform_of,
)


def mesh_of(*sizes, names=("data",)):
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))


def on_the_wire(compiled):
    """Bytes that collectives move: N for a share of N, 2 N for an all-reduce."""
    total = 0.0
    times = {"all-reduce": 2, "reduce-scatter": DEVICES, "all-gather": 1}
    for line in compiled.as_text().splitlines():
        found = re.search(rf"= (.*?) ({'|'.join(times)})(-start)?\(", line)
        if found:
            shapes = re.findall(r"(?:f|s|u)32\[([\d,]*)\]", found[1])
            numbers = sum(np.prod([int(n) for n in s.split(",") if n]) for s in shapes)
            total += 4 * numbers * times[found[2]]
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objectives", "reconciler"),
    [
        (of_cells(decay=0.9), fairjax.mgda),
        (of_cells(), fairjax.graddrop),
        (of_outputs(), fairjax.pcgrad),
    ],
    ids=["running means", "stored rows", "outputs"],
)
def test_a_mesh_gives_the_step_of_one_device(objectives, reconciler):
    transform = transform_of(objectives, reconciler)
    state, batch = initial(objectives, transform), jax.tree.map(jnp.asarray, BATCH)
    alone = jax.jit(training.make_train_step(objectives, transform))
    spread = jax.jit(training.make_train_step(objectives, transform, mesh=mesh_of(8)))
    found, expected = state, state
    for _ in range(2):
        found, info = spread(found, batch)
        expected, one = alone(expected, batch)
        np.testing.assert_allclose(info.values, one.values, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_parameters_stay_sharded_over_another_axis():
    objectives = of_cells()
    transform = transform_of(objectives, fairjax.pcgrad)
    mesh = mesh_of(4, 2, names=("data", "model"))
    state, batch = initial(objectives, transform), jax.tree.map(jnp.asarray, BATCH)
    expected, _ = jax.jit(training.make_train_step(objectives, transform))(state, batch)
    columns = NamedSharding(mesh, P(None, "model"))
    params = state.params | {"w": jax.device_put(state.params["w"], columns)}
    step = training.make_train_step(objectives, transform, mesh=mesh, data_axis="data")
    found, _ = jax.jit(step)(state._replace(params=params), batch)
    for a, b in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_no_device_receives_the_sums_of_all_gradients():
    objectives = of_cells()
    transform = transform_of(objectives)
    state = initial(
        objectives, transform, {"w": np.ones((5, 4096)), "u": np.ones(4096)}
    )
    step = training.make_train_step(objectives, transform, mesh=mesh_of(8))
    compiled = jax.jit(step).lower(state, jax.tree.map(jnp.asarray, BATCH)).compile()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    # A plain step sums one gradient, 2 P; the sums of K would be 2 K P.
    assert on_the_wire(compiled) <= (objectives.num_objectives + 1.05) * size


@pytest.mark.slow
def test_devices_may_reconcile_gradients_of_their_own():
    """Such as those of one model on each device."""
    rows = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)

    def update_of(case):
        transform = case.make(num_objectives=3)

        def update(rows):
            state = transform.init(jnp.zeros(4))
            return transform.update(rows[0], state, losses=jnp.ones(3))[0][None]

        return update

    def spread(case):
        specs = {"in_specs": P("data"), "out_specs": P("data")}
        return jax.shard_map(update_of(case), mesh=mesh_of(2), **specs)

    for case in CASES.values():
        assert jax.eval_shape(spread(case), rows).shape == (2, 4)
    found = jax.jit(spread(CASES["mgda"]))(rows)
    for one, own in zip(found, rows, strict=True):
        expected = update_of(CASES["mgda"])(own[None])[0]
        np.testing.assert_allclose(one, expected, rtol=1e-5)


@pytest.mark.slow
def test_outputs_that_read_the_axis_or_nothing():
    """A model that sums over the axis, and an output that is constant."""

    def model(axis_size):
        def run(params, batch):
            z = batch["x"] @ params / axis_size()
            return {"z": z, "constant": jnp.full(z.shape, 0.5)}

        functions = {
            "a": lambda out, batch: jnp.mean(out["z"] ** 2),
            "b": lambda out, batch: out["z"][0] * jnp.sum(out["constant"]),
        }
        return fairjax.output_objectives(run, functions)

    transform = optax.chain(fairjax.scalarize(num_objectives=2), optax.sgd(0.1))
    state = training.init_state(jnp.ones(5), transform, key=0)
    batch = {"x": jnp.asarray(BATCH["x"])}
    alone = training.make_train_step(model(lambda: 8), transform)
    spread = model(lambda: jax.lax.psum(1, "data"))
    step = training.make_train_step(spread, transform, mesh=mesh_of(8))
    found, expected = (jax.jit(one)(state, batch) for one in (step, alone))
    np.testing.assert_allclose(found[1].values, expected[1].values, rtol=1e-5)
    np.testing.assert_allclose(found[0].params, expected[0].params, rtol=1e-5)


@pytest.mark.parametrize("form", ["any", "one column in 64"])
def test_inner_products_of_projections_are_unbiased(form):
    size, times = 64, 400
    rows = {"a": RNG.normal(size=(3, 40, 64)), "b": RNG.normal(size=(3, 9))}
    if form != "any":  # Places at multiples of the size would all be the same.
        rows["a"][:, :, 1:] = 0
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), rows)
    exact = np.asarray(fairjax.gramian(rows), float)

    def estimate(key):
        return fairjax.gramian(project(rows, size, key))

    keys = jax.random.split(jax.random.key(0), times)
    found = np.asarray(jax.jit(jax.vmap(estimate))(keys), float)
    squares = np.diag(exact)
    expected = np.sqrt((np.outer(squares, squares) + exact**2) / size)
    assert (found.std(axis=0) < 1.15 * expected).all()
    assert (np.abs(found.mean(axis=0) - exact) < 4 * expected / np.sqrt(times)).all()


@pytest.mark.slow
def test_a_sketched_step_sends_what_a_plain_one_does_and_trains_alike():
    objectives = of_cells()
    transform = transform_of(objectives, fairjax.pcgrad)
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(5, 8192)) / 2, "u": rng.normal(size=8192) / 90}
    start = initial(objectives, transform, params)
    batch = jax.tree.map(jnp.asarray, BATCH)
    ends = {}
    for size in (None, 512):
        step = training.make_train_step(
            objectives, transform, mesh=mesh_of(8), sketch_size=size
        )
        compiled, state = jax.jit(step).lower(start, batch).compile(), start
        _, info = compiled(start, batch)
        before = info.values
        for _ in range(20):
            state, info = compiled(state, batch)
        ends[size] = info.values
    sent = sum(leaf.nbytes for leaf in jax.tree.leaves(start.params))
    assert on_the_wire(compiled) < 1.1 * 2 * sent
    progress = before - ends[None]
    assert (progress > 0.1).all()
    assert (before - ends[512] > 0.8 * progress).all()


def test_errors_of_a_mesh_name_the_remedy():
    objectives, mesh = of_cells(), mesh_of(8)
    transform = transform_of(objectives)
    state = initial(objectives, transform)
    step = training.make_train_step(objectives, transform, mesh=mesh)
    few = BATCH | {name: BATCH[name][:12] for name in ("x", "y", "cells")}
    with pytest.raises(ValueError, match="divide among the 8 devices.*got 12"):
        jax.eval_shape(step, state, few)
    with pytest.raises(ValueError, match=r"axis of the mesh, \('data',\); got 'batch'"):
        training.make_train_step(objectives, transform, mesh=mesh, data_axis="batch")
    with pytest.raises(ValueError, match="got function. Others"):
        training.make_train_step(lambda p, b: p, transform, mesh=mesh)
    with pytest.raises(ValueError, match="sketch_size must come with objectives that"):
        training.make_train_step(objectives, transform, sketch_size=64)
    many = fairjax.mgda(num_objectives=9)
    step = training.make_train_step(objectives, many, mesh=mesh, sketch_size=64)
    with pytest.raises(ValueError, match="made for 9 objectives; the gradients have 5"):
        jax.eval_shape(step, initial(objectives, many), BATCH)
    drop = transform_of(objectives, fairjax.graddrop)
    step = training.make_train_step(objectives, drop, mesh=mesh, sketch_size=64)
    with pytest.raises(ValueError, match="through their Gram matrix alone"):
        jax.eval_shape(step, initial(objectives, drop), BATCH)
    lost = fairjax.output_objectives(logits, {"mean": ranking}, axis_name="data")
    with pytest.raises(ValueError, match="within jax.shard_map over that axis"):
        fairjax.value_and_jacobian(lost)(PARAMS, BATCH)


def numbers(text):
    return [np.array(x) for x in json.loads(text.splitlines()[-1])]


def run_processes(folder, number):
    """The numbers that each of the processes prints, of eight devices in all."""
    path = Path(__file__).with_name("mesh_worker.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={DEVICES // number}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    environment["PYTHONPATH"] = str(path.parents[1])
    running = []
    for index in range(number):
        cluster = [address, str(number), str(index)]
        command = [sys.executable, str(path), str(folder), *cluster]
        running.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, text=True
            )
        )
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * number
    return [numbers(text) for text in said]


@pytest.mark.slow
def test_two_processes_train_as_one_and_share_a_checkpoint(tmp_path, capsys):
    main(tmp_path / "alone")
    alone = numbers(capsys.readouterr().out)
    both = run_processes(tmp_path / "both", 2)
    main(tmp_path / "both")  # Resumes.
    resumed = numbers(capsys.readouterr().out)
    for found in (*both, resumed):
        for a, b in zip(found, alone, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_vision_transformer_compiles_ahead_of_time_for_a_tpu_pod(monkeypatch):
    """On a CPU, for devices that are elsewhere."""
    pytest.importorskip("libtpu", reason="could not import 'libtpu'")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    pod = topologies.get_topology_desc("v5e:2x4", platform="tpu")
    mesh = Mesh(np.reshape(pod.devices, DEVICES), "data")

    def make(key):
        vit = models.ViT(32, 8, 64, 2, 4, rngs=nnx.Rngs(key))
        head = nnx.Linear(64, 1, rngs=nnx.Rngs(key))
        return nnx.split(nnx.Sequential(vit, head))

    structure, params = nnx.eval_shape(lambda: make(0))
    objectives = fairjax.cell_objectives(
        lambda params, batch: {
            "loss": loss(nnx.merge(structure, params)(batch["x"])[:, 0], batch["y"])
        },
        CELLS,
        losses.group_risks(CELLS, "race"),
    )
    transform = transform_of(objectives, fairjax.pcgrad)
    state = jax.eval_shape(
        lambda params: training.init_state(params, transform, key=0), params
    )
    batch = {"x": np.zeros((64, 32, 32, 3)), "y": np.zeros(64), "cells": np.zeros(64)}

    def there(tree, spec, dtype=None):
        place = NamedSharding(mesh, spec)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, dtype or leaf.dtype, sharding=place
            ),
            tree,
        )

    batch = there(batch, P("data"), jnp.float32)
    batch["cells"] = there(batch["cells"], P("data"), jnp.int32)
    step = training.make_train_step(objectives, transform, mesh=mesh)
    lowered = jax.jit(step, donate_argnums=0).lower(there(state, P()), batch)
    compiled = lowered.compile({"exec_time_optimization_effort": -1.0})
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    assert on_the_wire(compiled) <= (objectives.num_objectives + 1.05) * size
