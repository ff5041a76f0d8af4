"""Objectives and their reconciled update in one function, without stored gradients."""

import contextlib
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fairjax import jacobian
from fairjax.gram import combine
from fairjax.jacobian._cells import manual_axis, with_aux
from fairjax.jacobian._fused import Fused, value_and_factors
from fairjax.jacobian._planning import batch_and_running, fuse
from fairjax.jacobian._scattered import scatter, sketch
from fairjax.jacobian._separable_ops import CoupledError
from fairjax.jacobian.strategies import value_and_own_jacobian
from fairjax.objectives import CellObjectives
from fairjax.reconcilers.core import Step, reconcile
from fairjax.stacked import check_update
from fairjax.types import Params, check_choice, check_whole

__all__ = ["ReconciledStrategy", "explain", "reconciled_value_and_grad"]

ReconciledStrategy = Literal["auto", "fused", "jacrev", "pulls", "map", "cells"]


def reconciled_value_and_grad(
    objective_fn: Callable[..., Any],
    *steps: Step | optax.GradientTransformation,
    strategy: ReconciledStrategy | str = "auto",
    has_aux: bool = False,
    sketch_size: int | None = None,
) -> Callable[..., tuple[Any, Params, Any]]:
    r"""Makes a function that computes objectives and their reconciled update.

    The result is that of :func:`fairjax.value_and_jacobian`, followed by the ``update``
    of the transformation. A reconciler reads gradients only through their Gram matrix
    :math:`G = J J^\top` and one combination :math:`J^\top w`. Strategy ``"fused"``
    computes both from the layers' inputs and cotangents, without storing the gradients
    :math:`J` [K, P]. As under ``"cells"``, an example that is not finite concerns only
    the objectives that read it; under other strategies it may spread to all.

    Args:
      objective_fn: As for :func:`fairjax.value_and_jacobian`.
      *steps: A transformation of ``[K, *param]`` into ``[*param]``: a reconciler, or an
        ``optax.chain`` that begins with one. Or steps, as :func:`fairjax.reconcile`
        takes them, if the objectives are named.
      strategy: ``"fused"``, a strategy of :func:`fairjax.value_and_jacobian`, or
        ``"auto"`` for the cheapest by the cost model. ``"fused"`` must have
        :class:`~fairjax.CellObjectives` or :class:`~fairjax.OutputObjectives` whose
        statistics or outputs treat examples one by one. Parameters may enter a
        ``lax.scan`` over layers, which is unrolled, but no other loop. The
        transformation must read the gradients
        through their Gram matrix alone, as most reconcilers do.
      has_aux: As for :func:`fairjax.value_and_jacobian`.
      sketch_size: Within ``shard_map``, for objectives with an ``axis_name``: numbers
        ``m`` that stand for each gradient in the Gram matrix. The devices then exchange
        random projections and one combination, not K gradients. Inner products are
        unbiased; their standard deviation is about ``sqrt(2 / m)`` of the product of
        the norms, at most. The extra argument ``sketch_key`` draws the projections;
        without it they are always the same. With None the Gram matrix is exact.

    Returns:
      ``f(params, state, *args, **extra) -> (values [K], update [*param], new_state)``;
      with ``has_aux``, ``((values, aux), update, new_state)``. The state is the
      transformation's. The extra arguments reach the transformation, and with them
      ``losses=values``. A line search gets ``value``, ``grad`` and ``value_fn`` of the
      mean of the objectives that are finite and not masked.

    Raises:
      ValueError: If a transformation is missing, or returns stacked gradients; if
        ``strategy`` is unknown; if ``"fused"`` is not possible, with the reason; or as
        the parts raise it.

    Example:
      >>> import jax, jax.numpy as jnp, fairjax
      >>> cells = fairjax.partition({"sex": ["f", "m"]})
      >>> objectives = fairjax.cell_objectives(
      ...     lambda w, batch: {"loss": (batch["x"] @ w - batch["y"]) ** 2},
      ...     cells,
      ...     fairjax.losses.group_risks(cells, "sex"),
      ... )
      >>> batch = {
      ...     "x": jnp.eye(2), "y": jnp.array([1.0, 2.0]), "cells": jnp.array([0, 1])
      ... }
      >>> reconciler = fairjax.pcgrad(num_objectives=2)
      >>> w = jnp.zeros(2)
      >>> step = jax.jit(fairjax.reconciled_value_and_grad(objectives, reconciler))
      >>> values, update, state = step(w, reconciler.init(w), batch)
      >>> print(values, update)
      [1. 4.] [-2. -4.]
    """
    return _Reconciled(objective_fn, steps, strategy, has_aux, sketch_size).update


def explain(
    objective_fn: Callable[..., Any],
    *steps: Step | optax.GradientTransformation,
    strategy: ReconciledStrategy | str = "auto",
    has_aux: bool = False,
) -> Callable[..., jacobian.Plan]:
    """Makes a function that returns the plan of :func:`reconciled_value_and_grad`.

    Returns:
      ``f(params, *args) -> Plan``. The arguments may be abstract
      (``jax.ShapeDtypeStruct``). ``print(plan)`` shows a table.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> both = fairjax.stack_objectives({"a": lambda w: w @ w, "b": lambda w: w[0]})
      >>> plan = fairjax.reconciled.explain(both, fairjax.mgda(num_objectives=2))
      >>> print(*plan(jnp.ones(2))[:2], sep=": ")
      pulls: not fused: the objectives are not functions of examples' outputs
    """
    return _Reconciled(objective_fn, steps, strategy, has_aux).explain


class _Reconciled:
    """The two functions of this module, for given objectives and transformation."""

    def __init__(
        self, objective_fn, steps, strategy, has_aux, sketch_size=None
    ) -> None:
        check_choice("strategy", strategy, *get_args(ReconciledStrategy))
        if sketch_size is not None:
            check_whole("sketch_size", sketch_size, 1)
            if getattr(objective_fn, "axis_name", None) is None:
                raise ValueError(
                    "sketch_size must come with objectives that have an axis_name, "
                    "since it saves what devices send; without devices leave it out."
                )
        self._sketch_size = sketch_size
        self._objectives, self._strategy = objective_fn, strategy
        self._has_aux = has_aux
        self._transform = optax.with_extra_args_support(_as_one(objective_fn, steps))
        self._stored = strategy if strategy != "fused" else "auto"
        # Checks the options.
        self._differentiate = value_and_own_jacobian(
            objective_fn, self._stored, has_aux
        )

    def update(
        self, params: Params, state: Any, *args: Any, **extra: Any
    ) -> tuple[Any, Params, Any]:
        return self._run(params, state, args, extra)[0]

    def explain(self, params: Params, *args: Any) -> jacobian.Plan:
        plans = []

        def run(params, args):
            state = self._transform.init(params)
            result, plan = self._run(params, state, args, {})
            plans.append(plan)
            return result

        jax.eval_shape(run, params, args)
        found = plans[-1]
        if isinstance(found, jacobian.Plan) and found.strategy == "fused":
            return found
        stored = jacobian.explain(
            self._objectives, strategy=self._stored, has_aux=self._has_aux
        )(params, *args)
        if isinstance(found, str):
            return stored._replace(reason=found or stored.reason)
        return found._replace(strategy=stored.strategy, chunk_size=stored.chunk_size)

    def _run(self, params, state, args, extra) -> tuple[Any, jacobian.Plan | str]:
        """Returns the result, and the plan; or the reason why the path is not fused."""
        if self._strategy not in ("auto", "fused"):
            return self._by_rows(params, state, args, extra), ""
        try:
            fused, plan = fuse(self._objectives, params, args)
        except CoupledError as error:
            if self._strategy == "fused":
                raise ValueError(
                    f"strategy='fused' is not possible: {error}. Choose "
                    "strategy='auto' for the cheapest that is possible."
                ) from error
            return self._by_rows(params, state, args, extra), f"not fused: {error}"
        if self._strategy == "auto" and plan.strategy != "fused":
            return self._by_rows(params, state, args, extra), plan
        try:
            result = self._by_factors(fused, params, state, args, extra)
        except Exception as error:
            # An error of the caller's is raised again.
            result = self._by_rows(params, state, args, extra)
            if self._strategy == "fused":
                raise ValueError(
                    "strategy='fused' must have a transformation that reads gradients "
                    f"through their Gram matrix alone; got one that fails: {error}. "
                    "Choose strategy='auto' for others."
                ) from error
            return result, (
                "not fused: the transformation reads more than the Gram matrix"
            )
        if self._strategy == "fused":
            plan = jacobian.Plan("fused", "chosen by name", {}, 1)
        return result, plan

    def _by_rows(self, params, state, args, extra) -> tuple[Any, Params, Any]:
        values, rows = self._differentiate(params, *args)
        losses = values[0] if self._has_aux else values
        rest = losses, params, state, args, extra
        axis = manual_axis(self._objectives)
        key = extra.pop("sketch_key", None)
        if axis is not None and self._sketch_size is not None:
            key = jax.random.key(0) if key is None else key
            spread = sketch(rows, axis, self._sketch_size, key)
            try:
                return values, *self._transformed(spread, *rest)
            except Exception as error:
                # An error of the caller's is raised again.
                self._transformed(jax.lax.psum(rows, axis), *rest)
                raise ValueError(
                    "sketch_size must have a transformation that reads gradients "
                    f"through their Gram matrix alone; got one that fails: {error}."
                ) from error
        if axis is not None:
            with contextlib.suppress(Exception):
                return values, *self._transformed(scatter(rows, axis), *rest)
        # It reads more than the Gram matrix, or else raises the caller's error again.
        if (axis := getattr(self._objectives, "axis_name", None)) is not None:
            rows = jax.lax.psum(rows, axis)
        return values, *self._transformed(rows, *rest)

    def _by_factors(
        self, fused: Fused, params, state, args, extra
    ) -> tuple[Any, Params, Any]:
        batch, running = args, None
        if isinstance(self._objectives, CellObjectives):
            batch, running = batch_and_running(self._objectives, args)
        values, running, factors = value_and_factors(
            self._objectives, fused, params, batch, running
        )
        found = self._transformed(factors, values, params, state, args, extra)
        aux = with_aux(self._objectives, running, params, args)
        return (values, aux) if self._has_aux else values, *found

    def _transformed(
        self, rows: Any, losses, params, state, args, extra
    ) -> tuple[Params, Any]:
        """Returns the update from stacked or factored rows, and the new state."""
        extra = {"losses": losses} | extra
        try:
            updates, state = self._transform.update(rows, state, params, **extra)
        except TypeError as error:
            if "unexpected keyword argument" in str(error):
                error.add_note(
                    f"Every part of an optax.chain gets the arguments {sorted(extra)}. "
                    "Wrap a part that refuses others: "
                    "optax.GradientTransformation(part.init, part.update)."
                )
            if "missing" not in str(error) or "'value'" not in str(error):
                raise
            # A line search asks for them. Others are spared their tracing.
            extra |= self._search(rows, losses, args, extra.get("mask"))
            updates, state = self._transform.update(rows, state, params, **extra)
        check_update(updates, params)
        return updates, state

    def _search(self, rows: Any, losses, args, mask) -> dict[str, Any]:
        """Makes a line search's arguments, for the mean of the objectives in use."""
        used = jnp.isfinite(losses)
        if mask is not None:
            used &= jnp.asarray(mask, bool)
        weights = used / jnp.maximum(used.sum(), 1)

        def mean(values: Array) -> Array:
            return jnp.dot(weights, jnp.where(used, values, 0.0))

        def value_fn(params: Params, losses: Any = None, mask: Any = None) -> Array:
            del losses, mask  # Optax refuses arguments that it cannot pass on.
            found = self._objectives(params, *args)
            return mean(found[0] if self._has_aux else found)

        grad = combine(weights, rows)
        return {"value": mean(losses), "grad": grad, "value_fn": value_fn}


def _as_one(objective_fn: Any, steps: tuple[Any, ...]) -> Any:
    if len(steps) == 1 and isinstance(steps[0], optax.GradientTransformation):
        return steps[0]
    if not steps or not all(isinstance(step, Step) for step in steps):
        raise ValueError(
            "reconciled_value_and_grad must have one optax transformation, or steps of "
            f"fairjax.steps; got {[type(step).__name__ for step in steps]}."
        )
    count = getattr(objective_fn, "num_objectives", None)
    if count is None:
        raise ValueError(
            "steps must come with named objectives, whose number is known; got a "
            "function. Name the objectives by fairjax.stack_objectives, or give "
            "fairjax.reconcile(*steps, num_objectives=...)."
        )
    return reconcile(*steps, num_objectives=count)
