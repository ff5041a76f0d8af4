"""Code that benchmarks share: options, calls timed in turns, tables and their files."""

import ctypes
import dataclasses
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar, get_type_hints

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.core.files import prepare_folder, write_text
from experiments.core.lanes import num_cores

DOCUMENT = Path("docs/performance.md")
BEGIN, END = "<!-- table: begin {} -->", "<!-- table: end {} -->"


@dataclass(frozen=True)
class Options:
    """The options of every benchmark.

    Attributes:
      output: Folder of the results.
      docs: Also write the tables for docs/performance.md.
      quick: Small sizes and few rounds.
    """

    output: Path = Path("results/bench")
    docs: bool = False
    quick: bool = False


@dataclass(frozen=True)
class MemoryOptions(Options):
    """Options of benchmarks that page faults after freed memory would disturb.

    Attributes:
      keep_freed_memory: Make the C library keep freed memory, rather than return large
        blocks to the system and fault them in again at each call (glibc only; for both
        sides).
    """

    keep_freed_memory: bool = True


OptionsT = TypeVar("OptionsT", bound=Options)
Numbers: TypeAlias = tuple[int, ...]


class Limit(NamedTuple):
    """Limits of an option, with which the option's type is annotated.

    Attributes:
      least: Smallest integer.
      some: Whether the option must have at least one integer.
      quick: The option's value with ``--quick``; by default, the given value.
    """

    least: int = 1
    some: bool = False
    quick: Any = None


class Cell(NamedTuple):
    """A column of a table, with which a field of its rows is annotated.

    Attributes:
      head: Head of the column.
      form: Format of a value; a missing value is a dash.
      of: Function of the row that returns the value; the field's value by default.
      left: Whether the column is aligned to the left, as texts always are.
    """

    head: str
    form: str = ""
    of: Callable[[Any], Any] | None = None
    left: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table, whose fields are annotated with its columns, in order.

    Attributes:
      SHORT: Heads of columns, each with the cells of rows that are in the short table
        of a document. Without SHORT, the document shows the whole table.
      IN_DOCUMENT: Whether ``--docs`` publishes the table.
    """

    SHORT: ClassVar[Sequence[tuple[str, Collection[str]]]] = ()
    IN_DOCUMENT: ClassVar[bool] = True

    @classmethod
    def columns(cls) -> list[tuple[str, Cell]]:
        """Returns the columns, each with the name of its field."""
        hints = get_type_hints(cls, include_extras=True)
        return [
            (name, cell._replace(left=cell.left or hint.__origin__ is str))
            for name, hint in hints.items()
            for cell in getattr(hint, "__metadata__", ())
        ]

    @classmethod
    def heads(cls) -> list[str]:
        """Returns the heads of the columns."""
        return [cell.head for _, cell in cls.columns()]

    @classmethod
    def as_markdown(cls, cells: Sequence[Sequence[str]], made: str) -> str:
        """Returns rows of cells in Markdown, below ``made``, how they were made."""
        sides = "".join("l" if cell.left else "r" for _, cell in cls.columns())
        return markdown(cls.heads(), sides, cells, made)

    def cells(self) -> list[str]:
        """Returns the row's cells as the table shows them."""
        shown = []
        for name, cell in self.columns():
            value = cell.of(self) if cell.of else getattr(self, name)
            shown.append("-" if value is None else format(value, cell.form))
        return shown


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Measures seconds of each call, ``[rounds]``, after a call that is not counted."""
    for call in calls.values():
        call()
    taken = [{name: timed(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: np.array([one[name] for one in taken]) for name in calls}


def timed(call: Callable[[], Any]) -> float:
    """Measures the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median(values: np.ndarray | Sequence[float]) -> float:
    """Computes the median, as a number that JSON can store."""
    return float(np.median(values))


def clocked(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None, rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times our call, in turns with another library's call.

    Returns:
      The fields of a row: the medians over rounds, and the seconds of our first call,
      which includes the compilation and is not in a median. And the results of the last
      calls.
    """
    calls = {"ours": ours} if theirs is None else {"ours": ours, "theirs": theirs}
    last: dict[str, Any] = {}

    def keep(name: str) -> None:
        last[name] = jax.block_until_ready(calls[name]())

    first = timed(lambda: keep("ours"))
    taken = [[timed(lambda n=name: keep(n)) for name in calls] for _ in range(rounds)]
    mine, *others = np.array(taken).T
    found = {"milliseconds": 1e3 * median(mine), "first_seconds": first}
    for other in others:
        found |= {"their_seconds": median(other), "ratio": median(other / mine)}
    return found, last


def compiled(
    step: Callable[..., Any], *arguments: Any, **options: Any
) -> tuple[jax.stages.Compiled, dict[str, Any]]:
    """Compiles a function for arguments like these.

    Returns:
      The program, and the fields of a row with the compilation's seconds and the
      program's temporary memory.
    """
    start = time.perf_counter()
    program = jax.jit(step, **options).lower(*arguments).compile()
    seconds, memory = time.perf_counter() - start, program.memory_analysis()
    megabytes = memory.temp_size_in_bytes / 1e6 if memory else None
    return program, {"compile_seconds": seconds, "temporary_megabytes": megabytes}


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory, in one arena without mapped blocks.

    Returns:
      Whether memory is kept: other C libraries have no such setting.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8
    libc.mallopt(arena_max, 1)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 2**28)
    return True


def installed(*modules: str) -> bool:
    """Checks whether these modules can all be imported."""
    return None not in map(importlib.util.find_spec, modules)


def environment(kept: bool, packages: Collection[str] = ()) -> dict[str, Any]:
    """Describes the machine and versions.

    Args:
      kept: Whether freed memory is kept.
      packages: Further packages whose versions matter.
    """
    device = jax.devices()[0]
    torch = ("torch", "torchjd") if installed("torchjd") else ()
    names = ("jax", "jaxlib", "optax", "numpy", *torch, *packages)
    return {
        "device": device.device_kind,
        "cores": num_cores(),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "freed memory": "kept" if kept else "returned",
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def markdown(
    columns: Sequence[str], alignment: str, rows: Sequence[Sequence[str]], made: str
) -> str:
    """Makes a Markdown table, below a text that says how it was made.

    Args:
      columns: Heads of the columns.
      alignment: ``"l"`` or ``"r"`` for each column.
      rows: Cells of the rows.
      made: Text before the table.
    """
    rule = "|".join({"l": ":--", "r": "--:"}[side] for side in alignment)
    head, *body = (f"| {' | '.join(row)} |\n" for row in (columns, *rows))
    return f"{made}\n\n{head}|{rule}|\n{''.join(body)}"


def show(columns: Sequence[str], rows: Sequence[Any], *, width: int) -> None:
    """Prints rows, which have cells, as a table."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=width).print(table)


def run(
    options: OptionsT,
    kinds: Mapping[str, type[Row]],
    tasks: Callable[[OptionsT], Iterable[Iterable[Row]]],
    *,
    packages: Collection[str] = (),
    width: int = 130,
) -> list[list[Any]]:
    """Checks the options, measures tasks, prints each task's rows, and saves all rows.

    Args:
      options: Options, with the folder of the results.
      kinds: Name of a table, in which ``{}`` stands for the `setting` -> the kind of
        rows in the table; see :func:`save`.
      tasks: ``tasks(options)`` measures tasks one after another, and yields the rows of
        each, which are of any of these kinds.
      packages: Further packages whose versions matter.
      width: Width of the printed tables.

    Returns:
      The rows of each kind.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    check_numbers(options)
    prepare_folder(options.output)
    if options.quick:
        quick = {k: v.quick for k, v in limits(options).items() if v.quick is not None}
        options = dataclasses.replace(options, **quick)
    kept = isinstance(options, MemoryOptions) and options.keep_freed_memory
    about = environment(kept and keep_freed_memory(), packages)
    found: dict[str, list[Row]] = {name: [] for name in kinds}
    for rows in map(list, tasks(options)):
        for name, kind in kinds.items():
            if new := [row for row in rows if type(row) is kind]:
                show(kind.heads(), new, width=width)
                found[name] += new
    for name, rows in found.items():
        if rows:
            save(options, name.format(setting(about)), kinds[name], rows, about)
    return list(found.values())


def save(
    options: Options,
    name: str,
    kind: type[Row],
    rows: Sequence[Row],
    about: Mapping[str, Any],
) -> None:
    """Writes rows as JSON, and their table; with ``--docs``, publishes the table.

    Args:
      options: Options, with the folder of the results.
      name: Name of both files, and of the document's markers.
      kind: Kind of the rows.
      rows: The measured rows.
      about: The `environment`.
    """
    made = "Measured on " + ", ".join(f"{k} {v}" for k, v in about.items()) + "."
    cells = [row.cells() for row in rows]
    text = kind.as_markdown(cells, made)
    record = {"environment": about, "rows": [dataclasses.asdict(row) for row in rows]}
    write_text(options.output / f"{name}.json", json.dumps(record, indent=1))
    write_text(options.output / f"{name}.md", text)
    if options.docs and kind.IN_DOCUMENT:
        publish(name, kind, cells, made)


def publish(
    name: str, kind: type[Row], cells: Sequence[Sequence[str]], made: str
) -> None:
    """Writes a table into ``DOCUMENT``, or a short table and a page of all rows.

    Args:
      name: Name of the document's markers, and of the page.
      kind: Kind of the rows.
      cells: Cells of all rows.
      made: Text before the table.
    """
    text, heads = kind.as_markdown(cells, made), kind.heads()
    short = [
        row
        for row in cells
        if all(row[heads.index(head)] in few for head, few in kind.SHORT)
    ]
    # With sizes other than the usual sizes, no row is in the short table.
    if 0 < len(short) < len(cells):
        page = DOCUMENT.with_suffix("") / f"{name}.md"
        back = f"[What the columns mean](../{DOCUMENT.name})."
        prepare_folder(page.parent)
        write_text(page, f"# {name}\n\n{back} {text}")
        link = f"{page.parent.name}/{page.name}"
        text = f"{kind.as_markdown(short, made)}\n[All {len(cells)} rows]({link}).\n"
    copy_between_markers(DOCUMENT, name, text)


def limits(options: Any) -> dict[str, Limit]:
    """Returns the `Limit` of each option of a dataclass."""
    hints = get_type_hints(type(options), include_extras=True)
    found = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: next(iter(own), Limit()) for name, own in found.items()}


def check_numbers(options: Any) -> None:
    """Refuses options, a dataclass, that are beyond their `Limit`.

    Raises:
      ValueError: If an integer is too small, or integers are missing.
    """
    for name, (least, some, _) in limits(options).items():
        given = getattr(options, name)
        numbers = given if isinstance(given, tuple) else (given,)
        small = any(type(number) is int and number < least for number in numbers)
        if small or (some and not numbers):
            raise ValueError(f"--{name} must be {least} or more; got {given}.")


def command(main: Callable[[Any], Any], options: type, description: str | None) -> None:
    """Runs a benchmark from the command line; a user's error is printed on one line."""
    try:
        main(tyro.cli(options, description=description))
    except ValueError as error:
        sys.exit(f"error: {error}")


def setting(about: Mapping[str, Any]) -> str:
    """Returns the end of a result's name: the device, and the memory on a CPU."""
    backend = jax.default_backend()
    kept = about["freed memory"] == "kept" or backend != "cpu"
    return backend if kept else f"{backend}-returned"


def copy_between_markers(path: Path, name: str, text: str) -> None:
    """Replaces the text between a document's markers of this name.

    Raises:
      ValueError: If the document does not have these markers.
    """
    begin, end = BEGIN.format(name), END.format(name)
    head, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{path} must have {begin!r} and {end!r}; add both markers.")
    write_text(path, f"{head}{begin}\n\n{text}\n{end}{tail}")
