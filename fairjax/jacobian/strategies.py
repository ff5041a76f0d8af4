r"""The Jacobian of several objectives, by four strategies or by the cheapest of them.

Reverse-mode differentiation of ``K`` objectives costs ``1 + 2K`` forward passes in
general. Objectives that are functions of cell means (:mod:`fairjax.objectives`) need
two forward passes for each statistic. This number does not depend on the numbers of
objectives and cells, because each example lies in one cell. Static sizes decide which
strategy is the cheapest, by the cost model of ``fairjax/jacobian/_costs.py``;
:func:`explain` returns the choice.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fairjax.jacobian import _cells
from fairjax.jacobian._planning import (
    Plan,
    batch_and_running,
    check_values,
    decide,
    split_aux,
)
from fairjax.objectives import (
    CellObjectives,
    CellSums,
    OutputObjectives,
    RunningMeans,
)
from fairjax.types import Batch, Jacobian, Params, Values, check_choice, vary, vary_like

Strategy = Literal["auto", "jacrev", "pulls", "map", "cells"]


class _Pullback(NamedTuple):
    """Values and aux of the objectives, and the function that pulls rows back."""

    values: Values
    aux: Any
    cotangents: PyTree[Float[Array, "K ..."]]
    pull: Callable[[PyTree], Params]


def value_and_jacobian(
    objective_fn: Callable[..., Any],
    *,
    strategy: Strategy | str = "auto",
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable[..., tuple[Any, Jacobian]]:
    r"""Makes a function that computes several objectives' values and Jacobian.

    The rows of the Jacobian are the gradients, :math:`J_k = \nabla_\theta L_k`.

    Args:
      objective_fn: ``objective_fn(params, *args) -> values [K]``, or with ``has_aux``
        ``(values, aux)``. A :class:`~fairjax.CellObjectives` with a ``decay`` is
        called ``(params, batch, running)`` and returns its running means as aux.
      strategy: How to differentiate; all strategies agree up to rounding.

        - ``"pulls"``: one forward pass, and a backward pass for each objective.
        - ``"jacrev"``: as ``"pulls"``, with the backward passes batched.
        - ``"map"``: a loop over ``chunk_size`` rows at a time; the least memory.
        - ``"cells"``: for :class:`~fairjax.CellObjectives` whose statistics treat
          examples one by one; one backward pass for each statistic. It contains a
          loop, so it is differentiable once: use another strategy for derivatives of
          gradients.
        - ``"auto"``: the cheapest by the cost model; ``"pulls"`` on a mesh of several
          devices outside ``shard_map``, where the others would gather the batch.
      has_aux: Whether ``objective_fn`` returns ``(values, aux)``.
      chunk_size: Rows at a time for ``"map"``: 8 by default; under ``"auto"``, chosen
        by the cost model.

    Returns:
      ``f(params, *args) -> (values [K], jacobian [K, *param])``, or with ``has_aux``
      ``((values, aux), jacobian)``. Rows have the parameters' dtypes. Within
      ``shard_map``, objectives with an ``axis_name`` give the Jacobian over the whole
      batch, the same on each device.

    Raises:
      ValueError: If ``strategy`` is unknown; if ``"cells"`` is not possible, with the
        reason; if parameters are not floating-point; if the values are not ``[K]``.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> both = fairjax.stack_objectives(
      ...     {"a": lambda w: w @ w, "b": lambda w: 3 * w[0]}
      ... )
      >>> values, jacobian = fairjax.value_and_jacobian(both)(jnp.array([1.0, 2.0]))
      >>> print(values, jacobian.tolist())
      [5. 3.] [[2.0, 4.0], [3.0, 0.0]]
    """
    differentiate = value_and_own_jacobian(objective_fn, strategy, has_aux, chunk_size)
    axis = getattr(objective_fn, "axis_name", None)

    def call(params: Params, *args: Any) -> tuple[Any, Jacobian]:
        values, jacobian = differentiate(params, *args)
        if axis is not None:
            jacobian = jax.lax.psum(jacobian, axis)
        return values, jacobian

    return call


def value_and_own_jacobian(
    objective_fn: Callable[..., Any],
    strategy: str,
    has_aux: bool,
    chunk_size: int | None = None,
) -> Callable[..., tuple[Any, Jacobian]]:
    """As :func:`value_and_jacobian`, by this device's own examples.

    The values are those of all devices, where the objectives have an ``axis_name``; the
    Jacobian is to be summed over it.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> both = fairjax.stack_objectives({"a": lambda w: w @ w, "b": lambda w: w[0]})
      >>> run = value_and_own_jacobian(both, "pulls", False)
      >>> run(jnp.array([1.0, 2.0]))[1].tolist()
      [[2.0, 4.0], [1.0, 0.0]]
    """
    _check_options(objective_fn, strategy, has_aux, chunk_size)

    def call(params: Params, *args: Any) -> tuple[Any, Jacobian]:
        _check_params(params)
        decision = decide(objective_fn, strategy, has_aux, chunk_size, params, args)
        plan, prepared, passes = decision
        if prepared is not None and isinstance(objective_fn, CellObjectives):
            batch, running = batch_and_running(objective_fn, args)
            values, aux, jacobian = _cells.value_and_jacobian(
                objective_fn, prepared, passes, params, batch, running
            )
        elif isinstance(objective_fn, CellObjectives):
            batch, running = batch_and_running(objective_fn, args)
            pullback = _cell_pullback(objective_fn, params, batch, running)
            values, aux = pullback.values, pullback.aux
            jacobian = _pull_rows(pullback, plan)
        elif isinstance(objective_fn, OutputObjectives) and objective_fn.axis_name:
            pullback = _output_pullback(objective_fn, params, args)
            values, aux = pullback.values, pullback.aux
            jacobian = _pull_rows(pullback, plan)
        else:
            pullback = _plain_pullback(objective_fn, params, args, has_aux)
            values, aux = pullback.values, pullback.aux
            jacobian = _pull_rows(pullback, plan)
        return ((values, aux) if has_aux else values), jacobian

    return call


def explain(
    objective_fn: Callable[..., Any],
    *,
    strategy: Strategy | str = "auto",
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable[..., Plan]:
    """Makes a function that returns the plan of :func:`value_and_jacobian`.

    Args:
      objective_fn: As for :func:`value_and_jacobian`.
      strategy: As for :func:`value_and_jacobian`.
      has_aux: As for :func:`value_and_jacobian`.
      chunk_size: As for :func:`value_and_jacobian`.

    Returns:
      ``f(params, *args) -> Plan``, the plan for these arguments, which may be abstract
      (``jax.ShapeDtypeStruct``).

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> both = fairjax.stack_objectives({"a": lambda w: w @ w, "b": lambda w: w[0]})
      >>> plan = fairjax.jacobian.explain(both)(jnp.ones(2))
      >>> print(plan.strategy, "-", plan.reason)
      pulls - the objectives are not functions of cell means
    """
    _check_options(objective_fn, strategy, has_aux, chunk_size)

    def call(params: Params, *args: Any) -> Plan:
        _check_params(params)
        return decide(objective_fn, strategy, has_aux, chunk_size, params, args).plan

    return call


def _plain_pullback(
    objective_fn: Callable[..., Any],
    params: Params,
    args: tuple[Any, ...],
    has_aux: bool,
) -> _Pullback:
    def values_and_aux(params):
        values, aux = split_aux(objective_fn(params, *args), has_aux)
        check_values(values)
        return values, aux

    values, pull, aux = jax.vjp(values_and_aux, params, has_aux=True)
    rows = jnp.eye(values.shape[0], dtype=values.dtype)
    rows = vary_like(rows, values)
    return _Pullback(values, aux, rows, lambda row: pull(row)[0])


def _cell_pullback(
    objectives: CellObjectives,
    params: Params,
    batch: Batch,
    running: RunningMeans | None,
) -> _Pullback:
    """Prepares to pull rows of cell sums back, for this device's examples only."""
    local = dataclasses.replace(objectives, axis_name=None)

    def batch_sums(params):
        statistics, aux = local.with_aux(params, batch)
        sums = local.cell_sums(statistics, batch)
        return sums.sums, (sums.counts, aux)

    varied = _cells.vary_params(objectives, params)
    sums, pull, (counts, aux) = jax.vjp(batch_sums, varied, has_aux=True)
    own = sums
    if objectives.axis_name is not None:
        sums, counts = jax.lax.psum((sums, counts), objectives.axis_name)
    values, running, weights = _cells.values_and_weights(
        objectives, CellSums(sums, counts), running
    )
    aux = objectives.join_aux(running, aux)
    rows = {name: weights[:, s] for s, name in enumerate(objectives.statistics)}
    cotangents = {
        name: vary_like(row.astype(own[name].dtype), own[name])
        for name, row in rows.items()
    }
    return _Pullback(values, aux, cotangents, lambda row: pull(row)[0])


def _output_pullback(
    objectives: OutputObjectives, params: Params, args: tuple[Any, ...]
) -> _Pullback:
    """Prepares to pull rows of outputs back, for this device's examples only."""
    axis = _cells.manual_axis(objectives)
    if axis is None:
        raise ValueError(
            "objectives of outputs with an axis_name must be differentiated within "
            f"jax.shard_map over that axis; {objectives.axis_name!r} is not one here."
        )
    varied = _cells.vary_params(objectives, params)

    def outputs_of(params):
        # A constant output differs between devices too: each has its examples' rows.
        outputs, aux = objectives.with_aux(params, *args)
        return vary(outputs, (axis,)), aux

    outputs, pull, aux = jax.vjp(outputs_of, varied, has_aux=True)
    leaves = jax.tree.leaves(outputs)
    size = _cells.count_examples(leaves)
    # Types show what is spread over the axis, unless check_vma is off.
    typed = any(_cells.varies(leaf, axis) for leaf in leaves)

    def whole(leaf: Any) -> Any:
        spread = _cells.varies(leaf, axis) if typed else True
        if not (spread and _cells.has_examples(leaf, size)):
            return leaf
        return jax.lax.all_gather(leaf, axis, tiled=True, to="invarying")

    def values_of(outputs: Any) -> Values:
        return objectives.values(outputs, *jax.tree.map(whole, args))

    values, back = jax.vjp(values_of, jax.tree.map(whole, outputs))
    (slopes,) = jax.vmap(back)(jnp.eye(len(values), dtype=values.dtype))
    start = jax.lax.axis_index(axis) * size

    def own(slopes: Array, output: Array) -> Array:
        mine = jax.lax.dynamic_slice_in_dim(slopes, start, size, axis=1)
        return vary_like(mine, output)

    cotangents = jax.tree.map(own, slopes, outputs)
    return _Pullback(values, aux, cotangents, lambda row: pull(row)[0])


def _pull_rows(pullback: _Pullback, plan: Plan) -> Jacobian:
    pull, rows = pullback.pull, pullback.cotangents
    if plan.strategy == "jacrev":
        return jax.vmap(pull)(rows)
    if plan.strategy == "map":
        return jax.lax.map(pull, rows, batch_size=plan.chunk_size)
    pulled = [
        pull(jax.tree.map(lambda leaf, k=k: leaf[k], rows))
        for k in range(pullback.values.shape[0])
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *pulled)


def _check_options(
    objective_fn: Callable[..., Any],
    strategy: str,
    has_aux: bool,
    chunk_size: int | None,
) -> None:
    check_choice("strategy", strategy, *get_args(Strategy))
    if chunk_size is not None and (chunk_size < 1 or strategy not in ("map", "auto")):
        raise ValueError(
            "chunk_size must be at least 1, and is for strategy 'map' or 'auto' only; "
            f"got chunk_size={chunk_size} with strategy={strategy!r}."
        )
    if isinstance(objective_fn, CellObjectives):
        returns = objective_fn.returns_aux
        if returns != has_aux:
            raise ValueError(
                "has_aux must be True for cell objectives with a decay, which return "
                "their running means as aux, or with has_aux=True, and False for "
                f"others; got has_aux={has_aux}. Pass has_aux={returns}."
            )


def _check_params(params: Params) -> None:
    for path, leaf in jax.tree.leaves_with_path(params):
        if not jnp.issubdtype(jax.typeof(leaf).dtype, jnp.floating):
            raise ValueError(
                "parameters must be real floating-point numbers to be differentiated; "
                f"{jax.tree_util.keystr(path) or 'the array'} is "
                f"{jax.typeof(leaf).dtype}. Cast it, keep it out of params, or split a "
                "complex one by optax.contrib.split_real_and_imaginary."
            )
