"""Trains every lane and every variant of a program in one compiled function.

The function is ``vmap`` over variants of ``vmap`` over lanes of a scanned training
loop; lanes are sharded over all devices. Training saves checkpoints, and a run that was
killed continues from its last checkpoint to the same bits.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from experiments.core.files import read_arrays, write_whole
from experiments.core.learners import Learner, tabular_learner
from experiments.core.programs import Budget, Program, allot
from experiments.core.protocol import CrossValidation
from fairjax import sweep, training
from fairjax.keys import own_keys
from fairjax.objectives import cell_objectives

# All methods draw their batches with the same keys, so that methods see the same data.
_BATCH_STREAM, _TRANSFORM_STREAM = 1, 2
# Settings that are passed to the model and the objectives in the batch.
_MASKS = ("objective_mask", "modalities")


class Trained(NamedTuple):
    """A trained program.

    Attributes:
      logits: float32 ``[H, L, n]``.
      history: For each phase, name -> ``[H, steps, ...]``, means over the lanes of the
        objectives' values and of the optimiser's states that the phase observes; and
        name -> ``[H, calls, L, ...]``, the values that the learner monitors.
    """

    logits: np.ndarray
    history: tuple[dict[str, np.ndarray], ...]


def train(
    program: Program,
    splits: CrossValidation,
    budget: Budget,
    *,
    seed: int,
    work: Path,
    advance: Callable[[int], None],
    learner: Learner | None = None,
) -> Trained:
    """Trains a program's variants in all lanes, or reads them if they were trained.

    Args:
      program: The variants.
      splits: The lanes.
      budget: Steps, batch size and model.
      seed: Seed of the weights and the batches; each lane has a stream of its own.
      work: Folder for checkpoints and finished programs.
      advance: Called with the number of steps that were just done.
      learner: The model and its data; an MLP on the table's columns if None.

    Raises:
      ValueError: If a checkpoint is damaged, or predictions are not finite.
    """
    name = f"{program.name}-{_digest(program)}"
    finished = work / f"{name}.npz"
    if finished.exists():
        advance(budget.steps)
        return _read(finished)
    mesh = sweep.lane_mesh(splits.num_lanes)
    learner = learner or tabular_learner(splits, budget)
    lane, shared = _on_devices(program, splits, learner, mesh)
    begun = _begin(learner, len(program.variants), splits.num_lanes, seed)
    params, key_data = jax.device_put(begun, sweep.lane_sharding(mesh))
    history: list[dict[str, np.ndarray]] = []
    compiled: dict[Any, Any] = {}
    per_call, calls_of = allot([p.share for p in program.phases], budget)
    budget = dataclasses.replace(budget, steps_per_call=per_call)
    for number, (phase, calls) in enumerate(zip(program.phases, calls_of, strict=True)):
        # Phases that differ only in numbers share their compiled functions.
        same = (id(phase.functions), phase.reconciler, phase.loss, phase.decay)
        if same not in compiled:
            compiled[same] = _compile(phase, splits, learner, budget, mesh)
        start, loop = compiled[same]
        schedule = jnp.array([phase.rate, calls * budget.steps_per_call])
        numbers = {**program.settings, **phase.settings}
        settings = {name: jnp.asarray(values) for name, values in numbers.items()}
        run, told = sweep.run_calls(
            lambda run, loop=loop, settings=settings, schedule=schedule: loop(
                run, lane, settings, (shared, schedule)
            ),
            start((params, key_data), settings, schedule),
            calls,
            folder=work / f"{name}-{number}",
            seconds_between_checkpoints=budget.seconds_between_checkpoints,
            advance=lambda: advance(per_call),
        )
        params, key_data = run.state.params, run.state.key_data
        history.append(told)
    over_lanes = jax.vmap(learner.predict, in_axes=(0, 0, None, None))
    predict = jax.jit(jax.vmap(over_lanes, in_axes=(0, None, None, 0)))
    seen = _seen({k: jnp.asarray(v) for k, v in program.settings.items()})
    logits = np.asarray(predict(params, lane["inputs"], shared, seen))
    for variant, values in zip(program.variants, logits, strict=True):
        if not np.isfinite(values).all():
            raise ValueError(
                f"{variant.name} {variant.setting} diverged: its predictions are not "
                "finite. Lower the learning rate or the weight of its fairness "
                "objectives."
            )
    trained = Trained(logits, tuple(history))
    _write(finished, trained)
    return trained


def _digest(program: Program) -> str:
    """Returns a digest of the variants and of all numbers in their training."""
    parts = [
        [[v.name, v.setting] for v in program.variants],
        [
            [p.share, [*p.functions], p.decay, p.rate, p.keys_by_lane, p.settings]
            for p in program.phases
        ],
        program.settings,
        program.example_weights,
    ]
    text = json.dumps(
        parts, sort_keys=True, default=lambda array: array.tobytes().hex()
    )
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _begin(learner: Learner, settings: int, lanes: int, seed: int):
    """Returns weights and batch keys of every lane, the same for every setting."""
    every_lane = jax.tree.map(np.asarray, _weights(learner.begin, lanes, seed))
    return jax.tree.map(lambda x: np.broadcast_to(x, (settings, *x.shape)), every_lane)


# Compiled once for all programs of a learner.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _weights(begin, lanes, seed):
    """Returns the weights of every lane, and the data of the lane's batch key."""
    key = jax.random.key(seed)
    params = jax.vmap(begin)(jax.random.split(key, lanes))
    batches = jax.random.split(jax.random.fold_in(key, _BATCH_STREAM), lanes)
    return params, jax.random.key_data(batches)


def _compile(phase, splits, learner, budget, mesh):
    """Compiles the start and the loop of a phase, over variants [H] and lanes [L].

    Both take the phase's rate and length as an argument, ``schedule = [rate, steps]``.
    """
    objectives = None
    if phase.loss is None:
        objectives = cell_objectives(
            learner.statistics, splits.partition, phase.functions, decay=phase.decay
        )

    def transform(setting, schedule):
        def rate(count):
            done = jnp.minimum(count / schedule[1], 1.0)
            cosine = 0.5 * (1 + jnp.cos(jnp.pi * done))
            return budget.learning_rate * schedule[0] * cosine

        adamw = optax.adamw(rate, weight_decay=budget.weight_decay)
        after = () if phase.after is None else (phase.after(setting),)
        return optax.chain(phase.reconciler(setting), adamw, *after)

    def start(begun, setting, schedule):
        params, key_data = begun
        key = jax.random.wrap_key_data(key_data)
        state = training.init_state(
            params,
            transform(_numbers(setting), schedule),
            key=key,
            objectives=objectives,
        )
        if phase.keys_by_lane:
            number = jax.random.bits(jax.random.fold_in(key, _TRANSFORM_STREAM))
            state = state._replace(opt_state=own_keys(state.opt_state, number))
        return training.start(state)

    def loop(run, lane, setting, everywhere):
        shared, schedule = everywhere
        numbers = _numbers(setting)

        def sample(key, data):
            lane, shared = data
            draws = jax.random.randint(key, (budget.batch_size,), 0, lane["count"])
            rows = lane["rows"][draws]
            batch = learner.batch(lane["inputs"], shared, rows)
            batch = {**batch, "weights": lane["weights"][rows]}
            return batch | {k: setting[k] for k in _MASKS if k in setting}

        chain = transform(numbers, schedule)
        if objectives is None:
            step = training.make_loss_step(phase.loss(numbers), chain)
        else:
            step = training.make_train_step(objectives, chain)
        one_call = training.make_loop(
            step,
            sample,
            steps_per_call=budget.steps_per_call,
            observe=lambda state: {
                name: optax.tree.get(state.opt_state, name) for name in phase.observed
            },
        )
        run, (infos, seen) = one_call(run, (lane, shared))
        monitored = {}
        if learner.monitor is not None:
            monitored = learner.monitor(
                run.state.params, lane["inputs"], shared, _seen(setting)
            )
        return run, ({"values": infos.values, **seen}, monitored)

    def over_lanes(told):
        told, monitored = told
        told = jax.tree.map(lambda x: jnp.mean(x, axis=1), told)
        return told | {name: x[:, None] for name, x in monitored.items()}

    return sweep.compile_grid(start, loop, mesh=mesh, summarize=over_lanes)


def _numbers(setting):
    """Returns the settings of the transformations, without the masks of batches."""
    return {k: v for k, v in setting.items() if k not in _MASKS}


def _seen(setting):
    """Returns the settings that a variant's model reads, in training and after."""
    return {k: v for k, v in setting.items() if k == "modalities"}


def num_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _on_devices(program, splits, learner, mesh):
    """Returns each lane's data, and what all lanes share, on the devices."""
    weights: Any = program.example_weights
    if weights is None:
        shape = (splits.num_lanes, len(splits.table.label))
        weights = np.ones(shape, np.float32)
    if learner.weights is not None:
        weights = weights * learner.weights
    lane = {
        "inputs": learner.inputs,
        "weights": weights,
        "rows": splits.train_rows,
        "count": splits.train_counts,
    }
    by_lane = NamedSharding(mesh, PartitionSpec("lane"))
    everyone = NamedSharding(mesh, PartitionSpec())
    return jax.device_put(lane, by_lane), jax.device_put(learner.shared, everyone)


def _write(path: Path, trained: Trained) -> None:
    arrays: dict[str, Any] = {"logits": trained.logits}
    for number, phase in enumerate(trained.history):
        arrays |= {f"{number}/{name}": values for name, values in phase.items()}
    write_whole(path, lambda temporary: np.savez(temporary, **arrays))


def _read(path: Path) -> Trained:
    arrays = read_arrays(path, "train")
    phases: dict[int, dict[str, np.ndarray]] = {}
    for name, values in arrays.items():
        if "/" in name:
            number, kind = name.split("/")
            phases.setdefault(int(number), {})[kind] = values
    return Trained(arrays["logits"], tuple(phases[i] for i in sorted(phases)))
