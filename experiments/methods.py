"""The methods that the FairGrad experiment compares, each at the same budget."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import fairjax
from experiments.baselines.group_dro import group_dro
from experiments.baselines.reweighting import reweighting
from experiments.lanes import Method, Phase
from experiments.protocol import LABEL, CrossValidation
from fairjax import losses, steps
from fairjax.objectives import CellFunction

Setting = Mapping[str, jax.Array]

PENALTY_WEIGHTS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
ABSOLUTE_PENALTY_WEIGHTS = (0.1, 0.25, 0.5, 1.0)
STRENGTHS = (0.03, 0.1, 0.2, 0.3)
LIMITS = (2.0, 5.0, 10.0, 20.0)
EPSILON = 0.01
DECAY = 0.9
FINE_TUNING_RATE = 0.1
SINGLE_WEIGHT = 10.0
SINGLE_LIMIT = 10.0


def build(names: Sequence[str], splits: CrossValidation) -> list[Method]:
    """The methods of the given names, in that order.

    Raises:
      ValueError: An unknown name; the error lists the known ones.
    """
    makers = _makers()
    unknown = [n for n in names if n not in makers]
    if unknown:
        raise ValueError(
            f"--methods has no {', '.join(unknown)}; it knows: {', '.join(makers)}."
        )
    return [makers[name](name, splits) for name in names]


def names() -> tuple[str, ...]:
    """The names of all methods, in the order of the tables."""
    return tuple(_makers())


def _makers() -> Mapping[str, Callable[[str, CrossValidation], Method]]:
    return {
        "erm": _erm,
        "reweighting": _reweighting,
        "group_dro": _group_dro,
        "penalty": _penalty,
        "penalty_absolute": _penalty_absolute,
        "penalty_single": _penalty_single,
        "two_phase_sequential": _two_phase_sequential,
        "two_phase_simultaneous": _two_phase_simultaneous,
        "fairgrad": _fairgrad("FairGrad, sum", {}),
        "fairgrad_mean": _fairgrad("FairGrad, mean", {"reduction": "mean"}),
        "fairgrad_always": _fairgrad(
            "FairGrad, unconditional, sum", {"condition": "always"}
        ),
        "fairgrad_always_mean": _fairgrad(
            "FairGrad, unconditional, mean",
            {"condition": "always", "reduction": "mean"},
        ),
        "fairgrad_balanced": _fairgrad_balanced,
        "fairgrad_limited": _fairgrad_limited,
        "fairgrad_single": _fairgrad_single,
    }


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


def _erm(name: str, splits: CrossValidation) -> Method:
    task = {"task": losses.task(splits.partition)}
    return Method(name, "ERM", (Phase(1.0, task, _add_up(1)),))


def _reweighting(name: str, splits: CrossValidation) -> Method:
    """Label made independent of the intersection of the attributes, by lane."""
    groups = _intersection(splits)
    weights = np.zeros((splits.num_lanes, len(groups)), np.float32)
    for lane in range(splits.num_lanes):
        train = splits.rows(lane, "train")
        weights[lane, train] = reweighting(groups[train], splits.table.label[train])
    task = {"task": losses.task(splits.partition)}
    return Method(
        name,
        "Reweighting",
        (Phase(1.0, task, _add_up(1)),),
        example_weights=weights,
    )


def _group_dro(name: str, splits: CrossValidation) -> Method:
    """The worst of every attribute's groups."""
    risks = {
        group: risk
        for attribute in splits.attributes
        for group, risk in losses.group_risks(splits.partition, attribute).items()
    }

    def reconciler(setting: Setting):
        return fairjax.reconcile(
            group_dro(setting["step_size"]), num_objectives=len(risks)
        )

    sizes = (0.01, 0.1)
    return Method(
        name,
        "GroupDRO",
        (Phase(1.0, risks, reconciler),),
        tuple(f"{s:g}" for s in sizes),
        {"step_size": np.array(sizes, np.float32)},
    )


def _penalty(name: str, splits: CrossValidation) -> Method:
    objectives = _objectives(splits)
    return _weighted(
        name, "Fairness penalty", objectives, PENALTY_WEIGHTS, splits.attributes
    )


def _penalty_absolute(name: str, splits: CrossValidation) -> Method:
    objectives = _objectives(splits, "absolute")
    return _weighted(
        name,
        "Fairness penalty, absolute",
        objectives,
        ABSOLUTE_PENALTY_WEIGHTS,
        splits.attributes,
    )


def _weighted(name, title, objectives, weights, attributes) -> Method:
    rows = np.array([[1.0] + [w] * len(attributes) for w in weights], np.float32)
    return Method(
        name,
        title,
        (Phase(1.0, objectives, _add_up(len(objectives)), DECAY),),
        tuple(f"{w:g}" for w in weights),
        {"weights": rows},
    )


def _penalty_single(name: str, splits: CrossValidation) -> Method:
    """The penalty on one attribute at a time, to see what that does to the others."""
    objectives = _objectives(splits)
    rows = np.eye(len(splits.attributes), dtype=np.float32) * SINGLE_WEIGHT
    return Method(
        name,
        "Penalty on one attribute",
        (Phase(1.0, objectives, _add_up(len(objectives)), DECAY),),
        splits.attributes,
        {"weights": np.concatenate([np.ones((len(rows), 1), np.float32), rows], 1)},
    )


def _two_phase_sequential(name: str, splits: CrossValidation) -> Method:
    fairness = _fairness(splits, "squared")
    share = 0.5 / len(fairness)
    tuning = [
        Phase(share, {attribute: loss}, _add_up(1), DECAY, FINE_TUNING_RATE)
        for attribute, loss in fairness.items()
    ]
    first = Phase(0.5, {"task": losses.task(splits.partition)}, _add_up(1))
    return Method(name, "Two-phase, sequential", (first, *tuning))


def _two_phase_simultaneous(name: str, splits: CrossValidation) -> Method:
    fairness = _fairness(splits, "squared")
    first = Phase(0.5, {"task": losses.task(splits.partition)}, _add_up(1))
    second = Phase(0.5, fairness, _add_up(len(fairness)), DECAY, FINE_TUNING_RATE)
    return Method(name, "Two-phase, simultaneous", (first, second))


def _fairgrad(
    title: str, options: Mapping[str, str]
) -> Callable[[str, CrossValidation], Method]:
    """The published method, in one of the readings that its text allows."""

    def make(name: str, splits: CrossValidation) -> Method:
        objectives = _objectives(splits, "absolute")

        def reconciler(setting: Setting):
            del setting
            return fairjax.fairgrad(num_objectives=len(objectives), **options)

        return Method(name, title, (Phase(1.0, objectives, reconciler),))

    return make


def _fairgrad_balanced(name: str, splits: CrossValidation) -> Method:
    """Every fairness gradient at a share of the task gradient's length."""
    objectives = _objectives(splits)

    def reconciler(setting: Setting):
        return fairjax.fairgrad(
            num_objectives=len(objectives), strength=setting["strength"]
        )

    return Method(
        name,
        "FairGrad, balanced",
        (Phase(1.0, objectives, reconciler, DECAY),),
        tuple(f"{s:g}" for s in STRENGTHS),
        {"strength": np.array(STRENGTHS, np.float32)},
    )


def _limited(num_objectives: int) -> Callable[[Setting], object]:
    """At most the task gradient's length, at most ``limit`` times its own."""

    def reconciler(setting: Setting):
        return fairjax.fairgrad(
            num_objectives=num_objectives,
            strength=1.0,
            limit=setting["limit"],
            epsilon=EPSILON,
        )

    return reconciler


def _fairgrad_limited(name: str, splits: CrossValidation) -> Method:
    objectives = _objectives(splits)
    return Method(
        name,
        "FairGrad, limited",
        (Phase(1.0, objectives, _limited(len(objectives)), DECAY),),
        tuple(f"{x:g}" for x in LIMITS),
        {"limit": np.array(LIMITS, np.float32)},
    )


def _fairgrad_single(name: str, splits: CrossValidation) -> Method:
    """FairGrad with the task and one attribute at a time."""
    objectives = _objectives(splits)
    one = np.eye(len(splits.attributes), dtype=bool)
    return Method(
        name,
        "FairGrad on one attribute",
        (Phase(1.0, objectives, _limited(len(objectives)), DECAY),),
        splits.attributes,
        {
            "limit": np.full(len(one), SINGLE_LIMIT, np.float32),
            "objective_mask": np.concatenate([np.ones((len(one), 1), bool), one], 1),
        },
    )


def _add_up(num_objectives: int) -> Callable[[Setting], object]:
    """The plain (weighted) sum of the gradients: no reconciliation."""

    def reconciler(setting: Setting):
        weights = setting.get("weights", jnp.ones(num_objectives))
        return fairjax.reconcile(steps.combine(weights), num_objectives=num_objectives)

    return reconciler


def _intersection(splits: CrossValidation) -> np.ndarray:
    """Each patient's group in the intersection of all attributes."""
    _, members = splits.partition.membership(splits.attributes)
    return members.argmax(axis=0)[splits.cells]
