"""FairGrad on real patients: trains, compares, tests, and writes a report.

Run ``python -m experiments.fairgrad --help`` for the options. The default is what fits
in three minutes on two cores; ``--full`` repeats the cross-validation 20 times, and
adds the ablations.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.core import compiling, lanes, methods, references, runner
from experiments.core.evaluation import Evaluator
from experiments.core.files import prepare_folder
from experiments.core.learners import tabular_learner
from experiments.core.programs import Budget, Program
from experiments.core.protocol import cross_validation
from experiments.core.recording import Recorder, beside
from experiments.datasets import load
from experiments.fairgrad import report as fairgrad_report
from experiments.fairgrad.findings import HEADLINE
from experiments.fairgrad.results import (
    DEFAULT_ATTRIBUTES,
    FULL_REPEATS,
    Options,
    Results,
)
from experiments.reporting import report
from experiments.reporting.prediction_audit import write_audit

_AUDITED = ("erm", HEADLINE)


def run(options: Options, budget: Budget, console: Console) -> Path:
    """Train, evaluate and report; returns the folder of the results.

    Raises:
      ValueError: An option, a table or a folder that cannot be used.
    """
    options = _checked(options)
    with runner.whole_run(console) as bar:
        results, folder, page = _run(options, budget, console, bar)
    report.show(fairgrad_report.SYSTEM, results, console)
    runner.say_where(console, folder, page)
    return folder


def _run(
    options: Options, budget: Budget, console: Console, bar: runner.Bar
) -> tuple[Results, Path, Path]:
    """The results, their folder, and the page of the audit."""
    table = load(options.dataset)
    splits = cross_validation(
        table,
        options.attributes,
        num_repeats=options.repeats,
        min_level_count=20,
        blind=options.blind,
        seed=options.seed,
    )
    chosen = methods.build(options.methods, splits)
    evaluator = Evaluator(
        splits,
        num_bootstrap=options.bootstrap,
        num_permutations=options.permutations,
        seed=options.seed,
    )
    # What cannot be run leaves no folder behind.
    folder = prepare_folder(options.output / options.dataset)
    results = Results(options, splits, budget, {}, {}, {}, {}, {})
    console.print(runner.describe(results, len(options.methods)))
    mark = runner.fingerprint(options, budget, ignore=("tolerance",))
    with runner.workplace(folder, mark) as work:
        _train_and_evaluate(results, chosen, evaluator, work, bar)
        bar.doing("writing the report")
        report.write(fairgrad_report.SYSTEM, results, folder)
        bar.advance(runner.REPORT)
        page = write_audit(
            results, folder, methods=_AUDITED, system="FairGrad", advance=bar.audit
        )
    return results, folder, page


def _train_and_evaluate(
    results: Results,
    chosen: Sequence[Program],
    evaluator: Evaluator,
    work: Path,
    bar: runner.Bar,
) -> None:
    splits, options = results.splits, results.options
    referred = {name: title for name, (title, _) in references.ALL.items()}
    recorder = Recorder(results, evaluator, {**referred, **methods.TITLES}, bar)
    tolerances: dict[str, float] = dict.fromkeys(methods.TUNED, options.tolerance)
    reference = splits.num_lanes * runner.LANE + runner.EVALUATION
    audited = len({*_AUDITED} & {*options.methods})
    bar.plan(
        len(references.ALL) * reference
        + sum(results.budget.steps + recorder.units(p, tolerances) for p in chosen)
        + runner.REPORT
        + runner.audit_units(audited, len(splits.attributes))
    )
    erm = np.empty(0)
    learner = tabular_learner(splits, results.budget)
    # Evaluation keeps one core busy: methods are evaluated while others are trained.
    with beside() as submit:
        for name, (title, fit) in references.ALL.items():
            bar.doing(f"training {title}")
            logits = fit(splits, lambda: bar.advance(runner.LANE))
            submit(recorder.predictions, name, "", logits)
        for program in chosen:
            names = dict.fromkeys(variant.name for variant in program.variants)
            bar.doing(f"training {', '.join(methods.TITLES[n] for n in names)}")
            trained = lanes.train(
                program,
                splits,
                results.budget,
                seed=options.seed,
                work=work,
                advance=bar.advance,
                learner=learner,
            )
            if program.name == "erm":
                erm = trained.logits[0]
            submit(
                recorder.program,
                program,
                trained,
                baseline=erm,
                tolerances=tolerances,
            )
        bar.doing("evaluating the methods")


def _checked(options: Options) -> Options:
    """The options with their defaults filled in; ERM first among the methods."""
    runner.check(options)
    if not options.tolerance >= 0:
        raise ValueError(f"--tolerance must be 0 or more: {options.tolerance}.")
    left_out = () if options.full else methods.ABLATIONS
    wanted = options.methods or [m for m in methods.TITLES if m not in left_out]
    return dataclasses.replace(
        options,
        attributes=options.attributes or DEFAULT_ATTRIBUTES[options.dataset],
        methods=tuple(dict.fromkeys(("erm", *wanted))),
        repeats=max(options.repeats, FULL_REPEATS if options.full else 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: returns the exit code."""

    def start(options: Options, console: Console) -> Path:
        # Many repeats train for so long that compiling in full is a small part of it.
        if not options.full:
            compiling.quickly()
        return run(options, Budget(), console)

    return runner.main(
        Options,
        start,
        arguments,
        command="python -m experiments.fairgrad",
    )
