"""Grids of settings and seeds, trained in parallel by one compiled program.

The program is a scanned training loop under two ``vmap``: over H settings, and over L
lanes, which are seeds or folds of a cross-validation. Runs differ in the values of
arrays only, so the program is compiled once. Lanes are sharded over the devices.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fairjax import training
from fairjax.checkpoint import Checkpoints
from fairjax.keys import as_key
from fairjax.training import Run, TrainStep
from fairjax.types import Batch, Params

Setting: TypeAlias = Mapping[str, Any]
History: TypeAlias = dict[str, np.ndarray]


class Trained(NamedTuple):
    """A trained grid.

    Attributes:
      runs: Final runs, leaves ``[H, L, ...]``. ``runs.best.params`` are the parameters
        to use: the best by ``score`` or, without a score, the latest.
      settings: Name -> ``[H, ...]``, the settings of the rows.
      history: ``values`` ``[H, steps, L, K]``, the objectives before each step, and
        ``finite`` ``[H, steps, L]``, whether the parameters were finite after it.
    """

    runs: Run
    settings: dict[str, jax.Array]
    history: History


def grid(**values: Sequence[Any]) -> dict[str, jax.Array]:
    """Returns all combinations, name -> ``[H]``; the last name varies fastest.

    Raises:
      ValueError: There is no name, or a name has no values.

    Example:
      >>> grid(strength=[0.1, 1.0], rate=[1.0, 2.0, 3.0])["strength"].shape
      (6,)
      >>> grid(strength=[0.1, 1.0], rate=[1.0, 2.0])["rate"].tolist()
      [1.0, 2.0, 1.0, 2.0]
    """
    empty = [name for name, several in values.items() if not len(several)]
    if empty or not values:
        raise ValueError(
            "a grid needs one name or more, each with values; got "
            + (f"none for {', '.join(empty)}." if empty else "no name.")
        )
    rows = zip(*itertools.product(*values.values()), strict=True)
    return {name: jnp.asarray(row) for name, row in zip(values, rows, strict=True)}


def train(
    begin: Callable[[jax.Array], Params],
    make_step: Callable[[Setting], tuple[optax.GradientTransformation, TrainStep]],
    sample: Callable[[jax.Array, Any], Batch],
    data: Any,
    *,
    settings: Mapping[str, Any],
    num_seeds: int,
    num_steps: int,
    steps_per_call: int,
    key: jax.Array | int,
    objectives: Any = None,
    score: Callable[[Params, Any], jax.Array] | None = None,
    folder: str | Path | None = None,
) -> Trained:
    """Trains every setting with every seed in one compiled program.

    A seed has the same initial parameters and the same batches under every setting, so
    that comparisons of settings are paired.

    Args:
      begin: ``begin(key) -> params``, the model's initial parameters.
      make_step: ``make_step(setting) -> (transform, step)``: the optax transformation,
        and a step that uses it (:func:`fairjax.training.make_train_step`). The
        setting's values are traced arrays ``[...]``, not Python numbers.
      sample: ``sample(key, data) -> batch``, as for
        :func:`fairjax.training.make_loop`.
      data: Arrays that all runs read.
      settings: Name -> ``[H, ...]``, as :func:`grid` makes them.
      num_seeds: The number of seeds, L.
      num_steps: Number of steps in each run, a multiple of ``steps_per_call``.
      steps_per_call: Number of steps between evaluations of ``score``, and between
        possible checkpoints.
      key: A key, or a seed, from which the keys of all seeds are split.
      objectives: The objectives; needed only if they carry running means.
      score: ``score(params, data) -> []``, higher is better: the best parameters are
        kept (:func:`fairjax.training.make_loop`).
      folder: Folder of checkpoints, from which a killed sweep resumes bit for bit; use
        one folder for each set of settings. None writes no checkpoints.

    Returns:
      The runs and their history.

    Raises:
      ValueError: Settings differ in length, or there are none; a number is below 1; or
        the number of steps is not a multiple of ``steps_per_call``.

    Example:
      >>> import fairjax
      >>> objective = fairjax.stack_objectives(
      ...     {"task": lambda w, batch: (w - batch["x"]) ** 2})
      >>> def make_step(setting):
      ...     tx = optax.chain(
      ...         fairjax.pcgrad(num_objectives=1), optax.sgd(setting["rate"]))
      ...     return tx, training.make_train_step(objective, tx)
      >>> trained = train(
      ...     lambda key: jnp.array(0.0), make_step, lambda key, data: {"x": data},
      ...     jnp.array(2.0), settings=grid(rate=[0.25, 0.5]), num_seeds=3,
      ...     num_steps=1, steps_per_call=1, key=0)
      >>> trained.runs.best.params.tolist()
      [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    rows = {name: jnp.asarray(values) for name, values in settings.items()}
    number = _num_settings(rows)
    for option, value in (
        ("num_seeds", num_seeds),
        ("num_steps", num_steps),
        ("steps_per_call", steps_per_call),
    ):
        if value < 1:
            raise ValueError(f"{option} must be 1 or more; got {value}.")
    if num_steps % steps_per_call:
        raise ValueError(
            f"num_steps must be a multiple of steps_per_call, {steps_per_call}; got "
            f"{num_steps}."
        )

    def start(begun, setting, shared):
        del shared
        params, key_data = begun
        transform, _ = make_step(setting)
        state = training.init_state(
            params,
            transform,
            key=jax.random.wrap_key_data(key_data),
            objectives=objectives,
        )
        return training.start(state)

    def loop(run, of_lane, setting, shared):
        del of_lane
        _, step = make_step(setting)
        one_call = training.make_loop(
            step, sample, steps_per_call=steps_per_call, score=score
        )
        run, (infos, _) = one_call(run, shared)
        return run, infos._asdict()

    def by_step(history):
        # [H, L, steps, ...] -> [H, steps, L, ...], so that calls join along axis 1.
        return {name: jnp.swapaxes(values, 1, 2) for name, values in history.items()}

    first, batches = jax.random.split(as_key(key))
    begun = (
        jax.vmap(begin)(jax.random.split(first, num_seeds)),
        jax.random.key_data(jax.random.split(batches, num_seeds)),
    )
    begun = jax.tree.map(lambda x: jnp.broadcast_to(x, (number, *x.shape)), begun)
    mesh = lane_mesh(num_seeds)
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows, data = jax.device_put((rows, data), everywhere)
    starts, loops = compile_grid(start, loop, mesh=mesh, summarize=by_step)
    runs, history = run_calls(
        lambda runs: loops(runs, (), rows, data),
        starts(jax.device_put(begun, lane_sharding(mesh)), rows, data),
        num_steps // steps_per_call,
        folder=folder,
    )
    return Trained(runs, rows, history)


def _num_settings(settings: Mapping[str, jax.Array]) -> int:
    lengths = {name: x.shape[0] if x.ndim else None for name, x in settings.items()}
    if not lengths or None in lengths.values() or len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {x.shape}" for name, x in settings.items())
        raise ValueError(
            "settings must be arrays with one leading axis [H] of the same length; got "
            f"{listed or 'none'}."
        )
    return next(length for length in lengths.values() if length is not None)


def compile_grid(
    start: Callable[..., Any],
    loop: Callable[..., tuple[Any, Any]],
    *,
    mesh: jax.sharding.Mesh,
    summarize: Callable[[Any], dict[str, jax.Array]] | None = None,
) -> tuple[Callable[..., Any], Callable[..., tuple[Any, Any]]]:
    """Compiles the start and the loop of one run over settings and lanes.

    This is the lower layer of :func:`train`, for custom training loops.

    Args:
      start: ``start(begun, setting, shared) -> run`` of one setting and one lane.
      loop: ``loop(run, of_lane, setting, shared) -> (run, history)``, one call of
        several steps. ``of_lane`` holds the lane's inputs, ``history`` arrays.
      mesh: The mesh of the lanes (:func:`lane_mesh`).
      summarize: A function of the history of all runs, leaves ``[H, L, ...]``, which
        is compiled into the program.

    Returns:
      ``starts(begun [H, L], settings [H], shared)`` and ``loops(runs [H, L], of_lane
      [L], settings [H], shared)``. The loop donates its runs.

    Example:
      >>> starts, loops = compile_grid(
      ...     lambda begun, setting, shared: begun,
      ...     lambda run, own, setting, shared: (run + setting * own, {"run": run}),
      ...     mesh=lane_mesh(1))
      >>> runs = starts(jnp.zeros((2, 1)), jnp.array([1.0, 2.0]), ())
      >>> loops(runs, jnp.array([3.0]), jnp.array([1.0, 2.0]), ())[0].tolist()
      [[3.0], [6.0]]
    """

    def starts(begun, settings, shared):
        lanes = jax.vmap(start, in_axes=(0, None, None))
        return jax.vmap(lanes, in_axes=(0, 0, None))(begun, settings, shared)

    def loops(runs, of_lane, settings, shared):
        lanes = jax.vmap(loop, in_axes=(0, 0, None, None))
        variants = jax.vmap(lanes, in_axes=(0, None, 0, None))
        runs, history = variants(runs, of_lane, settings, shared)
        return runs, history if summarize is None else summarize(history)

    # Named shardings, so that one call's result enters the next without recompiling.
    by_lane = lane_sharding(mesh)
    replicated = NamedSharding(mesh, PartitionSpec())
    return (
        jax.jit(starts, out_shardings=by_lane),
        jax.jit(loops, donate_argnums=0, out_shardings=(by_lane, replicated)),
    )


def run_calls(
    loop: Callable[[Any], tuple[Any, Mapping[str, jax.Array]]],
    runs: Any,
    num_calls: int,
    *,
    folder: str | Path | None = None,
    seconds_between_checkpoints: float | int = 15.0,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Any, History]:
    """Calls a compiled loop several times, with a checkpoint every few seconds.

    Args:
      loop: ``loop(runs) -> (runs, history)``, with leaves ``[H, steps, ...]`` in the
        history.
      runs: The initial runs.
      num_calls: Number of calls, at least 1.
      folder: Folder of checkpoints; calls that are in a checkpoint are not repeated.
        None writes no checkpoints.
      seconds_between_checkpoints: Least time between checkpoints, and so about the most
        work that a killed process loses.
      advance: A function called after every call.

    Returns:
      The runs, and the history of all calls, joined along the axis of steps.

    Raises:
      ValueError: A checkpoint is damaged, or has other shapes.

    Example:
      >>> def loop(run):
      ...     return run + 1, {"run": run[:, None]}
      >>> run_calls(loop, jnp.zeros(1), 3)[1]["run"].tolist()
      [[0.0, 1.0, 2.0]]
    """
    history: list[History] = []
    with contextlib.ExitStack() as opened:
        checkpoints, done = None, 0
        if folder is not None:
            checkpoints = opened.enter_context(Checkpoints(folder, keep=1))
            runs, history = _restored(checkpoints, loop, runs)
            done = len(history)
            for _ in range(done):
                advance()
        saved = time.monotonic()
        for call in range(done, num_calls):
            runs, new = loop(runs)
            history.append({name: np.asarray(leaf) for name, leaf in new.items()})
            advance()
            overdue = time.monotonic() - saved >= seconds_between_checkpoints
            if checkpoints is not None and overdue and call + 1 < num_calls:
                stacked = {k: np.stack([h[k] for h in history]) for k in history[0]}
                checkpoints.save(call + 1, (runs, stacked))
                saved = time.monotonic()
    return runs, {k: np.concatenate([h[k] for h in history], 1) for k in history[0]}


def _restored(
    checkpoints: Checkpoints, loop: Callable[..., Any], runs: Any
) -> tuple[Any, list[Any]]:
    """Returns the runs of the latest checkpoint, and each earlier call's history."""
    number = checkpoints.latest()
    if number is None:
        return runs, []
    shapes = jax.eval_shape(loop, runs)[1]
    blank = {
        name: np.zeros((number, *leaf.shape), leaf.dtype)
        for name, leaf in shapes.items()
    }
    # restore returns None only without a checkpoint, which the check above excludes.
    _, (runs, stacked) = checkpoints.restore((runs, blank)) or (0, (runs, {}))
    return runs, [{k: v[i] for k, v in stacked.items()} for i in range(number)]


def lane_mesh(num_lanes: int) -> jax.sharding.Mesh:
    """Returns a mesh over the most devices whose number divides that of the lanes.

    Example:
      >>> mesh = lane_mesh(1)
      >>> mesh.axis_names, mesh.devices.tolist() == jax.devices()[:1]
      (('lane',), True)
    """
    number = max(d for d in range(1, jax.device_count() + 1) if num_lanes % d == 0)
    devices = jax.devices()[:number]
    return jax.make_mesh((number,), ("lane",), (AxisType.Auto,), devices=devices)


def lane_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of arrays ``[H, L, ...]`` that puts lanes on the devices.

    Example:
      >>> tuple(lane_sharding(lane_mesh(1)).spec)
      (None, 'lane')
    """
    return NamedSharding(mesh, PartitionSpec(None, "lane"))
