"""Tables of the audit as CSV, safe to open in a spreadsheet."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from fairjax.audit.schema import (
    Comparison,
    Curves,
    Document,
    DocumentLike,
    Entry,
    Sensitivity,
    entries_of,
)

# Start of a cell that a spreadsheet would run as a formula: the start of the text, and
# after separators of other locales. Some spreadsheets skip spaces before the sign, and
# some read full-width characters as ASCII.
_FORMULA = re.compile(
    "(^|[;\t\n])(\\s*(?=[=+\\-@\uff1d\uff0b\uff0d\uff20]))|^()(?=[\t\n])"
)


def sheets(document: DocumentLike) -> dict[str, str]:
    r"""Returns the document's tables: name -> text of the CSV file.

    A table without entries has only its header. Lines end in a line feed, a missing
    number is an empty cell, and a list is joined by "; ".

    Example:
      >>> sheets({"quality": [{"severity": "info", "code": "a", "message": "=1+1",
      ...                      "rows": 2}]})["quality"]
      "severity,code,message,rows\ninfo,a,'=1+1,2\n"
    """
    document = Document.of(document)
    tables = {
        name: _table(kind, getattr(document, name, ()))
        for name, kind in entries_of(Document).items()
    }
    curves = getattr(document, "curves", None)
    for name, kind in entries_of(Curves).items():
        tables[f"curve_{name}"] = _long(kind, getattr(curves, name, ()))
    tables["sensitivity"] = _long(Sensitivity, getattr(document, "sensitivity", ()))
    tables["comparison"] = _comparison(getattr(document, "comparison", ()))
    return tables


def cell(value: Any) -> str:
    """Returns the text of a cell; text that a spreadsheet would run gets a quote.

    Example:
      >>> cell("=cmd()"), cell(-0.5), cell("-0.5"), cell(None), cell(["a", "=b"])
      ("'=cmd()", '-0.5', "'-0.5", '', "a;' =b")
    """
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return cell("; ".join(str(v) for v in value))
    # Some readers end a row at a carriage return, even within quotes.
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return _FORMULA.sub(lambda found: f"{found[1] or ''}'{found[2] or ''}", text)


def _columns(kind: Any) -> list[str]:
    """Returns the fields of an entry that become columns."""
    return [f.name for f in fields(kind) if f.name != "attributes"]


def _table(kind: Any, entries: Iterable[Entry]) -> str:
    columns = _columns(kind)
    return _text(columns, ([getattr(e, k, None) for k in columns] for e in entries))


def _text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _long(kind: Any, entries: Iterable[Entry]) -> str:
    """Returns a line for each point of each curve; three columns name the curve."""
    columns = _columns(kind)
    rows = (
        [*(entry[k] for k in columns[:3]), *point]
        for entry in entries
        for point in zip(*(entry[k] for k in columns[3:]), strict=True)
    )
    return _text(columns, rows)


def _comparison(entries: Iterable[Comparison]) -> str:
    """Returns lines for all rows, the group that gains least, and each group."""
    rows = [
        [
            *(e.model, e.baseline, e.attribute, part, getattr(change, "group", None)),
            *(change.estimate, change.lower, change.upper, e.margin, e.verdict),
        ]
        for e in entries
        for part, change in (
            ("overall", e.gain),
            ("worst", e.worst),
            *(("group", group) for group in e.groups),
        )
    ]
    columns = "model baseline attribute part group estimate lower upper margin verdict"
    return _text(columns.split(), rows)
