"""Writes that are whole or not there at all, and one error for a bad folder."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


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


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
