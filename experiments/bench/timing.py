"""What the benchmarks share: calls timed in turns, where they ran, where tables go."""

import ctypes
import dataclasses
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.core.files import write_text

DOCUMENT = Path("docs/performance.md")
BEGIN, END = "<!-- table: begin {} -->", "<!-- table: end {} -->"


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each call, ``[rounds]``, after one that is not counted."""
    for call in calls.values():
        call()
    taken = [{name: timed(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: np.array([one[name] for one in taken]) for name in calls}


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


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


def environment(kept: bool) -> dict[str, Any]:
    """What the figures were measured on; ``kept``: whether freed memory is kept."""
    device = jax.devices()[0]
    names = ["jax", "jaxlib", "optax", "numpy"]
    if importlib.util.find_spec("torchjd") is not None:
        names += ["torch", "torchjd"]
    return {
        "device": device.device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "freed memory": "kept" if kept else "returned",
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def markdown(
    columns: Sequence[str],
    alignment: str,
    rows: Sequence[Sequence[str]],
    about: dict[str, Any],
) -> str:
    """A Markdown table, with what it was measured on.

    Args:
      columns: Their heads.
      alignment: ``"l"`` or ``"r"`` for each column.
      rows: Their cells.
      about: See :func:`environment`.
    """
    rule = "|".join({"l": ":--", "r": "--:"}[side] for side in alignment)
    lines = [
        "Measured on " + ", ".join(f"{k} {v}" for k, v in about.items()) + ".",
        "",
        "| " + " | ".join(columns) + " |",
        f"|{rule}|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


class HasCells(Protocol):
    """A dataclass that is a row of a table."""

    def cells(self) -> list[str]:
        """As the table shows it."""
        ...


def show(columns: Sequence[str], rows: Sequence[HasCells], *, width: int) -> None:
    """Print rows as a table."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=width).print(table)


def decimals(number: float | None, places: int) -> str:
    """A number as tables show it; a dash where there is none."""
    return "-" if number is None else f"{number:.{places}f}"


def save(
    folder: Path,
    name: str,
    columns: Sequence[str],
    alignment: str,
    rows: Sequence[Any],
    about: dict[str, Any],
    docs: bool,
) -> None:
    """Write rows, which are dataclasses with cells, as JSON, and their table.

    Args:
      folder: Of both files.
      name: Theirs, and that of the document's markers.
      columns: Heads of the table.
      alignment: See :func:`markdown`.
      rows: What was measured.
      about: See :func:`environment`.
      docs: Also copy the table to ``DOCUMENT``.
    """
    text = markdown(columns, alignment, [row.cells() for row in rows], about)
    record = {"environment": about, "rows": [dataclasses.asdict(row) for row in rows]}
    write_text(folder / f"{name}.json", json.dumps(record, indent=1))
    write_text(folder / f"{name}.md", text)
    if docs:
        copy_between_markers(DOCUMENT, name, text)


def check_numbers(options: Any, *, least: Mapping[str, int] | None = None) -> None:
    """Refuse whole numbers among the options that are below 1.

    Args:
      options: A dataclass.
      least: Name -> another smallest number.

    Raises:
      ValueError: One is smaller.
    """
    for field in dataclasses.fields(options):
        given = getattr(options, field.name)
        numbers = given if isinstance(given, tuple) else (given,)
        lowest = (least or {}).get(field.name, 1)
        if any(type(number) is int and number < lowest for number in numbers):
            raise ValueError(f"--{field.name} must be {lowest} or more: {given}.")


def command(main: Callable[[Any], Any], options: type, description: str | None) -> None:
    """Run a benchmark by its command line; an error of the user's is one line."""
    try:
        main(tyro.cli(options, description=description))
    except ValueError as error:
        sys.exit(f"error: {error}")


def setting(kept: bool) -> str:
    """The end of a result's name: the device, and on a CPU what memory it had."""
    backend = jax.default_backend()
    return backend if kept or backend != "cpu" else f"{backend}-returned"


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
