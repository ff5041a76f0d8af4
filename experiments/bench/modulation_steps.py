"""The steps that the benchmark of modulation times, on one model and batch.

Patients have a row of a table and a series. The set-up is MultiFair's: the model's
gradient is modulated, clipped and passed to AdamW, and the auxiliary heads have a
separate AdamW.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import fairjax
from experiments.multifair.reconciled import share_of_loss
from fairjax import models, modulation, training
from fairjax.training import TrainState, TrainStep

MODALITIES = ("labs", "vitals")
# Settings of the released code for FairVision.
RHO, DIRECTION, FAIRNESS, MU, TAU, DECAY, CLIP = 1.2, 0.15, 0.5, 0.3, 0.04, 0.9, 0.8
MODEL_RATE, MODEL_DECAY, HEADS_RATE, HEADS_DECAY = 3e-5, 6e-3, 1e-5, 3e-3

_ON_HOST = re.compile(
    r"\b(?:infeed|outfeed|send|recv)\(|custom_call_target=\"[^\"]*"
    r"(?:callback|Host)[^\"]*\""
)


@dataclass(frozen=True)
class Size:
    """The size of a model and of its inputs.

    Attributes:
      name: Name in tables.
      width: Width of the encoders and of the fusion.
      depth: Blocks of each encoder and of the fusion.
      num_heads: Number of heads of every attention.
      num_features: Number of features of the table's row.
      length: Number of measurements of a series.
    """

    name: str
    width: int
    depth: int
    num_heads: int
    num_features: int = 12
    length: int = 24


SMALL = Size("small", width=16, depth=1, num_heads=2)
"""The model of ``experiments.multifair``."""
LARGE = Size("large", width=128, depth=2, num_heads=4, length=64)

NUM_VARIABLES = 6


@dataclass(frozen=True)
class Problem:
    """A model and a batch of patients in groups of random sizes.

    Attributes:
      size: Size of the model.
      num_groups: Number of groups, G.
      params: The model's parameters.
      labels: A tree like the parameters, with the modality of each encoder's leaves.
      batch: ``inputs``, ``labels [B]``, ``groups [B]`` and ``cells [B]``, which are
        the groups.
      apply: ``apply(params, inputs) -> MultimodalOutputs``.
    """

    size: Size
    num_groups: int
    params: Any
    labels: Any
    batch: dict[str, Any]
    apply: Callable[..., models.MultimodalOutputs]

    @classmethod
    def make(
        cls, size: Size, batch_size: int, num_groups: int, *, seed: int = 0
    ) -> "Problem":
        """Makes random weights, and patients whose outcome both modalities predict.

        The seed is for the patients; the weights are the same with every seed.
        """
        shape = (size.width, size.depth, size.num_heads)
        rngs, table = nnx.Rngs(0), (size.num_features, (2 * size.width,), size.width)
        encoders = {
            "labs": models.MLP(*table, rngs=rngs),
            "vitals": models.SeriesEncoder(
                NUM_VARIABLES, *shape, max_length=size.length, rngs=rngs
            ),
        }
        model = models.MultimodalClassifier(
            encoders,
            dict.fromkeys(encoders, size.width),
            width=size.width,
            depth=size.depth,
            num_heads=size.num_heads,
            dropout=0.0,
            rngs=rngs,
        )
        apply, params = models.functional(model)
        labels = modulation.modality_labels(
            params,
            {name: [f"encoders/{name}"] for name in MODALITIES},
            shared=[key for key in params if key != "encoders"],
        )
        batch = jax.tree.map(jnp.asarray, _patients(size, batch_size, num_groups, seed))
        return cls(size, num_groups, params, labels, batch, apply)

    def optimiser(
        self, transform: optax.GradientTransformation
    ) -> optax.GradientTransformationExtraArgs:
        """Makes the transformation of the model's gradient, and the optimisers."""

        # A label for each leaf: `partition` would hide a part with a single label.
        def part(path, _):
            return "auxiliary" if path[0].key == "auxiliary" else "model"

        return optax.partition(
            {
                "model": optax.chain(
                    transform,
                    optax.clip_by_global_norm(CLIP),
                    optax.adamw(MODEL_RATE, weight_decay=MODEL_DECAY),
                ),
                "auxiliary": optax.adamw(HEADS_RATE, weight_decay=HEADS_DECAY),
            },
            jax.tree.map_with_path(part, self.params),
        )

    def multifair(
        self, mode: Literal["paper", "released"]
    ) -> optax.GradientTransformationExtraArgs:
        """Makes MultiFair's transformation of magnitudes."""
        return modulation.multifair(
            self.labels,
            MODALITIES,
            num_groups=self.num_groups,
            mode=mode,
            rho=RHO,
            mu=MU,
            tau=TAU,
            decay=DECAY,
        )


def joint_loss(problem: Problem, *, penalised: bool = False):
    """Makes the loss of the fused and the auxiliary heads' cross-entropies.

    Args:
      problem: The model and its groups.
      penalised: Whether to add MultiFair's direction and fairness terms, as in the
        paper.
    """

    def loss_fn(params, batch, opt_state):
        outputs = problem.apply(params, batch["inputs"])
        fused = _cross_entropies(outputs.logits[:, None], batch["labels"])
        heads = _cross_entropies(outputs.unimodal_logits, batch["labels"])
        total = jnp.mean(fused) + jnp.sum(jnp.mean(heads, axis=0))
        extra = {
            "unimodal_scores": jax.nn.sigmoid(outputs.unimodal_logits[..., 0]),
            "scores": jax.nn.sigmoid(outputs.logits[:, 0]),
            "labels": batch["labels"],
            "groups": batch["groups"],
        }
        if penalised:
            total += _penalty(outputs, extra, opt_state)
        return total, extra

    return loss_fn


def _penalty(
    outputs: models.MultimodalOutputs, extra: dict[str, jax.Array], opt_state: Any
) -> jax.Array:
    """Computes the sum of MultiFair's direction and fairness terms."""
    fused, alone = outputs.logits[:, 0], outputs.unimodal_logits[..., 0]
    # The heads' scores as functions of the encoders alone: the heads only measure, and
    # the fairness term must not train them.
    through = outputs.attached_unimodal_logits[..., 0]
    through = jax.nn.sigmoid(through - alone + jax.lax.stop_gradient(alone))
    gradient, labels = modulation.last_layer_gradient, extra["labels"]
    penalty = modulation.multifair_penalty(
        fused_gradient=gradient(outputs.last_inputs, fused, labels),
        unimodal_gradients=jax.vmap(gradient, in_axes=(1, 1, None))(
            outputs.unimodal_last_inputs, alone, labels
        ),
        **{
            name: optax.tree.get(opt_state, name)
            for name in ("modality_auc", "group_auc", "group_seen")
        },
        **(extra | {"unimodal_scores": through}),
        direction=DIRECTION,
        fairness=FAIRNESS,
        tau=TAU,
        decay=DECAY,
    )
    return penalty.total


def make_steps(problem: Problem) -> dict[str, tuple[TrainStep, TrainState]]:
    """Makes each step, ``(state, batch) -> (state, info)``, and its first state."""
    plain, penalised = joint_loss(problem), joint_loss(problem, penalised=True)
    released, paper = problem.multifair("released"), problem.multifair("paper")
    losses = {
        "plain": (plain, optax.identity()),
        "OGM-GE": (plain, modulation.ogm_ge(problem.labels, MODALITIES)),
        "MultiFair, released": (plain, released),
        "MultiFair, paper, magnitudes": (plain, paper),
        "MultiFair, paper": (penalised, paper),
    }
    made = {}
    for name, (loss_fn, transform) in losses.items():
        tx = problem.optimiser(transform)
        made[name] = training.make_loss_step(loss_fn, tx), _begin(problem, tx)
    return made | {"dual level": _dual_level(problem)}


def host_transfers(compiled: str) -> list[str]:
    """Lists a compiled program's transfers from and to the host, from its text."""
    return _ON_HOST.findall(compiled)


def _dual_level(problem: Problem) -> tuple[TrainStep, TrainState]:
    """Makes a block for the fused and for each unimodal loss, a row for each group."""
    groups = np.arange(problem.num_groups)
    partition = fairjax.partition({"group": groups})
    blocks = ("fused", *MODALITIES)

    def statistics(params, batch):
        outputs = problem.apply(params, batch["inputs"])
        each = _cross_entropies(outputs.attached_unimodal_logits, batch["labels"])
        fused = _cross_entropies(outputs.logits[:, None], batch["labels"])[:, 0]
        return {"fused": fused} | {n: each[:, m] for m, n in enumerate(MODALITIES)}

    functions = {
        f"{block}: {group}": share_of_loss(groups == group, block)
        for block in blocks
        for group in groups
    }
    objectives = fairjax.cell_objectives(statistics, partition, functions)
    reconciled = modulation.dual_level(
        num_modalities=len(blocks), num_groups=problem.num_groups
    )
    tx = optax.chain(reconciled, problem.optimiser(optax.identity()))
    return training.make_train_step(objectives, tx), _begin(problem, tx)


def _begin(problem: Problem, tx: optax.GradientTransformation) -> TrainState:
    # Copies, since every step donates its state.
    state = training.init_state(problem.params, tx, key=0)
    return jax.tree.map(jnp.copy, state)


def _cross_entropies(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes cross-entropies ``[B, M]`` of logits ``[B, M, 1]``."""
    return optax.sigmoid_binary_cross_entropy(logits[..., 0], labels[:, None])


def _patients(
    size: Size, batch_size: int, num_groups: int, seed: int
) -> dict[str, Any]:
    """Draws patients in groups with unequal expected sizes, proportional to 1 to 3."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(1, 3, num_groups)
    groups = rng.choice(num_groups, batch_size, p=shares / shares.sum())
    labels = rng.integers(0, 2, batch_size)
    told = (0.5 * labels[:, None]).astype(np.float32)
    measured = (batch_size, size.length)
    lengths = rng.integers(size.length // 2, size.length + 1, batch_size)
    features = rng.normal(size=(batch_size, size.num_features)) + told
    return {
        "inputs": {
            "labs": {"inputs": features.astype(np.float32)},
            "vitals": {
                "times": rng.uniform(0, 48, measured).astype(np.float32),
                "variables": rng.integers(0, NUM_VARIABLES, measured),
                "values": rng.normal(size=measured).astype(np.float32) + told,
                "mask": np.arange(size.length) < lengths[:, None],
            },
        },
        "labels": labels.astype(np.float32),
        "groups": groups.astype(np.int32),
        "cells": groups.astype(np.int32),
    }
