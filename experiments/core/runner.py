"""What every system's command does: checks, one folder, a progress bar, one error."""

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

# Repeats add to it, and NumPy's seeds have 32 bits.
MAX_SEED = 2**31
# More would only fill the memory.
MAX_REPEATS, MAX_DRAWS = 1000, 10_000
# The least number of `--full`.
FULL_REPEATS = 20
# They change what is done with the trained models, not the models.
_AFTER_TRAINING = ("output", "bootstrap", "permutations", "full", "methods")
# Of a run's bar, about as long as a step of training each: reading the patients, a
# reference model's lane, a method's evaluation, the report, and a part of the audit.
READING, LANE, EVALUATION, REPORT, AUDIT = 60, 10, 10, 100, 25

Options = TypeVar("Options")


def check(options: Any) -> None:
    """Refuse numbers of repeats and draws, and seeds, that cannot be used.

    Args:
      options: With ``repeats``, ``bootstrap``, ``permutations`` and ``seed``.

    Raises:
      ValueError: One out of its range.
    """
    for name, low, high in (
        ("repeats", 1, MAX_REPEATS),
        ("bootstrap", 2, MAX_DRAWS),
        ("permutations", 2, MAX_DRAWS),
    ):
        if not low <= getattr(options, name) <= high:
            raise ValueError(
                f"--{name} must be {low} to {high:,}, not {getattr(options, name)}."
            )
    if not 0 <= options.seed < MAX_SEED:
        raise ValueError(f"--seed must be in 0 to {MAX_SEED - 1}: {options.seed}.")


def checked(options: Any, attributes: Mapping[str, Sequence[str]]) -> Any:
    """The options of a system that tunes by a tolerance, with defaults filled in.

    Args:
      options: A dataclass, as for `check`.
      attributes: Data set -> the attributes where none is named.

    Raises:
      ValueError: An option out of its range.
    """
    check(options)
    if not options.tolerance >= 0:
        raise ValueError(f"--tolerance must be 0 or more: {options.tolerance}.")
    return dataclasses.replace(
        options,
        attributes=options.attributes or attributes[options.dataset],
        repeats=max(options.repeats, FULL_REPEATS if options.full else 1),
    )


def fingerprint(options: Any, budget: Any, *, ignore: Collection[str] = ()) -> str:
    """Of everything that the bits of the training depend on.

    Args:
      options: A dataclass.
      budget: Another.
      ignore: More options that only matter after training.
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
    """A digest of the code, whose constants and methods training depends on too."""
    digest = hashlib.sha256()
    for package in (experiments, fairjax):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def workplace(folder: Path, mark: str) -> Iterator[Path]:
    """A folder for unfinished work, kept by a run that fails and gone after it is done.

    Args:
      folder: Of the results.
      mark: The run's `fingerprint`: only a run with the same options goes on from what
        a killed one left.

    Raises:
      ValueError: It cannot be written to, or another run is at work there.
    """
    work = prepare_folder(folder / f".unfinished-{mark}")
    with locked(work):
        yield work
        shutil.rmtree(work)


def describe(results: AnyResults, num_methods: int) -> str:
    """One line on what is about to be done."""
    splits = results.splits
    table = splits.table
    return (
        f"{escape(table.title)}: {len(table.label):,} patients, "
        f"{escape(table.outcome)} {results.prevalence:.1%}; {splits.num_repeats} × "
        f"{splits.num_folds}-fold cross-validation, {num_methods} methods, "
        f"{jax.device_count()} {jax.default_backend()} device(s)."
    )


class Bar:
    """One bar over a whole run, which says what is being done."""

    def __init__(self, shown: progress.Progress):
        """Begins with the patients, who say how much there is to do."""
        self._progress = shown
        self._task = shown.add_task("reading the patients", total=None)
        self._total = 0

    def plan(self, units: int) -> None:
        """The patients are read, and so much is to be done."""
        self._total = READING + units
        self._progress.update(self._task, total=self._total, completed=READING)

    def doing(self, what: str) -> None:
        """What is being done from now on."""
        self._progress.update(self._task, description=escape(what))

    def advance(self, units: int = 1) -> None:
        """So much is done."""
        self._progress.advance(self._task, units)

    def audit(self, part: str) -> None:
        """A part of the audit begins."""
        self.doing(f"auditing {part}")
        self.advance(AUDIT)

    def finish(self) -> None:
        """All is done."""
        self.doing("done")
        self._progress.update(self._task, completed=self._total)


@contextlib.contextmanager
def whole_run(console: Console) -> Iterator[Bar]:
    """A bar from the reading of the patients to the end."""
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
    """Of an audit: the table, each model and its attributes, the search, the models."""
    return AUDIT * (3 + num_models * (1 + num_attributes))


def start(command: Callable[[], int]) -> NoReturn:
    """Start a process's command; ends the process."""
    # One device a core: the lanes of a method are spread over them.
    jax.config.update("jax_num_cpu_devices", num_cores())
    sys.exit(command())


def main(
    options: type[Options],
    run: Callable[[Options, Console], Any],
    arguments: Sequence[str] | None,
    *,
    command: str,
) -> int:
    """A command line: returns the exit code.

    Args:
      options: The dataclass of the options.
      run: Does it.
      arguments: Those of the command line by default.
      command: What users type.
    """
    given = tyro.cli(options, args=arguments, prog=command)
    # Orbax leaves tasks behind when a checkpoint is damaged, and asyncio would tell of
    # each at the end; the error below says it once.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        run(given, Console())
    except (ValueError, ModuleNotFoundError, OSError) as error:
        # One line, whatever a library's message looks like.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
