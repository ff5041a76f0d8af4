"""The command line: ``fairjax audit predictions.csv --outcome died ...``."""

import sys
from collections.abc import Iterator, Sequence
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
        argv: The arguments; those of the process if None.

    Returns:
        0, 1 if a rule shuts the gate, 2 if the input cannot be audited.

    Example:
        >>> main(["audit", "patients.csv", "--outcome", "died", "--score", "risk",
        ...       "--attributes", "sex", "--confidence", "95"])
        2
    """
    try:
        options, folder, overwrite = read_arguments(argv)
        document, report = _run(options, folder, overwrite)
    except AuditError as error:
        # One line, whatever a library's message looks like.
        _say(f"fairjax audit: error: {' '.join(str(error).split())}", sys.stderr)
        return 2
    except SystemExit as done:
        # argparse has shown the help or the version.
        return int(done.code or 0)
    for sentence in document["summary"]:
        _say(sentence, sys.stdout)
    for entry in document["gate"]:
        _say(f"{entry['status']}: {entry['rule']} ({entry['reason']})", sys.stdout)
    _say(f"Report: {report}", sys.stdout)
    shut = gate_fails(document["gate"], allow_undecided=options.allow_undecided)
    return 1 if shut else 0


def _run(options: Options, folder: Path, overwrite: bool) -> tuple[Any, Path]:
    """The document, and the path of the report that was written."""
    require("jinja2", "matplotlib", "pyarrow")
    # Loaded here: the help should not wait for JAX to compile or matplotlib to start.
    from fairjax import audit
    from fairjax.audit import output

    # Said before the work and not after it.
    output.check(folder, overwrite)
    with _progress(f"auditing {options.table}"):
        document = audit.audit(options)
    with _progress("drawing and writing the report"):
        return document, output.write(document, folder, overwrite)


@contextmanager
def _progress(doing: str) -> Iterator[None]:
    """Says on a terminal what is being done, and takes the line away after it."""
    if not sys.stderr.isatty():
        yield
        return
    sys.stderr.write(f"fairjax audit: {doing} ...")
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _say(text: str, stream: Any) -> None:
    """Writes a line, whatever the stream's encoding lacks.

    A level's name may hold anything, commands to the terminal included.
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")


if __name__ == "__main__":
    sys.exit(main())
