"""Training runs that kill themselves while they save; run by test_checkpoint.py.

``python training_worker.py FOLDER OUTPUT [EVENT COUNT] ...`` starts a run for each
EVENT, one after another. A run resumes from the checkpoints in FOLDER, trains with one
after every call, and sends itself SIGKILL the COUNT-th time that Python raises this
audit event (``open``, ``os.rename``) for something in FOLDER. At the end it would write
the last state's bytes to OUTPUT. After each run a line has its exit code and its latest
checkpoint.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fairjax
from fairjax import losses, training
from fairjax.checkpoint import Checkpoints

CALLS = 5


def kill_at(folder, event, count):
    seen = 0

    def hook(name, arguments):
        nonlocal seen
        if name == event and str(arguments[0]).startswith(folder):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main(folder, output):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    table = {"sex": x[:, 1] > 0, "y": (x[:, 0] + rng.normal(size=64) > 0).astype(int)}
    cells = fairjax.partition(table)
    data = {"x": x, "y": table["y"], "cells": cells.encode(table)}
    data = jax.tree.map(jnp.asarray, data)

    def statistics(params, batch):
        logit = batch["x"] @ params["w"] + params["b"]
        loss = optax.sigmoid_binary_cross_entropy(logit, batch["y"])
        return {"loss": loss, "score": jax.nn.sigmoid(logit)}

    functions = {
        "task": losses.task(cells),
        "odds": losses.equalized_odds(cells, "sex", label="y"),
    }
    objectives = fairjax.cell_objectives(statistics, cells, functions, decay=0.9)
    transform = optax.chain(fairjax.fairgrad(num_objectives=2), optax.adamw(0.05))

    def sample(key, data):
        rows = jax.random.randint(key, (16,), 0, 64)
        return jax.tree.map(lambda leaf: leaf[rows], data)

    def score(params, data):
        return -jnp.mean(statistics(params, data)["loss"])

    step = training.make_train_step(objectives, transform, strategy="pulls")
    loop = jax.jit(
        training.make_loop(step, sample, steps_per_call=3, score=score),
        donate_argnums=0,
    )
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    run = training.start(
        training.init_state(params, transform, key=1, objectives=objectives)
    )
    with Checkpoints(folder) as checkpoints:
        call, run = checkpoints.restore(run) or (0, run)
        while call < CALLS:
            run, _ = loop(run, data)
            call += 1
            checkpoints.save(call, run)
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(run)]
    Path(output).write_bytes(b"".join(leaves))


if __name__ == "__main__":
    folder, output, *kills = sys.argv[1:]
    for event, count in zip(kills[::2], kills[1::2], strict=True):
        # All runs share the imports.
        if not (run := os.fork()):
            kill_at(folder, event, int(count))
            main(folder, output)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
        saved = [int(path.name) for path in Path(folder).glob("[0-9]")]
        sys.stdout.write(f"{code} {max(saved, default=0)}\n")
        sys.stdout.flush()
