"""The methods that the FairGrad experiment compares, each at the same budget.

Methods that differ only in numbers are variants of one program, which is compiled
once and trains all variants side by side.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    return programs.only(_programs(splits), names)


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


def _programs(splits: CrossValidation) -> Iterator[Program]:
    """Makes the programs of all methods."""
    attributes = splits.attributes
    squared, absolute = objectives(splits), objectives(splits, "absolute")
    task = {"task": losses.task(splits.partition)}
    plain = Phase(1.0, task, lambda _: _added_up(jnp.ones(1)))
    yield Program("erm", (plain,), variants("erm"))
    weights, name = _reweighing(splits), "reweighting"
    yield Program(name, (plain,), variants(name), example_weights=weights)
    yield _group_dro(splits)
    # On all attributes, and on one attribute at a time.
    alone = np.eye(len(attributes)) * SINGLE_WEIGHT
    weights = np.concatenate([_for_all(attributes, PENALTY_WEIGHTS), alone])
    yield Program(
        "penalty",
        (Phase(1.0, squared, _weighted, DECAY),),
        variants("penalty", PENALTY_WEIGHTS) + variants("penalty_single", attributes),
        {"weights": _with_task(weights)},
    )
    yield Program(
        "penalty_absolute",
        (Phase(1.0, absolute, _weighted, DECAY),),
        variants("penalty_absolute", ABSOLUTE_PENALTY_WEIGHTS),
        {"weights": _with_task(_for_all(attributes, ABSOLUTE_PENALTY_WEIGHTS))},
    )
    yield _two_phase(squared)
    yield _fairgrad("fairgrad", "conflict", absolute)
    yield _fairgrad("fairgrad_always", "always", absolute)
    yield _fairgrad_balanced(squared)


def _reweighing(splits: CrossValidation) -> np.ndarray:
    """Makes weights under which label and intersection are independent in each lane."""
    _, members = splits.partition.membership(splits.attributes)
    groups = members.argmax(axis=0)[splits.cells]
    weights = np.zeros((splits.num_lanes, len(groups)), np.float32)
    for lane in range(splits.num_lanes):
        train = splits.rows(lane, "train")
        weights[lane, train] = reweighing(
            splits.table.label[train], groups[train], num_groups=len(members)
        )
    return weights


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


def _for_all(attributes: Sequence[str], weights: Sequence[float]) -> np.ndarray:
    """Repeats each weight for all attributes, ``[H, attributes]``."""
    return np.outer(weights, np.ones(len(attributes)))


def _with_task(rows: np.ndarray) -> np.ndarray:
    """Adds the weight 1 of the task, ``[H, 1 + attributes]``."""
    return np.insert(rows, 0, 1.0, axis=1).astype(np.float32)


def _weighted(setting: Setting):
    return _added_up(setting["weights"])


def _two_phase(functions: Mapping[str, CellFunction]) -> Program:
    """Makes two phases: half the steps for the task, half for fairness alone.

    Fine-tuning for fairness has a tenth of the learning rate. One variant fine-tunes
    the attributes one after another, the other variant all attributes at once.
    """
    task, *one = np.eye(len(functions), dtype=np.float32)

    def phase(share: float, rate: float, *rows: np.ndarray) -> Phase:
        settings = {"weights": np.stack(rows)}
        return Phase(share, functions, _weighted, DECAY, rate, settings)

    tuning = [phase(0.5 / len(one), FINE_TUNING_RATE, row, 1 - task) for row in one]
    return Program(
        "two_phase",
        (phase(0.5, 1.0, task, task), *tuning),
        variants("two_phase_sequential") + variants("two_phase_simultaneous"),
    )


def _fairgrad(
    name: str, condition: Any, functions: Mapping[str, CellFunction]
) -> Program:
    """Makes the published method, for one reading of its condition."""
    number = len(functions)

    def reconciler(setting: Setting):
        return fairjax.reconcile(
            steps.project_conflicts(condition=condition),
            steps.combine(setting["weights"]),
            num_objectives=number,
        )

    both = variants(name) + variants(f"{name}_mean")
    rows = np.array([[1.0] * number, [1 / number] * number], np.float32)
    return Program(name, (Phase(1.0, functions, reconciler),), both, {"weights": rows})


def _fairgrad_balanced(functions: Mapping[str, CellFunction]) -> Program:
    """Makes FairGrad with fairness gradients scaled relative to the task gradient.

    Balanced: fairness gradients are scaled to ``strength`` times the length of the task
    gradient. Limited: they are scaled to its length, but by a factor of ``limit`` at
    most, and projections soften as fairness gradients shorten. So near parity, where
    fairness gradients are noise, they are not scaled up, and the task gradient is not
    projected off them.
    """
    _, *attributes = functions
    number = len(attributes)

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
        (Phase(1.0, functions, reconciler, DECAY),),
        variants("fairgrad_balanced", STRENGTHS)
        + variants("fairgrad_limited", LIMITS)
        + variants("fairgrad_single", attributes),
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
