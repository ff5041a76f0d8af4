"""Trains lanes on real patients, and may kill itself; run by test_lanes.py.

``python lanes_worker.py OUTPUT WORK ... [KILL]`` trains a method of three phases with a
checkpoint after every call, in each of the folders WORK in turn, and writes the logits
of the last to OUTPUT. With a number KILL it sends itself SIGKILL the KILL-th time that
a file in WORK is renamed: in the middle of saving a checkpoint.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from experiments.core import lanes, methods, protocol
from experiments.core.programs import Budget
from experiments.datasets import load

BUDGET = Budget(
    steps=16,
    steps_per_call=2,
    batch_size=64,
    hidden=(4,),
    seconds_between_checkpoints=0,
)


def kill_at(folder, count):
    seen = 0

    def hook(name, arguments):
        nonlocal seen
        if name == "os.rename" and str(arguments[0]).startswith(folder):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main(output, *folders):
    jax.config.update("jax_num_cpu_devices", 5)
    if folders[-1].isdigit():
        *folders, count = folders
        kill_at(folders[0], int(count))
    splits = protocol.cross_validation(
        load("support2"), ("sex", "age"), num_repeats=1, seed=0
    )
    (program,) = methods.build(
        ["two_phase_sequential", "two_phase_simultaneous"], splits
    )
    for folder in folders:
        work = Path(folder)
        steps = []
        trained = lanes.train(
            program, splits, BUDGET, seed=0, work=work, advance=steps.append
        )
        history = [values for phase in trained.history for values in phase.values()]
        content = [trained.logits, *history]
        Path(f"{output}-{work.name}").write_bytes(
            b"".join(np.ascontiguousarray(values).tobytes() for values in content)
        )
        sys.stdout.write(f"{work.name} {sum(steps)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
