"""Learners, which are a model and its data as pure functions of one lane."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from experiments.core.programs import Budget
from experiments.core.protocol import CrossValidation
from fairjax.models import MLP, functional
from fairjax.types import Batch, Params


@dataclass(frozen=True, eq=False)
class Learner:
    """A model as pure functions of one lane, and its data.

    Attributes:
      begin: ``begin(key) -> params``.
      batch: ``batch(inputs, shared, rows) -> batch`` from one lane's inputs; the batch
        contains ``cells``.
      statistics: ``statistics(params, batch) -> {name: [B]}``, which objectives read.
      predict: ``predict(params, inputs, shared, seen) -> logits [n]`` of all patients;
        ``seen`` holds the variant's ``modalities`` if that is one of its settings.
      inputs: Arrays with a leading lane axis ``[L, ...]``.
      shared: Arrays that all lanes share.
      weights: float32 ``[n]``, weights of the patients, or None for equal weights.
      monitor: ``monitor(params, inputs, shared, seen) -> {name: array}``, evaluated
        after every call of the loop, or None.
    """

    begin: Callable[[jax.Array], Params]
    batch: Callable[[Any, Any, jax.Array], Batch]
    statistics: Callable[[Params, Batch], Mapping[str, jax.Array]]
    predict: Callable[[Params, Any, Any, Mapping[str, jax.Array]], jax.Array]
    inputs: Any
    shared: Any
    weights: np.ndarray | None = None
    monitor: Callable[..., Mapping[str, jax.Array]] | None = None


def tabular_learner(splits: CrossValidation, budget: Budget) -> Learner:
    """Makes a learner with an MLP on the table's columns, encoded by each lane."""

    def make(key):
        return MLP(splits.inputs.shape[-1], budget.hidden, 1, rngs=nnx.Rngs(key))

    apply, _ = functional(nnx.eval_shape(lambda: make(jax.random.key(0))))

    def statistics(params, batch):
        logits = apply(params, batch["inputs"])[..., 0]
        loss = optax.sigmoid_binary_cross_entropy(logits, batch["labels"])
        return {"loss": loss, "score": jax.nn.sigmoid(logits)}

    def batch(inputs, shared, rows):
        return {"inputs": inputs[rows], **{k: v[rows] for k, v in shared.items()}}

    def predict(params, inputs, shared, seen):
        del shared, seen
        return apply(params, inputs)[..., 0]

    return Learner(
        begin=lambda key: functional(make(key))[1],
        batch=batch,
        statistics=statistics,
        predict=predict,
        inputs=splits.inputs,
        shared={"labels": splits.table.label.astype(np.float32), "cells": splits.cells},
    )
