"""The models of every split: scores of the rows that they were not trained on."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jax.nn import sigmoid

import fairjax
from experiments.core import lanes, methods
from experiments.core.programs import Budget, Phase, Program, Setting, variants
from experiments.core.protocol import CrossValidation
from experiments.core.selection import choose
from experiments.intersectional import stages
from experiments.intersectional.fits import Fit, run_all
from experiments.intersectional.groups import SUBGROUP, Composite
from experiments.intersectional.results import Options
from experiments.intersectional.stages import FITTED, NETWORKS, Configuration, In
from fairjax import losses, steps


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

    def others(self, split: int) -> np.ndarray:
        """Row numbers that a split does not train on."""
        return np.setdiff1d(np.arange(len(self.composite.codes)), self.trains[split])

    def repaired(self, split: int, level: float) -> np.ndarray:
        """A split's inputs after the disparate impact remover."""
        codes = self.composite.codes
        return stages.repaired(self.inputs[split], self.trains[split], codes, level)


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
    chosen = [replace(c, equalized=False) for c in wanted if c.within in FITTED]
    models, splits = list(dict.fromkeys(chosen)), range(division.size)

    def name(model: Configuration, split: int) -> str:
        return f"{division.name}-{model.name}-{split}"

    fits = {
        name(model, split): functools.partial(_fit, division, model, split, options)
        for split in splits
        for model in models
    }
    done = run_all(fits, work, processes=processes, advance=advance)
    shape = (division.size, len(division.composite.codes))
    found = {model.name: np.full(shape, np.nan) for model in models}
    missed = {model.name: np.full(division.size, np.nan) for model in models}
    for model, split in itertools.product(models, splits):
        fitted = done[name(model, split)]
        found[model.name][split, division.others(split)] = fitted.scores
        missed[model.name][split] = fitted.missed
    return found, missed


def _fit(division: Division, model: Configuration, split: int, options: Options) -> Fit:
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
        train=division.trains[split],
        others=division.others(split),
    )


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
        kinds = _kinds(wanted, repair)
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
        for kind in kinds:
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
                settings = [variant.setting for variant in program.variants]
                logits, chosen[name] = choose(
                    trained.logits, baseline, own, settings, tolerance=0.004
                )
            found[name] = np.asarray(sigmoid(logits), np.float64)
    return found, chosen


def num_programs(wanted: Sequence[Configuration]) -> int:
    """How many times the networks' budget is spent."""
    return sum(len(_kinds(wanted, repair)) for repair in (False, True))


def _kinds(wanted: Sequence[Configuration], repair: bool) -> list[In]:
    """The networks that are trained, the plain one before all others."""
    kinds = {c.within for c in wanted if c.repaired == repair} - {*FITTED}
    return [kind for kind in NETWORKS if kind in kinds | {"mlp"}] if kinds else []


def _program(kind: str, splits: CrossValidation) -> Program:
    if kind == "positive_sum":
        return _positive_sum(splits)
    # Of FairGrad's settings validation chooses one.
    name = {"mlp": "erm", "fairgrad": "fairgrad_limited"}[kind]
    return methods.build([name], splits)[0]


def _positive_sum(splits: CrossValidation) -> Program:
    """The task, changed no more than it takes for no subgroup's loss to rise.

    That is so to first order, of the update before AdamW scales it, and of the batch.
    """
    objectives = {
        "task": losses.task(splits.partition),
        **losses.group_risks(splits.partition, SUBGROUP),
    }

    def reconciler(_: Setting):
        return fairjax.reconcile(steps.positive_sum(), num_objectives=len(objectives))

    phases = (Phase(1.0, objectives, reconciler),)
    return Program("positive_sum", phases, variants("positive_sum"))
