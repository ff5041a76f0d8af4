"""Steps of a mesh over all devices of all processes; run by test_mesh.py.

``python mesh_worker.py FOLDER ADDRESS PROCESSES INDEX`` trains for two steps, resumes
from a checkpoint in FOLDER if there is one, or saves one after the first step, and
prints the parameters, the norms and the cosines as JSON.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import fairjax
from fairjax import losses, training
from fairjax.checkpoint import Checkpoints

B, DEVICES = 32, 8
RNG = np.random.default_rng(0)
CELLS = fairjax.partition({"race": list("abcd")})
PARAMS = {"w": RNG.normal(size=(5, 16)) / 2, "u": RNG.normal(size=16) / 4}
RACE = RNG.choice(list("abcd"), B)
BATCH = {
    "x": RNG.normal(size=(B, 5)).astype(np.float32),
    "y": RNG.integers(0, 2, B).astype(np.float32),
    "cells": CELLS.encode({"race": RACE}),
    # As long as a device's share of the batch, but not spread.
    "prior": np.full(B // DEVICES, 0.1, np.float32),
}


def logits(params, batch):
    return jnp.tanh(batch["x"] @ params["w"]) @ params["u"]


def loss(z, y):
    return jax.nn.softplus(z) - y * z


def ranking(z, batch):
    """One minus a smooth AUC, which compares examples of different devices."""
    pairs = (batch["y"] > 0)[:, None] & (batch["y"] == 0)
    return jnp.mean(jax.nn.sigmoid(z[None] - z[:, None]), where=pairs)


def of_cells(**options):
    return fairjax.cell_objectives(
        lambda params, batch: {"loss": loss(logits(params, batch), batch["y"])},
        CELLS,
        {"task": losses.task(CELLS), **losses.group_risks(CELLS, "race")},
        **options,
    )


def of_outputs():
    return fairjax.output_objectives(
        logits,
        {
            "task": lambda z, batch: loss(z, batch["y"]).mean(),
            "ranking": ranking,
            "mean": lambda z, batch: (z.mean() - batch["prior"].sum()) ** 2,
        },
    )


def initial(objectives, transform, params=PARAMS):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return training.init_state(params, transform, key=0, objectives=objectives)


def transform_of(objectives, reconciler=fairjax.upgrad):
    return optax.chain(
        reconciler(num_objectives=objectives.num_objectives), optax.adamw(1e-2)
    )


def main(folder, *cluster):
    if cluster:
        address, number, index = cluster
        jax.distributed.initialize(address, int(number), int(index))
    objectives = of_cells()
    transform = transform_of(objectives, fairjax.mgda)
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    state = initial(objectives, transform)
    state = multihost_utils.host_local_array_to_global_array(state, mesh, P())

    def spread(leaf):
        place = NamedSharding(mesh, P("data") if len(leaf) == B else P())
        return jax.make_array_from_callback(np.shape(leaf), place, lambda i: leaf[i])

    batch = {name: spread(np.asarray(leaf)) for name, leaf in BATCH.items()}
    step = training.make_train_step(objectives, transform, mesh=mesh)
    step = jax.jit(step)
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(state)
        if found is None:
            state, _ = step(state, batch)
            checkpoints.save(1, state)
        else:
            _, state = found
    state, _ = step(state, batch)
    reconciled = state.opt_state[0]
    shown = [*jax.tree.leaves(state.params), reconciled.norms, reconciled.cosines]
    shown = [np.asarray(leaf.addressable_data(0)).tolist() for leaf in shown]
    sys.stdout.write(json.dumps(shown))


if __name__ == "__main__":
    main(*sys.argv[1:])
