"""What every system's command does: checks, one folder, a progress bar, one error."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro
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

import experiments
import fairjax
from experiments.files import locked, prepare_folder
from experiments.results import AnyResults, RunOptions

# Repeats add to it, and NumPy's seeds have 32 bits.
MAX_SEED = 2**31
# More would only fill the memory.
MAX_REPEATS, MAX_DRAWS = 1000, 10_000
# They change what is done with the trained models, not the models.
_AFTER_TRAINING = ("output", "bootstrap", "permutations", "full", "methods")

Options = TypeVar("Options", bound=RunOptions)


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


def progress(console: Console) -> Progress:
    """A bar with a description, a count and the time."""
    return Progress(
        TextColumn("{task.description}", table_column=Column(width=28, no_wrap=True)),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def say_where(console: Console, folder: Path, page: Path) -> None:
    """Where the report and the audit are."""
    # A path that is broken into lines cannot be opened.
    console.print(f"Report: {escape(str(folder / 'summary.md'))}", soft_wrap=True)
    console.print(f"Audit: {escape(str(page))}", soft_wrap=True)


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
