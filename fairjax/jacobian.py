r"""Objectives to their stacked gradients: values ``[K]`` and Jacobian ``[K, *param]``."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fairjax.objectives import Batch, CellObjectives, RunningMeans
from fairjax.types import Jacobian, Params, Values

Strategy = Literal["auto", "jacrev", "pulls", "map", "cells"]


class Pullback(NamedTuple):
    """Values, what else the objectives return, and how to pull rows back."""

    values: Values
    aux: Any
    cotangents: PyTree[Float[Array, "K ..."]]
    pull: Callable[[PyTree], Params]


def value_and_jacobian(
    objective_fn: Callable[..., Any],
    *,
    strategy: Strategy = "auto",
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable[..., tuple[Any, Jacobian]]:
    """Values and Jacobian of several objectives."""

    def call(params: Params, *args: Any) -> tuple[Any, Jacobian]:
        chosen = strategy
        if chosen in ("auto", "cells"):
            chosen = "pulls"
        if isinstance(objective_fn, CellObjectives):
            pullback = _cell_pullback(objective_fn, params, *args)
        else:
            pullback = _plain_pullback(objective_fn, params, args, has_aux)
        pull, cotangents = pullback.pull, pullback.cotangents
        if chosen == "jacrev":
            jacobian = jax.vmap(pull)(cotangents)
        elif chosen == "map":
            jacobian = jax.lax.map(pull, cotangents, batch_size=chunk_size or 1)
        else:
            rows = [
                pull(jax.tree.map(lambda leaf, k=k: leaf[k], cotangents))
                for k in range(pullback.values.shape[0])
            ]
            jacobian = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
        if isinstance(objective_fn, CellObjectives) and objective_fn.axis_name:
            jacobian = jax.lax.psum(jacobian, objective_fn.axis_name)
        values = (pullback.values, pullback.aux) if has_aux else pullback.values
        return values, jacobian

    return call


def _plain_pullback(objective_fn, params, args, has_aux) -> Pullback:
    def values_and_aux(params):
        result = objective_fn(params, *args)
        return result if has_aux else (result, None)

    values, pull, aux = jax.vjp(values_and_aux, params, has_aux=True)
    eye = jnp.eye(values.shape[0], dtype=values.dtype)
    return Pullback(values, aux, eye, lambda row: pull(row)[0])


def _cell_pullback(
    objectives: CellObjectives,
    params: Params,
    batch: Batch,
    running: RunningMeans | None = None,
) -> Pullback:
    local = dataclasses.replace(objectives, axis_name=None)

    def sums(params):
        return local.cell_sums(local.per_example(params, batch), batch)

    batch_sums, pull = jax.vjp(sums, params)
    if objectives.axis_name is not None:
        batch_sums = jax.lax.psum(batch_sums, objectives.axis_name)

    def values(batch_sums):
        values, new = objectives.values_from_sums(batch_sums, running)
        return values, (values, new)

    cotangents, (values, aux) = jax.jacrev(values, has_aux=True)(batch_sums)
    return Pullback(values, aux, cotangents, lambda row: pull(row)[0])
