"""The methods that the FairGrad experiment compares, each at the same budget.

Methods that differ in numbers only are variants of one program, which is compiled
once and trains all of them side by side.
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
# Other readings of a surrogate and of the published text, which `--full` adds.
ABLATIONS = ("penalty_absolute", "fairgrad_always", "fairgrad_always_mean")
TUNED = (
    "group_dro",
    "penalty",
    "penalty_absolute",
    "fairgrad_balanced",
    "fairgrad_limited",
)


def build(names: Sequence[str], splits: CrossValidation) -> list[Program]:
    """The programs that train the methods of the given names, and no others.

    Raises:
      ValueError: An unknown name; the error lists the known ones.
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
    """The task, and each attribute's soft equalized-odds gap."""
    cells = splits.partition
    gaps = {
        name: losses.equalized_odds(cells, name, label=LABEL, penalty=penalty)
        for name in splits.attributes
    }
    return {"task": losses.task(cells, statistic=statistic), **gaps}


def _erm(splits: CrossValidation) -> Program:
    return Program("erm", (_task_phase(splits),), variants("erm"))


def _reweighting(splits: CrossValidation) -> Program:
    """Label made independent of the intersection of the attributes, by lane."""
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
    """The worst of every attribute's groups."""
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
    """The penalty on all attributes, and on one at a time to see the others."""
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
    """Each weight for all attributes alike, ``[H, attributes]``."""
    return np.repeat(np.array(weights)[:, None], len(splits.attributes), axis=1)


def _weighted_phase(functions: Mapping[str, CellFunction]) -> Phase:
    return Phase(1.0, functions, _weighted, DECAY)


def _weighted(setting: Setting):
    return _added_up(setting["weights"])


def _with_task(rows: np.ndarray) -> np.ndarray:
    """Weights ``[H, 1 + attributes]`` with weight 1 for the task."""
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1).astype(np.float32)


def _two_phase(splits: CrossValidation) -> Program:
    """Half the steps for the task, half for fairness alone, at a tenth of the rate.

    One variant fine-tunes the attributes one after another, the other all at once.
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
    """The published method, in the readings that its text allows."""

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
    """FairGrad with its fairness gradients scaled to a share of the task gradient's.

    Balanced: to ``strength`` times its length, whatever theirs. Limited: to its length,
    but by a factor of ``limit`` at most, and projections soften as gradients shorten;
    so near parity, where they are noise, they are neither scaled up nor made way for.
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
    """The weighted sum of the gradients: no reconciliation."""
    return fairjax.reconcile(steps.combine(weights), num_objectives=weights.shape[0])
