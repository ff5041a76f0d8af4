"""The methods that the MultiFair experiment compares, each at the same budget.

Methods that differ in numbers only are variants of one program, which is compiled
once and trains all of them side by side. All clip the update's norm where MultiFair
does, and train the auxiliary heads beside their own loss, so that every method's
modalities can be watched.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fairjax
from experiments.multimodal import MultimodalTask
from experiments.programs import Phase, Program, Setting, Variant
from experiments.protocol import LABEL, CrossValidation
from fairjax import losses, modulation, steps
from fairjax.models import MultimodalOutputs
from fairjax.objectives import CellFunction
from fairjax.types import Step

# As published: systems with two sets of τ and μ get the first.
RHO, DIRECTION, FAIRNESS, MU, TAU, CLIP = 1.2, 0.15, 0.5, 0.5, 0.04, 0.8
ALPHAS = (0.1, 0.3, 0.8)
SIGNED_LIMIT = 2.0
STEP_SIZES = (0.01, 0.1)
PENALTY_WEIGHTS = (1.0, 5.0, 20.0)
LIMITS = (1.0, 5.0, 20.0)
# The most that a group's or a modality's gradient is lengthened.
LONGEST = 10.0
DECAY = 0.9

FACTORS = (
    "modality direction",
    "modality magnitude",
    "group direction",
    "group magnitude",
)
"""What is switched in the two grids, in the order of their digits."""
GRID: tuple[tuple[int, ...], ...] = tuple(
    itertools.product((0, 1), repeat=len(FACTORS))
)

TITLES = {
    "joint": "Joint training",
    "late_fusion": "Late fusion",
    "ogm_ge": "OGM-GE",
    "cggm": "CGGM-style signed balance",
    "group_dro": "GroupDRO",
    "penalty": "Fairness penalty",
    "fairgrad": "FairGrad",
    "multifair": "MultiFair, paper",
    "multifair_released": "MultiFair, released code",
    "multifair_after_adam": "MultiFair, paper, scaled after Adam",
    "multifair_levels": "MultiFair, some levels",
    "joint_auxiliary": "Joint, with unimodal losses",
    "dual_level": "Dual-level reconciliation",
    "dual_level_levels": "Dual-level reconciliation, some levels",
}
TUNED = ("ogm_ge", "group_dro", "penalty", "fairgrad")
# Of these the fairest setting is chosen, among those that cost little; of the others
# the one that predicts best.
FAIR = ("group_dro", "penalty", "fairgrad")
# The corners of a grid: nothing switched on, and everything.
CORNERS = {
    "multifair": ("joint", "multifair", "multifair_levels"),
    "dual_level": ("joint_auxiliary", "dual_level", "dual_level_levels"),
}


def titles(names: Sequence[str]) -> dict[str, str]:
    """Every method's title, those of single modalities among them."""
    alone = {unimodal(name): f"{name.capitalize()} alone" for name in names}
    return {"joint": TITLES["joint"], **alone, **TITLES}


def unimodal(modality: str) -> str:
    """The name of the method that sees one modality.

    Example:
      >>> unimodal("labs")
      'only_labs'
    """
    return f"only_{modality}"


def digits(setting: Sequence[int]) -> str:
    """A grid's setting as its label, a digit for each of `FACTORS`.

    Example:
      >>> digits((1, 0, 0, 1))
      '1001'
    """
    return "".join(str(int(on)) for on in setting)


def build(
    names: Sequence[str], task: MultimodalTask, splits: CrossValidation
) -> list[Program]:
    """The programs that train the methods of the given names, and no others.

    Raises:
      ValueError: An unknown name; the error lists the known ones.
    """
    known = titles(task.names)
    unknown = [n for n in names if n not in known]
    if unknown:
        raise ValueError(
            f"--methods has no {', '.join(unknown)}; it knows: {', '.join(known)}."
        )
    # Late fusion is made of the single modalities' predictions.
    wanted = set(names)
    if "late_fusion" in wanted:
        wanted |= {unimodal(name) for name in task.names}
    makers = (
        _modulated,
        _released,
        _after_adam,
        _ogm_ge,
        _cggm,
        _group_dro,
        _penalty,
        _fairgrad,
        _dual_level,
    )
    programs = []
    for make in makers:
        program = make(task, splits)
        keep = [i for i, v in enumerate(program.variants) if v.name in wanted]
        if keep:
            programs.append(program.take(keep))
    return programs


def _grid_variants(grid: str) -> list[Variant]:
    nothing, everything, rest = CORNERS[grid]
    corner: dict[tuple[int, ...], str] = {GRID[0]: nothing, GRID[-1]: everything}
    return [
        Variant(corner.get(setting, rest), "" if setting in corner else digits(setting))
        for setting in GRID
    ]


def _modulated(task: MultimodalTask, splits: CrossValidation) -> Program:
    """MultiFair's paper and each of its levels, joint training, and one modality each.

    Its direction by modality is the direction term of the loss, its magnitude by
    modality the balance; by group, the fairness gap in the loss turns the gradient and
    the fairness factor scales it.
    """
    del splits
    number = len(task.names)
    alone = np.eye(number, dtype=bool)
    everything = np.ones((len(GRID), number), bool)
    on = np.concatenate([np.array(GRID), np.zeros((number, 4))]).astype(np.float32)
    variants = _grid_variants("multifair")
    variants += [Variant(unimodal(name), "") for name in task.names]
    return Program(
        "multifair",
        (_modulated_phase(task),),
        tuple(variants),
        {
            "direction": DIRECTION * on[:, 0],
            "balanced": on[:, 1] > 0,
            "fairness": FAIRNESS * on[:, 2],
            "mu": MU * on[:, 3],
            "modalities": np.concatenate([everything, alone]),
        },
    )


def _after_adam(task: MultimodalTask, splits: CrossValidation) -> Program:
    """The same factors on Adam's updates, which do not divide them away."""
    del splits
    return Program(
        "multifair_after_adam",
        (_modulated_phase(task, after=True),),
        (Variant("multifair_after_adam", ""),),
        {
            "direction": np.array([DIRECTION], np.float32),
            "balanced": np.array([True]),
            "fairness": np.array([FAIRNESS], np.float32),
            "mu": np.array([MU], np.float32),
        },
    )


def _modulated_phase(task: MultimodalTask, *, after: bool = False) -> Phase:
    def loss(setting: Setting):
        def loss_fn(params, batch, opt_state):
            total, extra, outputs = _task_loss(task, params, batch)
            state = {
                name: optax.tree.get(opt_state, name)
                for name in ("modality_auc", "group_auc", "group_seen")
            }
            gradients = _last_layers(outputs, batch)
            # The heads' own scores, but as functions of the encoders alone: the
            # unimodal heads are meters, which the gap must not bend.
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
        observed=("modality_balance", "fairness_gap", "fairness_gate"),
    )


def _released(task: MultimodalTask, splits: CrossValidation) -> Program:
    """What the released code computes: magnitudes alone."""
    del splits

    def transform(setting: Setting):
        del setting
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

    phase = _plain_phase(
        task, transform, ("modality_balance", "fairness_gap", "fairness_gate")
    )
    return Program("multifair_released", (phase,), (Variant("multifair_released", ""),))


def _ogm_ge(task: MultimodalTask, splits: CrossValidation) -> Program:
    del splits

    def transform(setting: Setting):
        return modulation.ogm_ge(
            task.labels, task.names, alpha=setting["alpha"], key=setting["key"]
        )

    return Program(
        "ogm_ge",
        (_plain_phase(task, transform, ("contribution_balance",)),),
        tuple(Variant("ogm_ge", f"{alpha:g}") for alpha in ALPHAS),
        {
            "alpha": np.array(ALPHAS, np.float32),
            "key": np.zeros(len(ALPHAS), np.int32),
        },
    )


def _cggm(task: MultimodalTask, splits: CrossValidation) -> Program:
    del splits

    def transform(setting: Setting):
        del setting
        return modulation.balance_modalities(
            task.labels, task.names, rho=RHO, signed=True, limit=SIGNED_LIMIT
        )

    phase = _plain_phase(task, transform, ("modality_balance",))
    return Program("cggm", (phase,), (Variant("cggm", ""),))


def _plain_phase(
    task: MultimodalTask,
    transform: Callable[[Setting], optax.GradientTransformation],
    observed: tuple[str, ...],
) -> Phase:
    """The joint loss, its gradient modulated."""

    def loss(setting: Setting):
        del setting

        def loss_fn(params, batch, opt_state):
            del opt_state
            total, extra, _ = _task_loss(task, params, batch)
            return total, extra

        return loss_fn

    def clipped(setting: Setting):
        return optax.chain(transform(setting), optax.clip_by_global_norm(CLIP))

    return Phase(1.0, {}, clipped, loss=loss, observed=observed)


def _group_dro(task: MultimodalTask, splits: CrossValidation) -> Program:
    del task
    partition = splits.partition
    risks = losses.group_risks(partition, splits.attributes, statistic="fused")

    def reconciler(setting: Setting):
        return _beside_heads([steps.group_dro(setting["step_size"])], len(risks))

    return Program(
        "group_dro",
        (Phase(1.0, {**risks, **_heads(splits)}, reconciler),),
        tuple(Variant("group_dro", f"{size:g}") for size in STEP_SIZES),
        {"step_size": np.array(STEP_SIZES, np.float32)},
    )


def _penalty(task: MultimodalTask, splits: CrossValidation) -> Program:
    del task
    objectives = _fair_objectives(splits)

    def reconciler(setting: Setting):
        number = len(objectives)
        added = steps.combine(setting["weights"])
        return _clipped(fairjax.reconcile(added, num_objectives=number))

    weights = np.ones((len(PENALTY_WEIGHTS), len(objectives)), np.float32)
    weights[:, 1:-1] = np.array(PENALTY_WEIGHTS)[:, None]
    return Program(
        "penalty",
        (Phase(1.0, objectives, reconciler, DECAY),),
        tuple(Variant("penalty", f"{weight:g}") for weight in PENALTY_WEIGHTS),
        {"weights": weights},
    )


def _fairgrad(task: MultimodalTask, splits: CrossValidation) -> Program:
    """FairGrad alone: the fused task and each attribute's equalized odds."""
    del task
    objectives = _fair_objectives(splits)

    def reconciler(setting: Setting):
        limits = (0.0, setting["limit"])
        chain = [
            steps.balance_magnitudes(reference=0, strength=1.0, clamp=limits),
            steps.project_conflicts(epsilon=0.01),
            steps.combine("sum"),
        ]
        return _beside_heads(chain, len(objectives) - 1)

    return Program(
        "fairgrad",
        (Phase(1.0, objectives, reconciler, DECAY),),
        tuple(Variant("fairgrad", f"{limit:g}") for limit in LIMITS),
        {"limit": np.array(LIMITS, np.float32)},
    )


def _fair_objectives(splits: CrossValidation) -> dict[str, CellFunction]:
    gaps = {
        attribute: losses.equalized_odds(
            splits.partition, attribute, label=LABEL, penalty="squared"
        )
        for attribute in splits.attributes
    }
    task = losses.task(splits.partition, statistic="fused")
    return {"task": task, **gaps, **_heads(splits)}


def _heads(splits: CrossValidation) -> dict[str, CellFunction]:
    """The auxiliary heads' own loss, an objective that shares nothing with others."""
    return {"heads": losses.task(splits.partition, statistic="heads")}


def _beside_heads(chain: Sequence[Step], number: int):
    """The steps on the first objectives; the last, the heads', is left as it is."""
    # A block of one row is left as it is by every chain here.
    levels = [list(range(number)), [number]]
    heads_apart = steps.by_level(levels, chain, steps.combine("sum"))
    return _clipped(fairjax.reconcile(heads_apart, num_objectives=number + 1))


def _dual_level(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Objectives of every modality and group, the fused loss first, in one Gram."""
    blocks = ("fused", *task.names)
    names, members = splits.partition.membership(splits.attributes)
    objectives = {
        f"{block}: {name}": _share_of_loss(member, block)
        for block in blocks
        for name, member in zip(names, members, strict=True)
    }
    # The heads' own loss trains nothing but the heads where it is cut off; here the
    # unimodal losses reach the encoders, and so train the heads too.
    on = np.array(GRID, bool)

    def reconciler(setting: Setting):
        return _clipped(
            modulation.dual_level(
                num_modalities=len(blocks),
                num_groups=len(names),
                modality_direction=setting["modality_direction"],
                modality_magnitude=setting["modality_magnitude"],
                group_direction=setting["group_direction"],
                group_magnitude=setting["group_magnitude"],
                limit=LONGEST,
            )
        )

    settings = {
        factor.replace(" ", "_"): on[:, place] for place, factor in enumerate(FACTORS)
    }
    return Program(
        "dual_level",
        (Phase(1.0, objectives, reconciler),),
        tuple(_grid_variants("dual_level")),
        settings,
    )


def _share_of_loss(group: np.ndarray, statistic: str) -> CellFunction:
    """The part of the mean loss that a group's patients have; the parts add up."""

    def value(means: Mapping[str, jax.Array], counts: jax.Array) -> jax.Array:
        inside = jnp.where(group, counts * means[statistic], 0.0)
        return jnp.sum(inside) / jnp.maximum(jnp.sum(counts), 1e-6)

    return CellFunction(value, (statistic,), group)


def _task_loss(
    task: MultimodalTask, params: Any, batch: Mapping[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array], MultimodalOutputs]:
    """The joint loss, what transformations ask for, and the outputs."""
    outputs = task.outputs(params, batch)
    fused, heads = task.losses(outputs, batch, attached=False)
    weights = batch["weights"]
    total = weights @ (fused + jnp.sum(heads, axis=1)) / jnp.sum(weights)
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
    """The gradients that the direction term compares."""
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


def _clipped(transform: optax.GradientTransformation):
    return optax.chain(transform, optax.clip_by_global_norm(CLIP))


def _switched(
    transform: optax.GradientTransformationExtraArgs, on: jax.Array
) -> optax.GradientTransformationExtraArgs:
    """The transformation, or none, by a traced switch; its state goes on either way."""

    def update(updates, state, params=None, **extra):
        changed, state = transform.update(updates, state, params, **extra)
        pick = lambda new, old: jnp.where(on, new, old)  # noqa: E731
        return jax.tree.map(pick, changed, updates), state

    return optax.GradientTransformationExtraArgs(transform.init, update)
