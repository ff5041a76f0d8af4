"""Methods that reconcile several objectives' gradients, as programs."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fairjax
from experiments.core.methods import objectives
from experiments.core.programs import Phase, Program, Setting, variants
from experiments.core.protocol import CrossValidation
from experiments.multifair.names import FACTORS, GRID, grid_variants
from experiments.multifair.task import CLIP, MultimodalTask
from fairjax import losses, modulation, steps
from fairjax.objectives import CellFunction
from fairjax.reconcilers.core import Step

STEP_SIZES = (0.001, 0.01, 0.1)
PENALTY_WEIGHTS = (0.05, 0.2, 1.0, 5.0)
LIMITS = (0.05, 0.2, 1.0, 5.0)
# The largest factor by which a group's or a modality's gradient is lengthened.
LONGEST = 10.0
DECAY = 0.9


def group_dro(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes GroupDRO, which weights groups by exponentiated gradient on losses."""
    del task
    partition = splits.partition
    risks = losses.group_risks(partition, splits.attributes, statistic="fused")

    def reconciler(setting: Setting):
        return _beside_heads([steps.group_dro(setting["step_size"])], len(risks))

    return Program(
        "group_dro",
        (Phase(1.0, {**risks, **_heads(splits)}, reconciler),),
        variants("group_dro", STEP_SIZES),
        {"step_size": np.array(STEP_SIZES, np.float32)},
    )


def penalty(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes the sum of the fused loss and each attribute's squared gap."""
    del task
    number = len(splits.attributes) + 2

    def reconciler(setting: Setting):
        added = steps.combine(setting["weights"])
        return _clipped(fairjax.reconcile(added, num_objectives=number))

    weights = np.ones((len(PENALTY_WEIGHTS), number), np.float32)
    weights[:, 1:-1] = np.array(PENALTY_WEIGHTS)[:, None]
    return Program(
        "penalty",
        (Phase(1.0, _fair_objectives(splits), reconciler, DECAY),),
        variants("penalty", PENALTY_WEIGHTS),
        {"weights": weights},
    )


def fairgrad(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes FairGrad on the fused task and each attribute's equalized odds."""
    del task

    def reconciler(setting: Setting):
        limits = (0.0, setting["limit"])
        chain = [
            steps.balance_magnitudes(reference=0, strength=1.0, clamp=limits),
            steps.project_conflicts(epsilon=0.01),
            steps.combine("sum"),
        ]
        return _beside_heads(chain, len(splits.attributes) + 1)

    return Program(
        "fairgrad",
        (Phase(1.0, _fair_objectives(splits), reconciler, DECAY, keys_by_lane=True),),
        variants("fairgrad", LIMITS),
        {"limit": np.array(LIMITS, np.float32)},
    )


def _fair_objectives(splits: CrossValidation) -> dict[str, CellFunction]:
    return {**objectives(splits, statistic="fused"), **_heads(splits)}


def _heads(splits: CrossValidation) -> dict[str, CellFunction]:
    """Makes the auxiliary heads' objective, which shares no parameters with any."""
    return {"heads": losses.task(splits.partition, statistic="heads")}


def _beside_heads(chain: Sequence[Step], number: int):
    """Applies steps to all objectives but the last, the heads', which is unchanged."""
    # No chain here changes a block of one row.
    levels = [list(range(number)), [number]]
    heads_apart = steps.by_level(levels, chain, steps.combine("sum"))
    return _clipped(fairjax.reconcile(heads_apart, num_objectives=number + 1))


def dual_level(task: MultimodalTask, splits: CrossValidation) -> Program:
    """Makes dual-level reconciliation of the fused and unimodal losses by group."""
    blocks = ("fused", *task.names)
    names, members = splits.partition.membership(splits.attributes)
    parts = {
        f"{block}: {name}": share_of_loss(member, block)
        for block in blocks
        for name, member in zip(names, members, strict=True)
    }
    # Other methods train the heads by a loss that is detached from the encoders. Here
    # the unimodal losses are attached, so that they train the heads too.
    on = np.array(GRID, bool)

    settings = {
        factor.replace(" ", "_"): on[:, place] for place, factor in enumerate(FACTORS)
    }

    def reconciler(setting: Setting):
        switches: dict[str, Any] = {name: setting[name] for name in settings}
        return _clipped(
            modulation.dual_level(
                num_modalities=len(blocks),
                num_groups=len(names),
                limit=LONGEST,
                **switches,
            )
        )

    return Program(
        "dual_level",
        (Phase(1.0, parts, reconciler, keys_by_lane=True),),
        grid_variants("dual_level"),
        settings,
    )


def share_of_loss(group: np.ndarray, statistic: str) -> CellFunction:
    """Makes a group's part of the mean loss; all groups' parts sum to the mean loss."""

    def value(means: Mapping[str, jax.Array], counts: jax.Array) -> jax.Array:
        inside = jnp.where(group, counts * means[statistic], 0.0)
        return jnp.sum(inside) / jnp.maximum(jnp.sum(counts), 1e-6)

    return CellFunction(value, (statistic,), group)


def _clipped(transform: optax.GradientTransformation):
    return optax.chain(transform, optax.clip_by_global_norm(CLIP))
