"""FairGrad on real patients: trains, compares, tests, and writes a report.

Run ``python -m experiments.fairgrad --help`` for the options. The default is what fits
in three minutes on two cores; ``--full`` repeats the cross-validation 20 times.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from experiments import fairgrad_report, lanes, methods, references, report, runner
from experiments.datasets import load
from experiments.evaluation import Evaluator
from experiments.fairgrad_findings import HEADLINE
from experiments.fairgrad_results import (
    DEFAULT_ATTRIBUTES,
    FULL_REPEATS,
    Options,
    Results,
)
from experiments.files import prepare_folder
from experiments.prediction_audit import write_audit
from experiments.programs import Budget, Program
from experiments.protocol import cross_validation
from experiments.recording import Recorder


def run(options: Options, budget: Budget, console: Console) -> Path:
    """Train, evaluate and report; returns the folder of the results.

    Raises:
      ValueError: An option, a table or a folder that cannot be used.
    """
    options = _checked(options)
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
        with runner.progress(console) as progress:
            _train_and_evaluate(results, chosen, evaluator, work, progress)
        report.write(fairgrad_report.SYSTEM, results, folder)
        with console.status("auditing the predictions"):
            page = write_audit(
                results, folder, methods=("erm", HEADLINE), system="FairGrad"
            )
    report.show(fairgrad_report.SYSTEM, results, console)
    runner.say_where(console, folder, page)
    return folder


def _train_and_evaluate(
    results: Results,
    chosen: Sequence[Program],
    evaluator: Evaluator,
    work: Path,
    progress: Progress,
) -> None:
    splits, options = results.splits, results.options
    referred = {name: title for name, (title, _) in references.ALL.items()}
    recorder = Recorder(results, evaluator, {**referred, **methods.TITLES})
    tolerances: dict[str, float] = dict.fromkeys(methods.TUNED, options.tolerance)
    total = len(chosen) * results.budget.steps
    bar = progress.add_task("", total=total + len(references.ALL) * splits.num_lanes)
    for name, (title, fit) in references.ALL.items():
        progress.update(bar, description=title)
        logits = fit(splits, lambda: progress.advance(bar))
        recorder.predictions(name, "", logits)
    erm = np.empty(0)
    for program in chosen:
        names = dict.fromkeys(variant.name for variant in program.variants)
        progress.update(bar, description=", ".join(methods.TITLES[n] for n in names))
        trained = lanes.train(
            program,
            splits,
            results.budget,
            seed=options.seed,
            work=work,
            advance=lambda steps: progress.advance(bar, steps),
        )
        if program.name == "erm":
            erm = trained.logits[0]
        recorder.program(program, trained, baseline=erm, tolerances=tolerances)


def _checked(options: Options) -> Options:
    """The options with their defaults filled in; ERM first among the methods."""
    runner.check(options)
    if not options.tolerance >= 0:
        raise ValueError(f"--tolerance must be 0 or more: {options.tolerance}.")
    wanted = options.methods or tuple(methods.TITLES)
    return dataclasses.replace(
        options,
        attributes=options.attributes or DEFAULT_ATTRIBUTES[options.dataset],
        methods=tuple(dict.fromkeys(("erm", *wanted))),
        repeats=max(options.repeats, FULL_REPEATS if options.full else 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: returns the exit code."""
    return runner.main(
        Options,
        lambda options, console: run(options, Budget(), console),
        arguments,
        command="python -m experiments.fairgrad",
    )


if __name__ == "__main__":
    # One device a core: the lanes of a method are spread over them.
    jax.config.update("jax_num_cpu_devices", lanes.num_cores())
    sys.exit(main())
