"""What benchmarks share: options, calls timed in turns, tables and where they go."""

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
from typing import Any, ClassVar, NamedTuple, TypeVar, get_type_hints

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
    """What every benchmark asks.

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
    """Likewise, where memory that is freed and faulted in again would disturb.

    Attributes:
      keep_freed_memory: Have the C library keep freed memory, rather than return large
        blocks to the system and fault them in again at each call (glibc only; for both
        sides alike).
    """

    keep_freed_memory: bool = True


OptionsT = TypeVar("OptionsT", bound=Options)


class Cell(NamedTuple):
    """A column of a table, with which a field of its rows is annotated.

    Attributes:
      head: Of the column.
      form: How a value is formatted; a dash stands where there is none.
      of: The value, of the row; the field's by default.
      left: Aligned to the left, as texts always are.
    """

    head: str
    form: str = ""
    of: Callable[[Any], Any] | None = None
    left: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table, whose fields are annotated with its columns, in order.

    Attributes:
      SHORT: Heads of columns, each with the cells of the rows that are in the short
        table of a document; a table without is shown whole.
    """

    SHORT: ClassVar[Sequence[tuple[str, Collection[str]]]] = ()

    @classmethod
    def columns(cls) -> list[tuple[str, Cell]]:
        """The columns, each with the name of its field."""
        hints = get_type_hints(cls, include_extras=True)
        return [
            (name, cell._replace(left=cell.left or hint.__origin__ is str))
            for name, hint in hints.items()
            for cell in getattr(hint, "__metadata__", ())
        ]

    @classmethod
    def heads(cls) -> list[str]:
        """The heads of the columns."""
        return [cell.head for _, cell in cls.columns()]

    @classmethod
    def as_markdown(cls, cells: Sequence[Sequence[str]], made: str) -> str:
        """Rows of such cells in Markdown, after how they were ``made``."""
        sides = "".join("l" if cell.left else "r" for _, cell in cls.columns())
        return markdown(cls.heads(), sides, cells, made)

    def cells(self) -> list[str]:
        """As the table shows it."""
        shown = []
        for name, cell in self.columns():
            value = cell.of(self) if cell.of else getattr(self, name)
            shown.append("-" if value is None else format(value, cell.form))
        return shown


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each call, ``[rounds]``, after one that is not counted."""
    for call in calls.values():
        call()
    taken = [{name: timed(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: np.array([one[name] for one in taken]) for name in calls}


def timed(call: Callable[[], Any]) -> float:
    """Measure the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median(values: np.ndarray | Sequence[float]) -> float:
    """Compute the median, as a number that JSON can hold."""
    return float(np.median(values))


def clocked(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None, rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time a call of ours, and another library's in turns with it.

    Returns:
      The fields of a row: the medians over rounds, and the seconds of our first call,
      which holds the compilation and is in no median. And what the last calls returned.
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
    """Compile a function for arguments like these.

    Returns:
      The program, and the fields of a row that tell what compiling it took, and what
      memory it takes.
    """
    start = time.perf_counter()
    program = jax.jit(step, **options).lower(*arguments).compile()
    seconds, memory = time.perf_counter() - start, program.memory_analysis()
    megabytes = memory.temp_size_in_bytes / 1e6 if memory else None
    return program, {"compile_seconds": seconds, "temporary_megabytes": megabytes}


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, in one arena that grows by no mapped blocks.

    Returns:
      Whether it does: other C libraries have no such setting.
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
    """Say whether these modules can all be imported."""
    return None not in map(importlib.util.find_spec, modules)


def environment(kept: bool) -> dict[str, Any]:
    """Tell what the figures are measured on; ``kept``: whether freed memory is."""
    device = jax.devices()[0]
    names = ["jax", "jaxlib", "optax", "numpy"]
    if installed("torchjd"):
        names += ["torch", "torchjd"]
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
    """A Markdown table, with how it was made.

    Args:
      columns: Their heads.
      alignment: ``"l"`` or ``"r"`` for each column.
      rows: Their cells.
      made: Stands before the table.
    """
    rule = "|".join({"l": ":--", "r": "--:"}[side] for side in alignment)
    head, *body = (f"| {' | '.join(row)} |\n" for row in (columns, *rows))
    return f"{made}\n\n{head}|{rule}|\n{''.join(body)}"


def show(columns: Sequence[str], rows: Sequence[Any], *, width: int) -> None:
    """Print rows, which have cells, as a table."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=width).print(table)


def measured(
    options: Options,
    about: Mapping[str, Any],
    kinds: Mapping[str, type[Row]],
    tasks: Iterable[Callable[[], Iterable[Row]]],
    *,
    width: int = 130,
) -> list[list[Any]]:
    """Do tasks one after another, print what each found, and save all of it.

    Args:
      options: Say where to.
      about: See :func:`environment`.
      kinds: Name of a table -> the rows that are in it; see :func:`save`.
      tasks: Each returns rows of any of these kinds.
      width: Of the printed tables.

    Returns:
      The rows of each kind.
    """
    found: dict[str, list[Row]] = {name: [] for name in kinds}
    for task in tasks:
        rows = list(task())
        for name, kind in kinds.items():
            if new := [row for row in rows if type(row) is kind]:
                show(kind.heads(), new, width=width)
                found[name] += new
    for name, rows in found.items():
        if rows:
            save(options, name, kinds[name], rows, about)
    return list(found.values())


def save(
    options: Options,
    name: str,
    kind: type[Row],
    rows: Sequence[Row],
    about: Mapping[str, Any],
) -> None:
    """Write rows as JSON, and their table; it is also published, if asked.

    Args:
      options: Say where.
      name: Of both files, and of the document's markers.
      kind: Of the rows.
      rows: What was measured.
      about: See :func:`environment`.
    """
    made = "Measured on " + ", ".join(f"{k} {v}" for k, v in about.items()) + "."
    cells = [row.cells() for row in rows]
    text = kind.as_markdown(cells, made)
    record = {"environment": about, "rows": [dataclasses.asdict(row) for row in rows]}
    write_text(options.output / f"{name}.json", json.dumps(record, indent=1))
    write_text(options.output / f"{name}.md", text)
    if options.docs:
        publish(name, kind, cells, made)


def publish(
    name: str, kind: type[Row], cells: Sequence[Sequence[str]], made: str
) -> None:
    """Write a table into ``DOCUMENT``: a long one as a page beside it, and its short.

    Args:
      name: Of the document's markers, and of the page.
      kind: Of the rows.
      cells: Of all rows.
      made: Stands before the table.
    """
    text, heads = kind.as_markdown(cells, made), kind.heads()
    short = [
        row
        for row in cells
        if all(row[heads.index(head)] in few for head, few in kind.SHORT)
    ]
    # Of sizes other than the usual ones nothing is chosen.
    if 0 < len(short) < len(cells):
        page = DOCUMENT.with_suffix("") / f"{name}.md"
        back = f"[What the columns mean](../{DOCUMENT.name})."
        prepare_folder(page.parent)
        write_text(page, f"# {name}\n\n{back} {text}")
        link = f"{page.parent.name}/{page.name}"
        text = f"{kind.as_markdown(short, made)}\n[All {len(cells)} rows]({link}).\n"
    copy_between_markers(DOCUMENT, name, text)


def begin(options: OptionsT, **quick: Any) -> tuple[OptionsT, dict[str, Any]]:
    """The options, those of ``--quick`` in their place, and the `environment`.

    Raises:
      ValueError: The folder of the results cannot be written to.
    """
    prepare_folder(options.output)
    if options.quick:
        options = dataclasses.replace(options, **quick)
    kept = isinstance(options, MemoryOptions) and options.keep_freed_memory
    return options, environment(kept and keep_freed_memory())


def check_numbers(
    options: Any,
    *,
    least: Mapping[str, int] | None = None,
    some: Collection[str] = (),
) -> None:
    """Refuse whole numbers among the options that are below 1.

    Args:
      options: A dataclass.
      least: Name -> another smallest number.
      some: Names of those that must have a number or more.

    Raises:
      ValueError: One is smaller, or there is none.
    """
    for field in dataclasses.fields(options):
        given = getattr(options, field.name)
        numbers = given if isinstance(given, tuple) else (given,)
        lowest = (least or {}).get(field.name, 1)
        small = any(type(number) is int and number < lowest for number in numbers)
        if small or (field.name in some and not numbers):
            raise ValueError(f"--{field.name} must be {lowest} or more: {given}.")


def command(main: Callable[[Any], Any], options: type, description: str | None) -> None:
    """Run a benchmark by its command line; an error of the user's is one line."""
    try:
        main(tyro.cli(options, description=description))
    except ValueError as error:
        sys.exit(f"error: {error}")


def setting(about: Mapping[str, Any]) -> str:
    """The end of a result's name: the device, and on a CPU what memory it had."""
    backend = jax.default_backend()
    kept = about["freed memory"] == "kept" or backend != "cpu"
    return backend if kept else f"{backend}-returned"


def copy_between_markers(path: Path, name: str, text: str) -> None:
    """Replace what lies between a document's markers of this name.

    Raises:
      ValueError: The document has no such markers.
    """
    begin, end = BEGIN.format(name), END.format(name)
    document = path.read_text(encoding="utf-8")
    if begin not in document or end not in document:
        raise ValueError(f"{path} has no {begin!r} and {end!r}.")
    head, rest = document.split(begin, 1)
    tail = rest.split(end, 1)[1]
    write_text(path, f"{head}{begin}\n\n{text}\n{end}{tail}")
