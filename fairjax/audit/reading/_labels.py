"""Two-valued columns: the outcome, and decisions that were already taken."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fairjax.audit._errors import AuditError, row_count, shown, where
from fairjax.audit.reading._columns import Codes

_TRUTH: Final = {"1": True, "true": True, "0": False, "false": False}


def labels(name: str, column: Codes, positive: str | None) -> tuple[np.ndarray, str]:
    """Returns labels, int8 [n], -1 where missing; and the value that counts as 1.

    Raises:
        AuditError: If the values are not two, or it cannot be told which is positive.
    """
    column = _occurring(column)
    truth = _truth(column.values, positive)
    if truth is None:
        rule = (
            "there must be 0 and 1, or two of which --positive names one"
            if positive is None
            else f"there must be two, one of them {positive!r} as --positive says"
        )
        raise AuditError(f"outcome {name!r} {_found(column)}; {rule}")
    of_one = [value for value, one in zip(column.values, truth, strict=True) if one]
    spelled = of_one[0] if of_one else positive or "1"
    return np.array([*truth, -1], np.int8)[column.codes], spelled


def _occurring(column: Codes) -> Codes:
    """Without the values that no row has, which a categorical type may declare."""
    codes = column.codes
    found = np.bincount(codes[codes >= 0], minlength=len(column.values)) > 0
    if found.all():
        return column
    # The last entry is where code -1 points.
    place = np.append(np.where(found, np.cumsum(found) - 1, -1), -1).astype(np.int32)
    values = [v for v, some in zip(column.values, found, strict=True) if some]
    return Codes(place[codes], tuple(values), column.numeric)


def _truth(values: Sequence[str], positive: str | None) -> list[bool] | None:
    """Which values are positive; None if that cannot be told."""
    folded = [value.casefold() for value in values]
    asked = "1" if positive is None else positive.casefold()
    if not values:
        return None
    if asked in _TRUTH and all(value in _TRUTH for value in folded):
        return [_TRUTH[value] == _TRUTH[asked] for value in folded]
    # Of 1 and 2, which mean no and yes as often as yes and no, none is assumed.
    if positive is None or len(values) > 2:
        return None
    for spelled, wanted in ((values, positive), (folded, asked)):
        found = [value == wanted for value in spelled]
        if sum(found) == 1:
            return found
    return None


def _found(column: Codes) -> str:
    """How many values there are, and how many rows each has."""
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
    """Returns decisions, bool [n], of 0 and 1 or of the outcome's own values.

    Raises:
        AuditError: If they are neither, or missing in a row to keep.
    """
    column = _occurring(column)
    truth = _truth(column.values, None) or _truth(column.values, positive)
    if truth is None:
        raise AuditError(
            f"decision {name!r} {_found(column)}; there must be 0 and 1, or the "
            "outcome's own two values"
        )
    missing = (column.codes < 0) & keep
    if missing.any():
        raise AuditError(f"decision {name!r} is missing in {where(missing)}")
    return np.array([*truth, False])[column.codes]
