"""MultiFair on multimodal patients: trains, compares, tests, and writes a report.

Run ``python -m experiments.multifair --help`` for the options.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.core import lanes, references, runner
from experiments.core.evaluation import Evaluator
from experiments.core.files import prepare_folder
from experiments.core.programs import Program
from experiments.core.protocol import cross_validation
from experiments.core.recording import Recorder
from experiments.datasets import load_multimodal
from experiments.datasets.multimodal import MultimodalTable
from experiments.datasets.simulated_modalities import Truth, simulated_truth
from experiments.multifair import (
    methods as multifair_methods,
)
from experiments.multifair import (
    names as multifair_names,
)
from experiments.multifair import (
    report as multifair_report,
)
from experiments.multifair.findings import BEST, METRICS
from experiments.multifair.inputs import summaries
from experiments.multifair.results import (
    DEFAULT_ATTRIBUTES,
    FULL_REPEATS,
    Options,
    Results,
)
from experiments.multifair.task import MultimodalBudget, MultimodalTask
from experiments.reporting import report
from experiments.reporting.prediction_audit import write_audit

_AUDITED = ("joint", "multifair", "dual_level")


def run(options: Options, budget: MultimodalBudget, console: Console) -> Path:
    """Train, evaluate and report; returns the folder of the results.

    Raises:
      ValueError: An option, a table or a folder that cannot be used.
    """
    options = _checked(options)
    with runner.whole_run(console) as bar:
        system, results, folder, page = _run(options, budget, console, bar)
    report.show(system, results, console)
    runner.say_where(console, folder, page)
    return folder


def _run(
    options: Options, budget: MultimodalBudget, console: Console, bar: runner.Bar
) -> tuple[report.System, Results, Path, Path]:
    """The system, the results, their folder, and the page of the audit."""
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
    programs = multifair_methods.build(options.methods, task, splits)
    weighted = not np.all(data.weights == 1)
    weights = data.weights if weighted else None
    evaluator = Evaluator(
        splits,
        num_bootstrap=options.bootstrap,
        num_permutations=options.permutations,
        seed=options.seed,
        metric_names=METRICS,
        crossed=True,
        weights=weights,
    )
    # What cannot be run leaves no folder behind.
    folder = prepare_folder(options.output / options.dataset)
    results = Results(options, splits, budget, {}, {}, {}, {}, {}, weights)
    console.print(runner.describe(results, len(options.methods)))
    mark = runner.fingerprint(options, budget, ignore=("tolerance",))
    truth = simulated_truth() if options.dataset == "simulated" else None
    system = multifair_report.system(data, task, truth)
    with runner.workplace(folder, mark) as work:
        _train_and_evaluate(results, data, task, programs, evaluator, work, bar)
        if truth is not None:
            _evaluate_truth(results, evaluator, truth, bar)
        bar.doing("writing the report")
        report.write(system, results, folder)
        bar.advance(runner.REPORT)
        page = write_audit(
            results, folder, methods=_AUDITED, system="MultiFair", advance=bar.audit
        )
    return system, results, folder, page


def _train_and_evaluate(
    results: Results,
    data: MultimodalTable,
    task: MultimodalTask,
    programs: Sequence[Program],
    evaluator: Evaluator,
    work: Path,
    bar: runner.Bar,
) -> None:
    options, splits = results.options, results.splits
    named = multifair_names.titles(task.names)
    # Late fusion is made of methods that were perhaps not asked for.
    asked = {name: title for name, title in named.items() if name in options.methods}
    recorder = Recorder(results, evaluator, asked, bar)
    tolerances = _tolerances(options)
    reference = multifair_names.REFERENCE
    referred = reference in options.methods
    # Late fusion and the best possible are evaluated beside the programs.
    bar.plan(
        referred * (splits.num_lanes * runner.LANE + runner.EVALUATION)
        + sum(results.budget.steps + recorder.units(p, tolerances) for p in programs)
        + 2 * runner.EVALUATION
        + runner.REPORT
        + runner.audit_units(
            len({*_AUDITED} & {*options.methods}), len(splits.attributes)
        )
    )
    if referred:
        bar.doing(f"training {asked[reference]}")
        logits = references.logistic_regression(
            splits,
            lambda: bar.advance(runner.LANE),
            inputs=summaries(data, task.prepared),
            weights=results.weights,
        )
        bar.doing(f"evaluating {asked[reference]}")
        recorder.predictions(reference, "", logits)
    joint, alone = np.empty(0), {}
    for program in programs:
        names = dict.fromkeys(variant.name for variant in program.variants)
        title = ", ".join(named[n] for n in names)
        bar.doing(f"training {title}")
        trained = lanes.train(
            program,
            splits,
            results.budget,
            seed=options.seed,
            work=work,
            advance=bar.advance,
            learner=task.learner,
        )
        for variant, logits in zip(program.variants, trained.logits, strict=True):
            if variant.name == "joint":
                joint = logits
            for modality in task.names:
                if variant.name == multifair_names.unimodal(modality):
                    alone[modality] = logits
        bar.doing(f"evaluating {title}")
        recorder.program(program, trained, baseline=joint, tolerances=tolerances)
        if len(alone) == len(task.names) and "late_fusion" not in results.evaluations:
            recorder.predictions("late_fusion", "", _late_fusion(alone, data))
    _in_order(results, list(named))


def _tolerances(options: Options) -> dict[str, float]:
    """AUROC that a setting may lose to be fair; of methods not about it, the best."""
    return {
        name: options.tolerance if name in multifair_names.FAIR else -np.inf
        for name in multifair_names.TUNED
    }


def _evaluate_truth(
    results: Results, evaluator: Evaluator, truth: Truth, bar: runner.Bar
) -> None:
    """The best scores that there are, as a row of the table."""
    logits = truth.log_odds.sum(axis=1).astype(np.float32)
    every = np.broadcast_to(logits, (results.splits.num_lanes, len(logits)))
    titles = {BEST: "Best possible, by the known law"}
    Recorder(results, evaluator, titles, bar).predictions(BEST, "", every)


def _in_order(results: Results, names: Sequence[str]) -> None:
    """Methods in the order of their names, rather than of their programs."""
    order = sorted(
        results.predictions, key=lambda t: names.index(results.predictions[t].name)
    )
    parts: list[dict] = [results.predictions, results.evaluations, results.titles]
    for part in parts:
        kept = {title: part[title] for title in order}
        part.clear()
        part.update(kept)


def _late_fusion(alone: dict[str, np.ndarray], data: MultimodalTable) -> np.ndarray:
    """The mean of the logits ``[L, n]`` of the modalities that each patient has."""
    present = data.present.T[:, None]
    logits = np.stack([alone[name] for name in data.names])
    total = np.sum(np.where(present, logits, 0), axis=0)
    return (total / present.sum(axis=0)).astype(np.float32)


def _methods(options: Options, task: MultimodalTask) -> tuple[str, ...]:
    """Those asked for, joint training first."""
    wanted = options.methods or tuple(multifair_names.titles(task.names))
    return tuple(dict.fromkeys(("joint", *wanted)))


def _checked(options: Options) -> Options:
    """The options with their defaults filled in."""
    runner.check(options)
    if not options.tolerance >= 0:
        raise ValueError(f"--tolerance must be 0 or more: {options.tolerance}.")
    return dataclasses.replace(
        options,
        attributes=options.attributes or DEFAULT_ATTRIBUTES[options.dataset],
        repeats=max(options.repeats, FULL_REPEATS if options.full else 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: returns the exit code."""
    return runner.main(
        Options,
        lambda options, console: run(options, MultimodalBudget(), console),
        arguments,
        command="python -m experiments.multifair",
    )
