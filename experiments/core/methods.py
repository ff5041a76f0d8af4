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
from experiments.core.programs import (
    Phase,
    Program,
    Setting,
    Variant,
    check_names,
    only,
)
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
    check_names(names, TITLES)
    makers = (
        _erm,
        _reweighting,
        _group_dro,
        _penalty,
        _penalty_absolute,
        _two_phase,
        _fairgrad("fairgrad", "conflict"),
        _fairgrad("fairgrad_always", "always"),
        _fairgrad_balanced,
    )
    return only((make(splits) for make in makers), names)


def _variants(name: str, labels: Sequence[Any]) -> list[Variant]:
    return [Variant(name, label if label == "" else f"{label}") for label in labels]


def _fairness(
    splits: CrossValidation, penalty: losses.Penalty
) -> dict[str, CellFunction]:
    return {
        attribute: losses.equalized_odds(
            splits.partition, attribute, label=LABEL, penalty=penalty
        )
        for attribute in splits.attributes
    }


def _objectives(
    splits: CrossValidation, penalty: losses.Penalty = "squared"
) -> dict[str, CellFunction]:
    return {"task": losses.task(splits.partition), **_fairness(splits, penalty)}


def _erm(splits: CrossValidation) -> Program:
    return Program("erm", (_task_phase(splits),), tuple(_variants("erm", [""])))


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
    variants = tuple(_variants("reweighting", [""]))
    phases = (_task_phase(splits),)
    return Program("reweighting", phases, variants, example_weights=weights)


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
        return fairjax.reconcile(
            steps.group_dro(setting["step_size"]), num_objectives=len(risks)
        )

    return Program(
        "group_dro",
        (Phase(1.0, risks, reconciler),),
        tuple(_variants("group_dro", [f"{s:g}" for s in STEP_SIZES])),
        {"step_size": np.array(STEP_SIZES, np.float32)},
    )


def _penalty(splits: CrossValidation) -> Program:
    """The penalty on all attributes, and on one at a time to see the others."""
    number = len(splits.attributes)
    together = [[weight] * number for weight in PENALTY_WEIGHTS]
    alone = np.eye(number) * SINGLE_WEIGHT
    rows = np.concatenate([np.array(together), alone])
    return Program(
        "penalty",
        (_weighted_phase(_objectives(splits)),),
        (
            *_variants("penalty", [f"{w:g}" for w in PENALTY_WEIGHTS]),
            *_variants("penalty_single", splits.attributes),
        ),
        {"weights": _with_task(rows)},
    )


def _penalty_absolute(splits: CrossValidation) -> Program:
    rows = [[weight] * len(splits.attributes) for weight in ABSOLUTE_PENALTY_WEIGHTS]
    labels = [f"{w:g}" for w in ABSOLUTE_PENALTY_WEIGHTS]
    return Program(
        "penalty_absolute",
        (_weighted_phase(_objectives(splits, "absolute")),),
        tuple(_variants("penalty_absolute", labels)),
        {"weights": _with_task(np.array(rows))},
    )


def _weighted_phase(objectives: Mapping[str, CellFunction]) -> Phase:
    return Phase(1.0, objectives, lambda setting: _added_up(setting["weights"]), DECAY)


def _with_task(rows: np.ndarray) -> np.ndarray:
    """Weights ``[H, 1 + attributes]`` with weight 1 for the task."""
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1).astype(np.float32)


def _two_phase(splits: CrossValidation) -> Program:
    """Half the steps for the task, half for fairness alone, at a tenth of the rate.

    One variant fine-tunes the attributes one after another, the other all at once.
    """
    number = len(splits.attributes)
    objectives = _objectives(splits)
    task = np.eye(1 + number, dtype=np.float32)[0]
    together = 1 - task

    def reconciler(setting: Setting):
        return _added_up(setting["weights"])

    def phase(share: float, rate: float, rows: list[np.ndarray]) -> Phase:
        settings = {"weights": np.stack(rows)}
        return Phase(share, objectives, reconciler, DECAY, rate, settings)

    one = np.eye(1 + number, dtype=np.float32)[1:]
    tuning = [phase(0.5 / number, FINE_TUNING_RATE, [row, together]) for row in one]
    return Program(
        "two_phase",
        (phase(0.5, 1.0, [task, task]), *tuning),
        (
            *_variants("two_phase_sequential", [""]),
            *_variants("two_phase_simultaneous", [""]),
        ),
    )


def _fairgrad(name: str, condition: Any) -> Callable[[CrossValidation], Program]:
    """The published method, in the readings that its text allows."""

    def make(splits: CrossValidation) -> Program:
        objectives = _objectives(splits, "absolute")
        number = len(objectives)

        def reconciler(setting: Setting):
            return fairjax.reconcile(
                steps.project_conflicts(condition=condition),
                steps.combine(setting["weights"]),
                num_objectives=number,
            )

        rows = np.array([[1.0] * number, [1 / number] * number], np.float32)
        return Program(
            name,
            (Phase(1.0, objectives, reconciler),),
            (*_variants(name, [""]), *_variants(f"{name}_mean", [""])),
            {"weights": rows},
        )

    return make


def _fairgrad_balanced(splits: CrossValidation) -> Program:
    """FairGrad with its fairness gradients scaled to a share of the task gradient's.

    Balanced: to ``strength`` times its length, whatever theirs. Limited: to its length,
    but by a factor of ``limit`` at most, and projections soften as gradients shorten;
    so near parity, where they are noise, they are neither scaled up nor made way for.
    """
    objectives = _objectives(splits)
    number = len(splits.attributes)

    def reconciler(setting: Setting):
        return fairjax.fairgrad(
            num_objectives=len(objectives),
            strength=setting["strength"],
            limit=setting["limit"],
            epsilon=setting["epsilon"],
        )

    limits = (*LIMITS, *(SINGLE_LIMIT,) * number)
    balanced, limited = len(STRENGTHS), len(limits)
    everything = np.ones((balanced + len(LIMITS), 1 + number), bool)
    alone = _with_task(np.eye(number)).astype(bool)
    return Program(
        "fairgrad_balanced",
        (Phase(1.0, objectives, reconciler, DECAY),),
        (
            *_variants("fairgrad_balanced", [f"{s:g}" for s in STRENGTHS]),
            *_variants("fairgrad_limited", [f"{x:g}" for x in LIMITS]),
            *_variants("fairgrad_single", splits.attributes),
        ),
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
