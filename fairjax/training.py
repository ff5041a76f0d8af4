"""Training as pure functions of arrays: state, step, scanned loop, model selection.

Nothing in this module reads the disk, the clock or the host. A whole run is a function
that ``jit`` compiles and ``vmap`` maps over seeds, folds and hyper-parameters.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt

from fairjax.jacobian._cells import count_examples, has_examples, varies
from fairjax.keys import as_key
from fairjax.objectives import CellObjectives, OutputObjectives
from fairjax.reconciled import ReconciledStrategy, reconciled_value_and_grad
from fairjax.reconcilers.core import Step
from fairjax.stacked import check_update
from fairjax.types import Batch, Jacobian, Params

TrainStep = Callable[["TrainState", Batch], tuple["TrainState", "StepInfo"]]


class TrainState(NamedTuple):
    """State of training between two steps; a pytree of arrays.

    Attributes:
      params: The model's parameters.
      opt_state: The optax state, including the reconciler's diagnostics.
      objective_state: Running means of objectives with a decay; else ``()``.
      key_data: Raw data of the random key from which batches are drawn.
      step: Number of steps taken.
      model_state: The model's state besides its parameters, such as the statistics of
        BatchNorm; else ``()``.
    """

    params: Params
    opt_state: Any
    objective_state: Any
    key_data: UInt[Array, " words"]
    step: Int[Array, ""]
    model_state: Any = ()


class StepInfo(NamedTuple):
    """Output of one step: the objectives, and whether the parameters stayed finite.

    Attributes:
      values: ``[K]``, the objectives before the step.
      finite: Whether the updated parameters are all finite. Of several objectives, one
        in use must be finite too, with a finite gradient.
    """

    values: Float[Array, " K"]
    finite: Array


class Selection(NamedTuple):
    """The best parameters so far by a validation score.

    Attributes:
      score: The best score; −inf before the first finite score.
      step: The step at which the best score was reached.
      params: The parameters at that step.
      model_state: The model's state at that step.
    """

    score: Float[Array, ""]
    step: Int[Array, ""]
    params: Params
    model_state: Any = ()


class Run(NamedTuple):
    """A training run: the present state, and the best parameters so far."""

    state: TrainState
    best: Selection


def init_state(
    params: Params,
    transform: optax.GradientTransformation,
    *,
    key: Array | int,
    objectives: Any = None,
    model_state: Any = (),
) -> TrainState:
    """Makes the state before the first step.

    Args:
      params: The model's initial parameters.
      transform: The optax transformation, including the reconciler.
      key: A key, or a seed, from which batches are drawn; may be traced.
      objectives: The objectives; needed only if they carry running means
        (:func:`fairjax.cell_objectives` with a ``decay``).
      model_state: The model's initial state, as :func:`fairjax.models.stateful` returns
        it; needed only by a step made with ``has_state=True``.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fairjax import training
      >>> int(training.init_state(jnp.zeros(2), optax.sgd(0.1), key=0).step)
      0
    """
    # A weakly typed parameter would turn strongly typed at the first step, so the step
    # would be compiled twice.
    params, model_state = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.result_type(x)), (params, model_state)
    )
    carries = isinstance(objectives, CellObjectives) and objectives.decay is not None
    return TrainState(
        params=params,
        opt_state=transform.init(params),
        objective_state=objectives.init_running() if carries else (),
        key_data=jax.random.key_data(as_key(key)),
        step=jnp.zeros((), jnp.int32),
        model_state=model_state,
    )


def make_train_step(
    objectives: Callable[..., Any],
    transform: optax.GradientTransformation,
    *,
    strategy: ReconciledStrategy = "auto",
    mesh: Mesh | None = None,
    data_axis: str | None = None,
    sketch_size: int | None = None,
    has_state: bool = False,
) -> TrainStep:
    """Makes a step: objectives → reconciled update → optax chain → parameters.

    Args:
      objectives: ``objectives(params, batch) -> values [K]``; or
        :func:`fairjax.cell_objectives`, with or without running means.
      transform: A transformation of ``[K, *param]`` into ``[*param]``: a reconciler and
        the rest of its ``optax.chain``. The values reach the transformation as the
        extra argument ``losses``, and ``batch["objective_mask"]``, if present, as
        ``mask``.
      strategy: How to compute the update: as for
        :func:`fairjax.reconciled_value_and_grad`.
      mesh: Devices over which each batch is spread, by ``jax.shard_map``. The state is
        the same on all of them. No device holds the sums of all gradients: each sums
        and combines its share of the parameters, unless the transformation reads more
        than their Gram matrix. The objectives must be made by
        :func:`fairjax.cell_objectives` or :func:`fairjax.output_objectives`, and are
        those of the global batch. Every array of the batch whose first axis is as long
        as the batch is spread, so a table must have another length. The model runs on
        each device's examples: one that combines examples, such as BatchNorm, must do
        so over the axis too.
      data_axis: The mesh axis for the examples; the only one by default. Other axes
        stay automatic, for parameters that are sharded over them.
      sketch_size: With a mesh: numbers that stand for each gradient in the Gram matrix,
        by random projections that change each step; see
        :func:`fairjax.reconciled_value_and_grad`. With None the matrix is exact.
      has_state: Whether the model has a state, or draws random numbers. The function
        that runs the model is then ``f(params, batch, model_state, key)``, and returns
        a pair of its usual result and the new ``model_state``. The function is
        ``objectives``; or the ``statistics_fn`` or ``outputs_fn`` of objectives made
        with ``has_aux=True``. The key is another one in each step, and the same for all
        objectives. On a mesh, each device has its key, and new states are averaged.
        Numbers of a state that are not finite stay as they were.

    Returns:
      ``step(state, batch) -> (state, info)``, pure. A step in which no objective in
      use is finite, or none has a finite gradient, leaves the parameters and the
      model's state as they are, whatever weight decay says.

    Raises:
      ValueError: If the mesh has no such axis, or there is an axis and no mesh; if the
        objectives are of another kind, or the transformation is not optax's; if
        objectives with aux come without ``has_state``, or the reverse. At the step,
        if the mesh does not divide the batch; if the transformation returns stacked
        gradients; if the state holds a ``model_state``, and ``has_state`` is False; if
        the new ``model_state`` has another structure, shape or kind of numbers, or on a
        mesh whole numbers that differ between devices; or if the state has no running
        means for objectives with a decay.

    Example:
      >>> import jax.numpy as jnp, optax, fairjax
      >>> from fairjax import training
      >>> tx = optax.chain(fairjax.pcgrad(num_objectives=2), optax.sgd(0.25))
      >>> both = fairjax.stack_objectives({
      ...     "a": lambda w, batch: jnp.sum((w - batch["x"]) ** 2),
      ...     "b": lambda w, batch: jnp.sum((w + batch["x"]) ** 2),
      ... })
      >>> step = training.make_train_step(both, tx)
      >>> state = training.init_state(jnp.array([1.0]), tx, key=0)
      >>> state, info = step(state, {"x": jnp.array([1.0])})
      >>> state.params, info.values
      (Array([0.], dtype=float32), Array([0., 4.], dtype=float32))
    """
    if isinstance(transform, Step):
        raise ValueError(
            "the transformation must be optax's; got a step. Make one of it: "
            "fairjax.reconcile(step, num_objectives=...)."
        )
    if mesh is not None:
        objectives, data_axis = _on_mesh(objectives, mesh, data_axis)
    elif data_axis is not None:
        raise ValueError(f"data_axis={data_axis!r} must come with a mesh; got none.")
    carries = isinstance(objectives, CellObjectives) and objectives.decay is not None
    made_with = isinstance(objectives, CellObjectives | OutputObjectives)
    if made_with and objectives.has_aux != has_state:
        raise ValueError(
            "has_state must equal the has_aux of the objectives, whose aux is the "
            f"model's new state; got {has_state=} and has_aux={objectives.has_aux}."
        )

    def make_update(objectives):
        return reconciled_value_and_grad(
            objectives,
            transform,
            strategy=strategy,
            has_aux=carries or has_state,
            sketch_size=sketch_size,
        )

    update_without_state = make_update(objectives)  # Checks the options.

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        objective_state, model_state = state.objective_state, state.model_state
        update = update_without_state
        if has_state:
            key = _model_key(state, data_axis)
            update = make_update(_bind(objectives, model_state, key))
        elif jax.tree.leaves(model_state):
            raise ValueError(
                "the train state holds a model_state, which this step would not update:"
                " make the step by make_train_step(..., has_state=True)."
            )
        args = (batch, objective_state or None) if carries else (batch,)
        mask = batch.get("objective_mask") if isinstance(batch, Mapping) else None
        drawn = {}
        if sketch_size is not None:
            drawn["sketch_key"] = jax.random.fold_in(jax.random.key(0), state.step)
        values, updates, opt_state = update(
            state.params, state.opt_state, *args, mask=mask, **drawn
        )
        if carries and has_state:
            values, (objective_state, model_state) = values
        elif carries:
            values, objective_state = values
        elif has_state:
            values, model_state = values
        asked = True if mask is None else jnp.asarray(mask, bool)
        known = jnp.any(jnp.isfinite(values) & asked)
        known &= _has_gradient(state.opt_state, opt_state, asked)
        updates = jax.tree.map(
            lambda leaf: jnp.where(known, leaf, jnp.zeros_like(leaf)), updates
        )
        model_state = _keep_state(known, model_state, state.model_state, data_axis)
        state = state._replace(model_state=model_state)
        state, info = _stepped(state, updates, opt_state, objective_state, values)
        return state, info._replace(finite=info.finite & known)

    if mesh is None or data_axis is None:
        return step
    return _spread(step, objectives, mesh, data_axis)


def _on_mesh(objectives: Any, mesh: Mesh, axis: str | None) -> tuple[Any, str]:
    """Returns the objectives of a batch that is spread over an axis, and the axis."""
    if not isinstance(objectives, CellObjectives | OutputObjectives):
        raise ValueError(
            "with a mesh, objectives must be made by fairjax.cell_objectives or "
            f"fairjax.output_objectives; got {type(objectives).__name__}. Others are "
            "not known to be means over examples: call jax.shard_map yourself."
        )
    if axis is None and len(mesh.axis_names) == 1:
        axis = mesh.axis_names[0]
    if axis not in mesh.axis_names:
        raise ValueError(
            f"data_axis must be an axis of the mesh, {mesh.axis_names}; got {axis!r}."
        )
    return dataclasses.replace(objectives, axis_name=axis), str(axis)


def _spread(step: TrainStep, objectives: Any, mesh: Mesh, axis: str) -> TrainStep:
    """Runs a step with each batch spread over a mesh axis."""

    def spread(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        # Other axes stay automatic.
        manual = frozenset((axis,)) if len(mesh.axis_names) > 1 else frozenset()
        shard_map = functools.partial(jax.shard_map, mesh=mesh, axis_names=manual)
        if isinstance(objectives, CellObjectives):
            objectives.check_call(batch, state.objective_state or None)
            size = len(batch["cells"])
        else:
            sizes = []

            def count(params, given, batch):
                outputs, _ = _bind(objectives, *given).with_aux(params, batch)
                sizes.append(count_examples(jax.tree.leaves(outputs)))

            given = (state.model_state, jax.random.key(0)) if objectives.has_aux else ()
            # Without shardings, and where the model may name the axis.
            whole = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype),
                (state.params, given, dict(batch)),
            )
            run = shard_map(count, in_specs=P(), out_specs=P(), check_vma=False)
            jax.eval_shape(run, *whole)
            (size,) = sizes
        if size % mesh.shape[axis]:
            raise ValueError(
                f"the batch must divide among the {mesh.shape[axis]} devices of the "
                f"mesh axis {axis!r}; got {size} examples. Drop some, or pad the batch "
                "with examples that batch['mask'] marks as False."
            )
        specs = jax.tree.map(
            lambda leaf: P(axis) if has_examples(leaf, size) else P(), dict(batch)
        )
        if "objective_mask" in specs:
            specs["objective_mask"] = P()
        run = shard_map(step, in_specs=(P(), specs), out_specs=P())
        return run(state, dict(batch))

    return spread


def _bind(objectives: Any, *given: Any) -> Any:
    """Passes more arguments to the function that runs the model."""

    def bound(function):
        return lambda params, batch: function(params, batch, *given)

    if isinstance(objectives, CellObjectives):
        function = bound(objectives.statistics_fn)
        return dataclasses.replace(objectives, statistics_fn=function)
    if isinstance(objectives, OutputObjectives):
        return dataclasses.replace(objectives, outputs_fn=bound(objectives.outputs_fn))
    return bound(objectives)


def _model_key(state: TrainState, axis: str | None) -> Array:
    """Returns the key for the model's random numbers in this step, on this device."""
    key = jax.random.wrap_key_data(state.key_data)
    # The first number keeps it apart from the keys that are split to draw batches.
    key = jax.random.fold_in(jax.random.fold_in(key, 0x6D6F6465), state.step)
    return key if axis is None else jax.random.fold_in(key, jax.lax.axis_index(axis))


def _keep_state(known: Array, new: Any, old: Any, axis: str | None) -> Any:
    """Returns the model's new state where it is known; otherwise the old state."""
    structures = jax.tree.structure(new), jax.tree.structure(old)
    if structures[0] != structures[1]:
        raise ValueError(
            "the objectives must return a model state of the structure that init_state "
            f"got as model_state, {structures[1]}; got {structures[0]}."
        )

    def keep(path: Any, new: Any, old: Any) -> Array:
        new, name = jnp.asarray(new), jax.tree_util.keystr(path) or "the array"
        floats = all(jnp.issubdtype(x.dtype, jnp.floating) for x in (new, old))
        if new.shape != old.shape or not (floats or new.dtype == old.dtype):
            raise ValueError(
                f"the new model state must have the shapes and kinds of the old one, "
                f"{old.dtype}{old.shape} for {name}; got {new.dtype}{new.shape}."
            )
        spread = axis is not None and varies(new, axis)
        if not floats:
            if spread:
                raise ValueError(
                    f"{name} of the model state must be the same on all devices, being "
                    f"{new.dtype}: sum it over the axis by jax.lax.psum in the model."
                )
            return jnp.where(known, new, old)
        finite = jnp.isfinite(new)
        new = jnp.where(finite, new, 0)
        if spread:
            # The statistics of devices' own examples are averaged.
            count = jax.lax.psum(finite.astype(new.dtype), axis)
            new = jax.lax.psum(new, axis) / jnp.maximum(count, 1)
            finite = count > 0
        return jnp.where(known & finite, new, old).astype(old.dtype)

    return jax.tree_util.tree_map_with_path(keep, new, old)


def _has_gradient(before: Any, after: Any, asked: Any) -> Array | bool:
    """Checks by the reconcilers' counts whether one took a gradient of this step."""
    counts = (
        [count for _, count in optax.tree.get_all_with_path(state, "nonfinite")]
        for state in (before, after)
    )
    took = [jnp.any(asked & (new == old)) for old, new in zip(*counts, strict=True)]
    return jnp.any(jnp.stack(took)) if took else True


def make_loss_step(
    loss_fn: Callable[[Params, Batch, Any], tuple[Array, Mapping[str, Any]]],
    transform: optax.GradientTransformation,
) -> TrainStep:
    """Makes a step on one loss, with extra arguments for the transformation.

    Use it for transformations that read more than gradients, such as
    :func:`fairjax.modulation.multifair`, and for losses that read the transformation's
    state, such as :func:`fairjax.modulation.multifair_penalty`. The transformation also
    gets ``value``, ``grad`` and ``value_fn``, as optax names them: ``optax.lbfgs`` and
    other line searches need them.

    Args:
      loss_fn: ``loss_fn(params, batch, opt_state) -> (loss, extra)``, with ``extra``
        the extra arguments of ``transform.update``.
      transform: A transformation of gradients ``[*param]``.

    Returns:
      ``step(state, batch) -> (state, info)``, pure; ``info.values`` is ``[1]``.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fairjax import training
      >>> def loss_fn(w, batch, opt_state):
      ...     return (w - batch["x"]) ** 2, {}
      >>> tx = optax.sgd(0.5)
      >>> step = training.make_loss_step(loss_fn, tx)
      >>> state = training.init_state(jnp.array(0.0), tx, key=0)
      >>> state, info = step(state, {"x": jnp.array(2.0)})
      >>> state.params, info.values
      (Array(2., dtype=float32), Array([4.], dtype=float32))
    """
    transform = optax.with_extra_args_support(transform)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        (loss, extra), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, batch, state.opt_state
        )
        search = {
            "value": loss,
            "grad": gradient,
            "value_fn": lambda params: loss_fn(params, batch, state.opt_state)[0],
        }
        updates, opt_state = transform.update(
            gradient,
            state.opt_state,
            state.params,
            **(search | jax.lax.stop_gradient(dict(extra))),
        )
        return _stepped(state, updates, opt_state, state.objective_state, loss[None])

    return step


def _stepped(
    state: TrainState, updates: Params, opt_state: Any, objective_state: Any, values
) -> tuple[TrainState, StepInfo]:
    """Returns the state after an update, and the step's output."""
    params = optax.apply_updates(state.params, updates)
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(params)]
    new = state._replace(
        params=params,
        opt_state=opt_state,
        objective_state=objective_state,
        step=state.step + 1,
    )
    return new, StepInfo(values, jnp.all(jnp.stack(leaves)))


def apply_gradients(state: Any, jacobian: Jacobian, **extra: Any) -> Any:
    """Applies stacked gradients to a Flax ``TrainState``, with extra arguments.

    ``flax.training.train_state.TrainState.apply_gradients(grads=...)`` passes neither
    losses nor a mask to the transformation, and takes other keywords for fields of the
    state. This function passes all keywords to the transformation.

    Args:
      state: A Flax ``TrainState``, or any state with ``step``, ``params``, ``tx``,
        ``opt_state`` and ``replace``.
      jacobian: ``[K, *param]``, the gradients that ``state.tx`` takes.
      **extra: ``losses=[K]``, ``mask=[K]``, and other arguments of ``state.tx``.

    Returns:
      The state after the step.

    Example:
      >>> import jax.numpy as jnp, optax, fairjax
      >>> from flax.training.train_state import TrainState
      >>> from fairjax import training
      >>> tx = optax.chain(fairjax.famo(num_objectives=2), optax.sgd(1.0))
      >>> state = TrainState.create(apply_fn=None, params=jnp.zeros(2), tx=tx)
      >>> losses = jnp.array([1.0, 3.0])
      >>> state = training.apply_gradients(state, jnp.eye(2), losses=losses)
      >>> state.params, state.step
      (Array([-0.75, -0.25], dtype=float32), 1)
    """
    transform = optax.with_extra_args_support(state.tx)
    updates, opt_state = transform.update(
        jacobian, state.opt_state, state.params, **extra
    )
    check_update(updates, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state)


def make_loop(
    step: TrainStep,
    sample: Callable[[Array, Any], Batch],
    *,
    steps_per_call: int,
    score: Callable[..., Float[Array, ""]] | None = None,
    observe: Callable[[TrainState], Any] | None = None,
) -> Callable[[Run, Any], tuple[Run, tuple[StepInfo, Any]]]:
    """Makes a loop of several steps, followed by one validation score.

    Args:
      step: A step, as :func:`make_train_step` makes it.
      sample: ``sample(key, data) -> batch``, a pure function that draws a batch on the
        device.
      steps_per_call: Number of steps in a call, run by ``lax.scan``.
      score: ``score(params, data) -> []``, higher is better. The run keeps the
        parameters with the best score so far; with None, the latest parameters. With a
        ``model_state`` in the train state, ``score(params, data, model_state)``.
      observe: ``observe(state)``, recorded after every step; for example the
        reconciler's diagnostics.

    Returns:
      ``loop(run, data) -> (run, (infos, observations))`` with a leading step axis on
      infos and observations. The loop is pure: compile it with ``jax.jit(loop,
      donate_argnums=0)``, and map it with ``jax.vmap``.

    Example:
      >>> import jax, jax.numpy as jnp, optax, fairjax
      >>> from fairjax import training
      >>> objective = fairjax.stack_objectives(
      ...     {"task": lambda w, batch: (w - batch["x"]) ** 2})
      >>> tx = optax.chain(fairjax.pcgrad(num_objectives=1), optax.sgd(0.5))
      >>> step = training.make_train_step(objective, tx)
      >>> loop = training.make_loop(
      ...     step, lambda key, data: {"x": data}, steps_per_call=3)
      >>> run = training.start(training.init_state(jnp.array(0.0), tx, key=0))
      >>> run, (infos, _) = jax.jit(loop)(run, jnp.array(2.0))
      >>> run.state.params, infos.values[:, 0]
      (Array(2., dtype=float32), Array([4., 0., 0.], dtype=float32))
    """

    def one(state: TrainState, data: Any) -> tuple[TrainState, tuple[StepInfo, Any]]:
        key, draw = jax.random.split(jax.random.wrap_key_data(state.key_data))
        state = state._replace(key_data=jax.random.key_data(key))
        state, info = step(state, sample(draw, data))
        return state, (info, observe(state) if observe is not None else ())

    def loop(run: Run, data: Any) -> tuple[Run, tuple[StepInfo, Any]]:
        state, history = jax.lax.scan(
            lambda state, _: one(state, data), run.state, length=steps_per_call
        )
        reached = state.step.astype(jnp.float32)
        given = (state.model_state,) if jax.tree.leaves(state.model_state) else ()
        new = reached if score is None else score(state.params, data, *given)
        return Run(state, keep_best(run.best, new, state)), history

    return loop


def start(state: TrainState) -> Run:
    """Makes a run before its first step, with no parameters selected yet.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fairjax import training
      >>> state = training.init_state(jnp.zeros(2), optax.sgd(0.1), key=0)
      >>> float(training.start(state).best.score)
      -inf
    """
    nothing = _select(jnp.array(-jnp.inf), state)
    # Copies, so that donating a run donates each buffer once, and none of the caller's.
    return jax.tree.map(jnp.copy, Run(state, nothing))


def keep_best(best: Selection, score: Float[Array, ""], state: TrainState) -> Selection:
    """Returns the better of the selection so far and the present parameters.

    A score that is not finite is never selected. On a tie the earlier selection stays.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from fairjax import training
      >>> state = training.init_state(jnp.array(7.0), optax.sgd(0.1), key=0)
      >>> best = training.start(state).best
      >>> best = training.keep_best(best, jnp.array(0.6), state)
      >>> print(training.keep_best(best, jnp.array(jnp.nan), state).score)
      0.6
    """
    better = jnp.isfinite(score) & (score > best.score)
    new = _select(score, state)
    return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, best)


def _select(score: Float[Array, ""], state: TrainState) -> Selection:
    score = score.astype(jnp.float32)
    return Selection(score, state.step, state.params, state.model_state)


def evaluate(
    apply: Callable[[Params, Array], Array],
    params: Params,
    inputs: Float[Array, "n ..."],
    *,
    batch_size: int,
) -> Array:
    """Computes outputs for all rows, ``batch_size`` at a time, to bound the memory.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import training
      >>> rows = jnp.arange(6.0).reshape(3, 2)
      >>> training.evaluate(lambda w, x: x @ w, jnp.ones(2), rows, batch_size=2)
      Array([1., 5., 9.], dtype=float32)
    """
    rows = inputs.shape[0]
    batches, padding = -(-rows // batch_size), -rows % batch_size
    padded = jnp.pad(inputs, ((0, padding),) + ((0, 0),) * (inputs.ndim - 1))
    padded = padded.reshape(batches, batch_size, *inputs.shape[1:])
    outputs = jax.lax.map(lambda x: apply(params, x), padded)
    return outputs.reshape(batches * batch_size, *outputs.shape[2:])[:rows]
