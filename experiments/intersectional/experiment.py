"""The three-stage pipeline on intersectional subgroups: trains, tests, reports.

Run ``python -m experiments.intersectional --help`` for the options. The default makes
20 splits by each protocol, for three data sets; ``--quick`` makes fewer for a preview.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.core import lanes, runner
from experiments.core.evaluation import Evaluator, Predictions
from experiments.core.programs import Budget
from experiments.core.protocol import cross_validation
from experiments.datasets import load
from experiments.intersectional import models
from experiments.intersectional.findings import preliminary
from experiments.intersectional.groups import SUBGROUP, composite
from experiments.intersectional.learners import check_learner
from experiments.intersectional.paper import evaluate_paper, measurer, paper_splits
from experiments.intersectional.repair import Repair, measured_repair
from experiments.intersectional.report import SYSTEM
from experiments.intersectional.results import (
    DEFAULT_DATASETS,
    DEFAULT_MIN_PATIENTS,
    METRICS,
    MIN_PATIENTS,
    QUICK,
    Options,
    PerSplit,
    Results,
    other_thresholds,
)
from experiments.intersectional.stages import FITTED, Configuration, choose, decide
from experiments.reporting import runs


def run(options: Options, budget: Budget, console: Console) -> list[Path]:
    """Trains, evaluates and reports; returns the folders of the results.

    Raises:
      ValueError: If an option, a table or a folder cannot be used.
      ModuleNotFoundError: If a package is not installed.
    """
    names = DEFAULT_DATASETS if options.dataset == "all" else (options.dataset,)
    return [
        _run_one(dataclasses.replace(options, dataset=name), budget, console)
        for name in names
    ]


def _run_one(options: Options, budget: Budget, console: Console) -> Path:
    return runs.run(functools.partial(_prepare, _checked(options), budget), console)


def _prepare(options: Options, budget: Budget) -> runs.Prepared:
    wanted = choose(options.configurations)
    found = composite(
        load(options.dataset),
        min_patients=options.min_patients or DEFAULT_MIN_PATIENTS,
        min_outcomes=options.min_outcomes,
    )
    splits = cross_validation(
        found.table,
        (SUBGROUP,),
        num_repeats=options.repeats,
        blind=True,
        seed=options.seed,
    )
    results = Results(options, splits, budget, {}, {}, {}, {}, {}, composite=found)
    evaluator = Evaluator(
        splits,
        num_bootstrap=options.bootstrap,
        num_permutations=options.permutations,
        seed=options.seed,
        metric_names=METRICS,
        references={SUBGROUP: found.reference},
    )
    fitted = len({c.model for c in wanted if c.within in FITTED})
    # The evaluation of the paper's protocol counts as one.
    evaluations = 1 + sum(len(_settings(c, options)) for c in wanted)
    return runs.Prepared(
        SYSTEM,
        results,
        [c.name for c in wanted],
        units=fitted * (splits.num_lanes + options.splits) * runner.LANE
        + models.num_programs(wanted) * budget.steps
        + evaluations * runner.EVALUATION,
        train=functools.partial(_train, results, wanted, evaluator),
        ignore=("configurations", "thresholds", "quick"),
        note=preliminary(options),
    )


def _settings(configuration: Configuration, options: Options) -> tuple[str, ...]:
    """Lists the thresholds that evaluate a configuration; "" for the options'."""
    return ("",) if configuration.drawn else ("", other_thresholds(options))


def _train(
    results: Results,
    wanted: Sequence[Configuration],
    evaluator: Evaluator,
    work: Path,
    bar: runner.Bar,
) -> Results:
    options, splits, found = results.options, results.splits, results.subgroups
    trains = [
        splits.train_rows[lane, : splits.train_counts[lane]]
        for lane in range(splits.num_lanes)
    ]
    clean = models.Division("clean", found, splits.inputs, trains)
    published = [c for c in wanted if c.within in FITTED]
    paper, parts = paper_splits(found, options.splits, options.seed)

    def fitted(division: models.Division):
        bar.doing(f"{division.name} protocol")
        return models.fitted_scores(
            division,
            published,
            options,
            work,
            processes=lanes.num_cores(),
            advance=lambda: bar.advance(runner.LANE),
        )

    (scores, missed), (paper_scores, _) = fitted(clean), fitted(paper)
    if models.num_programs(wanted):
        bar.doing("reconciled gradients")
        networks, chosen = models.network_scores(
            clean, splits, wanted, options, results.budget, work, advance=bar.advance
        )
        scores |= networks
        results.selected.update(chosen)
    bar.doing("metrics")
    per_fold: dict[str, dict[str, np.ndarray]] = {}
    measure = measurer(evaluator.cohort)
    for configuration in wanted:
        for setting in _settings(configuration, options):
            made = _predictions(
                configuration, setting, scores[configuration.model], results
            )
            results.predictions[made.title] = made
            results.titles[made.title] = configuration.title
            results.evaluations[made.title] = evaluator(made)
            rows = [
                measure(
                    made.scores[r],
                    made.decisions[r],
                    splits.folds[r] == np.arange(splits.num_folds)[:, None],
                )
                for r in range(splits.num_repeats)
            ]
            per_fold[made.title] = {
                k: np.concatenate([row[k] for row in rows]) for k in rows[0]
            }
            bar.advance(runner.EVALUATION)
    overlap = 1 / (splits.num_folds - 2)
    by_split = evaluate_paper(
        published, paper_scores, parts, found, evaluator.cohort, options
    )
    bar.advance(runner.EVALUATION)
    return dataclasses.replace(
        results,
        folds=PerSplit(per_fold, dict.fromkeys(per_fold, overlap), missed),
        paper=by_split,
        repair=_repair(clean, wanted, options),
    )


def _repair(
    division: models.Division, wanted: Sequence[Configuration], options: Options
) -> Repair | None:
    """Measures repair in the first split, even if all fits were read from files."""
    if not any(c.repaired for c in wanted):
        return None
    codes = division.composite.codes
    inputs, train = division.inputs[0], division.trains[0]
    return measured_repair(inputs, train, codes, options.repair_level)


def _predictions(
    configuration: Configuration, setting: str, scores: np.ndarray, results: Results
) -> Predictions:
    """Pools a model's scores ``[L, n]`` out of fold, with a configuration's decisions.

    ``setting`` is the kind of thresholds, if it is not the options' kind.
    """
    splits, found, options = results.splits, results.subgroups, results.options
    probabilities = np.stack(
        [
            decide(
                configuration,
                scores[lane],
                np.asarray(splits.table.label),
                found.codes,
                splits.rows(lane, "valid"),
                num_groups=len(found.levels),
                by_group=(setting or options.thresholds) == "group",
                objective=options.objective,
            )
            for lane in range(splits.num_lanes)
        ]
    )
    decisions = splits.pool(probabilities, "test").astype(np.float32)
    # The output of equalized odds is the probability; users do not see the score.
    ranked = decisions
    if not configuration.equalized:
        ranked = splits.pool(scores, "test").astype(np.float32)
    return Predictions(configuration.name, setting, ranked, decisions)


def _checked(options: Options) -> Options:
    """Returns the checked options with defaults."""
    runner.check(options)
    check_learner(options.learner)
    least = options.min_patients
    if least is None:
        least = MIN_PATIENTS.get(options.dataset, DEFAULT_MIN_PATIENTS)
    for name, low, high, value in (
        ("splits", 2, runner.MAX_REPEATS, options.splits),
        ("min-patients", 1, 10**9, least),
        ("min-outcomes", 1, 10**9, options.min_outcomes),
        ("iterations", 1, 1000, options.iterations),
        ("repair-level", 0, 1, options.repair_level),
    ):
        if not low <= value <= high:
            raise ValueError(f"--{name} must be {low} to {high:,}; got {value}.")
    choose(options.configurations)
    fewer = QUICK if options.quick else {}
    quick = {name: min(getattr(options, name), most) for name, most in fewer.items()}
    return dataclasses.replace(options, min_patients=least, **quick)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return runner.main(
        Options,
        lambda options, console: run(options, Budget(), console),
        arguments,
        command="python -m experiments.intersectional",
    )
