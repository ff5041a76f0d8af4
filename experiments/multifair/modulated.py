"""MultiFair and other methods that scale the joint loss's gradient, as programs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.core.programs import Phase, Program, Setting, variants
from experiments.core.protocol import CrossValidation
from experiments.multifair.names import GRID, grid_variants, unimodal
from experiments.multifair.task import CLIP, MultimodalTask
from fairjax import modulation
from fairjax.models import MultimodalOutputs

# Settings of the released code for FairVision; for FairCLIP, μ is .5 and τ is .07.
RHO, DIRECTION, FAIRNESS, MU, TAU = 1.2, 0.15, 0.5, 0.3, 0.04
ALPHAS = (0.1, 0.3, 0.8)
SIGNED_LIMIT = 2.0
DECAY = 0.9
_OBSERVED = ("modality_balance", "fairness_gap", "fairness_gate")


def modulated(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes MultiFair, the grid of its levels, joint training, and single modalities.

    At the level of modalities, the direction is the direction term of the loss, and the
    magnitude is the balance. At the level of groups, the fairness gap in the loss turns
    the gradient, and the fairness factor scales the gradient.
    """
    del splits
    number = len(task.names)
    alone = np.eye(number, dtype=bool)
    everything = np.ones((len(GRID), number), bool)
    on = np.concatenate([np.array(GRID), np.zeros((number, 4))]).astype(np.float32)
    unimodals = [variants(unimodal(name)) for name in task.names]
    return Program(
        "multifair",
        (_modulated_phase(task),),
        sum(unimodals, grid_variants("multifair")),
        {**_switches(on), "modalities": np.concatenate([everything, alone])},
    )


def after_adam(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes MultiFair with factors on Adam's updates, where Adam cannot cancel them."""
    del splits
    name, everything = "multifair_after_adam", np.ones((1, 4), np.float32)
    phase = _modulated_phase(task, after=True)
    return Program(name, (phase,), variants(name), _switches(everything))


def _switches(on: np.ndarray) -> dict[str, np.ndarray]:
    """Makes the variants' settings from their switches ``[H, 4]``, each 0 or 1."""
    return {
        "direction": DIRECTION * on[:, 0],
        "balanced": on[:, 1] > 0,
        "fairness": FAIRNESS * on[:, 2],
        "mu": MU * on[:, 3],
    }


def _modulated_phase(task: MultimodalTask, *, after: bool = False) -> Phase:
    def loss(setting: Setting):
        def loss_fn(params, batch, opt_state):
            total, extra, outputs = _task_loss(task, params, batch)
            state = {
                name: optax.tree.get(opt_state, name)
                for name in ("modality_auc", "group_auc", "group_seen")
            }
            gradients = _last_layers(outputs, batch)
            # The heads' scores as functions of the encoders alone. The auxiliary heads
            # only measure, and the gap must not train them.
            metered = outputs.unimodal_logits[..., 0]
            through = outputs.attached_unimodal_logits[..., 0]
            through = through - metered + jax.lax.stop_gradient(metered)
            penalty = modulation.multifair_penalty(
                **gradients,
                **state,
                **{**extra, "unimodal_scores": jax.nn.sigmoid(through)},
                direction=setting["direction"],
                fairness=setting["fairness"],
                tau=TAU,
                decay=DECAY,
            )
            return total + penalty.total, extra

        return loss_fn

    def factors(setting: Setting):
        balance = modulation.balance_modalities(task.labels, task.names, rho=RHO)
        groups = modulation.balance_groups(
            task.labels,
            task.names,
            num_groups=task.num_groups,
            mode="paper",
            mu=setting["mu"],
            tau=TAU,
            decay=DECAY,
        )
        return optax.chain(_switched(balance, setting["balanced"]), groups)

    def clipped(setting: Setting):
        clip = optax.clip_by_global_norm(CLIP)
        return clip if after else optax.chain(factors(setting), clip)

    return Phase(
        1.0,
        {},
        clipped,
        loss=loss,
        after=factors if after else None,
        observed=_OBSERVED,
    )


def released(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes the released code's method, which scales magnitudes only."""
    del splits

    def transform(_: Setting):
        return modulation.multifair(
            task.labels,
            task.names,
            num_groups=task.num_groups,
            mode="released",
            rho=RHO,
            mu=MU,
            tau=TAU,
            decay=DECAY,
        )

    phase = _plain_phase(task, transform, _OBSERVED)
    return Program("multifair_released", (phase,), variants("multifair_released"))


def ogm_ge(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes joint training that slows the modality which contributes most."""
    del splits

    def transform(setting: Setting):
        return modulation.ogm_ge(task.labels, task.names, alpha=setting["alpha"])

    phase = _plain_phase(task, transform, ("contribution_balance",))
    settings = {"alpha": np.array(ALPHAS, np.float32)}
    return Program("ogm_ge", (phase,), variants("ogm_ge", ALPHAS), settings)


def cggm(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes joint training that balances encoders by signed changes of their AUCs."""
    del splits

    def transform(_: Setting):
        return modulation.balance_modalities(
            task.labels, task.names, rho=RHO, signed=True, limit=SIGNED_LIMIT
        )

    phase = _plain_phase(task, transform, ("modality_balance",))
    return Program("cggm", (phase,), variants("cggm"))


def _plain_phase(
    task: MultimodalTask,
    transform: Callable[[Setting], optax.GradientTransformation],
    observed: tuple[str, ...],
) -> Phase:
    """Makes a phase of the joint loss with a modulated gradient."""

    def loss(_: Setting):
        return lambda params, batch, _: _task_loss(task, params, batch)[:2]

    def clipped(setting: Setting):
        return optax.chain(transform(setting), optax.clip_by_global_norm(CLIP))

    return Phase(1.0, {}, clipped, loss=loss, observed=observed, keys_by_lane=True)


def _task_loss(
    task: MultimodalTask, params: Any, batch: Mapping[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array], MultimodalOutputs]:
    """Computes the joint loss, the transformations' arguments, and the outputs."""
    outputs = task.outputs(params, batch)
    fused, heads = task.losses(outputs, batch, attached=False)
    weights = batch["weights"]
    total = weights @ (fused + jnp.sum(heads, axis=1))
    total /= jnp.maximum(jnp.sum(weights), 1e-6)
    extra = {
        "unimodal_scores": jax.nn.sigmoid(outputs.unimodal_logits[..., 0]),
        "scores": jax.nn.sigmoid(outputs.logits[:, 0]),
        "labels": batch["labels"],
        "groups": batch["groups"],
        "present": batch["present"],
    }
    return total, extra, outputs


def _last_layers(
    outputs: MultimodalOutputs, batch: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Computes the gradients that the direction term compares."""
    labels, weights = batch["labels"], batch["weights"]
    fused = modulation.last_layer_gradient(
        outputs.last_inputs, outputs.logits[:, 0], labels, weights=weights
    )
    alone = [
        modulation.last_layer_gradient(
            outputs.unimodal_last_inputs[:, m],
            outputs.unimodal_logits[:, m, 0],
            labels,
            weights=weights * batch["present"][:, m],
        )
        for m in range(outputs.unimodal_logits.shape[1])
    ]
    return {"fused_gradient": fused, "unimodal_gradients": jnp.stack(alone)}


def _switched(
    transform: optax.GradientTransformationExtraArgs, on: jax.Array
) -> optax.GradientTransformationExtraArgs:
    """Makes a traced switch for a transformation, whose state is updated either way."""

    def update(updates, state, params=None, **extra):
        changed, state = transform.update(updates, state, params, **extra)
        picked = jax.tree.map(
            lambda new, old: jnp.where(on, new, old), changed, updates
        )
        return picked, state

    return optax.GradientTransformationExtraArgs(transform.init, update)
