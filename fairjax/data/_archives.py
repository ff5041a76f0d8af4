"""Folders of one ``.npz`` file a subject: splits, tables beside them, arrays."""

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
"""How releases spell the folder of each split, in lower case."""

_UNREADABLE = (ValueError, EOFError, OSError, zipfile.BadZipFile)

Row = Mapping[str, str]
Table = dict[str, Row]


def subfolder(folder: Path, name: str) -> Path:
    """The folder of a name within another, whatever its case.

    Raises:
      ValueError: There is none.
    """
    found = [p for p in _folders(folder) if p.name.casefold() == name.casefold()]
    if not found:
        seen = sorted(path.name for path in _folders(folder))
        raise ValueError(f"{folder} has no folder {name!r}; its folders are {seen}.")
    return found[0]


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, sorted by name.

    Raises:
      ValueError: A split without a folder, with two, or without files; a folder with
        files that is no split's; a subject in two splits.
    """
    folders: dict[str, Path] = {}
    for path in _folders(folder):
        split = _split(path.name)
        if split is None and _visible(path, "*.npz"):
            raise ValueError(
                f"{path} holds .npz files but is no split's folder; those are "
                f"{_spellings()}, in any case."
            )
        if split in folders:
            raise ValueError(
                f"{folders[split]} and {path} are both the {split} split; keep one."
            )
        if split is not None:
            folders[split] = path
    absent = [split for split in SPLITS if split not in folders]
    if absent:
        raise ValueError(
            f"{folder} has no folder for {', '.join(absent)}; the splits' folders are "
            f"{_spellings()}, in any case."
        )
    files = {split: _visible(folders[split], "*.npz") for split in SPLITS}
    for split, found in files.items():
        if not found:
            raise ValueError(f"{folders[split]} holds no .npz file.")
    seen: dict[str, Path] = {}
    for path in (path for found in files.values() for path in found):
        subject = path.stem.casefold()
        if subject in seen:
            raise ValueError(
                f"The subject {path.stem!r} is in two splits, {seen[subject]} and "
                f"{path}: what is learnt from a patient must not be tested on them."
            )
        seen[subject] = path
    return files


def read_table(path: Path, filename_column: str) -> Table:
    """A CSV table's rows, by the subject that each names; empty if there is no file.

    Raises:
      ValueError: No column of file names, or a file that two rows name.
    """
    if not path.exists():
        return {}
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if filename_column not in frame.columns:
        raise ValueError(
            f"{path} has no column {filename_column!r}; its columns are "
            f"{list(frame.columns)}."
        )
    subjects = [Path(name.strip()).stem for name in frame[filename_column]]
    table = dict(zip(subjects, frame.to_dict("records"), strict=True))
    if len(table) < len(subjects):
        twice = next(name for name in table if subjects.count(name) > 1)
        raise ValueError(f"{path} has two rows of {twice!r}.")
    return {subject: {str(k): v for k, v in r.items()} for subject, r in table.items()}


class Archive(contextlib.AbstractContextManager["Archive"]):
    """A subject's file, and the subject's ``row`` of a table for what it lacks."""

    def __init__(self, path: Path, row: Row | None = None):
        """Open the file.

        Raises:
          ValueError: It cannot be read, or only by unpickling, which runs code.
        """
        self.path = path
        self.row = row or {}
        # Opened here, because NumPy leaves a file open that it cannot read.
        self._file = path.open("rb")
        try:
            arrays = np.load(self._file, allow_pickle=False)
        except _UNREADABLE as error:
            self._file.close()
            raise ValueError(
                f"{path} is no .npz archive of arrays ({error}). Pickles are not read, "
                "because reading one runs whatever code it holds."
            ) from error
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            self._file.close()
            raise ValueError(f"{path} is a single array, no .npz archive.")
        self._arrays = arrays

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._arrays.close()
        self._file.close()

    def scalar(self, keys: Sequence[str], meaning: Callable[[Any], Any]) -> Any:
        """What the value of the first of the keys means.

        Raises:
          ValueError: None of the keys is there, the value is no single one, or it means
            nothing.
        """
        key = next((k for k in keys if k in self._arrays.files), None)
        if key is not None:
            value = self._array(key)
            if value.size != 1:
                raise ValueError(
                    f"{self.path}: {key!r} has shape {value.shape}, but is one value."
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
        """An image or volume as uint8; None where it is empty, so not taken.

        Raises:
          ValueError: The key is not there, or its array has another shape or values
            that are no grey levels: those outside 0 to 255, or no whole numbers, such
            as those of an image that was scaled to [0, 1].
        """
        if key not in self._arrays.files:
            raise ValueError(self._lacks([key]))
        array = self._array(key)
        if not array.size:
            return None
        if array.ndim != ndim:
            raise ValueError(
                f"{self.path}: {key!r} has shape {array.shape}, but {ndim} axes are "
                "expected."
            )
        if array.dtype == np.uint8:
            return array
        grey = array.dtype.kind in "uif" and bool(((array >= 0) & (array <= 255)).all())
        if not grey:
            raise ValueError(
                f"{self.path}: {key!r} holds {array.dtype} values that are no grey "
                "levels from 0 to 255."
            )
        # Rounded, an image that was scaled to [0, 1] would be of two levels.
        if not bool((array == np.rint(array)).all()):
            raise ValueError(
                f"{self.path}: {key!r} holds {array.dtype} values from {array.min()} "
                f"to {array.max()} that are no whole numbers, and so no grey levels "
                "from 0 to 255: write the image as it was before it was scaled."
            )
        return array.astype(np.uint8)

    def _array(self, key: str) -> np.ndarray:
        try:
            return self._arrays[key]
        except _UNREADABLE as error:
            raise ValueError(
                f"{self.path}: {key!r} cannot be read ({error}). Objects are not "
                "unpickled, because that runs whatever code they hold."
            ) from error

    def _lacks(self, keys: Sequence[str]) -> str:
        columns = f", and its table the columns {sorted(self.row)}" * bool(self.row)
        return (
            f"{self.path} has no {' or '.join(map(repr, keys))}; it has the keys "
            f"{sorted(self._arrays.files)}{columns}."
        )


def png(image: np.ndarray) -> bytes:
    """A two-dimensional uint8 image as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder, "*") if path.is_dir()]


def _visible(folder: Path, pattern: str) -> list[Path]:
    """What is not hidden, such as the ``._*.npz`` that macOS puts beside files."""
    found = sorted(folder.glob(pattern))
    return [path for path in found if not path.name.startswith(".")]


def _split(name: str) -> str | None:
    return next((s for s, names in SPLITS.items() if name.casefold() in names), None)


def _spellings() -> str:
    return ", ".join(" or ".join(names) for names in SPLITS.values())
