"""Columns with two values: the outcome, and decisions that were already made."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fairjax.audit._errors import AuditError, row_count, shown, where
from fairjax.audit.reading._columns import Codes

_TRUTH: Final = {"1": True, "true": True, "0": False, "false": False}


def labels(name: str, column: Codes, positive: str | None) -> tuple[np.ndarray, str]:
    """Returns labels, int8 [n], -1 if missing, and the value that counts as 1.

    Args:
        name: Name of the outcome's column.
        column: The values of all rows.
        positive: The value that counts as 1; None if the values are 0 and 1, or false
            and true.

    Raises:
        AuditError: If there are not two values, or the positive value is unknown.
    """
    column = _occurring(column)
    truth = _truth(column.values, positive)
    if truth is None:
        rule = (
            "it must be 0 and 1, or two values of which --positive names one"
            if positive is None
            else f"it must have two values, one of them {positive!r} of --positive"
        )
        raise AuditError(f"outcome {name!r} {_describe_values(column)}; {rule}")
    of_one = [value for value, one in zip(column.values, truth, strict=True) if one]
    spelled = of_one[0] if of_one else positive or "1"
    return np.array([*truth, -1], np.int8)[column.codes], spelled


def _occurring(column: Codes) -> Codes:
    """Drops values without rows, which a categorical type may declare."""
    codes = column.codes
    found = np.bincount(codes[codes >= 0], minlength=len(column.values)) > 0
    if found.all():
        return column
    # Code -1 indexes the last entry.
    index = np.append(np.where(found, np.cumsum(found) - 1, -1), -1).astype(np.int32)
    values = [v for v, some in zip(column.values, found, strict=True) if some]
    return Codes(index[codes], tuple(values), column.numeric)


def _truth(values: Sequence[str], positive: str | None) -> list[bool] | None:
    """Returns which values are positive; None if this is unknown."""
    folded = [value.casefold() for value in values]
    asked = "1" if positive is None else positive.casefold()
    if not values:
        return None
    if asked in _TRUTH and all(value in _TRUTH for value in folded):
        return [_TRUTH[value] == _TRUTH[asked] for value in folded]
    # The codes 1 and 2 may mean no and yes, or yes and no: neither is assumed.
    if positive is None or len(values) > 2:
        return None
    for spelled, wanted in ((values, positive), (folded, asked)):
        found = [value == wanted for value in spelled]
        if sum(found) == 1:
            return found
    return None


def _describe_values(column: Codes) -> str:
    """Describes the values and their numbers of rows."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
    if not len(column.values):
        return f"is missing in all {row_count(len(column.codes))}"
    each = [
        f"{shown(value)} ({row_count(int(count))})"
        for value, count in zip(column.values[:5], counts, strict=False)
    ]
    more = len(column.values) - len(each)
    text = ", ".join(each) + (f" and {more:,} more" if more else "")
    noun = "value" if len(column.values) == 1 else "values"
    return f"has {len(column.values):,} {noun}, {text}"


def decisions(
    name: str, column: Codes, positive: str | None, keep: np.ndarray
) -> np.ndarray:
    """Returns decisions, bool [n], from 0 and 1 or from the values of the outcome.

    Args:
        name: Name of the column.
        column: The values of all rows.
        positive: The value of the outcome that counts as 1, or None.
        keep: Rows that are audited, bool [n].

    Raises:
        AuditError: If the values are neither, or missing in a row to keep.
    """
    column = _occurring(column)
    truth = _truth(column.values, None) or _truth(column.values, positive)
    if truth is None:
        raise AuditError(
            f"decision {name!r} {_describe_values(column)}; it must be 0 and 1, or the "
            "two values of the outcome"
        )
    missing = (column.codes < 0) & keep
    if missing.any():
        raise AuditError(f"decision {name!r} is missing in {where(missing)}")
    return np.array([*truth, False])[column.codes]
