"""MultiFair on multimodal patients: trains, compares, tests, and writes a report.

Run ``python -m experiments.multifair --help`` for the options.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.core import references, runner
from experiments.core.evaluation import Evaluator
from experiments.core.protocol import cross_validation
from experiments.core.recording import Recorder, units
from experiments.datasets import load_multimodal
from experiments.datasets.multimodal import MultimodalTable
from experiments.datasets.simulated_modalities import simulated_truth
from experiments.multifair import methods, names
from experiments.multifair.findings import BEST, METRICS
from experiments.multifair.inputs import summaries
from experiments.multifair.report import system
from experiments.multifair.results import DEFAULT_ATTRIBUTES, SAID, Options, Results
from experiments.multifair.task import MultimodalBudget, MultimodalTask
from experiments.reporting import runs


def run(options: Options, budget: MultimodalBudget, console: Console) -> Path:
    """Trains, evaluates and reports; returns the folder of the results.

    Raises:
      ValueError: If an option, a table or a folder cannot be used.
    """
    options = runner.checked(options, DEFAULT_ATTRIBUTES)
    return runs.run(functools.partial(_prepare, options, budget), console)


def _prepare(options: Options, budget: MultimodalBudget) -> runs.Prepared:
    data = load_multimodal(options.dataset)
    splits = cross_validation(
        data.table,
        options.attributes,
        num_repeats=options.repeats,
        min_level_count=20,
        seed=options.seed,
    )
    task = MultimodalTask(data, splits, budget)
    options = dataclasses.replace(options, methods=_methods(options, task))
    programs = methods.build(options.methods, task, splits)
    weights = None if np.all(data.weights == 1) else data.weights
    evaluator = Evaluator(
        splits,
        num_bootstrap=options.bootstrap,
        num_permutations=options.permutations,
        seed=options.seed,
        metric_names=METRICS,
        crossed=True,
        weights=weights,
    )
    results = Results(options, splits, budget, {}, {}, {}, {}, {}, weights)
    truth = simulated_truth() if options.dataset == "simulated" else None
    titles = names.titles(task.names)
    reference = names.REFERENCE
    referred = reference in options.methods

    def train(work: Path, bar: runner.Bar) -> Results:
        # Late fusion needs methods that the options may not name.
        recorder = Recorder(
            results,
            evaluator,
            titles | {BEST: SAID["best"]},
            bar,
            tolerances=_tolerances(options),
            recorded={*options.methods, BEST},
        )
        if referred:
            bar.doing(f"training {titles[reference]}")
            logits = references.logistic_regression(
                splits,
                lambda: bar.advance(runner.LANE),
                inputs=summaries(data, task.prepared),
                weights=weights,
            )
            bar.doing(f"evaluating {titles[reference]}")
            recorder.predictions(reference, "", logits)
        joint, alone = np.empty(0), {}
        for program in programs:
            title, trained = recorder.train(program, work, task.learner)
            for variant, logits in zip(program.variants, trained.logits, strict=True):
                if variant.name == "joint":
                    joint = logits
                for modality in task.names:
                    if variant.name == names.unimodal(modality):
                        alone[modality] = logits
            bar.doing(f"evaluating {title}")
            recorder.program(program, trained, baseline=joint)
            fused = "late_fusion" in results.evaluations
            if len(alone) == len(task.names) and not fused:
                recorder.predictions("late_fusion", "", _late_fusion(alone, data))
        _in_order(results, list(titles))
        if truth is not None:
            # The best possible scores, as a row of the table.
            logits = truth.log_odds.sum(axis=1).astype(np.float32)
            lanes = (splits.num_lanes, len(logits))
            recorder.predictions(BEST, "", np.broadcast_to(logits, lanes))
        return results

    return runs.Prepared(
        system(data, task, truth),
        results,
        options.methods,
        # Late fusion and the best possible scores are evaluated in addition.
        units=referred * (splits.num_lanes * runner.LANE + runner.EVALUATION)
        + units(programs, budget.steps, options.methods, names.TUNED)
        + 2 * runner.EVALUATION,
        train=train,
        ignore=("tolerance",),
    )


def _tolerances(options: Options) -> dict[str, float]:
    """Returns the AUROC that a setting may lose; −∞ for methods without fairness."""
    return {
        name: options.tolerance if name in names.FAIR else -np.inf
        for name in names.TUNED
    }


def _in_order(results: Results, methods: Sequence[str]) -> None:
    """Sorts results by the order of the methods' names, not of their programs."""
    order = sorted(
        results.predictions, key=lambda t: methods.index(results.predictions[t].name)
    )
    parts: list[dict] = [results.predictions, results.evaluations, results.titles]
    for title in order:
        for part in parts:
            part[title] = part.pop(title)


def _late_fusion(alone: dict[str, np.ndarray], data: MultimodalTable) -> np.ndarray:
    """Averages the logits ``[L, n]`` of the modalities that each patient has."""
    present = data.present.T[:, None]
    logits = np.stack([alone[name] for name in data.names])
    total = np.sum(np.where(present, logits, 0), axis=0)
    return (total / present.sum(axis=0)).astype(np.float32)


def _methods(options: Options, task: MultimodalTask) -> tuple[str, ...]:
    """Returns the methods that the options name, with joint training first."""
    wanted = options.methods or tuple(names.titles(task.names))
    return tuple(dict.fromkeys(("joint", *wanted)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return runner.main(
        Options,
        lambda options, console: run(options, MultimodalBudget(), console),
        arguments,
        command="python -m experiments.multifair",
    )
