"""Sources of tables: CSV, Parquet or pandas, as batches of Arrow columns.

Only the requested columns are read, one batch at a time. Arrow reads CSV, not pandas:
the parser of pandas fills short rows with missing values, and cuts long rows if it
reads only some columns. A table with an unquoted comma would then be audited with
shifted columns. Every CSV column is read as text, so that an identifier such as ``007``
is unchanged.
"""

import abc
import codecs
import contextlib
import csv
import gzip
import hashlib
import re
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairjax._levels import display
from fairjax.audit._errors import AuditError, among, listed, require

if TYPE_CHECKING:
    import pyarrow as pa

# Texts of a missing value in CSV. "None" is not one of them, because it is a category
# of attributes such as insurance.
_MISSING_TEXTS = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "<NA>")
_CSV_SUFFIXES = (".csv", ".tsv", ".txt")
_PARQUET_SUFFIXES = (".parquet", ".pq")
_BLOCK_BYTES = 1 << 24
_BATCH_ROWS = 1 << 18
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Source(abc.ABC):
    """A table that can be read in batches.

    Attributes:
        name: The file's name without its folder, or ``"DataFrame"``.
        sha256: Hash of the file's bytes; None for a DataFrame.
        columns: The columns' names, including duplicates.
        categories: Column -> the categories that its categorical type declares, in
            order.
    """

    name: str
    sha256: str | None
    columns: Sequence[str]
    categories: Mapping[str, Sequence[Any]]

    @abc.abstractmethod
    def batches(self, wanted: Sequence[str]) -> "Iterator[Mapping[str, pa.Array]]":
        """Yields batches of the wanted columns, in the order of the rows."""


def open_source(table: Any, separator: str | None = None) -> Source:
    """Returns the source of a path or a DataFrame.

    Raises:
        AuditError: If the table is neither, or the file does not match its suffix.
    """
    require("pyarrow")
    if isinstance(table, pd.DataFrame):
        return _Frame(table)
    try:
        path = Path(table)
    except TypeError:
        kind = type(table).__name__
        raise AuditError(
            f"a table must be the path of a file or a pandas DataFrame; got {kind}"
        ) from None
    try:
        if path.is_dir():
            raise AuditError(f"{path.name!r} is a folder, not a table")
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AuditError(f"cannot read {path.name!r}: {reason}") from None
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-1] if suffixes else ""
    packed = suffix == ".gz"
    if packed:
        suffix = suffixes[-2] if len(suffixes) > 1 else ""
    if suffix not in _CSV_SUFFIXES and (packed or suffix not in _PARQUET_SUFFIXES):
        raise AuditError(
            f"a table must be .csv, .tsv, .txt (also .gz) or .parquet; got "
            f"{path.name!r}. Save a spreadsheet as CSV UTF-8"
        )
    if not start:
        raise AuditError(f"{path.name!r} is empty: it has no header and no rows")
    if suffix in _PARQUET_SUFFIXES:
        return _Parquet(path, digest)
    if start[:2] in _UTF16_MARKS:
        raise AuditError(f"{path.name!r} is UTF-16 text; save it as CSV UTF-8")
    if (
        start.startswith((b"PAR1", b"PK\x03\x04"))
        or (start[:2] == b"\x1f\x8b") > packed
    ):
        raise AuditError(f"{path.name!r} must be text, as its suffix says")
    if separator is None:
        separator = "\t" if suffix == ".tsv" else ","
    return _Csv(path, digest, separator, packed)


class _Frame(Source):
    """A DataFrame, as one batch."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.name = "DataFrame"
        self.sha256 = None
        self.columns = [str(column) for column in frame.columns]
        self.categories = {
            str(name): [display(level) for level in dtype.categories]
            for name, dtype in zip(frame.columns, frame.dtypes, strict=True)
            if isinstance(dtype, pd.CategoricalDtype)
        }
        self._frame = frame

    def batches(self, wanted: Sequence[str]) -> "Iterator[Mapping[str, pa.Array]]":
        series = [self._frame.iloc[:, self.columns.index(name)] for name in wanted]
        yield {
            name: _from_pandas(column)
            for name, column in zip(wanted, series, strict=True)
        }


class _Parquet(Source):
    """A Parquet file, read a part of a row group at a time."""

    def __init__(self, path: Path, digest: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = path.name
        self.sha256 = digest
        self.categories = {}
        self._path = path
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise AuditError(f"{path.name!r} is not a Parquet file: {error}") from None
        self.columns = schema.names
        # Reads text as indices of its distinct values, which need less memory.
        self._texts = [f.name for f in schema if is_text(f.type)]

    def batches(self, wanted: Sequence[str]) -> "Iterator[Mapping[str, pa.Array]]":
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = [name for name in self._texts if name in wanted]
        try:
            with pq.ParquetFile(
                self._path, read_dictionary=texts, buffer_size=1 << 20, pre_buffer=False
            ) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(wanted)):
                    yield {name: batch.column(name) for name in wanted}
        except (pa.ArrowException, OSError) as error:
            raise AuditError(f"{self.name!r} is damaged: {error}") from None


class _Csv(Source):
    """A file of separated values, whose header is the first line that is not empty."""

    def __init__(self, path: Path, digest: str, separator: str, packed: bool) -> None:
        self.name = path.name
        self.sha256 = digest
        self.categories = {}
        self._path, self._separator, self._packed = path, separator, packed
        self._skipped, self.columns = 0, []
        with contextlib.closing(self._records()) as records:
            for record in records:
                if record:
                    self.columns = record
                    break
                self._skipped += 1
            if not self.columns:
                raise AuditError(
                    f"{path.name!r} is empty: it has no header and no rows"
                )
            if not any(records):
                raise AuditError(
                    f"{path.name!r} has no rows: a header of {len(self.columns)} "
                    "columns and nothing below it"
                )
        self._check_quotes()

    def batches(self, wanted: Sequence[str]) -> "Iterator[Mapping[str, pa.Array]]":
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        # Positions are unique; names in the header may not be.
        position = {name: str(self.columns.index(name)) for name in wanted}
        try:
            reader = arrow_csv.open_csv(
                self._path,
                read_options=arrow_csv.ReadOptions(
                    column_names=[str(i) for i in range(len(self.columns))],
                    skip_rows_after_names=self._skipped + 1,
                    block_size=_BLOCK_BYTES,
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self._separator, newlines_in_values=True
                ),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=list(position.values()),
                    column_types=dict.fromkeys(position.values(), pa.string()),
                    null_values=list(_MISSING_TEXTS),
                    strings_can_be_null=True,
                ),
            )
            for batch in reader:
                yield {name: batch.column(position[name]) for name in wanted}
        except (pa.ArrowException, OSError) as error:
            raise self._explained(str(error)) from None

    def _check_quotes(self) -> None:
        """Raises AuditError if a quote is not closed, which hides all rows after it."""
        opener = gzip.open if self._packed else open
        quotes = 0
        try:
            with opener(self._path, "rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    quotes += block.count(b'"')
        except (OSError, EOFError, zlib.error) as error:
            raise AuditError(f"cannot read {self.name!r}: {error}") from None
        # A single quote may also be part of a value; the slow, strict parser decides.
        if quotes % 2:
            for _ in self._records(strict=True):
                pass

    def _records(self, *, strict: bool = False) -> Generator[list[str], None, None]:
        """Yields the rows of the parser of the standard library."""
        # Bytes that are not UTF-8 matter only in requested columns.
        how: dict[str, Any] = {
            "encoding": "utf-8-sig",
            "errors": "replace",
            "newline": "",
        }
        limit = csv.field_size_limit(_BLOCK_BYTES)
        opener = gzip.open if self._packed else Path.open
        try:
            with opener(self._path, "rt", **how) as file:
                yield from csv.reader(file, delimiter=self._separator, strict=strict)
        except csv.Error as error:
            raise AuditError(
                f"cannot read {self.name!r} as CSV: {error}; is a quote not closed?"
            ) from None
        except (OSError, EOFError, zlib.error) as error:
            raise AuditError(f"cannot read {self.name!r}: {error}") from None
        finally:
            csv.field_size_limit(limit)

    def _explained(self, message: str) -> AuditError:
        """Returns an error of Arrow's parser in plain words."""
        not_text = re.search(r"In CSV column #(\d+): .*invalid UTF8", message)
        if not_text:
            column = self.columns[int(not_text[1])]
            return AuditError(
                f"column {column!r} of {self.name!r} is not UTF-8 text; save the file "
                "as CSV UTF-8"
            )
        width, rows, bad, first = len(self.columns), 0, 0, (0, 0)
        for record in self._records():
            rows += bool(record)
            # Rows include the header, so rows - 1 is the number of the data row.
            if record and len(record) != width:
                first = first if bad else (rows - 1, len(record))
                bad += 1
        if bad:
            return AuditError(
                f"{self.name!r} has {width} columns, but more or fewer fields in "
                f"{among(bad, rows - 1)}; the first is data row {first[0]:,} with "
                f"{first[1]}. Is a value that holds the separator {self._separator!r} "
                "not quoted, or a quote not closed?"
            )
        return AuditError(f"cannot read {self.name!r} as CSV: {message}")


def is_text(kind: "pa.DataType") -> bool:
    """Returns whether an Arrow type is text."""
    return _is_any(kind, "string", "large_string", "string_view")


def is_bytes(kind: "pa.DataType") -> bool:
    """Returns whether an Arrow type is bytes."""
    names = ("binary", "large_binary", "binary_view", "fixed_size_binary")
    return _is_any(kind, *names)


def _is_any(kind: "pa.DataType", *names: str) -> bool:
    import pyarrow as pa

    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def _from_pandas(column: pd.Series) -> "pa.Array":
    """Converts a column of any type to Arrow; mixed types become text."""
    import pyarrow as pa

    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        kind = kind.categories.dtype
    if isinstance(kind, pd.IntervalDtype | pd.PeriodDtype):
        # Arrow has no such types, or converts their values to numbers.
        column = column.astype(object).map(display, na_action="ignore")
    try:
        array = pa.Array.from_pandas(column)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        texts = column.astype(object).map(display, na_action="ignore")
        try:
            array = pa.array(texts, type=pa.large_string(), from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise AuditError(
                f"column {column.name!r} has values that cannot be read, such as "
                f"{listed(column.dropna().iloc[:1])}: {error}"
            ) from None
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks)
    return array
