"""The models of every split, with scores of the rows outside their training rows."""

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
      name: Name of the files.
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
        """Number of splits, S."""
        return len(self.trains)

    def others(self, split: int) -> np.ndarray:
        """Returns the row numbers that a split does not train on."""
        return np.setdiff1d(np.arange(len(self.composite.codes)), self.trains[split])

    def repaired(self, split: int, level: float) -> np.ndarray:
        """Returns a split's inputs after the disparate impact remover."""
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
    """Fits each model, and returns its probabilities ``[S, n]`` and missed bounds.

    Probabilities of rows that a split trains on are NaN. The missed bound is NaN for a
    model without a bound.

    Args:
      division: The splits.
      wanted: Configurations; configurations without a `FITTED` model are skipped.
      options: Options of the run.
      work: Folder of finished fits.
      processes: Number of processes that fit at a time.
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
    """Trains networks; returns name -> probabilities ``[L, n]``, and chosen settings.

    The networks train in all lanes of the cross-validation side by side. In each lane,
    validation chooses one of FairGrad's settings, as in FairGrad's own experiment.

    Args:
      division: The same splits, for the repair.
      splits: The lanes.
      wanted: Configurations; configurations of `FITTED` models are skipped.
      options: Options of the run.
      budget: Budget of each network.
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
        # The plain network is the baseline in the choice of FairGrad's settings.
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
    """Counts the networks to train, each with one budget."""
    return sum(len(_kinds(wanted, repair)) for repair in (False, True))


def _kinds(wanted: Sequence[Configuration], repair: bool) -> list[In]:
    """Lists the networks to train, with the plain network first."""
    kinds = {c.within for c in wanted if c.repaired == repair} - {*FITTED}
    return [kind for kind in NETWORKS if kind in kinds | {"mlp"}] if kinds else []


def _program(kind: str, splits: CrossValidation) -> Program:
    if kind == "positive_sum":
        return _positive_sum(splits)
    # Validation chooses one of FairGrad's settings.
    name = {"mlp": "erm", "fairgrad": "fairgrad_limited"}[kind]
    return methods.build([name], splits)[0]


def _positive_sum(splits: CrossValidation) -> Program:
    """Makes the task with the smallest change under which no subgroup's loss rises.

    The property holds to first order, for the update before AdamW scales it, and for
    losses on the batch.
    """
    objectives = {
        "task": losses.task(splits.partition),
        **losses.group_risks(splits.partition, SUBGROUP),
    }

    def reconciler(_: Setting):
        return fairjax.reconcile(steps.positive_sum(), num_objectives=len(objectives))

    phases = (Phase(1.0, objectives, reconciler),)
    return Program("positive_sum", phases, variants("positive_sum"))
