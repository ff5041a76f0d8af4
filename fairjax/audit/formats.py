"""Formats of numbers and lists in the report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from fairjax.audit.schema import Entry

_Entry = TypeVar("_Entry", bound=Entry | Mapping[str, Any])
# JSON has one type of number, Python two.
Number = float | int
NONE = "\u2013"
STATUS = {
    "ok": "",
    "insufficient": "too few patients to assess",
    "empty": "no rows",
    "suppressed": "suppressed: small cell",
}


def select(entries: Iterable[_Entry], **fields: Any) -> list[_Entry]:
    """Returns the entries whose fields have the given values, in order.

    Example:
      >>> select([{"model": "a", "n": 1}, {"model": "b", "n": 2}], model="b")
      [{'model': 'b', 'n': 2}]
    """
    return [e for e in entries if all(e[k] == v for k, v in fields.items())]


def number(value: Number | None, digits: int = 3) -> str:
    """Formats a number with fixed digits and a true minus sign; a dash if None.

    Example:
      >>> number(0.12345), number(-0.5, 1), number(None), number(-0.0001, 2)
      ('0.123', '−0.5', '–', '0.00')
    """
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if not text.strip("-0.") else "−" + text[1:]
    return text


def interval(
    lower: Number | None, upper: Number | None, digits: int = 3, between: str = " to "
) -> str:
    """Formats both ends of an interval; a dash if both are None.

    Example:
      >>> interval(0.1, 0.25, 2), interval(None, None)
      ('0.10 to 0.25', '–')
    """
    if lower is None and upper is None:
        return NONE
    return f"{number(lower, digits)}{between}{number(upper, digits)}"


def count(value: Number | None) -> str:
    """Formats a count with a separator of thousands; a dash if None.

    Example:
      >>> count(223414), count(None)
      ('223,414', '–')
    """
    return NONE if value is None else f"{value:,.12g}"


def percent(value: Number | None, digits: int = 1) -> str:
    """Formats a fraction in per cent; a dash if None.

    Example:
      >>> percent(0.1824), percent(0.95, 0), percent(None)
      ('18.2 %', '95 %', '–')
    """
    return NONE if value is None else f"{number(100 * value, digits)} %"


def level(confidence: Number) -> str:
    """Formats a confidence in per cent, without trailing zeros.

    Example:
      >>> level(0.95), level(0.999), level(1 - 0.995)
      ('95 %', '99.9 %', '0.5 %')
    """
    return f"{100 * confidence:.6g} %"


def p_value(value: Number | None) -> str:
    """Formats a p-value with three digits; a dash if None.

    Example:
      >>> p_value(0.0004), p_value(0.0312), p_value(None)
      ('<0.001', '0.031', '–')
    """
    return "<0.001" if value is not None and value < 0.001 else number(value)


def joined(words: Sequence[str], word: str = "and") -> str:
    """Joins words to a list within a sentence.

    Example:
      >>> joined(["sex", "race", "age"]), joined(["sex"])
      ('sex, race and age', 'sex')
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {word} {words[-1]}"


def some(words: Sequence[str], limit: int = 4) -> str:
    """Joins the first words, and counts the others.

    Example:
      >>> some(["a", "b", "c", "d"], limit=2)
      'a, b and 2 more'
    """
    if len(words) <= limit:
        return joined(words)
    return f"{', '.join(words[:limit])} and {len(words) - limit} more"


def plural(value: Number | None, one: str, many: str = "") -> str:
    """Formats a count with its noun.

    Example:
      >>> plural(1, "row"), plural(1200, "row"), plural(2, "entry", "entries")
      ('1 row', '1,200 rows', '2 entries')
    """
    return f"{count(value)} {one if value == 1 else many or one + 's'}"
