"""Steps of a mesh over all devices of all processes; run by test_mesh.py.

``python mesh_worker.py FOLDER [ADDRESS PROCESSES INDEX]`` trains for two steps, resumes
from a checkpoint in FOLDER if there is one, or saves one after the first step, and
prints the parameters, the norms and the cosines as JSON.
"""

import json
import sys

import jax
import numpy as np
import test_mesh
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import fairjax
from fairjax import training
from fairjax.checkpoint import Checkpoints


def main(folder, *cluster):
    if cluster:
        address, number, index = cluster
        jax.distributed.initialize(address, int(number), int(index))
    objectives = test_mesh.of_cells()
    transform = test_mesh.transform_of(objectives, fairjax.mgda)
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    state = test_mesh.initial(objectives, transform)
    state = multihost_utils.host_local_array_to_global_array(state, mesh, P())

    def spread(leaf):
        place = NamedSharding(mesh, P("data") if np.ndim(leaf) else P())
        return jax.make_array_from_callback(np.shape(leaf), place, lambda i: leaf[i])

    batch = {name: spread(np.asarray(leaf)) for name, leaf in test_mesh.BATCH.items()}
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
