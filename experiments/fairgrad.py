"""FairGrad on real patients: trains, compares, tests, and writes a report.

Run ``python -m experiments.fairgrad --help`` for the options. The default is what fits
in three minutes on two cores; ``--full`` repeats the cross-validation 20 times.
"""

import dataclasses
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import tyro
from jax.nn import sigmoid
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from experiments import fairgrad_audit, fairgrad_report, lanes, methods, references
from experiments.datasets import load
from experiments.evaluation import Evaluator, Predictions
from experiments.fairgrad_results import (
    DEFAULT_ATTRIBUTES,
    FULL_REPEATS,
    Options,
    Results,
)
from experiments.files import locked, prepare_folder
from experiments.programs import Budget, Program
from experiments.protocol import cross_validation
from experiments.selection import select

# Repeats add to it, and NumPy's seeds have 32 bits.
MAX_SEED = 2**31
# More would only fill the memory.
MAX_REPEATS, MAX_DRAWS = 1000, 10_000


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
    # Only a run with the same options goes on from what a killed one left.
    work = prepare_folder(folder / f".unfinished-{_fingerprint(options, budget)}")
    console.print(
        f"{escape(table.title)}: {len(table.label):,} patients, "
        f"{escape(table.outcome)} {table.label.mean():.1%}; {options.repeats} × "
        f"{splits.num_folds}-fold cross-validation, {len(options.methods)} methods, "
        f"{jax.device_count()} {jax.default_backend()} device(s)."
    )
    results = Results(options, splits, budget, {}, {}, {}, {}, {})
    with locked(work):
        with _progress(console) as progress:
            _train_and_evaluate(results, chosen, evaluator, work, progress)
        fairgrad_report.write(results, folder)
        with console.status("auditing the predictions"):
            page = fairgrad_audit.write_audit(results, folder)
        shutil.rmtree(work)
    fairgrad_report.show(results, console)
    # A path that is broken into lines cannot be opened.
    console.print(f"Report: {escape(str(folder / 'summary.md'))}", soft_wrap=True)
    console.print(f"Audit: {escape(str(page))}", soft_wrap=True)
    return folder


def _train_and_evaluate(
    results: Results,
    chosen: Sequence[Program],
    evaluator: Evaluator,
    work: Path,
    progress: Progress,
) -> None:
    splits, options = results.splits, results.options

    def evaluate(name: str, title: str, setting: str, logits: np.ndarray) -> None:
        decisions = logits >= splits.thresholds(logits)[..., None]
        predictions = Predictions(
            name,
            setting,
            np.asarray(sigmoid(splits.pool(logits, "test"))),
            splits.pool(decisions, "test"),
        )
        results.predictions[predictions.title] = predictions
        results.evaluations[predictions.title] = evaluator(predictions)
        results.titles[predictions.title] = title

    total = len(chosen) * results.budget.steps
    bar = progress.add_task("", total=total + len(references.ALL) * splits.num_lanes)
    for name, (title, fit) in references.ALL.items():
        progress.update(bar, description=title)
        logits = fit(splits, lambda: progress.advance(bar))
        evaluate(name, title, "", logits)
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
        for variant, logits in zip(program.variants, trained.logits, strict=True):
            title = methods.TITLES[variant.name]
            evaluate(variant.name, title, variant.setting, logits)
        for name in names:
            rows = [i for i, v in enumerate(program.variants) if v.name == name]
            results.histories[name] = {
                k: values[rows] for k, values in trained.history[-1].items()
            }
            if name not in methods.TUNED:
                continue
            lane = select(
                trained.logits[rows], erm, splits, tolerance=options.tolerance
            )
            chosen_count = np.bincount(lane, minlength=len(rows)).tolist()
            settings = [program.variants[i].setting for i in rows]
            results.selected[name] = dict(zip(settings, chosen_count, strict=True))
            logits = trained.logits[rows][lane, np.arange(splits.num_lanes)]
            evaluate(name, methods.TITLES[name], "selected", logits)


def _checked(options: Options) -> Options:
    """The options with their defaults filled in; ERM first among the methods."""
    for name, low, high in (
        ("repeats", 1, MAX_REPEATS),
        ("bootstrap", 2, MAX_DRAWS),
        ("permutations", 2, MAX_DRAWS),
    ):
        if not low <= getattr(options, name) <= high:
            raise ValueError(
                f"--{name} must be {low} to {high:,}, not {getattr(options, name)}."
            )
    if not options.tolerance >= 0:
        raise ValueError(f"--tolerance must be 0 or more: {options.tolerance}.")
    if not 0 <= options.seed < MAX_SEED:
        raise ValueError(f"--seed must be in 0 to {MAX_SEED - 1}: {options.seed}.")
    wanted = options.methods or tuple(methods.TITLES)
    return dataclasses.replace(
        options,
        attributes=options.attributes or DEFAULT_ATTRIBUTES[options.dataset],
        methods=tuple(dict.fromkeys(("erm", *wanted))),
        repeats=max(options.repeats, FULL_REPEATS if options.full else 1),
    )


def _fingerprint(options: Options, budget: Budget) -> str:
    """Of everything that the bits of the training depend on."""
    parts = {
        **dataclasses.asdict(options),
        **dataclasses.asdict(budget),
        "jax": jax.__version__,
        "devices": [str(device) for device in jax.devices()],
    }
    for name in ("output", "bootstrap", "permutations", "tolerance", "full", "methods"):
        del parts[name]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", table_column=Column(width=28, no_wrap=True)),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: returns the exit code."""
    options = tyro.cli(Options, args=arguments, prog="python -m experiments.fairgrad")
    console = Console()
    # Orbax leaves tasks behind when a checkpoint is damaged, and asyncio would tell of
    # each at the end; the error below says it once.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        run(options, Budget(), console)
    except (ValueError, ModuleNotFoundError, OSError) as error:
        # One line, whatever a library's message looks like.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # One device a core: the lanes of a method are spread over them.
    jax.config.update("jax_num_cpu_devices", lanes.num_cores())
    sys.exit(main())
