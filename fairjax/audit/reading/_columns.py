"""Readers that collect a column batch by batch in compact arrays.

A column is read as numbers, as codes of its distinct values, or as keys that only show
which rows have equal values. Each reader takes Arrow arrays in the order of the rows,
and does not loop over rows.
"""

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int32

from fairjax._levels import display
from fairjax.audit._errors import AuditError, among, row_count, shown
from fairjax.audit.reading._sources import is_bytes, is_text

if TYPE_CHECKING:
    import pyarrow as pa

# Limits memory and time for a column that is not categorical.
_MAX_VALUES = 10_000


class Codes(NamedTuple):
    """A column as indices of its distinct values.

    Attributes:
        codes: Index of each row's value, [n]; -1 if missing.
        values: The distinct values as text, in order.
        numeric: Whether every value is a number.
    """

    codes: Int32[np.ndarray, " n"]
    values: tuple[str, ...]
    numeric: bool


class _Rows:
    """An array that grows by batches of rows.

    The array doubles into memory that the system allocates only on writing. One large
    array, unlike many small arrays, is returned to the system when it is freed.
    """

    def __init__(self, dtype: type) -> None:
        self._array = np.empty(1 << 18, dtype)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def add(self, rows: np.ndarray) -> None:
        """Appends the next rows."""
        end = self._used + len(rows)
        if end > len(self._array):
            grown = np.empty(max(end, 2 * len(self._array)), self._array.dtype)
            grown[: self._used] = self._array[: self._used]
            self._array = grown
        self._array[self._used : end] = rows
        self._used = end

    def all(self) -> np.ndarray:
        """Returns every row."""
        return self._array[: self._used]


class NumberReader:
    """A reader of numbers; text is parsed with the given decimal mark.

    Values that are not numbers are counted, and `finish` raises an error, so that the
    message has the number of rows in the whole table.
    """

    def __init__(self, what: str, decimal: str = ".") -> None:
        self._what, self._decimal = what, decimal
        self._numbers = _Rows(np.float64)
        self._bad = self._commas = 0
        self._first: tuple[int, Any] = (0, None)

    def add(self, array: "pa.Array") -> None:
        """Adds the next rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        array = _decoded(_text_of_bytes(array, self._what))
        if is_text(array.type):
            numbers = self._parse(array)
        else:
            try:
                numbers = pc.cast(array, pa.float64(), safe=False)
            except pa.ArrowException:
                raise AuditError(
                    f"{self._what} must be numbers; got {array.type}"
                ) from None
            numbers = _floats(numbers)
            if pa.types.is_float32(array.type):
                numbers = _as_written(numbers, np.float32)
            elif pa.types.is_float16(array.type):
                numbers = _as_written(numbers, np.float16)
        self._numbers.add(numbers)

    def finish(self) -> Float64[np.ndarray, " n"]:
        """Returns the numbers, NaN where missing.

        Raises:
            AuditError: If a value is not a number.
        """
        if self._bad:
            row, value = self._first
            hint = ""
            if self._commas:
                hint = "; if a comma is the decimal mark, add --decimal ,"
            elif self._decimal == "," and "." in str(value):
                hint = "; --decimal , was given, but the decimal mark here is a point"
            where = among(self._bad, len(self._numbers))
            raise AuditError(
                f"{self._what} is not a number in {where}, "
                f"first in data row {row:,}: {shown(value)}{hint}"
            )
        return self._numbers.all()

    def _parse(self, array: "pa.Array") -> np.ndarray:
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = pc.call_function("utf8_trim_whitespace", [array])
        blank = pc.call_function("equal", [texts, ""])
        texts = pc.call_function("if_else", [blank, None, texts])
        if self._decimal == ",":
            # A point would separate thousands: 1.234 is not 1,234.
            point, swap = pc.MatchSubstringOptions("."), pc.ReplaceSubstringOptions
            grouped = pc.call_function("match_substring", [texts], point)
            texts = pc.call_function("replace_substring", [texts], swap(",", "."))
            texts = pc.call_function("if_else", [grouped, "no number", texts])
        try:
            return _floats(pc.cast(texts, pa.float64()))
        except pa.ArrowInvalid:
            found = texts.to_pandas()
        numbers = pd.to_numeric(found, errors="coerce").to_numpy(float)
        bad = np.isnan(numbers) & found.notna().to_numpy()
        bad &= (found.str.lower() != "nan").to_numpy(bool)
        if bad.any():
            row = int(np.argmax(bad))
            if not self._bad:
                self._first = (len(self._numbers) + row + 1, array[row].as_py())
            self._bad += int(bad.sum())
            if self._decimal == ".":
                commas = found[bad].str.fullmatch(r"[-+]?\d*,\d+(e[-+]?\d+)?")
                self._commas += int(commas.sum())
        return numbers


class CodeReader:
    """A reader of categories: few distinct values, of any type.

    Integers are named without a fraction, ``1.0`` as ``1``, because a column of
    integers with missing values is often stored as floats. Blank text is missing.
    """

    def __init__(self, what: str, hint: str, decimal: str = ".") -> None:
        self._what, self._hint = what, hint
        self._whole = re.compile(rf"(-?\d+){re.escape(decimal)}0+")
        self._index: dict[Any, int] = {}
        self._codes = _Rows(np.int32)

    def add(self, array: "pa.Array") -> None:
        """Adds the next rows.

        Raises:
            AuditError: If there are far too many values, or their type cannot be
                categories.
        """
        import pyarrow as pa

        array = _text_of_bytes(array, self._what)
        if not isinstance(array, pa.DictionaryArray):
            try:
                array = array.dictionary_encode()
            except pa.ArrowException:
                raise AuditError(
                    f"{self._what} must be categories; got {array.type}"
                ) from None
        if len(array.dictionary) > _MAX_VALUES:
            self._refuse(len(array.dictionary), len(array))
        index = self._index
        places = [
            -1
            if value is None or value != value
            else index.setdefault(value, len(index))
            for value in array.dictionary.to_pylist()
        ]
        if len(index) > _MAX_VALUES:
            self._refuse(len(index), len(array))
        positions = array.indices.fill_null(len(places)).to_numpy(zero_copy_only=False)
        self._codes.add(np.array([*places, -1], np.int32)[positions])

    def _refuse(self, found: int, rows: int) -> None:
        raise AuditError(
            f"{self._what} has {found:,} different values in the first "
            f"{row_count(len(self._codes) + rows)}{self._hint}"
        )

    def finish(self) -> Codes:
        """Returns the codes of the sorted values; numbers are sorted by size."""
        codes = self._codes.all()
        texts = [self._text(value) for value in self._index]
        names = list(dict.fromkeys(text for text in texts if text is not None))
        numeric = bool(names)
        try:
            names.sort(key=float)
        except ValueError:
            numeric = False
            names.sort()
        place = {name: i for i, name in enumerate(names)}
        # The last entry is for missing values: code -1 indexes it.
        lookup = [-1 if text is None else place[text] for text in texts]
        return Codes(np.array([*lookup, -1], np.int32)[codes], tuple(names), numeric)

    def _text(self, value: Any) -> str | None:
        text = display(value)
        if not text.strip():
            return None
        whole = self._whole.fullmatch(text)
        return whole[1] if whole else text


class KeyReader:
    """A reader of identifiers: shows which rows are of one patient, not the patient."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._keys = _Rows(np.uint64)
        self._missing = self._first = 0

    def add(self, array: "pa.Array") -> None:
        """Adds the next rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not isinstance(array, pa.DictionaryArray):
            if pa.types.is_integer(array.type) and not array.null_count:
                numbers = array.to_numpy(zero_copy_only=False)
                self._keys.add(numbers.astype(np.int64).view(np.uint64))
                return
            # Bytes can be identifiers even if they are not text.
            if not is_text(array.type) and not is_bytes(array.type):
                try:
                    array = array.cast(pa.string())
                except pa.ArrowException:
                    raise AuditError(
                        f"{self._what} must be identifiers; got {array.type}"
                    ) from None
            array = array.dictionary_encode()
        texts = array.dictionary
        blank = np.zeros(len(texts), bool)
        if is_text(texts.type):
            trimmed = pc.call_function("utf8_trim_whitespace", [texts])
            blank = pc.call_function("equal", [trimmed, ""])
        # 64 bits: two of ten million patients get one key with probability 3e-6.
        objects = texts.to_numpy(zero_copy_only=False).astype(object)
        keys = pd.util.hash_array(objects, categorize=False)
        # The last entry is for missing values.
        gone = np.append(np.asarray(blank), True)
        positions = array.indices.fill_null(len(keys)).to_numpy(zero_copy_only=False)
        missing = gone[positions]
        if missing.any() and not self._missing:
            self._first = len(self._keys) + int(np.argmax(missing)) + 1
        self._missing += int(missing.sum())
        self._keys.add(np.append(keys, np.uint64(0))[positions])

    def finish(self) -> np.ndarray:
        """Returns the keys, uint64 [n], which are equal if the identifiers are equal.

        Raises:
            AuditError: If an identifier is missing.
        """
        if self._missing:
            raise AuditError(
                f"{self._what} is missing in {among(self._missing, len(self._keys))}, "
                f"first in data row {self._first:,}; every row must have an identifier"
            )
        return self._keys.all()


def _as_written(
    numbers: Float64[np.ndarray, " n"], kept_as: type[np.floating]
) -> Float64[np.ndarray, " n"]:
    """Returns numbers of low precision as the short decimals that they represent.

    0.7 saved in single precision is 0.699999988, which is below a threshold of 0.7.
    Numbers with up to six digits (three in half precision) become these digits; other
    numbers stay unchanged.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = np.finfo(kept_as).precision - 1 - np.floor(np.log10(np.abs(numbers)))
        scale = 10.0 ** np.clip(np.nan_to_num(places, posinf=0), -300, 300)
        short = np.round(numbers * scale) / scale
        same = short.astype(kept_as) == numbers.astype(kept_as)
    return np.where(same, short, numbers)


def _floats(array: "pa.Array") -> np.ndarray:
    return array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def _text_of_bytes(array: Any, what: str) -> "pa.Array":
    """Returns an array with bytes as text: some programs write text to Parquet so."""
    import pyarrow as pa

    coded = isinstance(array, pa.DictionaryArray)
    values = array.dictionary if coded else array
    if not is_bytes(values.type):
        return array
    try:
        values = values.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowException:
        raise AuditError(f"{what} must be UTF-8 text; got other bytes") from None
    return pa.DictionaryArray.from_arrays(array.indices, values) if coded else values


def _decoded(array: Any) -> "pa.Array":
    import pyarrow as pa

    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array
