"""Writes that are whole or not there at all, and one error for a bad folder."""

import contextlib
import csv
import gzip
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # Windows has none; there, two runs are not kept apart.
    fcntl = None


def prepare_folder(folder: Path) -> Path:
    """Make a folder and prove that it can be written to, before any work is done.

    Raises:
      ValueError: The folder cannot be made or written to, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"the output folder {folder} cannot be written to: {error.strerror}."
        ) from error
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a folder; a killed one's lock ends with it.

    Raises:
      ValueError: Another process is at work there.
    """
    with (folder / ".lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(
                    f"another run with the same options is at work in {folder}: wait "
                    "for it, or give this one another --output."
                ) from error
        yield


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file under a temporary name, then rename it into place.

    A process killed meanwhile leaves an earlier file of that name as it was.
    """
    # The suffix stays: matplotlib and NumPy take the format from it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_arrays(path: Path, again: str, *names: str) -> dict[str, np.ndarray]:
    """Read what ``numpy.savez`` wrote, or some of it.

    Args:
      path: The file.
      again: What it takes to make it again, in a word.
      *names: Of the arrays; all by default.

    Raises:
      ValueError: A damaged file.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return {name: stored[name] for name in names or stored.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read: it is damaged. Delete it to {again} that again."
        ) from error


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def read_text(path: Path) -> str:
    """Read a text file, or the one with ``.gz`` after its name where only that exists.

    Raises:
      FileNotFoundError: Neither exists.
    """
    packed = path.with_name(f"{path.name}.gz")
    if not path.exists() and packed.exists():
        return gzip.decompress(packed.read_bytes()).decode("utf-8")
    return path.read_text(encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; compressed where its name ends in ``.gz``."""
    data = text.encode("utf-8")
    if path.suffix == ".gz":
        # Without the time, equal texts are equal files.
        data = gzip.compress(data, mtime=0)
    write_whole(path, lambda temporary: temporary.write_bytes(data))
