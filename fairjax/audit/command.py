"""The command line: ``fairjax audit predictions.csv --outcome died ...``."""

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairjax.audit._arguments import read_arguments
from fairjax.audit._errors import AuditError, require
from fairjax.audit.options import Options
from fairjax.audit.rules import gate_fails


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        argv: The arguments; the arguments of the process if None.

    Returns:
        0; 1 if a rule fails the gate; 2 if the input cannot be audited; 3 after any
        other error, whose traceback is printed.

    Example:
        >>> main(["--version"])
        fairjax ...
        0
        >>> main(["audit", "patients.csv", "--outcome", "died", "--score", "risk",
        ...       "--attributes", "sex", "--confidence", "95"])
        2
    """
    try:
        return _main(argv)
    except AuditError as error:
        # Messages of libraries may have several lines.
        _say(f"fairjax audit: error: {' '.join(str(error).split())}", sys.stderr)
        return 2
    except SystemExit as done:
        # argparse has printed the help or the version.
        return int(done.code or 0)
    except Exception:
        # Not 1, which means that a rule failed.
        _say("fairjax audit: unexpected error:", sys.stderr)
        traceback.print_exc()
        return 3


def _main(argv: Sequence[str] | None) -> int:
    options, folder, overwrite = read_arguments(argv)
    document, report = _run(options, folder, overwrite)
    lines = list(document["summary"])
    lines += [f"{e['status']}: {e['rule']} ({e['reason']})" for e in document["gate"]]
    _print([*lines, f"Report: {report}"])
    shut = gate_fails(document["gate"], allow_undecided=options.allow_undecided)
    return 1 if shut else 0


def _print(lines: Sequence[str]) -> None:
    """Prints lines to the standard output, if it is open.

    A closed standard output changes neither the report nor the exit code.
    """
    if sys.stdout is None:
        return
    try:
        for line in lines:
            _say(line, sys.stdout)
        sys.stdout.flush()
    except OSError:
        # Otherwise the interpreter fails when it flushes the stream at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(options: Options, folder: Path, overwrite: bool) -> tuple[Any, Path]:
    """Audits the table; returns the document and the path of the report."""
    require("jinja2", "matplotlib", "pyarrow")
    # Imported here, so that the help does not wait for JAX and matplotlib.
    from fairjax import audit
    from fairjax.audit import output

    # Checked before the work, so that an error costs no time.
    output.check(folder, overwrite)
    with _progress(f"auditing {options.table}") as say:
        document = audit.audit(options, advance=say)
    with _progress("drawing and writing the report"):
        return document, output.write(document, folder, overwrite)


@contextmanager
def _progress(doing: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being done, and clears the line at the end.

    Yields a function that takes the name of the current part.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return

    def say(part: str) -> None:
        text = f"fairjax audit: {doing}{part and f': {part}'}"
        width = shutil.get_terminal_size().columns - 5
        line = _printable(text)[: max(width, 20)]
        sys.stderr.write(f"\r\x1b[K{_encodable(line, sys.stderr)} ...")
        sys.stderr.flush()

    say("")
    try:
        yield say
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _say(text: str, stream: Any) -> None:
    """Writes a line; replaces characters that the stream's encoding lacks."""
    stream.write(_encodable(_printable(text), stream) + "\n")


def _printable(text: str) -> str:
    """Replaces unprintable characters, because names may contain terminal commands."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _encodable(text: str, stream: Any) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


if __name__ == "__main__":
    sys.exit(main())
