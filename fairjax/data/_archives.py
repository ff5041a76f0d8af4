"""Readers of folders with one ``.npz`` file per subject: splits, tables and arrays."""

import contextlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairjax._extra import extra

with extra("data", needed_by="reading the imaging data sets"):
    from PIL import Image

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val"),
    "test": ("test", "testing"),
}
"""The names of each split's folder in releases, in lower case."""

_UNREADABLE = (ValueError, EOFError, OSError, zipfile.BadZipFile)

Row = Mapping[str, str]
Table = dict[str, Row]


def subfolder(folder: Path, name: str) -> Path:
    """Returns the folder of a name within another, in any case.

    Raises:
      ValueError: If there is no such folder.
    """
    named = [p for p in _folders(folder) if p.name.casefold() == name.casefold()]
    if not named:
        seen = sorted(path.name for path in _folders(folder))
        raise ValueError(f"{folder} must have a folder {name!r}; got {seen}.")
    return named[0]


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Returns the files of each split, sorted by name.

    Raises:
      ValueError: If a split has no folder, two folders or no files, another folder
        holds files, or a subject is in two splits.
    """
    folders: dict[str, Path] = {}
    for path in _folders(folder):
        split = _split(path.name)
        if split is None and _visible(path, "*.npz"):
            raise ValueError(
                f"folders of .npz files must be {_spellings()}, in any case; got {path}"
                ". Rename or move that folder."
            )
        if split in folders:
            raise ValueError(
                f"the {split} split must have one folder; got {folders[split]} and "
                f"{path}. Keep one."
            )
        if split is not None:
            folders[split] = path
    absent = [split for split in SPLITS if split not in folders]
    if absent:
        raise ValueError(
            f"{folder} must have the folders {_spellings()}, in any case; got none for "
            f"{', '.join(absent)}."
        )
    files = {split: _visible(folders[split], "*.npz") for split in SPLITS}
    for split, paths in files.items():
        if not paths:
            raise ValueError(f"{folders[split]} must hold .npz files; got none.")
    seen: dict[str, Path] = {}
    for path in (path for paths in files.values() for path in paths):
        subject = path.stem.casefold()
        if subject in seen:
            raise ValueError(
                f"each subject must be in one split, so that tests are on new patients;"
                f" got {path.stem!r} in {seen[subject]} and {path}. Remove one."
            )
        seen[subject] = path
    return files


def read_table(path: Path, filename_column: str) -> Table:
    """Returns a CSV table's rows by subject; empty if there is no file.

    Raises:
      ValueError: If there is no column of file names, or two rows name one file.
    """
    if not path.exists():
        return {}
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if filename_column not in frame.columns:
        raise ValueError(
            f"{path} must have a column {filename_column!r}; got {list(frame.columns)}."
        )
    subjects = [Path(name.strip()).stem for name in frame[filename_column]]
    table = dict(zip(subjects, frame.to_dict("records"), strict=True))
    if len(table) < len(subjects):
        twice = next(name for name in table if subjects.count(name) > 1)
        raise ValueError(f"{path} must have one row per file; got two of {twice!r}.")
    return {subject: {str(k): v for k, v in r.items()} for subject, r in table.items()}


class Archive(contextlib.AbstractContextManager["Archive"]):
    """A subject's file, and the subject's ``row`` of a table for values not in it."""

    def __init__(self, path: Path, row: Row | None = None):
        """Opens the file.

        Raises:
          ValueError: If the file cannot be read, or only by unpickling, which runs
            code.
        """
        self.path = path
        self.row = row or {}
        # Opened here, because NumPy does not close a file that fails to load.
        self._file = path.open("rb")
        try:
            arrays = np.load(self._file, allow_pickle=False)
        except _UNREADABLE as error:
            self._file.close()
            raise ValueError(
                f"{path} must be a .npz archive of arrays; got {error}. Pickles are not"
                " read, because unpickling runs code in the file."
            ) from error
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            self._file.close()
            raise ValueError(f"{path} must be a .npz archive; got a single array.")
        self._arrays = arrays

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._arrays.close()
        self._file.close()

    def scalar(self, keys: Sequence[str], meaning: Callable[[Any], Any]) -> Any:
        """Returns the meaning of the value under the first present key.

        Raises:
          ValueError: If no key is present, the value is not a single value, or the
            value has no meaning.
        """
        key = next((k for k in keys if k in self._arrays.files), None)
        if key is not None:
            value = self._array(key)
            if value.size != 1:
                raise ValueError(
                    f"{self.path}: {key!r} must be one value; got shape {value.shape}."
                )
            value = value.reshape(()).item()
        else:
            key = next((k for k in keys if k in self.row), None)
            if key is None:
                raise ValueError(self._lacks(keys))
            value = self.row[key]
        try:
            return meaning(value)
        except ValueError as error:
            raise ValueError(f"{self.path}: {key!r}: {error}.") from error

    def pixels(self, key: str, ndim: int) -> np.ndarray | None:
        """Returns an image or volume as uint8; None where the array is empty.

        Raises:
          ValueError: If the key is absent; if the array has another number of axes; if
            its values are not integers in 0 to 255, such as an image scaled to [0, 1].
        """
        if key not in self._arrays.files:
            raise ValueError(self._lacks([key]))
        array = self._array(key)
        if not array.size:
            return None
        if array.ndim != ndim:
            raise ValueError(
                f"{self.path}: {key!r} must have {ndim} axes; got shape {array.shape}."
            )
        if array.dtype == np.uint8:
            return array
        grey = array.dtype.kind in "uif" and bool(((array >= 0) & (array <= 255)).all())
        if not grey:
            raise ValueError(
                f"{self.path}: {key!r} must hold grey values from 0 to 255; got other "
                f"{array.dtype} values."
            )
        # Rounding would leave two values of an image that was scaled to [0, 1].
        if not bool((array == np.rint(array)).all()):
            raise ValueError(
                f"{self.path}: {key!r} must hold integer grey values from 0 to 255; got"
                f" {array.dtype} values with fractions, from {array.min()} to "
                f"{array.max()}. Store the image as it was before scaling."
            )
        return array.astype(np.uint8)

    def _array(self, key: str) -> np.ndarray:
        try:
            return self._arrays[key]
        except _UNREADABLE as error:
            raise ValueError(
                f"{self.path}: {key!r} must be an array of numbers or text; got "
                f"{error}. Objects are not unpickled, because unpickling runs code."
            ) from error

    def _lacks(self, keys: Sequence[str]) -> str:
        columns = f", and in its table {sorted(self.row)}" * bool(self.row)
        return (
            f"{self.path} must have the key {' or '.join(map(repr, keys))}; got "
            f"{sorted(self._arrays.files)}{columns}."
        )


def png(image: np.ndarray) -> bytes:
    """Returns a two-dimensional uint8 image as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder, "*") if path.is_dir()]


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Returns paths that are not hidden, unlike the ``._*.npz`` files of macOS."""
    paths = sorted(folder.glob(pattern))
    return [path for path in paths if not path.name.startswith(".")]


def _split(name: str) -> str | None:
    return next((s for s, names in SPLITS.items() if name.casefold() in names), None)


def _spellings() -> str:
    return ", ".join(" or ".join(names) for names in SPLITS.values())
