"""The error of an audit, and functions that word its messages."""

import difflib
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_SHOWN = 5  # largest number of values in a message
_LONGEST = 40  # largest number of characters of a value in a message


class AuditError(ValueError):
    """Input that cannot be audited: says what is wrong, where, and in how many rows."""


def shown(value: Any) -> str:
    """Formats a value for a message; cuts long text."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]}...{text[0]}"


def listed(values: Iterable[Any]) -> str:
    """Formats the first five values, and the number of further values."""
    values = list(values)
    text = ", ".join(shown(value) for value in values[:_SHOWN])
    more = len(values) - _SHOWN
    return f"{text} and {more:,} more" if more > 0 else text


def row_count(number: int) -> str:
    """Formats a number of rows, such as ``"2 rows"``."""
    return f"{number:,} row" if number == 1 else f"{number:,} rows"


def among(number: int, of: int) -> str:
    """Formats a number of rows and the total, such as ``"1 of 4 rows"``."""
    return f"{number:,} of {row_count(of)}"


def where(rows: np.ndarray) -> str:
    """Formats the number of rows that are true, bool ``[n]``, and the first of them."""
    number, first = int(np.count_nonzero(rows)), int(np.argmax(rows)) + 1
    return f"{among(number, len(rows))}, first in data row {first:,}"


def near_miss(name: str, names: Sequence[str]) -> str:
    """Returns the end of a message that suggests the most similar name, or ``""``."""
    lowered = {str(other).strip().casefold(): str(other) for other in names}
    close = difflib.get_close_matches(name.strip().casefold(), lowered, 1, 0.6)
    return f"; did you mean {shown(lowered[close[0]])}?" if close else ""


def require(*modules: str) -> None:
    """Raises AuditError with the command to run if a module is not installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        raise AuditError(
            f"{' and '.join(absent)} must be installed for this: "
            'pip install "fairjax[audit]"'
        )
