"""Parts of every system's command: option checks, folder, progress bar and errors."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import tyro
from rich import progress
from rich.console import Console
from rich.markup import escape
from rich.table import Column

import experiments
import fairjax
from experiments.core.files import locked, prepare_folder
from experiments.core.lanes import num_cores
from experiments.core.results import AnyResults

# The number of a repeat is added to the seed, and NumPy's seeds have 32 bits.
MAX_SEED = 2**31
# Larger numbers would only fill the memory.
MAX_REPEATS, MAX_DRAWS = 1000, 10_000
# The smallest number of repeats with `--full`.
FULL_REPEATS = 20
# Options that change how trained models are used, not the models.
_AFTER_TRAINING = ("output", "bootstrap", "permutations", "full", "methods")
# Units of a run's bar, each about as long as a training step: reading the patients, a
# reference model's lane, a method's evaluation, the report, and a part of the audit.
READING, LANE, EVALUATION, REPORT, AUDIT = 60, 10, 10, 100, 25

Options = TypeVar("Options")


def check(options: Any) -> None:
    """Refuses numbers of repeats and draws, and seeds, that cannot be used.

    Args:
      options: Has ``repeats``, ``bootstrap``, ``permutations`` and ``seed``.

    Raises:
      ValueError: If an option is out of its range.
    """
    for name, low, high in (
        ("repeats", 1, MAX_REPEATS),
        ("bootstrap", 2, MAX_DRAWS),
        ("permutations", 2, MAX_DRAWS),
    ):
        if not low <= getattr(options, name) <= high:
            raise ValueError(
                f"--{name} must be {low} to {high:,}; got {getattr(options, name)}."
            )
    if not 0 <= options.seed < MAX_SEED:
        raise ValueError(f"--seed must be 0 to {MAX_SEED - 1}; got {options.seed}.")


def checked(options: Any, attributes: Mapping[str, Sequence[str]]) -> Any:
    """Checks the options of a system that tunes by a tolerance, and adds defaults.

    Args:
      options: A dataclass, as for `check`.
      attributes: Data set -> the default attributes.

    Returns:
      The options with default attributes and repeats.

    Raises:
      ValueError: If an option is out of its range.
    """
    check(options)
    if not options.tolerance >= 0:
        raise ValueError(f"--tolerance must be 0 or more; got {options.tolerance}.")
    return dataclasses.replace(
        options,
        attributes=options.attributes or attributes[options.dataset],
        repeats=max(options.repeats, FULL_REPEATS if options.full else 1),
    )


def fingerprint(options: Any, budget: Any, *, ignore: Collection[str] = ()) -> str:
    """Returns a digest of everything that the bits of the training depend on.

    Args:
      options: A dataclass of options.
      budget: A dataclass of the budget.
      ignore: Further options that matter only after training.
    """
    parts = {
        **dataclasses.asdict(options),
        **dataclasses.asdict(budget),
        "jax": jax.__version__,
        "devices": [str(device) for device in jax.devices()],
        "code": _code(),
    }
    for name in (*_AFTER_TRAINING, *ignore):
        parts.pop(name, None)
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.cache
def _code() -> str:
    """Returns a digest of the code, whose constants and methods affect training."""
    digest = hashlib.sha256()
    for package in (experiments, fairjax):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def workplace(folder: Path, mark: str) -> Iterator[Path]:
    """Yields a folder for unfinished work, which is deleted only if the run succeeds.

    Args:
      folder: Folder of the results.
      mark: The run's `fingerprint`: only a run with the same options continues the work
        of a run that was killed.

    Raises:
      ValueError: If the folder cannot be written to, or another run is using it.
    """
    work = prepare_folder(folder / f".unfinished-{mark}")
    with locked(work):
        yield work
        shutil.rmtree(work)


def describe(results: AnyResults, num_methods: int) -> str:
    """Returns a line that describes the run to come."""
    splits = results.splits
    table = splits.table
    return (
        f"{escape(table.title)}: {len(table.label):,} patients, "
        f"{escape(table.outcome)} {results.prevalence:.1%}; {splits.num_repeats} × "
        f"{splits.num_folds}-fold cross-validation, {num_methods} methods, "
        f"{jax.device_count()} {jax.default_backend()} device(s)."
    )


class Bar:
    """One progress bar over a whole run, with a text that says what is being done."""

    def __init__(self, shown: progress.Progress):
        """Begins without a total, which is known once the patients are read."""
        self._progress = shown
        self._task = shown.add_task("reading the patients", total=None)
        self._total = 0

    def plan(self, units: int) -> None:
        """Sets the total after the patients are read, with so many units to come."""
        self._total = READING + units
        self._progress.update(self._task, total=self._total, completed=READING)

    def doing(self, what: str) -> None:
        """Shows what is being done from now on."""
        self._progress.update(self._task, description=escape(what))

    def advance(self, units: int = 1) -> None:
        """Advances the bar by so many units."""
        self._progress.advance(self._task, units)

    def audit(self, part: str) -> None:
        """Shows that a part of the audit begins."""
        self.doing(f"auditing {part}")
        self.advance(AUDIT)

    def finish(self) -> None:
        """Fills the bar."""
        self.doing("done")
        self._progress.update(self._task, completed=self._total)


@contextlib.contextmanager
def whole_run(console: Console) -> Iterator[Bar]:
    """Yields a bar from the reading of the patients to the end of the run."""
    columns = (
        progress.TextColumn(
            "{task.description}", table_column=Column(width=28, no_wrap=True)
        ),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console) as shown:
        bar = Bar(shown)
        yield bar
        bar.finish()


def audit_units(num_models: int, num_attributes: int) -> int:
    """Returns the units of an audit: table, models with attributes, search, models."""
    return AUDIT * (3 + num_models * (1 + num_attributes))


def start(command: Callable[[], int]) -> NoReturn:
    """Runs a command, and ends the process with the command's exit code."""
    # One device per core, since the lanes of a method are sharded over the devices.
    jax.config.update("jax_num_cpu_devices", num_cores())
    sys.exit(command())


def main(
    options: type[Options],
    run: Callable[[Options, Console], Any],
    arguments: Sequence[str] | None,
    *,
    command: str,
) -> int:
    """Runs a system from the command line, and returns the exit code.

    Args:
      options: The dataclass of the options.
      run: ``run(options, console)`` runs the system.
      arguments: The arguments; by default, the arguments of the process.
      command: The command that users type.
    """
    given = tyro.cli(options, args=arguments, prog=command)
    # Orbax leaves tasks behind when a checkpoint is damaged, and asyncio would report
    # each task at the end; the error below reports the damage once.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        run(given, Console())
    except (ValueError, ModuleNotFoundError, OSError) as error:
        # On one line, even if a library's message has several.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
