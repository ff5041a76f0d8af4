"""FairGrad on real patients: trains, compares, tests, and writes a report.

Run ``python -m experiments.fairgrad --help`` for the options. The default takes three
minutes on two cores; ``--full`` repeats the cross-validation 20 times, and adds the
ablations.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.core import compiling, methods, references, runner
from experiments.core.evaluation import Evaluator
from experiments.core.learners import tabular_learner
from experiments.core.programs import Budget
from experiments.core.protocol import cross_validation
from experiments.core.recording import Recorder, beside, units
from experiments.datasets import load
from experiments.fairgrad.report import SYSTEM
from experiments.fairgrad.results import DEFAULT_ATTRIBUTES, Options, Results
from experiments.reporting import runs


def run(options: Options, budget: Budget, console: Console) -> Path:
    """Trains, evaluates and reports; returns the folder of the results.

    Raises:
      ValueError: If an option, a table or a folder cannot be used.
    """
    return runs.run(functools.partial(_prepare, _checked(options), budget), console)


def _prepare(options: Options, budget: Budget) -> runs.Prepared:
    splits = cross_validation(
        load(options.dataset),
        options.attributes,
        num_repeats=options.repeats,
        min_level_count=20,
        blind=options.blind,
        seed=options.seed,
    )
    programs = methods.build(options.methods, splits)
    evaluator = Evaluator(
        splits,
        num_bootstrap=options.bootstrap,
        num_permutations=options.permutations,
        seed=options.seed,
    )
    results = Results(options, splits, budget, {}, {}, {}, {}, {})
    titles = {name: title for name, (title, _) in references.ALL.items()}

    def train(work: Path, bar: runner.Bar) -> Results:
        recorder = Recorder(
            results,
            evaluator,
            titles | methods.TITLES,
            bar,
            tolerances=dict.fromkeys(methods.TUNED, options.tolerance),
        )
        erm = np.empty(0)
        learner = tabular_learner(splits, budget)
        # Evaluation uses one core, so it runs while other methods are trained.
        with beside() as submit:
            for name, (title, fit) in references.ALL.items():
                bar.doing(f"training {title}")
                logits = fit(splits, lambda: bar.advance(runner.LANE))
                submit(recorder.predictions, name, "", logits)
            for program in programs:
                _, trained = recorder.train(program, work, learner)
                if program.name == "erm":
                    erm = trained.logits[0]
                submit(recorder.program, program, trained, baseline=erm)
            bar.doing("evaluating the methods")
        return results

    reference = splits.num_lanes * runner.LANE + runner.EVALUATION
    return runs.Prepared(
        SYSTEM,
        results,
        options.methods,
        units=len(references.ALL) * reference
        + units(programs, budget.steps, methods.TITLES, methods.TUNED),
        train=train,
        ignore=("tolerance",),
    )


def _checked(options: Options) -> Options:
    """Returns the checked options with defaults, and ERM first among the methods."""
    options = runner.checked(options, DEFAULT_ATTRIBUTES)
    left_out = () if options.full else methods.ABLATIONS
    wanted = options.methods or [m for m in methods.TITLES if m not in left_out]
    return dataclasses.replace(options, methods=tuple(dict.fromkeys(("erm", *wanted))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""

    def start(options: Options, console: Console) -> Path:
        # With many repeats, full compilation takes a small part of the time.
        if not options.full:
            compiling.quickly()
        return run(options, Budget(), console)

    return runner.main(
        Options, start, arguments, command="python -m experiments.fairgrad"
    )
