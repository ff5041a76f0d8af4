"""Atomic writes of files, and checks of folders and of damaged files."""

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
except ImportError:  # Windows has no fcntl; two runs there are not kept apart.
    fcntl = None


def prepare_folder(folder: Path) -> Path:
    """Makes a folder and checks that it can be written to, before any work is done.

    Raises:
      ValueError: If the folder cannot be made or written to, or is a file.
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
    """Keeps a second process out of a folder; a killed process loses its lock.

    Raises:
      ValueError: If another process is using the folder.
    """
    with (folder / ".lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(
                    f"another run with the same options is at work in {folder}. Wait "
                    "for the other run, or give this run another --output."
                ) from error
        yield


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a temporary name, then renames the file to ``path``.

    If the process is killed meanwhile, an earlier file at ``path`` stays as it was.
    """
    # Keeps the suffix, from which matplotlib and NumPy take the format.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_arrays(path: Path, again: str, *names: str) -> dict[str, np.ndarray]:
    """Reads all or some arrays of a file that ``numpy.savez`` wrote.

    Args:
      path: The file.
      again: The verb for making the file again, such as "train".
      *names: Names of the arrays; all by default.

    Raises:
      ValueError: If the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return {name: stored[name] for name in names or stored.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read: it is damaged. Delete it to {again} that again."
        ) from error


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def read_text(path: Path) -> str:
    """Reads a text file, or the file with ``.gz`` after its name if only that exists.

    Raises:
      FileNotFoundError: If neither file exists.
    """
    packed = path.with_name(f"{path.name}.gz")
    if not path.exists() and packed.exists():
        return gzip.decompress(packed.read_bytes()).decode("utf-8")
    return path.read_text(encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically; compresses it if its name ends in ``.gz``."""
    data = text.encode("utf-8")
    if path.suffix == ".gz":
        # Without the time stamp, equal texts make equal files.
        data = gzip.compress(data, mtime=0)
    write_whole(path, lambda temporary: temporary.write_bytes(data))
