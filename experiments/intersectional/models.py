"""The models of every split: scores of the rows that they were not trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jax.nn import sigmoid

import fairjax
from experiments.core import lanes, methods
from experiments.core.programs import Budget, Phase, Program, Variant
from experiments.core.protocol import CrossValidation
from experiments.core.selection import select
from experiments.intersectional.fits import Fit, Maker, run_all
from experiments.intersectional.groups import SUBGROUP, Composite
from experiments.intersectional.results import Options
from experiments.intersectional.stages import (
    FITTED,
    NETWORKS,
    Configuration,
    In,
    repaired,
)
from fairjax import losses, steps

# Of the FairGrad that is tuned, and whose settings validation chooses from.
_FAIRGRAD = "fairgrad_limited"


@dataclass(frozen=True, eq=False)
class Division:
    """Splits of a table, each with inputs that were encoded on its training rows.

    Attributes:
      name: Of its files.
      composite: The table and its subgroups.
      inputs: float32 ``[S, n, d]``.
      trains: Row numbers that each split trains on.
    """

    name: str
    composite: Composite
    inputs: np.ndarray
    trains: Sequence[np.ndarray]

    @property
    def size(self) -> int:
        """S."""
        return len(self.trains)

    def repaired(self, split: int, level: float) -> np.ndarray:
        """A split's inputs after the disparate impact remover."""
        codes = self.composite.codes
        return repaired(self.inputs[split], self.trains[split], codes, level)


def fitted_scores(
    division: Division,
    wanted: Sequence[Configuration],
    options: Options,
    work: Path,
    *,
    processes: int,
    advance: Callable[[], None],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Probabilities ``[S, n]`` of each model, and by how much it misses its bound.

    Those of rows that a split trains on are NaN; so is the bound of a model that was
    held to none.

    Args:
      division: The splits.
      wanted: Configurations; those of other models than `FITTED` are passed over.
      options: Of the run.
      work: Folder of finished fits.
      processes: How many fit at a time.
      advance: Called after each of the ``S`` fits of each model.
    """
    models = _models(wanted, FITTED)
    fits: dict[str, Maker] = {}
    where: dict[str, tuple[str, int, np.ndarray]] = {}
    everyone = np.arange(len(division.composite.codes))
    for split, train in enumerate(division.trains):
        others = np.setdiff1d(everyone, train)
        for model in models:
            name = f"{division.name}-{model.name}-{split}"
            where[name] = model.name, split, others
            fits[name] = _maker(division, model, split, train, others, options)
    done = run_all(fits, work, processes=processes, advance=advance)
    found = {
        model.name: np.full((division.size, len(everyone)), np.nan) for model in models
    }
    missed = {model.name: np.full(division.size, np.nan) for model in models}
    for name, (model, split, others) in where.items():
        found[model][split, others] = done[name].scores
        missed[model][split] = done[name].missed
    return found, missed


def _models(
    wanted: Sequence[Configuration], kinds: Sequence[In]
) -> list[Configuration]:
    plain = [replace(c, equalized=False) for c in wanted if c.within in kinds]
    return list(dict.fromkeys(plain))


def _maker(
    division: Division,
    model: Configuration,
    split: int,
    train: np.ndarray,
    others: np.ndarray,
    options: Options,
) -> Maker:
    def make() -> Fit:
        inputs = division.inputs[split]
        if model.repaired:
            inputs = division.repaired(split, options.repair_level)
        return Fit(
            reduction=model.within == "egr",
            learner=options.learner,
            constraint=options.constraint,
            objective=options.objective,
            iterations=options.iterations,
            seed=options.seed,
            inputs=inputs,
            label=np.asarray(division.composite.table.label).astype(np.int64),
            codes=division.composite.codes,
            train=train,
            others=others,
        )

    return make


def network_scores(
    division: Division,
    splits: CrossValidation,
    wanted: Sequence[Configuration],
    options: Options,
    budget: Budget,
    work: Path,
    *,
    advance: Callable[[int], None],
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, int]]]:
    """Name of a model -> probabilities ``[L, n]`` of the networks, and settings chosen.

    The networks train in all lanes of the cross-validation side by side. Of FairGrad's
    settings each lane takes the one that validation chooses, as in its own experiment.

    Args:
      division: The same splits, for the repair.
      splits: The lanes.
      wanted: Configurations; those of `FITTED` models are passed over.
      options: Of the run.
      budget: Of each network.
      work: Folder of checkpoints.
      advance: Called with the number of steps just done.
    """
    found: dict[str, np.ndarray] = {}
    chosen: dict[str, dict[str, int]] = {}
    for repair in (False, True):
        kinds = {c.within for c in wanted if c.repaired == repair} - {*FITTED}
        if not kinds:
            continue
        inputs = splits.inputs
        if repair:
            level = options.repair_level
            rows = range(division.size)
            inputs = np.stack([division.repaired(s, level) for s in rows])
        own = replace(splits, inputs=inputs)
        # FairGrad's settings are chosen against the plain network.
        baseline = np.empty(0)
        for kind in NETWORKS:
            if kind not in {"mlp", *kinds}:
                continue
            program = _program(kind, own)
            name = Configuration(repair, kind, False).name
            trained = lanes.train(
                replace(program, name=name),
                own,
                budget,
                seed=options.seed,
                work=work,
                advance=advance,
            )
            logits = trained.logits[0]
            if kind == "mlp":
                baseline = logits
            if kind == "fairgrad":
                places = select(trained.logits, baseline, own, tolerance=0.004)
                logits = trained.logits[places, np.arange(own.num_lanes)]
                count = np.bincount(places, minlength=len(program.variants)).tolist()
                settings = [variant.setting for variant in program.variants]
                chosen[name] = dict(zip(settings, count, strict=True))
            found[name] = np.asarray(sigmoid(logits), np.float64)
    return found, chosen


def num_programs(wanted: Sequence[Configuration]) -> int:
    """How many times the networks' budget is spent."""
    total = 0
    for repair in (False, True):
        kinds = {c.within for c in wanted if c.repaired == repair} - {*FITTED}
        total += len(kinds | {"mlp"}) if kinds else 0
    return total


def _program(kind: str, splits: CrossValidation) -> Program:
    if kind == "mlp":
        return methods.build(["erm"], splits)[0]
    if kind == "fairgrad":
        return methods.build([_FAIRGRAD], splits)[0]
    return _positive_sum(splits)


def _positive_sum(splits: CrossValidation) -> Program:
    """The task, changed no more than it takes for no subgroup's loss to rise.

    That is so to first order, of the update before AdamW scales it, and of the batch.
    """
    objectives = {
        "task": losses.task(splits.partition),
        **losses.group_risks(splits.partition, SUBGROUP),
    }
    phase = Phase(
        1.0,
        objectives,
        lambda _: fairjax.reconcile(
            steps.positive_sum(), num_objectives=len(objectives)
        ),
    )
    return Program("positive_sum", (phase,), (Variant("positive_sum", ""),))
