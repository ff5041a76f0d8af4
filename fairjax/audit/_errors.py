"""The audit's one error, and the words that its messages share."""

import difflib
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_SHOWN = 5  # how many values a message spells out
_LONGEST = 40  # characters of a value that a message spells out


class AuditError(ValueError):
    """Input that cannot be audited: what is wrong, where, and in how many rows."""


def shown(value: Any) -> str:
    """Returns a value as a message shows it; long text is cut."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]}...{text[0]}"


def listed(values: Iterable[Any]) -> str:
    """Returns the first few values, and how many more there are."""
    values = list(values)
    text = ", ".join(shown(value) for value in values[:_SHOWN])
    more = len(values) - _SHOWN
    return f"{text} and {more:,} more" if more > 0 else text


def row_count(number: int) -> str:
    """Returns a number of rows in words."""
    return f"{number:,} row" if number == 1 else f"{number:,} rows"


def share(number: int, of: int) -> str:
    """Returns how many rows of how many."""
    return f"{number:,} of {row_count(of)}"


def where(rows: np.ndarray) -> str:
    """Returns in how many rows something is so, bool ``[n]``, and in which first."""
    number, first = int(np.count_nonzero(rows)), int(np.argmax(rows)) + 1
    return f"{share(number, len(rows))}, first in data row {first:,}"


def near_miss(name: str, names: Sequence[str]) -> str:
    """Returns the end of a message that names what may have been meant, or nothing."""
    lowered = {str(other).strip().casefold(): str(other) for other in names}
    close = difflib.get_close_matches(name.strip().casefold(), lowered, 1, 0.6)
    return f"; did you mean {shown(lowered[close[0]])}?" if close else ""


def require(*modules: str) -> None:
    """Raises AuditError with the command to run where a module is not installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        raise AuditError(
            f"{' and '.join(absent)} must be installed for this: "
            'pip install "fairjax[audit]"'
        )
