"""The multimodal model that lanes train, and the patients' data in every lane."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.core.learners import Learner
from experiments.core.programs import Budget
from experiments.core.protocol import CrossValidation
from experiments.datasets.modalities import Dense, Series, Text
from experiments.datasets.multimodal import STATIC, MultimodalTable
from experiments.multifair.inputs import MAX_TEXT, MAX_WORDS, prepared
from fairjax import metrics, models
from fairjax.evaluation.cohorts import filled_up
from fairjax.modulation import modality_labels

# The largest norm of an update before AdamW, as published.
CLIP = 0.8
# Number of patients whose predictions are made at once.
_AT_ONCE = 512


@dataclass(frozen=True)
class MultimodalBudget(Budget):
    """The training budget of every method, and the size of the model.

    Attributes:
      width: Features of the encoders' outputs, and of the fusion.
      depth: Blocks of every transformer: of series, of text and of the fusion.
      num_heads: Number of heads of every attention.
    """

    steps: int = 180
    batch_size: int = 128
    steps_per_call: int = 30
    learning_rate: float = 1e-2
    weight_decay: float = 0.1
    width: int = 16
    depth: int = 1
    num_heads: int = 2


class MultimodalTask:
    """The model as pure functions of its parameters, with the parameters' modalities.

    Attributes:
      names: The modalities.
      num_groups: Number of intersections of the attributes, G.
      group_names: Names of the intersections.
      labels: A tree like the parameters, with the modality of each encoder's leaves.
      prepared: The inputs of the encoders, in every lane.
      learner: The learner that lanes train.
    """

    def __init__(
        self, data: MultimodalTable, splits: CrossValidation, budget: MultimodalBudget
    ):
        """Prepares every lane's data with statistics of the lane's training rows."""
        self.names = data.names
        self.group_names, members = splits.partition.membership(splits.attributes)
        self.num_groups = len(self.group_names)
        self.prepared = prepared(data, splits)
        inputs: dict[str, Any] = dict(self.prepared.own)
        shared: dict[str, Any] = dict(self.prepared.common)
        make_encoders = _encoders(data, splits.inputs.shape[-1], budget)
        lanes = range(splits.num_lanes)
        # Padded by -1, a row that no metric counts.
        inputs["valid_rows"] = filled_up(
            [np.flatnonzero(splits.rows(lane, "valid")) for lane in lanes]
        )
        groups = members.argmax(axis=0)[splits.cells].astype(np.int32)
        shared |= {
            "present": data.present,
            "labels": data.table.label.astype(np.float32),
            "cells": splits.cells,
            "groups": groups,
            "weights": data.weights,
        }

        def make(key):
            rngs = nnx.Rngs(key)
            encoders = make_encoders(rngs)
            return models.MultimodalClassifier(
                encoders,
                dict.fromkeys(encoders, budget.width),
                width=budget.width,
                depth=budget.depth,
                num_heads=budget.num_heads,
                dropout=0.0,
                rngs=rngs,
            )

        abstract = nnx.eval_shape(lambda: make(jax.random.key(0)))
        self._apply, shapes = models.functional(abstract)
        self.labels = modality_labels(
            shapes,
            {name: [f"encoders/{name}"] for name in self.names},
            shared=[key for key in shapes if key != "encoders"],
        )
        self._audited = {
            attribute: _groups_of(splits, attribute) for attribute in splits.attributes
        }
        self.learner = Learner(
            begin=lambda key: models.functional(make(key))[1],
            batch=self._batch,
            statistics=self.statistics,
            predict=self._predict,
            inputs=inputs,
            shared=shared,
            weights=data.weights,
            monitor=self._monitor,
        )

    def outputs(
        self, params: Any, batch: Mapping[str, Any]
    ) -> models.MultimodalOutputs:
        """Computes the model's outputs for a batch, from the modalities it may see."""
        present = batch["present"]
        if "modalities" in batch:
            present = present & batch["modalities"]
        return self._apply(params, batch["inputs"], present)

    def losses(
        self,
        outputs: models.MultimodalOutputs,
        batch: Mapping[str, Any],
        *,
        attached: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """Computes cross-entropies of the fused ``[B]`` and unimodal ``[B, M]`` logits.

        A unimodal loss is 0 where the modality is absent. ``attached`` says whether
        the unimodal losses reach the encoders, or only the heads.
        """
        labels = batch["labels"]
        alone = (
            outputs.attached_unimodal_logits if attached else outputs.unimodal_logits
        )
        fused = optax.sigmoid_binary_cross_entropy(outputs.logits[:, 0], labels)
        each = optax.sigmoid_binary_cross_entropy(alone[..., 0], labels[:, None])
        return fused, jnp.where(batch["present"], each, 0.0)

    def statistics(self, params: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Computes each patient's statistics, which objectives read.

        ``fused`` is the fused loss, and ``score`` the fused probability. ``heads`` is
        the sum of the unimodal losses, which reaches only the heads. Each modality's
        name has the modality's loss, which reaches its encoder.
        """
        outputs = self.outputs(params, batch)
        fused, heads = self.losses(outputs, batch, attached=False)
        _, each = self.losses(outputs, batch, attached=True)
        return {
            "fused": fused,
            "score": jax.nn.sigmoid(outputs.logits[:, 0]),
            "heads": jnp.sum(heads, axis=1),
            **{name: each[:, m] for m, name in enumerate(self.names)},
        }

    def _batch(self, inputs: Any, shared: Any, rows: jax.Array) -> dict[str, Any]:
        given = {}
        for name in self.names:
            own = {k: v[rows] for k, v in inputs[name].items()}
            common = {k: v[rows] for k, v in shared.get(name, {}).items()}
            given[name] = own | common
        keys = ("present", "labels", "cells", "groups")
        return {"inputs": given, **{key: shared[key][rows] for key in keys}}

    def _predict(self, params: Any, inputs: Any, shared: Any, seen: Any) -> jax.Array:
        rows = jnp.arange(len(shared["labels"]))

        def one(row):
            batch = self._batch(inputs, shared, row[None]) | seen
            return self.outputs(params, batch).logits[0, 0]

        return jax.lax.map(one, rows, batch_size=_AT_ONCE)

    def _monitor(
        self, params: Any, inputs: Any, shared: Any, seen: Any
    ) -> dict[str, jax.Array]:
        """Computes AUROCs, unimodal and fused, and the gap on the validation fold."""
        rows = inputs["valid_rows"]
        batch = self._batch(inputs, shared, jnp.maximum(rows, 0)) | seen
        outputs = self.outputs(params, batch)
        labels = batch["labels"].astype(jnp.int32)
        real = jnp.where(rows >= 0, shared["weights"][jnp.maximum(rows, 0)], 0.0)
        alone = jax.vmap(metrics.auroc, in_axes=(None, 1, 1))(
            labels, outputs.unimodal_logits[..., 0], real[:, None] * batch["present"]
        )
        fused = outputs.logits[:, 0]
        gaps = []
        for codes, number in self._audited.values():
            found = metrics.group_auroc(
                labels,
                fused,
                jnp.asarray(codes)[batch["cells"]],
                num_groups=number,
                weights=real,
            )
            gaps.append(metrics.difference(found))
        return {
            "unimodal_auroc": alone,
            "fused_auroc": metrics.auroc(labels, fused, real),
            "auroc_gap": jnp.stack(gaps).mean(),
        }


def _groups_of(splits: CrossValidation, attribute: str) -> tuple[np.ndarray, int]:
    """Returns the group of each cell, and the number of groups."""
    names, members = splits.partition.membership(attribute)
    return members.argmax(axis=0).astype(np.int32), len(names)


def _encoders(
    data: MultimodalTable, num_features: int, budget: MultimodalBudget
) -> Callable[[nnx.Rngs], dict[str, nnx.Module]]:
    """Returns a function that makes the modalities' encoders in the budget's size."""
    size = (budget.width, budget.depth, budget.num_heads)

    def encoder(content: Series | Text | Dense, rngs: nnx.Rngs) -> nnx.Module:
        if isinstance(content, Series):
            number, length = len(content.names), content.mask.shape[1]
            return models.SeriesEncoder(number, *size, max_length=length, rngs=rngs)
        if isinstance(content, Text):
            return models.TextEncoder(
                MAX_WORDS + 2, *size, max_length=MAX_TEXT, rngs=rngs
            )
        return dense(content.values.shape[1], rngs)

    def dense(number: int, rngs: nnx.Rngs) -> nnx.Module:
        return models.MLP(number, budget.hidden, budget.width, rngs=rngs)

    def make(rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        made = {STATIC: dense(num_features, rngs)}
        return made | {name: encoder(c, rngs) for name, c in data.modalities.items()}

    return make
