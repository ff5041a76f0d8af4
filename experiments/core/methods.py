"""The methods that the FairGrad experiment compares, each at the same budget.

Methods that differ only in numbers are variants of one program, which is compiled
once and trains all variants side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fairjax
from experiments.core import programs
from experiments.core.programs import Phase, Program, Setting, variants
from experiments.core.protocol import LABEL, CrossValidation
from fairjax import losses, steps
from fairjax.mitigation.reweighing import reweighing
from fairjax.objectives import CellFunction

PENALTY_WEIGHTS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
ABSOLUTE_PENALTY_WEIGHTS = (0.05, 0.1, 0.25, 0.5, 1.0)
STRENGTHS = (0.03, 0.1, 0.2, 0.3, 0.5)
LIMITS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
STEP_SIZES = (0.01, 0.1)
EPSILON = 0.01
DECAY = 0.9
FINE_TUNING_RATE = 0.1
SINGLE_WEIGHT = 10.0
SINGLE_LIMIT = 10.0

TITLES = {
    "erm": "ERM",
    "reweighting": "Reweighting",
    "group_dro": "GroupDRO",
    "penalty": "Fairness penalty",
    "penalty_absolute": "Fairness penalty, absolute",
    "penalty_single": "Penalty on one attribute",
    "two_phase_sequential": "Two-phase, sequential",
    "two_phase_simultaneous": "Two-phase, simultaneous",
    "fairgrad": "FairGrad, sum",
    "fairgrad_mean": "FairGrad, mean",
    "fairgrad_always": "FairGrad, unconditional, sum",
    "fairgrad_always_mean": "FairGrad, unconditional, mean",
    "fairgrad_balanced": "FairGrad, balanced",
    "fairgrad_limited": "FairGrad, limited",
    "fairgrad_single": "FairGrad on one attribute",
}
# Other readings of the surrogate and of the published text, added by `--full`.
ABLATIONS = ("penalty_absolute", "fairgrad_always", "fairgrad_always_mean")
TUNED = (
    "group_dro",
    "penalty",
    "penalty_absolute",
    "fairgrad_balanced",
    "fairgrad_limited",
)


def build(names: Sequence[str], splits: CrossValidation) -> list[Program]:
    """Makes the programs that train the methods of the given names.

    Raises:
      ValueError: If a name is unknown; the error lists the known names.
    """
    programs.check_names(names, TITLES)
    makers = (
        _erm,
        _reweighting,
        _group_dro,
        _penalty,
        _absolute_penalty,
        _two_phase,
        _fairgrad("fairgrad", "conflict"),
        _fairgrad("fairgrad_always", "always"),
        _fairgrad_balanced,
    )
    return programs.only((make(splits) for make in makers), names)


def objectives(
    splits: CrossValidation,
    penalty: losses.Penalty = "squared",
    *,
    statistic: str = "loss",
) -> dict[str, CellFunction]:
    """Makes the objectives: the task, and each attribute's soft equalized-odds gap."""
    cells = splits.partition
    gaps = {
        name: losses.equalized_odds(cells, name, label=LABEL, penalty=penalty)
        for name in splits.attributes
    }
    return {"task": losses.task(cells, statistic=statistic), **gaps}


def _erm(splits: CrossValidation) -> Program:
    return Program("erm", (_task_phase(splits),), variants("erm"))


def _reweighting(splits: CrossValidation) -> Program:
    """Makes weights under which label and intersection are independent in each lane."""
    _, members = splits.partition.membership(splits.attributes)
    groups = members.argmax(axis=0)[splits.cells]
    weights = np.zeros((splits.num_lanes, len(groups)), np.float32)
    for lane in range(splits.num_lanes):
        train = splits.rows(lane, "train")
        weights[lane, train] = reweighing(
            splits.table.label[train], groups[train], num_groups=len(members)
        )
    phases = (_task_phase(splits),)
    name = "reweighting"
    return Program(name, phases, variants(name), example_weights=weights)


def _task_phase(splits: CrossValidation) -> Phase:
    task = {"task": losses.task(splits.partition)}
    return Phase(1.0, task, lambda _: _added_up(jnp.ones(1)))


def _group_dro(splits: CrossValidation) -> Program:
    """Makes the program of GroupDRO over the groups of every attribute."""
    risks = {
        group: risk
        for attribute in splits.attributes
        for group, risk in losses.group_risks(splits.partition, attribute).items()
    }

    def reconciler(setting: Setting):
        step = steps.group_dro(setting["step_size"])
        return fairjax.reconcile(step, num_objectives=len(risks))

    return Program(
        "group_dro",
        (Phase(1.0, risks, reconciler),),
        variants("group_dro", STEP_SIZES),
        {"step_size": np.array(STEP_SIZES, np.float32)},
    )


def _penalty(splits: CrossValidation) -> Program:
    """Makes penalties on all attributes, and on one attribute at a time."""
    alone = np.eye(len(splits.attributes)) * SINGLE_WEIGHT
    return Program(
        "penalty",
        (_weighted_phase(objectives(splits)),),
        variants("penalty", PENALTY_WEIGHTS)
        + variants("penalty_single", splits.attributes),
        {"weights": _with_task(np.concatenate([_all(splits, PENALTY_WEIGHTS), alone]))},
    )


def _absolute_penalty(splits: CrossValidation) -> Program:
    return Program(
        "penalty_absolute",
        (_weighted_phase(objectives(splits, "absolute")),),
        variants("penalty_absolute", ABSOLUTE_PENALTY_WEIGHTS),
        {"weights": _with_task(_all(splits, ABSOLUTE_PENALTY_WEIGHTS))},
    )


def _all(splits: CrossValidation, weights: Sequence[float]) -> np.ndarray:
    """Repeats each weight for all attributes, ``[H, attributes]``."""
    return np.repeat(np.array(weights)[:, None], len(splits.attributes), axis=1)


def _weighted_phase(functions: Mapping[str, CellFunction]) -> Phase:
    return Phase(1.0, functions, _weighted, DECAY)


def _weighted(setting: Setting):
    return _added_up(setting["weights"])


def _with_task(rows: np.ndarray) -> np.ndarray:
    """Adds the weight 1 of the task, ``[H, 1 + attributes]``."""
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1).astype(np.float32)


def _two_phase(splits: CrossValidation) -> Program:
    """Makes two phases: half the steps for the task, half for fairness alone.

    Fine-tuning for fairness has a tenth of the learning rate. One variant fine-tunes
    the attributes one after another, the other variant all attributes at once.
    """
    number = len(splits.attributes)
    functions = objectives(splits)
    task, *one = np.eye(1 + number, dtype=np.float32)

    def phase(share: float, rate: float, *rows: np.ndarray) -> Phase:
        settings = {"weights": np.stack(rows)}
        return Phase(share, functions, _weighted, DECAY, rate, settings)

    tuning = [phase(0.5 / number, FINE_TUNING_RATE, row, 1 - task) for row in one]
    return Program(
        "two_phase",
        (phase(0.5, 1.0, task, task), *tuning),
        variants("two_phase_sequential") + variants("two_phase_simultaneous"),
    )


def _fairgrad(name: str, condition: Any) -> Callable[[CrossValidation], Program]:
    """Returns a maker of the published method, for one reading of its condition."""

    def make(splits: CrossValidation) -> Program:
        functions = objectives(splits, "absolute")
        number = len(functions)

        def reconciler(setting: Setting):
            return fairjax.reconcile(
                steps.project_conflicts(condition=condition),
                steps.combine(setting["weights"]),
                num_objectives=number,
            )

        rows = np.array([[1.0] * number, [1 / number] * number], np.float32)
        return Program(
            name,
            (Phase(1.0, functions, reconciler),),
            variants(name) + variants(f"{name}_mean"),
            {"weights": rows},
        )

    return make


def _fairgrad_balanced(splits: CrossValidation) -> Program:
    """Makes FairGrad with fairness gradients scaled relative to the task gradient.

    Balanced: fairness gradients are scaled to ``strength`` times the length of the task
    gradient. Limited: they are scaled to its length, but by a factor of ``limit`` at
    most, and projections soften as fairness gradients shorten. So near parity, where
    fairness gradients are noise, they are not scaled up, and the task gradient is not
    projected off them.
    """
    number = len(splits.attributes)

    def reconciler(setting: Setting):
        numbers = ("strength", "limit", "epsilon")
        chosen: dict[str, Any] = {name: setting[name] for name in numbers}
        return fairjax.fairgrad(num_objectives=1 + number, **chosen)

    limits = (*LIMITS, *(SINGLE_LIMIT,) * number)
    balanced, limited = len(STRENGTHS), len(limits)
    everything = np.ones((balanced + len(LIMITS), 1 + number), bool)
    alone = _with_task(np.eye(number)).astype(bool)
    return Program(
        "fairgrad_balanced",
        (Phase(1.0, objectives(splits), reconciler, DECAY),),
        variants("fairgrad_balanced", STRENGTHS)
        + variants("fairgrad_limited", LIMITS)
        + variants("fairgrad_single", splits.attributes),
        {
            "strength": np.array([*STRENGTHS, *(1.0,) * limited], np.float32),
            "limit": np.array([*(np.inf,) * balanced, *limits], np.float32),
            "epsilon": np.array([0.0] * balanced + [EPSILON] * limited, np.float32),
            "objective_mask": np.concatenate([everything, alone]),
        },
    )


def _added_up(weights: jax.Array):
    """Makes the weighted sum of the gradients, without reconciliation."""
    return fairjax.reconcile(steps.combine(weights), num_objectives=weights.shape[0])
